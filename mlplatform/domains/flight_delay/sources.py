"""Where the facts come from: the flight feed, the weather reports, the aircraft register, each with its contract.

Every feed sends one file a day. A flight is in the file of the day (UTC) on which its outcome became known, a weather
report in that of its stamp, an aircraft in that of its registration (the whole register on the first day).
"""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from mlplatform.domain.column import Column, Contract, Freshness, RowRule
from mlplatform.domain.source import Derived, Source

from .zones import zones

instant = pl.Datetime("us", "UTC")
origins = ("EWR", "JFK", "LGA")

late_after_minutes = 15
"""A landing more than this many minutes after the schedule is late: the definition of the US Department of
Transportation, and that of the published figures for this data set."""

report_delay = timedelta(minutes=15)
"""From the stamp of a weather report until it can be read. Assumed: the data set does not say."""


def _departure_in_its_hour() -> pl.Expr:
    return pl.col("sched_dep_time") // 100 == pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.hour()


def _landed_or_not() -> pl.Expr:
    return pl.col("arr_delay").is_null() | pl.col("dep_delay").is_not_null()


flight_contract = Contract(
    columns=(
        Column(name="year", dtype=pl.Int16(), meaning="Local year of the schedule", minimum=2013, maximum=2100),
        Column(name="month", dtype=pl.Int8(), meaning="Local month of the schedule", minimum=1, maximum=12),
        Column(name="day", dtype=pl.Int8(), meaning="Local day of the schedule", minimum=1, maximum=31),
        Column(name="carrier", dtype=pl.String(), meaning="IATA code of the carrier", pattern="[A-Z0-9]{2}"),
        Column(name="flight", dtype=pl.Int16(), meaning="Flight number", minimum=1),
        Column(
            name="tailnum", dtype=pl.String(), meaning="Registration of the aircraft", nullable=True, max_null_share=0.2
        ),
        Column(name="origin", dtype=pl.String(), meaning="Airport of departure", allowed=origins),
        Column(name="dest", dtype=pl.String(), meaning="Airport of arrival", pattern="[A-Z]{3}"),
        Column(
            name="sched_dep_time",
            dtype=pl.Int16(),
            unit="HHMM, local",
            meaning="Scheduled departure",
            minimum=0,
            maximum=2359,
        ),
        Column(
            name="sched_arr_time",
            dtype=pl.Int16(),
            unit="HHMM, local",
            meaning="Scheduled arrival",
            minimum=0,
            maximum=2400,
        ),
        Column(
            name="dep_delay",
            dtype=pl.Int16(),
            unit="minutes",
            meaning="Late out of the gate; null: never left",
            nullable=True,
            minimum=-120,
            maximum=3000,
        ),
        Column(
            name="arr_delay",
            dtype=pl.Int16(),
            unit="minutes",
            meaning="Late at the gate; null: cancelled or diverted",
            nullable=True,
            minimum=-200,
            maximum=3000,
        ),
        Column(
            name="distance", dtype=pl.Int16(), unit="miles", meaning="Distance of the route", minimum=1, maximum=12000
        ),
        Column(name="time_hour", dtype=instant, unit="UTC", meaning="Hour of the scheduled departure"),
        Column(name="recorded_at", dtype=instant, unit="UTC", meaning="When the outcome was recorded"),
    ),
    unique=("year", "month", "day", "carrier", "flight", "origin"),
    rules=(
        RowRule(
            name="departure within its hour",
            holds=_departure_in_its_hour,
            meaning="`sched_dep_time` is in the hour that `time_hour` names",
        ),
        RowRule(name="no landing without a departure", holds=_landed_or_not, meaning="A flight that landed had left"),
    ),
    min_rows=100,
    max_rows=5_000,
    # In the recorded year the last outcome of a day came at most 7 minutes before its end.
    freshness=Freshness(column="recorded_at", within=timedelta(hours=2), ahead=timedelta(0)),
)

