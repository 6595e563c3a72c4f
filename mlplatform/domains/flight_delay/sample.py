"""The recorded year as its sources would have sent it: for every day, what became known on that day.

Reads the Parquet files beside it. The assumptions that the data set leaves open stand here and nowhere else.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path

import polars as pl

from mlplatform.domain.source import Sample

from .sources import flight_contract, flight_facts, plane_contract, weather_contract

data = Path(__file__).parent / "data"

cancellation_known_after = timedelta(hours=1)
"""After the scheduled departure. Assumed."""

diversion_known_after = timedelta(hours=4)
"""After the scheduled arrival. Assumed."""

first_day = date(2013, 1, 1)


def sent_on(source: str, day: date) -> pl.DataFrame:
    """What a source sent on a day (UTC), in the columns of its contract; no rows on a day without news."""
    days, empty = {"flights": _flights, "weather": _weather, "planes": _planes}[source]()
    return days.get(day, empty)


Days = tuple[dict[date, pl.DataFrame], pl.DataFrame]


@cache
def _flights() -> Days:
    year = pl.read_parquet(data / "flights.parquet").with_columns(
        recorded_at=pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    )
    keyed = year.with_row_index("_row")
    facts = pl.concat([flight_facts(part).with_columns(part["_row"]) for part in keyed.partition_by("dest")])
    landed = pl.col("scheduled_arrival") + pl.duration(minutes=pl.col("arrival_delay"))
    never_left = pl.col("departure_delay").is_null()
    known = facts.select(
        "_row",
        recorded_at=pl.when(never_left)
        .then(pl.col("scheduled_departure") + cancellation_known_after)
        .otherwise(landed.fill_null(pl.col("scheduled_arrival") + diversion_known_after)),
    )
    complete = keyed.drop("recorded_at").join(known, on="_row").sort("recorded_at", "_row")
    return _by_day(complete.select(flight_contract.names), pl.col("recorded_at"))


@cache
def _weather() -> Days:
    return _by_day(pl.read_parquet(data / "weather.parquet").select(weather_contract.names), pl.col("time_hour"))


@cache
def _planes() -> Days:
    register = pl.read_parquet(data / "planes.parquet")
    entered = pl.lit(datetime.combine(first_day, time(), UTC), dtype=pl.Datetime("us", "UTC"))
    return _by_day(register.with_columns(registered_at=entered).select(plane_contract.names), pl.col("registered_at"))


def _by_day(rows: pl.DataFrame, instant: pl.Expr) -> Days:
    parts = rows.with_columns(_day=instant.dt.date()).partition_by("_day", as_dict=True, include_key=False)
    return {day: part for (day,), part in parts.items()}, rows.clear()


sample = Sample(start=first_day, end=date(2014, 1, 1), demo_days=181, read=sent_on)
