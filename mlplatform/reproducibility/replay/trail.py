"""The trail of one answer: who sent it there, the model and what that was made from, and each value back to its file.

It goes by what the log says was used, not by what should have been: whether the two agree is what a replay tells. What
cannot be followed any further is named, with the tombstone where there is one; it refuses nothing, and never raises for
a row, however odd.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.domains.registered import registered_domain
from mlplatform.errors import BundleError, DataError, DeclarationError, LedgerBroken, PlanInvalid
from mlplatform.features.integrity import unreadable
from mlplatform.features.view import view_features
from mlplatform.monitoring.prediction_log import SHADOW, schema
from mlplatform.monitoring.row_digest import altered_rows
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import MOVES, Entry, Ledger, broken_at
from mlplatform.reproducibility.replay.logged import asked
from mlplatform.reproducibility.replay.node import Node
from mlplatform.reproducibility.replay.repeated import earlier, may_repeat
from mlplatform.reproducibility.replay.value_trail import ValueTrail, told, value_revision
from mlplatform.rollout.pointing import plan_of
from mlplatform.rollout.registration import registered_as

Row = Mapping[str, Any]

_needed = ("model", "manifest", "request", "received", "at")
"""Of a row, without which it leads nowhere."""

_computing = ("xgboost", "xgboost-cpu", "polars", "numpy")


def trail(platform: Platform, domain: Domain, row: Row, *, verify: bool = False) -> Node:
    """What an answer goes back to.

    Parameters
    ----------
    row : of the log, as `prediction_log.schema` has it
    verify : read every revision on the trail, those of the ledger too, and every landed file that is still there, and
        name what was altered
    """
    bundle, fault = _bundle(platform, row)
    entries, broken = _ledger(platform, f"{domain.name}/{row['model']}", verify=verify)
    return Node(
        label=f"answer {row['request_id']}",
        detail=_answer(row),
        children=(
            _routing(domain, row, entries, broken),
            _model(platform, domain, row, bundle, entries, fault),
            _features(platform, domain, row, bundle, verify=verify),
        ),
        fault=_fault(row),
    )


def _fault(row: Row) -> str:
    if altered_rows(_frame(row)).any():
        return "the row is not what was picked up: its digest is another"
    lacking = [name for name in _needed if row[name] is None]
    return f"the row tells no {', no '.join(lacking)}" if lacking else ""


def _bundle(platform: Platform, row: Row) -> tuple[Bundle | None, str]:
    """The bundle that answered, or why there is none."""
    if not row["manifest"]:
        return None, "the row names no manifest"
    try:
        return bundle_of(platform, row["manifest"]), ""
    except (BundleError, DataError, DeclarationError, OSError) as error:
        return None, str(error)


def _ledger(platform: Platform, model: str, *, verify: bool) -> tuple[list[Entry], str]:
    """Every entry of a model, and what is wrong with them; none where they cannot be read."""
    ledger = Ledger(platform)
    try:
        # First: nothing is read of a damaged file.
        if verify and (altered := ledger.altered(model)):
            number, fault = min(altered.items())
            return [], f"entry {number} of the ledger: {fault}"
        entries = ledger.entries(model)
    except (LedgerBroken, DataError, *unreadable) as error:
        return [], f"the ledger cannot be read ({_line(error)})"
    if verify and (broken := broken_at(entries)) is not None:
        return entries, f"entry {broken} of the ledger does not follow from those before it"
    return entries, ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _answer(row: Row) -> str:
    said = [
        str(row["prediction"]) if row["prediction"] is not None else "no prediction",
        *(f"{name} {row[name]:.6g}" for name in ("probability", "confidence") if row[name] is not None),
    ]
    by = f"by {row['source']}" + (f" ({row['reason']})" if row["reason"] else "")
    came = "scored beside an answer, told to nobody" if row["arm"] == SHADOW else f"came {told(row['received'])}"
    return f"{', '.join(said)}, {by}; {came}, as of {told(row['at'])}"


def _frame(row: Row) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in schema}], schema=schema)


def _routing(domain: Domain, row: Row, entries: list[Entry], broken: str) -> Node:
    if row["plan"] is None:
        return Node(label="routing", detail=f"arm {row['arm']}; no plan was in force", fault=broken)
    entry = _of_plan(f"{domain.name}/{row['model']}", row["plan"], entries)
    how = f"{row['propensity']:.4g} likely" if row["propensity"] is not None else "how likely is not told"
    return Node(
        label="routing",
        detail=f"arm {row['arm']} by plan {row['plan']}, {how}",
        children=(_entry(entry),) if entry else (),
        fault=broken or ("" if entry else "no entry of the ledger made that plan"),
    )


def _of_plan(model: str, version: str, entries: list[Entry]) -> Entry | None:
    """The entry that a plan came of; it bears its number."""
    number = version.partition("-")[0]
    if not number.isdecimal() or not 0 < int(number) <= len(entries):
        return None
    try:
        plan = plan_of(model, entries[: int(number)])
    except PlanInvalid:
        return None
    return entries[int(number) - 1] if plan is not None and plan.version == version else None


def _entry(entry: Entry) -> Node:
    return Node(
        label=f"ledger entry {entry.number}",
        detail=f"{entry.action} {entry.alias}, {told(entry.at)} by {entry.actor}: {entry.reason}",
    )


def _model(
    platform: Platform, domain: Domain, row: Row, bundle: Bundle | None, entries: list[Entry], fault: str
) -> Node:
    moved = [each for each in entries if each.to_manifest == row["manifest"] and each.action in MOVES]
    computed, odd = _computed_by(row)
    return Node(
        label=f"model {domain.name}/{row['model']} {row['model_version']}",
        detail=f"manifest {row['manifest']}, device {row['device']}",
        children=(
            *(_made_from(bundle) if bundle else ()),
            *(_entry(each) for each in moved[:1]),
            *_registered(platform, domain, row),
            Node(label="computed by", detail=computed, fault=odd),
        ),
        fault=fault,
    )


def _made_from(bundle: Bundle) -> Iterator[Node]:
    record = bundle.manifest.record
    inputs = tuple(
        Node(label=f"trained on {table}", detail=f"revisions {digest[:16]}")
        for table, digest in sorted(record.inputs.items())
    )
    yield Node(label="training set", detail=f"content {record.training_set}", children=inputs)
    changes = {True: ", with changes that it does not hold", False: "", None: ", changes unknown"}[record.dirty]
    yield Node(
        label="training code", detail=f"commit {record.commit or 'unknown'}{changes}; {record.code.get('training', '')}"
    )
    seeds = ", ".join(f"{name} {seed}" for name, seed in sorted(record.seeds.items()))
    yield Node(
        label="settings", detail=f"{record.configuration}; seeds {seeds}; {record.threads} threads on {record.device}"
    )
    # What is asked first where bits differ; the manifest holds every version.
    versions = ", ".join(f"{name} {record.versions[name]}" for name in _computing if name in record.versions)
    yield Node(label="environment", detail=f"lock {record.lock}, Python {record.python}, {versions}")


def _computed_by(row: Row) -> tuple[str, str]:
    """What the row says of it, and what is wrong with that."""
    if row["computing"] is None:
        return "not told: the row is older than that", ""
    try:
        told_of = msgspec.json.decode(row["computing"], type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError) as error:
        return row["computing"], f"it is no JSON object ({error})"
    return ", ".join(f"{name} {fact}" for name, fact in told_of.items()), ""


def _registered(platform: Platform, domain: Domain, row: Row) -> Iterator[Node]:
    if not row["model"] or not row["model_version"]:
        return
    logged = registered_as(platform, domain, row["model"], row["model_version"])
    if logged is not None:
        yield Node(label="MLflow", detail=f"{logged.name} version {logged.version}, run {logged.run_id}")


def _features(platform: Platform, domain: Domain, row: Row, bundle: Bundle | None, *, verify: bool) -> Node:
    request = Node(label="request", detail=row["request"] or "")
    if row["features"] is None:
        fault, repeated = "", tuple[Node, ...]()
        try:
            repeated = _repeated(platform, domain, row, bundle, verify=verify) if bundle else ()
        except DataError as error:
            fault = str(error)
        detail = "that of the answer which this one repeats" if repeated else "none was computed"
        return Node(label="feature vector", detail=detail, children=(request, *repeated), fault=fault)
    vector = dict(zip(bundle.manifest.features, row["features"], strict=False)) if bundle else {}
    declared = bundle.domain if bundle else domain
    trails: dict[str, ValueTrail] = {}
    return Node(
        label="feature vector",
        detail=f"{len(row['features'])} columns, {sum(map(_missing, row['features']))} of them missing",
        children=(
            request,
            *(
                _view(platform, declared, row, read, vector, bundle, trails, verify=verify)
                for read in row["views"] or ()
                if read is not None and read["view"]
            ),
        ),
    )


def _repeated(platform: Platform, domain: Domain, row: Row, bundle: Bundle, *, verify: bool) -> tuple[Node, ...]:
    """The answer that was given again."""
    repeating = _frame(row).filter(may_repeat())
    if repeating.is_empty() or any(row[name] is None for name in _needed):
        return ()
    read = asked(repeating, bundle.domain.requests.columns)
    if not read.kept:
        return ()
    (found,) = earlier(platform, domain, bundle, repeating, read.values)
    return tuple(trail(platform, domain, each, verify=verify) for each in found.row.iter_rows(named=True))


def _missing(value: float | None) -> bool:
    return value is None or value != value


def _view(
    platform: Platform,
    declared: Domain,
    row: Row,
    read: Mapping[str, Any],
    vector: Mapping[str, float],
    bundle: Bundle | None,
    trails: dict[str, ValueTrail],
    *,
    verify: bool,
) -> Node:
    """A view that was read, and the revision that the row stands in which was told."""
    names = view_features(bundle.domain, bundle.model).get(read["view"], ()) if bundle else ()
    values = [f"{each.name} {vector[each.name]:.6g}" for each in names if not _missing(vector.get(each.name))]
    told_of = [read["status"] or "status not told", f"version {read['version']}", *values]
    if read["revision"]:
        told_of.append(f"store at {read['revision']}")
    if read["event_time"] is not None:
        told_of.append(f"true at {told(read['event_time'])}")
    node = Node(label=read["view"], detail=", ".join(told_of))
    if read["event_time"] is None or read["value_revision"] is None or row["request"] is None or row["at"] is None:
        return node
    owner_name, _, name = read["view"].partition("/")
    try:
        owner = declared if owner_name == declared.name else registered_domain(owner_name)
        view = owner.view(name)[1]
        assert isinstance(view, FeatureView)
        rows = asked(_frame(row), declared.requests.columns)
        if rows.refused:
            return replace(node, fault=f"the request cannot be read ({rows.refused[0]})")
        found = value_revision(
            platform,
            owner,
            view,
            rows.requests.select(view.entity),
            read["event_time"],
            read["value_revision"],
            row["at"],
        )
        if found is None:
            number = read["value_revision"]
            return replace(node, fault=f"no revision {number} of its table holds that row" if number else "")
        if owner.name not in trails:
            trails[owner.name] = ValueTrail(platform, owner, verify=verify)
        return replace(node, children=(trails[owner.name].of(found),))
    except (DataError, DeclarationError, *unreadable) as error:
        return replace(node, fault=_line(error))