weather_contract = Contract(
    columns=(
        Column(name="origin", dtype=pl.String(), meaning="Airport of the station", allowed=origins),
        Column(name="time_hour", dtype=instant, unit="UTC", meaning="Hour of the report"),
        Column(
            name="temp", dtype=pl.Float64(), unit="°F", meaning="Temperature", nullable=True, minimum=-60, maximum=130
        ),
        Column(
            name="dewp", dtype=pl.Float64(), unit="°F", meaning="Dew point", nullable=True, minimum=-60, maximum=100
        ),
        Column(
            name="humid",
            dtype=pl.Float64(),
            unit="%",
            meaning="Relative humidity",
            nullable=True,
            minimum=0,
            maximum=100,
        ),
        Column(
            name="wind_dir",
            dtype=pl.Int16(),
            unit="degrees",
            meaning="Direction of the wind",
            nullable=True,
            minimum=0,
            maximum=360,
        ),
        # The strongest gust ever measured at the surface was 253 mph; a mean over the hour above 150 is a broken
        # sensor.
        Column(
            name="wind_speed",
            dtype=pl.Float64(),
            unit="mph",
            meaning="Wind speed",
            nullable=True,
            minimum=0,
            maximum=150,
        ),
        Column(
            name="wind_gust",
            dtype=pl.Float64(),
            unit="mph",
            meaning="Gust speed; mostly not reported",
            nullable=True,
            minimum=0,
            maximum=200,
            severity="warning",
        ),
        Column(
            name="precip",
            dtype=pl.Float64(),
            unit="inches",
            meaning="Precipitation in the hour",
            nullable=True,
            minimum=0,
            maximum=15,
        ),
        Column(
            name="pressure",
            dtype=pl.Float64(),
            unit="millibars",
            meaning="Sea-level pressure",
            nullable=True,
            minimum=850,
            maximum=1100,
        ),
        Column(
            name="visib", dtype=pl.Float64(), unit="miles", meaning="Visibility", nullable=True, minimum=0, maximum=10
        ),
    ),
    unique=("origin", "time_hour"),
    max_rows=3 * 24 * 2,
    # The last report of a day is an hour before its end; on one day of the recorded year there is none at all, and the
    # flights of that day are scored without weather.
    freshness=Freshness(column="time_hour", within=timedelta(hours=3), ahead=timedelta(0), severity="warning"),
    max_refused_share=0.2,
)

plane_contract = Contract(
    columns=(
        Column(name="tailnum", dtype=pl.String(), meaning="Registration of the aircraft", pattern="N[0-9A-Z]{1,5}"),
        Column(name="year", dtype=pl.Int16(), meaning="Year of manufacture", nullable=True, minimum=1930, maximum=2100),
        Column(name="manufacturer", dtype=pl.String(), meaning="Manufacturer as registered", nullable=True),
        Column(name="engines", dtype=pl.Int8(), meaning="Number of engines", minimum=1, maximum=8),
        Column(name="seats", dtype=pl.Int16(), meaning="Number of seats", minimum=1, maximum=900),
        Column(name="registered_at", dtype=instant, unit="UTC", meaning="When the register's entry was made"),
    ),
    unique=("tailnum", "registered_at"),
)


def flight_facts(flights: pl.DataFrame) -> pl.DataFrame:
    """Flights with real instants instead of bare local clock times.

    The scheduled arrival is a wall-clock time at the destination. It is read there, on the local day of the departure
    or the next, whichever comes after the departure. In the hour that the autumn clock change repeats the earlier
    instant is taken; an hour that the spring change skips gives a null, and so does an airport of unknown zone: a time
    that does not exist is not guessed.
    """
    departure = pl.col("time_hour").dt.offset_by(pl.format("{}m", pl.col("sched_dep_time") % 100))
    zone = pl.col("dest").replace_strict(zones, default=None, return_dtype=pl.String)
    typed = flights.with_columns(scheduled_departure=departure, _zone=zone)
    parts = [
        _with_arrival(part, str(key[0]) if key[0] else None)
        for key, part in typed.partition_by("_zone", as_dict=True).items()
    ]
    facts = pl.concat(parts) if parts else _with_arrival(typed, None)
    return facts.select(
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "distance",
        "scheduled_departure",
        "scheduled_arrival",
        pl.col("dep_delay").cast(pl.Int32).alias("departure_delay"),
        pl.col("arr_delay").cast(pl.Int32).alias("arrival_delay"),
        pl.col("recorded_at").alias("event_time"),
    )


