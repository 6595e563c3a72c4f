"""Storing golden traffic: logged requests of the champion, the view values they saw, and its weights.

What is stored is what the code of today answers with the champion's weights. Whether that is what was logged is
compared and told. Rows whose logged vector cannot be had again from the tables (a publication was on its way, say) are
left out: they would be no sample of what was served.

It refuses to replace what is stored without a reason; what moved is kept with it, with who and when.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, DeclarationError, Unsigned
from mlplatform.features.historical import historical_features
from mlplatform.features.view import view_features
from mlplatform.monitoring.log_rows import rows_since
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.monitoring.served import views_read
from mlplatform.provenance.computing import computing
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import BOOSTER, CALIBRATION, FITTED, SIMPLE, Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.reproducibility.golden.answers import Answered, answered, by_rules, probe_scores, probed, read_bodies
from mlplatform.reproducibility.golden.check import check
from mlplatform.reproducibility.golden.golden import (
    ANSWERS,
    FEATURES,
    GOLDEN,
    INPUTS,
    PROBES,
    REQUESTS,
    WEIGHTS,
    Change,
    Golden,
    Told,
    Weights,
    arrow,
    instant_of,
    lines,
    refuse_other_files,
    write,
)
from mlplatform.reproducibility.golden.sample import chosen, is_of_log, tags_of_code, tags_of_log
from mlplatform.reproducibility.golden.views import record_views, views_again
from mlplatform.scoring.booster import matrix
from mlplatform.scoring.simple_model import SimpleModel

rows_by_default = 60
"""Enough to meet each segment, tier and null of a usual domain; with a small model some 200 kB."""

rows_looked_at = 5_000
"""Logged rows to choose from, of the newest days: what is rare among so many is no sample of the traffic."""

_logged = ("model", "arm", "source", "degraded", "needs_review", "prediction", "probability", "scores", "at", "request")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What was stored."""

    golden: Golden
    change: Change | None
    """What was moved on purpose, where something was there before."""

    unmoved: bool = False
    """Nothing was written, since nothing has moved."""

    left_out: int = 0
    """Logged rows whose vector could not be had again."""


@dataclass(frozen=True)
class _Drawn:
    """Logged rows to store, and what was read again of them."""

    rows: pl.DataFrame
    requests: pl.DataFrame
    view_values: pl.DataFrame
    tags: list[list[str]]
    """(n,) What each covers by the log."""

    left_out: int


def record(
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    folder: Path,
    *,
    by: str,
    rows: int = rows_by_default,
    trees: int | None = None,
    reason: str = "",
) -> Recorded:
    """Store golden traffic of a model's champion.

    Parameters
    ----------
    rows : requests at most
    trees : keep only so many rounds of the booster, so that the folder stays small: the answers are then theirs
    reason : why; needed where the folder is there already

    Raises
    ------
    Unsigned
        Something is stored there and no reason is given.
    DataError
        There is no champion, or nothing that it answered and that can be had again.
    """
    name = f"{domain.name}/{model.name}"
    before = _stored(folder, name, reason)
    digest = Ledger(platform).champion(name)
    if digest is None:
        raise DataError(f"{name} has no champion whose answers could be kept. Train one: `mlplatform train {name}`")
    bundle = bundle_of(platform, digest)
    drawn = _drawn(platform, domain, model, bundle, rows)
    weights_files = _weights(bundle, trees)
    weights = _loaded(weights_files, bundle.manifest.features)
    read = read_bodies(domain, drawn.rows["request"].to_list(), drawn.rows["at"].to_list())
    made = answered(domain, model, weights, read.requests, drawn.view_values)
    _refuse_unanswered(name, made)
    whole = made if trees is None else answered(domain, model, _whole(bundle), read.requests, drawn.view_values)
    newest = max(drawn.rows["at"].to_list()).date()
    views, view_files = record_views(platform, domain, model, newest)
    given = [told.get(source) for source, told in zip(drawn.rows["source"], made.rows, strict=True)]
    as_logged = _as_logged(drawn.rows, whole)
    requests = [
        {"id": each["request_id"], "at": each["at"].isoformat(), "request": each["request"], "source": each["source"]}
        | {"as_logged": told if alike else None}
        for each, told, alike in zip(drawn.rows.iter_rows(named=True), given, as_logged, strict=True)
    ]
    covered = Counter(tag for each in drawn.tags for tag in each)
    covered += _covered(domain, model, bundle.simple, read.requests, given)
    files = {
        **weights_files,
        **view_files,
        REQUESTS: lines(requests),
        **_answer_files(model, drawn.rows["request_id"].to_list(), read.requests.hstack(drawn.view_values), made),
    }
    now = platform.clock()
    told = Told(
        model=name,
        manifest=digest,
        model_version=bundle.manifest.model_version,
        trees=trees,
        rows=len(requests),
        features=bundle.manifest.features,
        views=views,
        computing=computing(),
        recorded_at=now.isoformat(),
        recorded_by=by,
        as_logged=sum(as_logged),
        covered=dict(sorted(covered.items())),
    )
    change = None if before is None else _change(before, domain, by=by, reason=reason, now=now, manifest=digest)
    changes = [*(before.changes if before else ()), *((change,) if change else ())]
    return Recorded(golden=write(folder, told, files, changes), change=change, left_out=drawn.left_out)


