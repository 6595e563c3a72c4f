"""Time zones: instants carry UTC, and the zone of the machine never shows.

The functions are run again as on a machine in Kolkata (no whole hour from UTC) and in one in New York (with summer
time), over days on which clocks are changed where the sample has such days.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain_checks.case import Case
from mlplatform.domain_checks.cases import all_cases, base_case, request_functions
from mlplatform.domain_checks.difference import difference
from mlplatform.domain_checks.evidence import Evidence
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import CannotJudge, DataError
from mlplatform.features.rules import check
from mlplatform.features.view import instant
from mlplatform.settings import local_zone

other_zones = ("Asia/Kolkata", "America/New_York")

a_clock_change = datetime(2024, 3, 10, 7, tzinfo=UTC)
"""When clocks in New York went from 2 to 3: careless conversions give null or raise in the hour that is not there."""


def time_zones(evidence: Evidence) -> Looked:
    """Every instant is aware and in UTC, and functions give the same on a machine in another zone."""
    faults = [*_naive(evidence), *_declared_naive(evidence)]
    if faults:
        return Looked(at="types of the time columns", faults=tuple(faults))
    changing = list(days_of_clock_changes(evidence))
    cases = [*all_cases(evidence), *_cases_on(evidence, changing), *_requests_at_a_change(evidence)]
    # A machine may itself stand in one of the zones: all answers are compared with those in UTC.
    with local_zone("UTC"):
        expected = [case.call(case.frames) for case in cases]
    told = set()
    for zone in other_zones:
        with local_zone(zone):
            given = [case.call(case.frames) for case in cases]
        for case, here, there in zip(cases, expected, given, strict=True):
            differs = difference(here, there, keys=case.keys)
            if differs is not None and case.what not in told:
                told.add(case.what)
                faults.append(
                    Fault(
                        what=case.what,
                        where=f"{differs.where}, {case.where}",
                        told=f"gives something else on a machine in {zone}: {differs.told}. Convert with "
                        "`dt.convert_time_zone` and a named zone; no `fromtimestamp` or `astimezone()` without one",
                    )
                )
    days = f", and over the clock changes of {', '.join(changing)}" if changing else ", no clock change in the sample"
    return Looked(at=f"as on machines in {' and '.join(other_zones)}{days}", faults=tuple(faults))


def _naive(evidence: Evidence) -> Iterator[Fault]:
    """Clocks as the functions give them."""
    day = evidence.days[-1]
    tables = {f"base of {name}": days[day] for name, days in evidence.base.items()}
    tables |= {f"derived {name}": days[day] for name, days in evidence.derived.items()}
    for what, rows in tables.items():
        found = rows.schema.get("event_time")
        if found != instant:
            yield Fault(
                what=what,
                where=f"column event_time, {day}",
                told=f"is {found}, not {instant}. Say which zone it is in (`dt.replace_time_zone`), convert it to UTC "
                "(`dt.convert_time_zone`) and cast it to microseconds",
            )
            return
    facts = evidence.facts(evidence.domain.requests.facts)
    found = evidence.asked_of(facts).schema["at"]
    if found != instant:
        yield Fault(
            what="requests.of_facts",
            where="column at",
            told=f"is {found}, not {instant}. Convert the time of the request to UTC in of_facts",
        )


def _declared_naive(evidence: Evidence) -> Iterator[Fault]:
    """Facts and requests hold instants; a landed file may hold the clock on a wall, which `base` reads."""
    domain = evidence.domain
    declared: dict[str, tuple[Column, ...]] = {
        f"base of {source.name}": source.base_columns for source in domain.sources
    }
    declared |= {f"derived {table.name}": table.columns for table in domain.derived}
    declared["request"] = domain.requests.columns
    for what, columns in declared.items():
        for column in columns:
            if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is None:
                yield Fault(
                    what=what,
                    where=f"column {column.name}",
                    told="is a time without a zone: nobody can say when it was. Convert it to UTC in base, and declare "
                    "Datetime('us', 'UTC'); keep a local hour as a number beside it",
                )


def days_of_clock_changes(evidence: Evidence) -> Iterator[str]:
    """Days of the sample on which clocks change in the United States or in Europe."""
    offered = set(evidence.offered)
    years = {int(day[:4]) for day in offered}
    for year in sorted(years):
        for month, sunday in ((3, 2), (3, -1), (10, -1), (11, 1)):
            first = date(year, month, 1)
            sundays = [
                first + timedelta(days=number)
                for number in range(31)
                if (first + timedelta(days=number)).weekday() == 6
            ]
            inside = [each for each in sundays if each.month == month]
            day = inside[sunday - 1 if sunday > 0 else sunday].isoformat()
            if day in offered:
                yield day


def _cases_on(evidence: Evidence, days: list[str]) -> Iterator[Case]:
    """Base tables of days that need not be among those of the evidence."""
    for source in evidence.domain.sources:
        for day in days:
            try:
                rows = check(evidence.landed_on(source.name, day), source.contract).kept
            except DataError as error:
                raise CannotJudge(f"{source.name} of {day} cannot be read: {error}") from error
            yield base_case(source, day, rows)


def _requests_at_a_change(evidence: Evidence) -> Iterator[Case]:
    """Requests moved in time so that they surround a clock change, whatever days the sample has."""
    for case in request_functions(evidence):
        (name,) = case.frames
        rows = case.frames[name]
        if rows.is_empty():
            continue
        shift = a_clock_change - rows["at"][rows.height // 2]
        times = [column for column, dtype in rows.schema.items() if dtype == instant]
        moved = rows.with_columns(pl.col(times) + shift)
        yield replace(case, where=f"{a_clock_change:%Y-%m-%d}, a clock change", frames={name: moved})