def _with_arrival(flights: pl.DataFrame, zone: str | None) -> pl.DataFrame:
    if zone is None:
        return flights.with_columns(scheduled_arrival=pl.lit(None, dtype=instant))
    local = pl.col("scheduled_departure").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    clock = pl.duration(hours=pl.col("sched_arr_time") // 100, minutes=pl.col("sched_arr_time") % 100)

    def on(day: pl.Expr) -> pl.Expr:
        wall = (day + clock).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        return wall.dt.convert_time_zone("UTC").cast(instant)

    today = local.dt.truncate("1d")
    same_day, next_day = on(today), on(today + timedelta(days=1))
    # Where the spring change skips it there is no instant to compare, and the clock on the wall decides.
    is_same_day = pl.coalesce(same_day > pl.col("scheduled_departure"), today + clock > local)
    return flights.with_columns(scheduled_arrival=pl.when(is_same_day).then(same_day).otherwise(next_day))


def weather_facts(reports: pl.DataFrame) -> pl.DataFrame:
    """Reports as they could be read: a quarter of an hour after their stamp. What was not measured stays null."""
    return reports.select(
        "origin",
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "precip",
        "pressure",
        "visib",
        event_time=pl.col("time_hour") + report_delay,
    )


def plane_facts(entries: pl.DataFrame) -> pl.DataFrame:
    """Entries of the register. A year of manufacture that the register does not know stays null."""
    return entries.select(
        "tailnum",
        pl.col("year").cast(pl.Int32).alias("year"),
        "manufacturer",
        pl.col("engines").cast(pl.Int32),
        pl.col("seats").cast(pl.Int32),
        event_time=pl.col("registered_at"),
    )


def flight_outcomes(base: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """What became of each flight, in the words of the models: landed late or not, cancelled, diverted."""
    return base["flights"].with_columns(
        late=pl.col("arrival_delay") > late_after_minutes,
        cancelled=pl.col("departure_delay").is_null() & pl.col("arrival_delay").is_null(),
        diverted=pl.col("departure_delay").is_not_null() & pl.col("arrival_delay").is_null(),
    )


_flight_columns = (
    Column(name="carrier", dtype=pl.String(), meaning="IATA code of the carrier"),
    Column(name="flight", dtype=pl.Int16(), meaning="Flight number"),
    Column(name="tailnum", dtype=pl.String(), meaning="Registration of the aircraft", nullable=True),
    Column(name="origin", dtype=pl.String(), meaning="Airport of departure"),
    Column(name="dest", dtype=pl.String(), meaning="Airport of arrival"),
    Column(name="distance", dtype=pl.Int16(), unit="miles", meaning="Distance of the route"),
    Column(name="scheduled_departure", dtype=instant, unit="UTC", meaning="Scheduled departure"),
    Column(name="scheduled_arrival", dtype=instant, unit="UTC", meaning="Scheduled arrival", nullable=True),
    Column(name="departure_delay", dtype=pl.Int32(), unit="minutes", meaning="Late out of the gate", nullable=True),
    Column(name="arrival_delay", dtype=pl.Int32(), unit="minutes", meaning="Late at the gate", nullable=True),
)

flights = Source(
    name="flights",
    meaning="Outcomes of departures from New York, as they become known",
    contract=flight_contract,
    base=flight_facts,
    base_columns=_flight_columns,
)

weather = Source(
    name="weather",
    meaning="Hourly weather reports of the three airports",
    contract=weather_contract,
    base=weather_facts,
    base_columns=(
        Column(name="origin", dtype=pl.String(), meaning="Airport of the station"),
        Column(name="temp", dtype=pl.Float64(), unit="°F", meaning="Temperature", nullable=True),
        Column(name="dewp", dtype=pl.Float64(), unit="°F", meaning="Dew point", nullable=True),
        Column(name="humid", dtype=pl.Float64(), unit="%", meaning="Relative humidity", nullable=True),
        Column(name="wind_dir", dtype=pl.Int16(), unit="degrees", meaning="Direction of the wind", nullable=True),
        Column(name="wind_speed", dtype=pl.Float64(), unit="mph", meaning="Wind speed", nullable=True),
        Column(name="precip", dtype=pl.Float64(), unit="inches", meaning="Precipitation in the hour", nullable=True),
        Column(name="pressure", dtype=pl.Float64(), unit="millibars", meaning="Sea-level pressure", nullable=True),
        Column(name="visib", dtype=pl.Float64(), unit="miles", meaning="Visibility", nullable=True),
    ),
)

planes = Source(
    name="planes",
    meaning="Changes of the aircraft register; most days have none",
    contract=plane_contract,
    base=plane_facts,
    base_columns=(
        Column(name="tailnum", dtype=pl.String(), meaning="Registration of the aircraft"),
        Column(name="year", dtype=pl.Int32(), meaning="Year of manufacture", nullable=True),
        Column(name="manufacturer", dtype=pl.String(), meaning="Manufacturer as registered", nullable=True),
        Column(name="engines", dtype=pl.Int32(), meaning="Number of engines"),
        Column(name="seats", dtype=pl.Int32(), meaning="Number of seats"),
    ),
)

outcomes = Derived(
    name="outcomes",
    meaning="What became of each flight",
    inputs=("flights",),
    function=flight_outcomes,
    columns=(
        *_flight_columns,
        Column(
            name="late",
            dtype=pl.Boolean(),
            meaning="Landed more than 15 minutes late; null: did not land there",
            nullable=True,
        ),
        Column(name="cancelled", dtype=pl.Boolean(), meaning="Never left"),
        Column(name="diverted", dtype=pl.Boolean(), meaning="Left, and landed elsewhere"),
    ),
)
