"""The recorded year as it is sent: every row once, on the day it became known."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.sample import data, sent_on
from mlplatform.domains.flight_delay.sources import flight_contract, plane_contract, weather_contract

EVERY_DAY = [date(2013, 1, 1) + timedelta(days=number) for number in range(366)]
STAMPS = {"flights": "recorded_at", "weather": "time_hour", "planes": "registered_at"}
CONTRACTS = {"flights": flight_contract, "weather": weather_contract, "planes": plane_contract}


@pytest.fixture(scope="module")
def year() -> dict[str, pl.DataFrame]:
    """All that each source sends from the first day to the last, with the day of the file."""
    return {
        source: pl.concat([sent_on(source, day).with_columns(_day=pl.lit(day)) for day in EVERY_DAY])
        for source in STAMPS
    }


@pytest.mark.parametrize("source", STAMPS)
def test_every_row_is_sent_exactly_once(year: dict[str, pl.DataFrame], source: str) -> None:
    """The days together hold the rows of the committed file, no more and no fewer."""
    recorded = pl.read_parquet(data / f"{source}.parquet")
    shared = [name for name in CONTRACTS[source].names if name in recorded.columns]
    sent = year[source].select(shared)
    assert sent.sort(shared).equals(recorded.select(shared).sort(shared))


@pytest.mark.parametrize("source", STAMPS)
def test_a_row_is_in_the_file_of_its_day(year: dict[str, pl.DataFrame], source: str) -> None:
    """Nothing is sent before the day (UTC) on which it became known, nor after it."""
    assert year[source].filter(pl.col(STAMPS[source]).dt.date() != pl.col("_day")).is_empty()
    assert year[source][STAMPS[source]].null_count() == 0


@pytest.mark.parametrize("source", STAMPS)
def test_the_files_have_the_columns_of_the_contract(source: str) -> None:
    """Also on a day without news a file has every declared column, and no row."""
    for day in (date(2013, 1, 1), date(2013, 7, 4), date(2014, 1, 1), date(2020, 5, 5)):
        assert dict(sent_on(source, day).schema) == dict(CONTRACTS[source].schema)
    assert sent_on(source, date(2020, 5, 5)).is_empty()


def test_the_domain_ends_when_the_last_outcome_is_known(year: dict[str, pl.DataFrame]) -> None:
    """The sample covers the declared days: what is recorded after midnight of New Year's Eve too."""
    assert DOMAIN.sample is not None
    assert (DOMAIN.sample.start, DOMAIN.sample.end) == (DOMAIN.start, DOMAIN.end)
    last = year["flights"]["recorded_at"].max()
    assert isinstance(last, datetime)
    assert datetime(2014, 1, 1, tzinfo=UTC) < last < datetime(2014, 1, 2, tzinfo=UTC)


def test_an_outcome_is_known_when_the_flight_is_at_the_gate(year: dict[str, pl.DataFrame]) -> None:
    """UA 1545 left Newark at 5:15 on New Year's Day, was due in Houston at 8:19 local time and came 11 minutes late."""
    found = year["flights"].filter(
        pl.col("carrier") == "UA", pl.col("flight") == 1545, pl.col("recorded_at").dt.date() == date(2013, 1, 1)
    )
    assert found["recorded_at"].to_list() == [datetime(2013, 1, 1, 14, 30, tzinfo=UTC)]


def test_a_cancellation_is_known_an_hour_after_the_schedule(year: dict[str, pl.DataFrame]) -> None:
    """A flight that never left is reported sixty minutes after it should have."""
    cancelled = year["flights"].filter(pl.col("dep_delay").is_null())
    departure = pl.col("time_hour") + pl.duration(minutes=pl.col("sched_dep_time") % 100)
    assert cancelled.height == 8255
    assert cancelled.select((pl.col("recorded_at") - departure).unique()).to_series().to_list() == [timedelta(hours=1)]