def answer_again(golden: Golden, domain: Domain, *, by: str, reason: str, now: datetime) -> Recorded:
    """Store what the code of today answers to the stored requests, with the stored weights; needs no platform home.

    Raises
    ------
    Unsigned
        No reason is given.
    DataError
        A request is refused now, or the weights cannot answer any more: then others must be recorded.
    """
    if not reason.strip():
        raise Unsigned(golden.told.model, "golden record")
    model = domain.model(golden.model)
    change = _change(golden, domain, by=by, reason=reason, now=now, manifest=golden.told.manifest)
    if not change.moved:
        return Recorded(golden=golden, change=None, unmoved=True)
    bodies, at = [each["request"] for each in golden.requests], [instant_of(each["at"]) for each in golden.requests]
    read = read_bodies(domain, bodies, at)
    if read.refused:
        place, why = next(iter(read.refused.items()))
        raise DataError(
            f"{len(read.refused)} of the stored requests are refused now, {golden.requests[place]['id']} since {why}. "
            "Record requests that are not, from a home where some were answered: leave `--again` out"
        )
    inputs = golden.inputs
    values = inputs.select(name for name in inputs.columns if name not in read.requests.columns)
    made = answered(domain, model, golden.weights, read.requests, values)
    _refuse_unanswered(golden.told.model, made)
    views, view_files = views_again(golden, domain, model)
    kept = {path: (golden.folder / path).read_bytes() for path in (*WEIGHTS, REQUESTS)}
    ids = [each["id"] for each in golden.requests]
    files = {**kept, **view_files, **_answer_files(model, ids, read.requests.hstack(values), made)}
    given = [row.get(each["source"]) for each, row in zip(golden.requests, made.rows, strict=True)]
    still = [
        answer is not None and answer == each["as_logged"] for each, answer in zip(golden.requests, given, strict=True)
    ]
    covered = Counter({tag: rows for tag, rows in golden.told.covered.items() if is_of_log(tag)})
    covered += _covered(domain, model, golden.weights.simple, read.requests, given)
    told = replace(
        golden.told,
        views=views,
        computing=computing(),
        recorded_at=now.isoformat(),
        recorded_by=by,
        as_logged=sum(still),
        covered=dict(sorted(covered.items())),
    )
    return Recorded(golden=write(golden.folder, told, files, [*golden.changes, change]), change=change)


def _stored(folder: Path, name: str, reason: str) -> Golden | None:
    if not (folder / GOLDEN).exists():
        refuse_other_files(folder)  # now, and not when all has been answered
        return None
    if not reason.strip():
        raise Unsigned(name, "golden record")
    before = Golden(folder)
    if before.told.model != name:
        raise DataError(f"{folder} holds golden traffic of {before.told.model}. Name another folder with `--into`")
    return before


def _change(before: Golden, domain: Domain, *, by: str, reason: str, now: datetime, manifest: str) -> Change:
    try:
        moved = check(before, domain).summary()
    except DeclarationError as error:
        moved = (str(error),)
    return Change(
        at=now.isoformat(), by=by, reason=reason.strip(), moved=moved, manifest=manifest, replaced=before.digest
    )


def _drawn(platform: Platform, domain: Domain, model: ModelSpec, bundle: Bundle, at_most: int) -> _Drawn:
    """Rows that were answered by a bundle, and whose vector its own code makes of the view values of then."""
    logged = rows_since(platform, domain, _since(platform, domain), [*_logged, "features", "views"], [bundle.digest])
    answers = logged.filter(pl.col("model") == model.name, pl.col("arm") != SHADOW)
    rows = answers.unique("request_id", keep="first", maintain_order=True).tail(rows_looked_at)
    readable = read_bodies(domain, rows["request"].to_list(), rows["at"].to_list())
    rows = rows[readable.kept]
    name = f"{domain.name}/{model.name}"
    if rows.is_empty():
        raise DataError(
            f"no request was logged that {name} {bundle.manifest.short_digest} has answered. Serve it and ask it, or "
            "let recorded days pass with `mlplatform simulate`"
        )
    statuses = {view: read["status"] for view, read in views_read(rows).items()}
    values = historical_features(platform, domain, model, readable.requests, known_by="then").with_columns(
        pl.when(pl.lit(statuses[view]).fill_null("") != "unavailable").then(pl.col(each.name)).alias(each.name)
        for view, features in view_features(domain, model).items()
        if view in statuses
        for each in features
    )
    faithful = _faithful(bundle, rows, values)
    if not faithful:
        raise DataError(
            f"of {rows.height} logged requests none has the vector that the tables give it: look at the skew check of "
            f"{name} (`vectors_as_expected`) first"
        )
    rows, requests, values = rows[faithful], readable.requests[faithful], values[faithful]
    of_code = tags_of_code(
        domain,
        model,
        requests.drop("at").hstack(rows.select("needs_review", "prediction")),
        by_rules(domain, model, bundle.simple, requests),
    )
    of_log = tags_of_log(rows, {view: status[faithful] for view, status in statuses.items()})
    taken = chosen(
        rows["request_id"].to_list(), [[*log, *code] for log, code in zip(of_log, of_code, strict=True)], at_most
    )
    return _Drawn(
        rows[taken],
        requests[taken],
        values[taken],
        [of_log[place] for place in taken],
        len(readable.kept) - len(faithful),
    )


