"""Replay: an answer of the log given again, and the first thing on the way that differs.

From the record to the bundle, the routing, the values that were known then, the bundle's feature code, its booster, and
what was told. Everything comes from where the row points to; no code, view or threshold that is registered today takes
part. What the row says of the circumstances (a store that could not be read, a model that did not answer, an arm that
stood in) is taken as said: they cannot be had again.

It never raises for a row. What cannot be given again is a verdict too.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import BundleError, DataError, DeclarationError, RemovedByPolicy
from mlplatform.features.tombstones import tombstones
from mlplatform.monitoring.prediction_log import schema
from mlplatform.monitoring.row_digest import altered_rows
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.reproducibility.replay.findings import Findings, Places
from mlplatform.reproducibility.replay.judged import judge_answers
from mlplatform.reproducibility.replay.logged import asked
from mlplatform.reproducibility.replay.part import Part
from mlplatform.reproducibility.replay.repeated import earlier, may_repeat
from mlplatform.reproducibility.replay.routed import Plans
from mlplatform.reproducibility.replay.verdict import Cause, Replayed


def replay(platform: Platform, domain: Domain, rows: pl.DataFrame) -> list[Replayed]:
    """Give logged answers again.

    Parameters
    ----------
    domain : whose log it is; nothing else of what it declares today is looked at
    rows : (n, …) of the log, in `prediction_log.schema`, of any models and manifests

    Returns
    -------
    replayed : (n,) in the same order
    """
    lacking = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in rows.columns]
    log = rows.with_columns(lacking)
    known = Known(platform, domain)
    found: dict[int, Replayed] = {}
    numbered = log.select("model", "manifest").with_row_index("place")
    for (model, manifest), of_one in numbered.partition_by(["model", "manifest"], as_dict=True).items():
        places = of_one.get_column("place").to_list()
        part = log[places]
        findings = _of_manifest(known, str(model), str(manifest), part)
        for row, (place, told) in enumerate(zip(places, part.select(_shown).iter_rows(named=True), strict=True)):
            difference = float(findings.difference[row])
            found[place] = Replayed(**told, verdict=findings.verdict(row), difference=difference)
    return [found[place] for place in range(log.height)]


_always_said = ("request_id", "arm", "source", "received", "at", "request")
"""Of each row, by whatever version it was written."""

_shown = ("request_id", "arm", "model", "manifest", "model_version", "source", "received")


class Known:
    """What replays of one call share: plans and tombstones, read once."""

    def __init__(self, platform: Platform, domain: Domain) -> None:
        self.platform = platform
        self.domain = domain
        self._plans: dict[str, Plans] = {}

    def plans(self, model: str) -> Plans:
        """Of a model, by its name in the domain."""
        return self._plans.setdefault(model, Plans(self.platform, f"{self.domain.name}/{model}"))

    @cached_property
    def removed_days(self) -> dict[str, str]:
        """ISO day of the log -> what its tombstone says."""
        every = tombstones(self.platform, self.domain)
        return {name: str(stone) for (kind, name), stone in every.items() if kind == "answers"}


def _of_manifest(known: Known, model: str, manifest: str, rows: pl.DataFrame) -> Findings:
    """What is found of rows of one manifest."""
    findings = Findings(rows.height)
    for place in np.flatnonzero(altered_rows(rows).to_numpy()).tolist():
        findings.settle(place, "impossible", "record", "the row is not what was written: its digest is another")
    for name in _always_said:
        for place in np.flatnonzero(rows.get_column(name).is_null().to_numpy()).tolist():
            findings.settle(place, "impossible", "record", f"the row does not say its {name}")
    try:
        bundle = bundle_of(known.platform, manifest)
    except RemovedByPolicy as error:
        return _all(findings, rows, "removed", error.tombstone)
    except (BundleError, DataError, DeclarationError) as error:
        return _all(findings, rows, "bundle", str(error))
    if bundle.manifest.model != f"{known.domain.name}/{model}":
        return _all(findings, rows, "record", f"its manifest is of {bundle.manifest.model}")
    whole = findings.open(range(rows.height))
    read = asked(rows[whole], bundle.domain.requests.columns)
    for number, fault in read.refused.items():
        findings.settle(whole[number], "impossible", "record", f"its request cannot be read ({fault})")
    for place, routed in zip(whole, known.plans(model).routed(rows[whole], bundle), strict=True):
        if routed.fault:
            findings.settle(place, "diverged", "routing", routed.fault)
        elif routed.note:
            findings.note([place], routed.note)
    repeats = rows.select(may_repeat().fill_null(value=False)).to_series().to_numpy()
    open_rows = findings.open(whole)
    of_row = {place: number for number, place in enumerate(whole[read.kept].tolist())}
    again = open_rows[repeats[open_rows]]
    values = [read.values[of_row[place]] for place in again.tolist()]
    _repeated(known, bundle, rows, values, findings, again)
    own = open_rows[~repeats[open_rows]]
    requests = read.requests[[of_row[place] for place in own.tolist()]]
    judge_answers(known.platform, Part(bundle, rows[own], requests, findings, own))
    return findings


def _all(findings: Findings, rows: pl.DataFrame, cause: Cause, reason: str) -> Findings:
    """None of them can be given again."""
    for place in range(rows.height):
        findings.settle(place, "impossible", cause, reason)
    return findings


def _repeated(
    known: Known,
    bundle: Bundle,
    rows: pl.DataFrame,
    values: Sequence[tuple[Any, ...]],
    findings: Findings,
    places: Places,
) -> None:
    """Answers that repeat an earlier one are worth what that is worth."""
    try:
        found = earlier(known.platform, known.domain, bundle, rows[places], values)
    except DataError as error:
        for place in places.tolist():
            findings.settle(place, "impossible", "record", str(error))
        return
    there = [number for number, each in enumerate(found) if each.row.height]
    model = bundle.model.name
    if there:
        origins = pl.concat(found[number].row for number in there)
        of_origins = _of_manifest(known, model, bundle.digest, origins)
        for row, number in enumerate(there):
            place, name = int(places[number]), origins["request_id"][row]
            verdict = of_origins.verdict(row)
            findings.difference[place] = of_origins.difference[row]
            findings.note([place], f"it repeats the answer to {name}")
            reason = f"it repeats the answer to {name}: {verdict.reason}"
            if verdict.outcome == "within_tolerance" and verdict.cause is not None:
                findings.differs(place, verdict.cause, reason, within=True)
            elif verdict.cause is not None:
                findings.settle(place, verdict.outcome, verdict.cause, reason)
    for place, each in zip(places.tolist(), found, strict=True):
        if each.fault:
            findings.settle(place, "diverged", "answer", each.fault)
        elif each.row.is_empty():
            gone = _removed_days(known, bundle, rows["received"][place])
            reason = gone or "it repeats an earlier answer, and the log has none to the same request of that time"
            findings.settle(place, "impossible", "removed" if gone else "record", reason)


def _removed_days(known: Known, bundle: Bundle, received: datetime) -> str:
    """What says that the day of an earlier answer was removed; empty where nothing does."""
    days = {received.date(), (received - bundle.model.serving.cached_fallback_for - timedelta(minutes=1)).date()}
    told = (known.removed_days.get(day.isoformat(), "") for day in sorted(days))
    return next(filter(None, told), "")
