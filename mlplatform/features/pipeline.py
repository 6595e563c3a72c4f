"""The six stages, one step per table: what a partition is made from, and how.

A step knows the revisions that a partition would be made from before it reads a row (`plan`), so that what is up to
date can be told from what is not without computing anything. Its rows come of those revisions and of no others, by the
code that the domain declares.

It writes nothing: what is computed of it and appended, `materialization` decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Derived, Source
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.errors import (
    ContractBroken,
    DataError,
    DeclarationError,
    DomainCodeRaised,
    IncompleteWindow,
    MissingPartition,
    MlplatformError,
    NotLanded,
)
from mlplatform.features.landing.landing import landed, place_of, read_landed
from mlplatform.features.rules import Checked, check
from mlplatform.features.stage import Stage
from mlplatform.features.streaming.record import values_record
from mlplatform.features.streaming.within_day import history_within
from mlplatform.features.tables import Tables, available_at, clocks, day_range, partition_end
from mlplatform.features.version import view_version
from mlplatform.features.view import compute_view, look_back_days
from mlplatform.provenance.code_version import code_version, declaration_version
from mlplatform.provenance.platform import Platform

rows_at_once = 1_000_000
"""Rows after which what was computed is committed, and rows that are read together: bounds memory to these, or to one
partition where that is larger, and to one window of each view. A commit costs some 30 ms, so fewer would be slower."""

Rows = Callable[[str], pl.DataFrame]


@dataclass(frozen=True)
class Plan:
    """What each partition would be made from."""

    inputs: dict[str, tuple[str, ...]]
    """By partition: `table/partition@revision`, sorted."""

    missing: dict[str, DataError] = field(default_factory=dict)
    """Partitions that cannot be made, and why."""

    known_at: dict[str, datetime] = field(default_factory=dict)
    """By partition, when the newest of its inputs became known."""

    def pins(self) -> dict[str, dict[str, int]]:
        """Every revision that any partition is made from: table -> partition -> number."""
        pinned: dict[str, dict[str, int]] = {}
        for names in self.inputs.values():
            for name in names:
                table_and_partition, _, number = name.rpartition("@")
                table, _, partition = table_and_partition.rpartition("/")
                pinned.setdefault(table, {})[partition] = int(number)
        return pinned


@dataclass(frozen=True)
class Step:
    """How one table is made."""

    stage: str
    table: str
    store: Stage
    code_version: str
    plan: Callable[[Sequence[str]], Plan]
    read: Callable[[Plan], Rows]
    """(what to make it from) -> a function that computes the rows of one partition; reads the planned revisions
    only."""

    found: dict[str, Checked] = field(default_factory=dict)
    """By partition, what a contract found; filled while rows are computed."""


def steps(platform: Platform, domain: Domain, stage: str) -> list[Step]:
    """The steps of one stage."""
    tables = Tables(platform, domain)
    match stage:
        case "raw":
            return [_raw(platform, domain, tables, source) for source in domain.sources]
        case "validated":
            return [_checked(domain, tables, source, "validated") for source in domain.sources]
        case "quarantine":
            return [_checked(domain, tables, source, "quarantine") for source in domain.sources]
        case "base":
            return [_base(domain, tables, source) for source in domain.sources]
        case "derived":
            return [_derived(domain, tables, derived) for derived in domain.derived]
        case "feature_store":
            return [_view(platform, domain, tables, view) for view in domain.views]
    raise DeclarationError(f"no stage is called {stage!r}")


def table_versions(domain: Domain, stage: str) -> dict[str, str]:
    """Version of the code behind each table of a stage."""
    match stage:
        case "raw":
            return {source.name: declaration_version(source.contract.schema) for source in domain.sources}
        case "validated" | "quarantine":
            return {source.name: declaration_version(source.contract) for source in domain.sources}
        case "base":
            return {source.name: code_version(source.base) for source in domain.sources}
        case "derived":
            return {derived.name: code_version(derived.function) for derived in domain.derived}
    return {view.name: view_version(domain, view) for view in domain.views}


def facts_so_far(domain: Domain, tables: Tables, table: str, day: str, raw: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """What the stages make of a day that is not over: the rows of a facts table, from those that have come so far.

    The same code, in the same order of the rows, so that it is what the table will hold if nothing more comes. Rules
    over the whole day (how many rows it has) are judged when it is over.

    Parameters
    ----------
    table : a derived table, or a source for its base table
    raw : rows of each source that it is made from, by name, in the types of its contract

    Raises
    ------
    MlplatformError
        The domain's code raises over these rows, or gives what it does not declare.
    """
    sources = next((each.inputs for each in domain.derived if each.name == table), (table,))
    bases = {}
    for name in sources:
        source = domain.source(name)
        landed_rows = tables.raw(name).ordered(raw[name])
        kept = check(landed_rows, source.contract, end=partition_end(day)).kept
        base = tables.base(name)
        made = _base_rows(domain, tables, source, day, tables.validated(name).ordered(kept))
        base.refuse_undeclared(day, made)
        bases[name] = base.ordered(made)
    for derived in domain.derived:
        if derived.name == table:
            made = _derived_rows(domain, tables, derived, day, bases)
            tables.derived(table).refuse_undeclared(day, made)
            return tables.derived(table).ordered(made)
    return bases[table]


def _raw(platform: Platform, domain: Domain, tables: Tables, source: Source) -> Step:
    landing = f"landing/{source.name}"

    def plan(partitions: Sequence[str]) -> Plan:
        versions = landed(platform, domain, source).days
        missing: dict[str, DataError] = {
            day: NotLanded(f"{domain.name}/{source.name}", day, str(place_of(platform, domain, source)))
            for day in partitions
            if day not in versions and date.fromisoformat(day) not in source.absent
        }
        inputs: dict[str, tuple[str, ...]] = {
            day: (f"{landing}/{day}@{versions[day]}",) for day in partitions if day in versions
        }
        return Plan(inputs, missing)

    def read(planned: Plan) -> Rows:
        # A version may be any text.
        versions = {day: name.removeprefix(f"{landing}/{day}@") for day, (name,) in planned.inputs.items()}
        return lambda day: read_landed(platform, domain, source, day, versions[day])

    return Step("raw", source.name, tables.raw(source.name), table_versions(domain, "raw")[source.name], plan, read)


def _checked(domain: Domain, tables: Tables, source: Source, stage: str) -> Step:
    raw = _Upstream("raw", source, tables.raw(source.name))
    found: dict[str, Checked] = {}

    def rows(day: str, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        checked = check(frames[source.name], source.contract, end=partition_end(day))
        found[day] = replace(checked, kept=checked.kept.clear(), refused=checked.refused.clear())
        if stage == "quarantine":
            return checked.refused
        if checked.blocking:
            raise ContractBroken(source.name, {day: checked.blocking})
        return checked.kept

    store = tables.validated(source.name) if stage == "validated" else tables.quarantine(source.name)
    step = _same_day(stage, source.name, store, table_versions(domain, stage)[source.name], [raw], rows)
    return replace(step, found=found)


def _base(domain: Domain, tables: Tables, source: Source) -> Step:
    validated = _Upstream("validated", source, tables.validated(source.name))

    def rows(day: str, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        return _base_rows(domain, tables, source, day, frames[source.name])

    return _same_day(
        "base", source.name, tables.base(source.name), table_versions(domain, "base")[source.name], [validated], rows
    )


def _derived(domain: Domain, tables: Tables, derived: Derived) -> Step:
    upstream = [_Upstream("base", domain.source(name), tables.base(name)) for name in derived.inputs]

    def rows(day: str, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        return _derived_rows(domain, tables, derived, day, frames)

    return _same_day(
        "derived",
        derived.name,
        tables.derived(derived.name),
        table_versions(domain, "derived")[derived.name],
        upstream,
        rows,
    )


def _base_rows(domain: Domain, tables: Tables, source: Source, day: str, rows: pl.DataFrame) -> pl.DataFrame:
    what = f"base of {source.name}"
    return _with_clocks(what, given(source.base, what, day, rows), tables.base(source.name), domain, day)


def _derived_rows(
    domain: Domain, tables: Tables, derived: Derived, day: str, frames: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    what = f"derived {derived.name}"
    plain = {name: frame.drop("available_at") for name, frame in frames.items()}
    return _with_clocks(what, given(derived.function, what, day, plain), tables.derived(derived.name), domain, day)


def _view(platform: Platform, domain: Domain, tables: Tables, view: FeatureView) -> Step:
    facts = tables.facts(view.facts)
    label = facts.name.removeprefix(f"{domain.name}/")
    absent = absent_days(domain, view.facts)
    streamed = isinstance(view.schedule, AsFactsArrive)
    record = values_record(platform.home, domain, view, platform.clock) if streamed else None

    def recorded(day: str) -> list[str]:
        """What was published within the day, as an input; nothing for a day before anything was recorded."""
        since = record.first_day() if record else None
        if record is None or since is None or date.fromisoformat(day) < since:
            return []
        return [f"streamed/{view.name}/{day}@{record.entries(date.fromisoformat(day))}"]

    def within(day: str, known: pl.DataFrame, published: Sequence[str]) -> pl.DataFrame:
        if record is None or not published:
            return given(history_within, f"view {view.name}", day, view, known, partition_end(day))
        return record.rows(date.fromisoformat(day), date.fromisoformat(day)).drop("_instant")

    def window(day: str) -> list[str]:
        last = date.fromisoformat(day)
        first = max(domain.start, last - timedelta(days=look_back_days(view) - 1))
        return [each for each in day_range(first.isoformat(), day) if date.fromisoformat(each) not in absent]

    def plan(partitions: Sequence[str]) -> Plan:
        windows = {day: window(day) for day in partitions}
        current = facts.current(sorted(set().union(*windows.values())))
        inputs, missing, known_at = {}, {}, {}
        for day, days in windows.items():
            lacking = [each for each in days if each not in current]
            if lacking:
                missing[day] = IncompleteWindow(view.name, day, lacking)
            else:
                facts_read = [f"{label}/{each}@{current[each].number}" for each in days]
                inputs[day] = tuple(sorted(facts_read + recorded(day)))
                known_at[day] = max(current[each].known_at for each in days)
        return Plan(inputs, dict(missing), known_at)

    def read(planned: Plan) -> Rows:
        facts_of = facts.pinned(planned.pins().get(label, {}), rows_at_once=rows_at_once)
        held: dict[str, pl.DataFrame] = {}

        def rows(day: str) -> pl.DataFrame:
            nonlocal held
            # Each day is read once for all the windows that hold it.
            held = {each: held[each] if each in held else facts_of(each) for each in window(day)}
            known = pl.concat(held.values() or [facts_of(day)]).drop("available_at")
            if not known["event_time"].is_sorted():
                known = known.sort("event_time", maintain_order=True)
            computed = given(compute_view, f"view {view.name}", day, view, known, partition_end(day))
            ended = computed.with_columns(available_at=pl.lit(available_at(domain, day), dtype=clocks["available_at"]))
            if not streamed:
                return ended
            published = [name for name in planned.inputs[day] if name.startswith("streamed/")]
            return pl.concat([ended, within(day, known, published)])

        return rows

    return Step(
        "feature_store",
        view.name,
        tables.features(view),
        table_versions(domain, "feature_store")[view.name],
        plan,
        read,
    )


@dataclass(frozen=True)
class _Upstream:
    stage: str
    source: Source
    store: Stage


def _same_day(
    stage: str,
    table: str,
    store: Stage,
    version: str,
    upstream: Sequence[_Upstream],
    compute: Callable[[str, Mapping[str, pl.DataFrame]], pl.DataFrame],
) -> Step:
    """A step whose partition reads the same partition of its upstream tables, absent ones as empty frames."""

    def plan(partitions: Sequence[str]) -> Plan:
        inputs: dict[str, list[str]] = {day: [] for day in partitions}
        missing: dict[str, DataError] = {}
        known_at: dict[str, datetime] = {}
        for each in upstream:
            current = each.store.current(partitions)
            for day in partitions:
                if day in current:
                    inputs[day].append(f"{each.stage}/{each.source.name}/{day}@{current[day].number}")
                    known_at[day] = max(current[day].known_at, known_at.get(day, current[day].known_at))
                elif date.fromisoformat(day) not in each.source.absent:
                    missing[day] = MissingPartition(each.store.name, [day])
        return Plan(
            {day: tuple(sorted(names)) for day, names in inputs.items() if names and day not in missing},
            missing,
            known_at,
        )

    def read(planned: Plan) -> Rows:
        pins = planned.pins()
        rows_of = {
            each.source.name: each.store.pinned(
                pins.get(f"{each.stage}/{each.source.name}", {}), rows_at_once=rows_at_once
            )
            for each in upstream
        }
        return lambda day: compute(day, {name: rows(day) for name, rows in rows_of.items()})

    return Step(stage, table, store, version, plan, read)


def given(function: Callable[..., pl.DataFrame], what: str, day: str, *arguments: Any) -> pl.DataFrame:
    """What the domain's own code gives for a day; whatever it raises is a failure of that day, not of its run.

    Raises
    ------
    DomainCodeRaised
        It raised something that is not a refusal of ours.
    DeclarationError
        It gave no data frame.
    """
    try:
        result = function(*arguments)
    except MlplatformError:
        raise
    except Exception as error:  # it may raise anything, and one odd day must not hold the others back
        raise DomainCodeRaised(what, day, error) from error
    if not isinstance(result, pl.DataFrame):
        raise DeclarationError(f"{what} gives a {type(result).__name__} for {day}. Let it return a Polars DataFrame")
    return result


def absent_days(domain: Domain, table: str) -> frozenset[date]:
    """Days on which a derived table has nothing because none of its sources sent anything."""
    for derived in domain.derived:
        if derived.name == table:
            return frozenset.intersection(*(domain.source(name).absent for name in derived.inputs))
    return domain.source(table).absent


def _with_clocks(what: str, rows: pl.DataFrame, store: Stage, domain: Domain, day: str) -> pl.DataFrame:
    if "event_time" not in rows.columns:
        raise DeclarationError(
            f"{what} gives no `event_time`. Add it: Datetime('us', 'UTC'), when the fact became known"
        )
    if rows["event_time"].null_count():
        raise DeclarationError(f"{what} gives rows without an `event_time` on {day}. Let the contract refuse such rows")
    published: datetime = available_at(domain, day)
    stamped = rows.with_columns(available_at=pl.lit(published, dtype=clocks["available_at"]))
    unknown = [name for name in stamped.columns if name not in store.schema]
    if unknown:
        raise DeclarationError(f"{what} gives {', '.join(unknown)}, which is not declared. Declare it or drop it")
    return stamped
