"""Times as people write them: which instant each way of writing means."""

from datetime import UTC, datetime

import polars as pl
import pytest

from mlplatform.new_domain.times import Times, times_of

WANTED = datetime(2024, 3, 14, 13, 5, tzinfo=UTC)


def read(*written: str | int | None, zone: str = "UTC") -> Times:
    """The times of a column that holds some."""
    found = times_of(pl.Series("t", list(written)), zone)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "written",
    [
        "2024-03-14T13:05:00Z",
        "2024-03-14 13:05",
        "2024-03-14T14:05:00+01:00",
        "2024-03-14T08:05:00.000-0500",
        "2024/03/14 13:05:00 UTC",
        "14.03.2024 13:05",
        "14/03/2024 13:05:00",
        "03/14/2024 1:05 PM",
        "14-Mar-2024 13:05",
        "Mar 14, 2024 1:05 pm",
        "14.3.24 13:05",
    ],
)
def test_one_instant_in_many_ways(written: str) -> None:
    """All of these are the same moment."""
    assert read(written).values.to_list() == [WANTED]


def test_a_time_without_a_zone_is_of_the_zone_that_is_said() -> None:
    """Summer time included; the hour that is skipped gives no time, and of a repeated one the first is meant."""
    told = read("2024-01-01 12:00", "2024-07-01 12:00", "2024-03-31 02:30", "2024-10-27 02:30", zone="Europe/Berlin")
    hours = [(moment.day, moment.hour) if moment else None for moment in told.values.to_list()]
    assert hours == [(1, 11), (1, 10), None, (27, 0)]


def test_several_ways_in_one_column() -> None:
    """Each value is read as it is written, and the reader is told."""
    told = read("2024-03-14 13:05", "14.03.2024 13:05", None, "2024-03-14T13:05:00Z")
    assert told.values.to_list() == [WANTED, WANTED, None, WANTED]
    assert "several ways" in told.why


@pytest.mark.parametrize(
    ("written", "month", "told"),
    [
        (("03/04/2024", "25/04/2024"), 4, "day before month"),
        (("03/04/2024", "04/25/2024"), 3, "month before day"),
        (("01/02/2024", "02/02/2024", "03/02/2024"), 2, "no value settles it"),
    ],
)
def test_the_other_values_tell_days_from_months(written: tuple[str, ...], month: int, told: str) -> None:
    """A thirteenth settles the order for the column; without one, the order that spans less time is taken and told."""
    found = read(*written)
    assert found.values[0].month == month
    assert told in found.why
    assert found.days_only


@pytest.mark.parametrize(
    ("number", "told"),
    [(1_710_421_500, "seconds"), (1_710_421_500_000, "milliseconds"), (1_710_421_500_000_000, "microseconds")],
)
def test_counts_since_1970(number: int, told: str) -> None:
    """Seconds, milliseconds and microseconds are told apart by their size."""
    found = read(number, number)
    assert found.values[0] == WANTED
    assert told in found.why


def test_what_is_no_time_is_none() -> None:
    """Words, small numbers and days that do not exist are no times."""
    assert times_of(pl.Series(["yesterday", "soon"]), "UTC") is None
    assert times_of(pl.Series([1, 2, 3]), "UTC") is None
    assert times_of(pl.Series(["2024-02-30"]), "UTC") is None
    assert times_of(pl.Series([1.5]), "UTC") is None
