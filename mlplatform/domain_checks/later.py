"""Nothing reads later than its time: what was known at an instant stays what it was, whatever happens afterwards.

The future is deleted, shifted and scrambled, and nothing before it may change. What a function reads beside its
arguments cannot be scrambled, so it is looked up in its code: a whole table of facts within reach is told as a fault.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from mlplatform.domain.view import FeatureView
from mlplatform.domain_checks.case import Days, called
from mlplatform.domain_checks.cases import two_days
from mlplatform.domain_checks.difference import difference, row_name
from mlplatform.domain_checks.evidence import Evidence, seed, spread
from mlplatform.domain_checks.reach import frames_in_reach, functions_of
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import DomainCodeRaised
from mlplatform.features.tables import partition_end
from mlplatform.features.view import compute_view, instant

days_looked_at = 4
"""Days, spread over the sample, at whose end each view is computed with and without a future."""

least_single = 10
"""Cases of a day, so that some are earlier and some later."""

single_rows = 150
"""Landed rows of a day that are taken through the functions one by one; each costs some milliseconds."""


def nothing_later(evidence: Evidence) -> Looked:
    """Deleting, shifting or scrambling the future changes nothing before it."""
    faults = [fault for view in evidence.domain.views for fault in _view(evidence, view)]
    faults += _requests(evidence)
    within, unjudged = _within_a_day(evidence)
    faults += within
    faults += _tables_in_reach(evidence)
    days = min(days_looked_at, len(evidence.days))
    looked = f"{len(evidence.domain.views)} views at {days} days, of_facts, base and derived"
    looked += f"; within a day not judged: {unjudged}" if unjudged else ""
    return Looked(at=looked, faults=tuple(faults))


def windows(evidence: Evidence) -> Looked:
    """A view computed from all facts is what its function gives for those of the window; nothing comes of nothing."""
    faults: list[Fault] = []
    for view in evidence.domain.views:
        faults += _empty_window(evidence, view)
        facts = evidence.facts(view.facts).drop("available_at")
        for end in _ends(evidence)[-2:]:
            times = facts["event_time"].to_list()
            picked = [row for row, time in enumerate(times) if time >= end - view.look_back and time < end]
            slowly = called(f"view {view.name}", f"{end:%Y-%m-%d}", view.function, facts[picked], end)
            if "event_time" not in slowly.columns:
                slowly = slowly.with_columns(event_time=pl.lit(end, dtype=instant))
            quickly = _computed(view, facts, end)
            differs = difference(quickly, slowly.select(quickly.columns).sort(view.entity), keys=view.entity)
            if differs is not None:
                told = (
                    f"the window picked row by row gives something else: {differs.told}. Compute from the facts alone"
                )
                faults.append(Fault(what=f"view {view.name}", where=f"{differs.where}, {end:%Y-%m-%d}", told=told))
                break
    return Looked(at=f"{len(evidence.domain.views)} views", faults=tuple(faults))


def _empty_window(evidence: Evidence, view: FeatureView) -> Iterator[Fault]:
    """A window without facts, as a new domain has it on its first days, gives no entity."""
    end = _ends(evidence)[-1]
    nothing = evidence.facts(view.facts).drop("available_at").clear()
    given = called(f"view {view.name}", "a window without facts", view.function, nothing, end)
    if given.height:
        yield Fault(
            what=f"view {view.name}",
            where=f"row {row_name(given, 0, view.entity)}, {end:%Y-%m-%d}",
            told=f"gives {given.height} entities for a window without facts, so it reads something else. Compute from "
            "the facts that are handed over, and from nothing beside them",
        )


def _ends(evidence: Evidence) -> list[datetime]:
    days = evidence.days
    step = max(1, len(days) // days_looked_at)
    return [partition_end(day) for day in days[step - 1 :: step]][:days_looked_at]


def _computed(view: FeatureView, facts: pl.DataFrame, end: datetime) -> pl.DataFrame:
    return called(f"view {view.name}", f"{end:%Y-%m-%d}", compute_view, view, facts, end)


def _view(evidence: Evidence, view: FeatureView) -> Iterator[Fault]:
    facts = evidence.facts(view.facts).drop("available_at")
    ends = _ends(evidence)
    # First without any future, in order; then with one, the last day first: a function that remembers has seen it all.
    before = {end: _computed(view, facts.filter(pl.col("event_time") < end), end) for end in ends}
    for end in reversed(ends):
        past, future = facts.filter(pl.col("event_time") < end), facts.filter(pl.col("event_time") >= end)
        versions = {
            "is there": future,
            "is shifted": future.with_columns(pl.col("event_time") + timedelta(hours=7)),
            "is scrambled": _scrambled(future, keep=("event_time",)),
        }
        for what, other in versions.items():
            differs = difference(before[end], _computed(view, pl.concat([past, other]), end), keys=view.entity)
            if differs is not None:
                yield Fault(
                    what=f"view {view.name}",
                    where=f"{differs.where}, {end:%Y-%m-%d}",
                    told=f"its value at {end:%Y-%m-%d %H:%M} changes when the future {what}: {differs.told}. Compute "
                    "it from the facts that are handed over, and keep nothing between two calls",
                )
                return
        late = before[end].filter(pl.col("event_time") > end)
        if late.height:
            yield Fault(
                what=f"view {view.name}",
                where=f"column event_time, row {row_name(late, 0, view.entity)}, {end:%Y-%m-%d}",
                told=f"says that its value is of {late['event_time'][0]}, after the end of its window. Let "
                "`event_time` be when the value was last true, or leave it out",
            )
            return


def _scrambled(frame: pl.DataFrame, *, keep: tuple[str, ...]) -> pl.DataFrame:
    """Every column shuffled by itself."""
    return frame.with_columns(
        pl.col(name).shuffle(seed=seed + place) for place, name in enumerate(frame.columns) if name not in keep
    )


def _requests(evidence: Evidence) -> Iterator[Fault]:
    """Requests asked before an instant stay what they are when the cases asked after it are taken away."""
    facts = evidence.facts(evidence.domain.requests.facts)
    requests = evidence.requests
    times = requests["at"].drop_nulls().sort()
    if times.is_empty():
        return
    cut = times[len(times) // 2]
    earlier = (requests["at"] < cut).fill_null(value=False)
    before = evidence.asked_of(facts).filter(earlier)
    after = evidence.asked_of(facts.filter(earlier))
    differs = difference(before, after, keys=evidence.domain.requests.identity)
    if differs is not None:
        yield Fault(
            what="requests.of_facts",
            where=differs.where,
            told=f"a request asked before {cut:%Y-%m-%d %H:%M} changes when the cases asked later are taken away: "
            f"{differs.told}. Let a request hold what was known when it was asked; what sums up other cases is a view",
        )


def _within_a_day(evidence: Evidence) -> tuple[list[Fault], str]:
    """The same within one landed day, for base and derived: the day's later cases must not show in earlier requests.

    Gives the faults, and the sources of which nothing can be said.
    """
    identity = evidence.domain.requests.identity
    faults, unjudged = [], []
    sources = feeding(evidence)
    day = two_days(evidence, sources)[-1]
    for source in sources:
        landed = spread(evidence.validated[source][day], single_rows)
        times = [_asked_alone(evidence, source, day, landed[row : row + 1]) for row in range(landed.height)]
        known = sorted(time for time in times if time is not None)
        if len(known) < least_single:
            unjudged.append(f"fewer than {least_single} rows of {source} are a request each")
            continue
        cut = known[len(known) // 2]
        all_of_them = pl.Series([time is not None for time in times])
        early = pl.Series([time is not None and time < cut for time in times])
        before = requests_of(evidence, source, day, landed.filter(all_of_them)).filter(pl.col("at") < cut)
        after = requests_of(evidence, source, day, landed.filter(early), until=cut).filter(pl.col("at") < cut)
        differs = difference(before.sort("at", *identity), after.sort("at", *identity), keys=identity)
        if differs is not None:
            told = (
                f"a request asked before {cut:%H:%M} changes when the day's later cases are taken away: "
                f"{differs.told}. Let a row of base and derived tell of itself; what sums up a day is a view"
            )
            what = f"base of {source}, or what is derived of it"
            faults.append(Fault(what=what, where=f"{differs.where}, {day}", told=told))
    return faults, ", ".join(unjudged)


def feeding(evidence: Evidence) -> list[str]:
    """Sources that the facts of requests are made of."""
    for table in evidence.domain.derived:
        if table.name == evidence.domain.requests.facts:
            return list(table.inputs)
    return [evidence.domain.requests.facts]


def _asked_alone(evidence: Evidence, source: str, day: str, row: pl.DataFrame) -> datetime | None:
    """When the case of one landed row was asked; None where the row alone is not one request."""
    try:
        asked = requests_of(evidence, source, day, row)
    except DomainCodeRaised:
        return None  # it cannot do with one row, which is allowed
    return asked["at"][0] if asked.height == 1 else None


def requests_of(
    evidence: Evidence, source: str, day: str, rows: pl.DataFrame, *, until: datetime | None = None
) -> pl.DataFrame:
    """Requests, with `at`, that come of some landed rows of one source and the whole day of the others.

    Parameters
    ----------
    until : facts of the other sources from this instant on are left out
    """
    return evidence.asked_of(facts_of(evidence, source, day, rows, until=until))


def facts_of(
    evidence: Evidence, source: str, day: str, rows: pl.DataFrame, *, until: datetime | None = None
) -> pl.DataFrame:
    """Facts of requests that come of some landed rows of one source and the whole day of the others."""
    domain = evidence.domain
    base = called(f"base of {source}", f"{day}, some rows", domain.source(source).base, rows.clone())

    def rows_on(_name: str, _day: str) -> pl.DataFrame:
        for table in domain.derived:
            if table.name == domain.requests.facts:
                others: Days = {**evidence.inputs(table, day)}
                if until is not None:
                    others = {name: frame.filter(pl.col("event_time") < until) for name, frame in others.items()}
                return called(f"derived {table.name}", f"{day}, some rows", table.function, {**others, source: base})
        return base

    return evidence.stamped(domain.requests.facts, [day], rows_on)


def _tables_in_reach(evidence: Evidence) -> Iterator[Fault]:
    """Frames of facts that a function reads beside its arguments."""
    domain = evidence.domain
    tables = [table.name for table in domain.derived] + [source.name for source in domain.sources]
    for what, function in functions_of(domain).items():
        for name, frame in frames_in_reach(function).items():
            for table in tables:
                columns = {column.name for column in domain.fact_columns(table)}
                shared = [column for column in frame.columns if column in columns]
                # A register of places or holidays shares a key or two with the facts, and that is honest.
                if "event_time" in frame.columns or len(shared) > max(2, len(columns) // 2):
                    yield Fault(
                        what=what,
                        where=f"{name}: {', '.join(frame.columns[:6])}",
                        told=f"it reads a table of {frame.height} rows that is not handed to it and holds what {table} "
                        "holds, at all times. Read facts through a view, or learn from them with a fitted value",
                    )
                    break