def _since(platform: Platform, domain: Domain) -> datetime:
    """From when on there are enough rows."""
    found, first = 0, date(1970, 1, 1)
    for day, rows in reversed(rows_by_day(platform, domain).items()):
        found, first = found + rows, date.fromisoformat(day)
        if found >= rows_looked_at:
            break
    return datetime.combine(first, time(), UTC)


def _faithful(bundle: Bundle, rows: pl.DataFrame, values: pl.DataFrame) -> list[int]:
    """Places of rows whose logged vector follows from these view values; one without a vector is taken as it is."""
    own = read_bodies(bundle.domain, rows["request"].to_list(), rows["at"].to_list())
    vectors = matrix(bundle.features(own.requests, values[own.kept]))
    logged = rows["features"].to_list()
    width = len(bundle.manifest.features)
    found = []
    for row, place in enumerate(own.kept):
        was = None if logged[place] is None else np.array(logged[place], dtype=np.float32)
        if was is None or (was.size == width and np.array_equal(was, vectors[row], equal_nan=True)):
            found.append(place)
    return found


def _weights(bundle: Bundle, trees: int | None) -> dict[str, bytes]:
    parts = {path: (bundle.folder / path).read_bytes() for path in (CALIBRATION, SIMPLE, FITTED)}
    whole = (bundle.folder / BOOSTER).read_bytes()
    booster = _whole(bundle).booster
    if trees is None or trees >= booster.num_boosted_rounds():
        return {BOOSTER: whole, **parts}
    return {BOOSTER: bytes(booster[:trees].save_raw("ubj")), **parts}


def _whole(bundle: Bundle) -> Weights:
    return Weights.of(bundle.folder, bundle.manifest.features)


def _loaded(files: Mapping[str, bytes], features: tuple[str, ...]) -> Weights:
    """The weights as they will be read again."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            (Path(folder) / path).write_bytes(content)
        return Weights.of(Path(folder), features)


def _answer_files(model: ModelSpec, ids: Sequence[str], inputs: pl.DataFrame, made: Answered) -> dict[str, bytes]:
    scores = probe_scores(model)
    return {
        INPUTS: arrow(inputs),
        FEATURES: arrow(made.features),
        ANSWERS: lines([{"id": name, **row} for name, row in zip(ids, made.rows, strict=True)]),
        PROBES: lines(probed(model, scores.reshape(len(scores), -1).tolist())),
    }


def _refuse_unanswered(name: str, made: Answered) -> None:
    if made.gone:
        raise DataError(
            f"{name} is declared without {', '.join(made.gone)} now, which these weights read, so they answer nothing "
            f"any more. Train it as it is declared (`mlplatform train {name}`), and record the new champion"
        )
    if made.raised:
        raise DataError(f"the feature code of {name} raises on a request: {next(iter(made.raised.values()))}. Mend it")


def _covered(
    domain: Domain,
    model: ModelSpec,
    simple: SimpleModel,
    requests: pl.DataFrame,
    given: Sequence[Mapping[str, Any] | None],
) -> Counter[str]:
    """What rows cover by what is answered now, without what the log says of them.

    Parameters
    ----------
    given : (n,) what now gives the way that answered then
    """
    rows = requests.drop("at").with_columns(
        pl.Series(name, [None if each is None else each[name] for each in given])
        for name in ("prediction", "needs_review")
    )
    told = tags_of_code(domain, model, rows, by_rules(domain, model, simple, requests))
    return Counter(tag for each in told for tag in each)


def _as_logged(rows: pl.DataFrame, made: Answered) -> list[bool]:
    """Of each row whether the answer of the model or of a tier is that of the log, to the bit."""
    alike = []
    for logged, told in zip(rows.iter_rows(named=True), made.rows, strict=True):
        given = told.get(logged["source"])
        alike.append(
            given is not None
            and json.dumps([logged["prediction"], logged["probability"], logged["needs_review"]])
            == json.dumps([str(given["prediction"]), given["probability"], given["needs_review"]])
        )
    return alike
