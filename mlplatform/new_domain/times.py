"""Times as people write them: what a text column of times says, and what it leaves open.

A time without a zone is read as the clock on the wall of one. Where days and months could be swapped, the other values
of the column decide; where they leave it open, the order that spans less time is taken, and said.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import polars as pl

months = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_day = (
    r"(?:(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"
    r"|(?P<first>\d{1,2})(?P<between>[-/.])(?P<second>\d{1,2})[-/.](?P<late_year>\d{4}|\d{2})"
    r"|(?P<named_day>\d{1,2})[- ](?P<name>[A-Za-z]{3})[a-z]*\.?[- ,]+(?P<named_year>\d{4})"
    r"|(?P<leading_name>[A-Za-z]{3})[a-z]*\.? (?P<following_day>\d{1,2}),? (?P<following_year>\d{4}))"
)
_clock = r"(?:[T ,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second_of>\d{2})(?:[.,](?P<fraction>\d+))?)?"
_rest = r"\s*(?P<half>[AaPp])?(?(half)\.?[Mm]\.?)\s*(?P<zone>Z|z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?)?"
_pattern = re.compile(rf"^{_day}{_clock}{_rest}$")


@dataclass(frozen=True, kw_only=True)
class Times:
    """The instants of a column."""

    values: pl.Series
    """Datetime us, UTC; null where there is none, or none that can be read."""

    days_only: bool
    """Whether no value tells the hour."""

    why: str


def times_of(column: pl.Series, zone: str) -> Times | None:
    """The instants of a column of text, of times, or of whole numbers that count from 1970; None: it holds none."""
    if column.dtype == pl.String():
        return _of_text(column, zone)
    if column.dtype.is_integer():
        return _of_numbers(column)
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dtype.time_zone is not None
        values = column if zoned else _in_zone(column, zone)
        midnight = column.drop_nulls().dt.time().n_unique() <= 1 and not zoned
        return Times(values=values, days_only=midnight, why="times with a zone" if zoned else f"times, read as {zone}")
    return None


def _of_text(column: pl.Series, zone: str) -> Times | None:
    written = column.drop_nulls().unique(maintain_order=True).to_list()
    found = [match for text in written if (match := _pattern.match(text)) is not None]
    if not found:
        return None
    day_first, order = _day_first(found)
    read = {match.string: moment for match in found if (moment := _moment(match, day_first=day_first)) is not None}
    if not read:
        return None
    aware = {text: moment.astimezone(UTC).replace(tzinfo=None) for text, moment in read.items() if moment.tzinfo}
    local = {text: moment for text, moment in read.items() if not moment.tzinfo}
    naive = pl.Datetime("us")
    walls = _in_zone(column.replace_strict(local, default=None, return_dtype=naive), zone)
    instants = column.replace_strict(aware, default=None, return_dtype=naive).dt.replace_time_zone("UTC")
    told = "times with a zone" if not local else f"times, read as {zone}"
    if len({_shape(match) for match in found}) > 1:
        told += ", written in several ways"
    days_only = all(match["hour"] is None for match in found)
    values = instants.zip_with(instants.is_not_null(), walls)
    return Times(values=values, days_only=days_only, why=told + (", days only" if days_only else "") + order)


def _of_numbers(column: pl.Series) -> Times | None:
    """Seconds, milliseconds or microseconds since 1970, or days such as 20240131."""
    known = column.drop_nulls()
    middle = known.median()
    if not isinstance(middle, int | float):
        return None
    if 1900_01_01 <= middle <= 2100_12_31:
        days = column.cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
        return Times(values=days.dt.replace_time_zone("UTC"), days_only=True, why="days such as 20240131, UTC")
    for factor, unit in ((1_000_000, "seconds"), (1_000, "milliseconds"), (1, "microseconds")):
        if 3e8 <= middle * factor / 1_000_000 <= 5e9:
            values = (column * factor).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            return Times(values=values, days_only=False, why=f"{unit} since 1970")
    return None


def _in_zone(walls: pl.Series, zone: str) -> pl.Series:
    """Clocks on the wall -> UTC. Of an hour that is there twice the first is meant; one that is skipped is null."""
    return walls.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _day_first(found: Sequence[re.Match[str]]) -> tuple[bool, str]:
    """Whether 03/04/2024 is in April, and how that was told."""
    open_ones = [match for match in found if match["first"] and match["between"] != "."]
    if not open_ones:
        return True, ""
    if any(int(match["first"]) > 12 for match in open_ones):
        return True, ", day before month"
    if any(int(match["second"]) > 12 for match in open_ones):
        return False, ", month before day"
    spans = {}
    for day_first in (True, False):
        moments = [_moment(match, day_first=day_first) for match in open_ones]
        days = [moment.replace(tzinfo=None) for moment in moments if moment is not None]
        spans[day_first] = max(days) - min(days) if days else timedelta.max
    day_first = spans[True] <= spans[False]
    told = "day before month" if day_first else "month before day"
    return day_first, f", {told} (no value settles it: that order spans less time)"


def _shape(match: re.Match[str]) -> str:
    return "".join(name for name, text in match.groupdict().items() if text is not None and name in _shown)


_shown = ("year", "first", "named_day", "leading_name", "hour", "half")


def _moment(match: re.Match[str], *, day_first: bool) -> datetime | None:
    part = match.groupdict()
    if part["year"]:
        year, month, day = part["year"], part["month"], part["day"]
    elif part["first"]:
        first_is_day = day_first or part["between"] == "."
        day, month = (part["first"], part["second"]) if first_is_day else (part["second"], part["first"])
        year = part["late_year"] if len(part["late_year"]) == 4 else f"20{part['late_year']}"
    else:
        name, day = part["name"] or part["leading_name"], part["named_day"] or part["following_day"]
        year = part["named_year"] or part["following_year"]
        if name.lower() not in months:
            return None
        month = str(months.index(name.lower()) + 1)
    hour = int(part["hour"] or 0)
    if part["half"]:
        hour = hour % 12 + (12 if part["half"] in "pP" else 0)
    fraction = int((part["fraction"] or "0")[:6].ljust(6, "0"))
    try:
        return datetime(
            int(year),
            int(month),
            int(day),
            hour,
            int(part["minute"] or 0),
            int(part["second_of"] or 0),
            fraction,
            tzinfo=_zone(part["zone"]),
        )
    except ValueError:  # no such day or hour
        return None


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
