"""The feature functions of the flight-delay domain: one pure function per view, run as they are offline and online.

A view is computed *as of* an instant `at`: it is given facts with `event_time < at` and nothing else, so it cannot
look ahead. Values are exact whatever the order of the rows: everything is summed in integers (minutes, hundredths of
an inch, tenths of a mile) and divided once at the end.

It holds no learned value: category codes and means are fitted values, saved with the model.
"""

from datetime import datetime, timedelta

import polars as pl

WINDOW_DAYS = (1, 7, 28)
"""Lengths of the trailing windows, days, rising. The longest is the look-back a caller must supply."""

DELAY_FLOOR_MINUTES, DELAY_CEILING_MINUTES = -30, 180
"""Delays are clipped to this range before they are averaged: one flight a day late must not outweigh fifty."""

DEPARTURE_ZONE = "America/New_York"
"""Time zone of all three origins (EWR, JFK, LGA)."""

MAKERS = {
    "AIRBUS": ("AIRBUS", "AIRBUS INDUSTRIE"),
    "BOEING": ("BOEING",),
    "BOMBARDIER": ("BOMBARDIER INC", "CANADAIR", "CANADAIR LTD"),
    "EMBRAER": ("EMBRAER",),
    "MCDONNELL DOUGLAS": (
        "MCDONNELL DOUGLAS",
        "MCDONNELL DOUGLAS AIRCRAFT CO",
        "MCDONNELL DOUGLAS CORPORATION",
        "DOUGLAS",
    ),
}
"""Registry spellings of the five makers that fly nearly everything; the other spellings become `OTHER`."""


def carrier_windows(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Recent punctuality of each carrier.

    Parameters
    ----------
    facts : DataFrame, one row per flight whose outcome is known
        `event_time` (Datetime('us', 'UTC'), all `< at` and `>= at - 28 d`), the key column, `late` (Boolean, null when
        the flight did not land at its destination), `arrival_delay` (Int32, minutes, null with it), `cancelled`
        (Boolean).
    at : datetime, with time zone
        The instant the windows end; not part of them.

    Returns
    -------
    DataFrame, one row per key seen in the 28 days, sorted by key
        `carrier` and, for each window of 1, 7 and 28 days:

        * `carrier_flights_{n}d` : Int32, flights, 0 or more: outcomes of any kind;
        * `carrier_late_share_{n}d` : Float32, 0 to 1: landed more than 15 minutes late, of those landed;
        * `carrier_mean_arrival_delay_{n}d` : Float32, minutes, -30 to 180: mean of the clipped delays of those landed;
        * `carrier_cancelled_share_{n}d` : Float32, 0 to 1: cancelled, of all.

        A window with nothing to divide by gives a null share or mean and a count of 0.

    Examples
    --------
    >>> from datetime import UTC
    >>> at = datetime(2013, 3, 2, tzinfo=UTC)
    >>> facts = pl.DataFrame(
    ...     {
    ...         "carrier": ["UA", "UA", "DL"],
    ...         "event_time": [at - timedelta(hours=3), at - timedelta(days=5), at - timedelta(days=9)],
    ...         "late": [True, False, None],
    ...         "arrival_delay": [40, -10, None],
    ...         "cancelled": [False, False, True],
    ...     }
    ... )
    >>> windows = carrier_windows(facts, at)
    >>> windows.select("carrier", "carrier_flights_1d", "carrier_flights_28d", "carrier_late_share_7d").rows()
    [('DL', 0, 1, None), ('UA', 1, 2, 0.5)]
    >>> windows["carrier_mean_arrival_delay_7d"].to_list()
    [None, 15.0]
    """
    return _trailing_windows(facts, at, "carrier", prefix="carrier")


def route_windows(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Recent punctuality of each route: key `origin`, `dest`, columns `route_…` as in `carrier_windows`."""
    return _trailing_windows(facts, at, "origin", "dest", prefix="route")


def origin_windows(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Recent punctuality out of each origin: key `origin`, columns `origin_…` as in `carrier_windows`."""
    return _trailing_windows(facts, at, "origin", prefix="origin")


def destination_windows(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Recent punctuality into each destination: key `dest`, columns `destination_…` as in `carrier_windows`."""
    return _trailing_windows(facts, at, "dest", prefix="destination")


def tail_number_windows(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Recent punctuality of each aircraft: key `tailnum`, columns `aircraft_…` as in `carrier_windows`.

    Facts without a tail number (a cancelled flight often has none) belong to no aircraft and are left out.
    """
    return _trailing_windows(facts, at, "tailnum", prefix="aircraft")


def _trailing_windows(facts: pl.DataFrame, at: datetime, *keys: str, prefix: str) -> pl.DataFrame:
    """Integer sums per key and ring of days, then per key and window, then one division each.

    The rings (the last day, days 2 to 7, days 8 to 28) part the look-back, so that each fact is summed once and only
    the few ring sums are summed per window: half the time of summing every fact per window.
    """
    amounts = {
        "flights": pl.lit(1, pl.Int32),
        "landed": pl.col("late").is_not_null().cast(pl.Int32),
        "late": pl.col("late").cast(pl.Int32),
        "delay_minutes": pl.col("arrival_delay").cast(pl.Int32).clip(DELAY_FLOOR_MINUTES, DELAY_CEILING_MINUTES),
        "cancelled": pl.col("cancelled").cast(pl.Int32),
    }
    rings = (
        facts.lazy()
        .filter(pl.all_horizontal(pl.col(*keys).is_not_null()), _within(at, WINDOW_DAYS[-1]))
        .select(*keys, _ring(at), *(amount.alias(name) for name, amount in amounts.items()))
        .group_by(*keys, "ring")
        .agg(pl.exclude(*keys, "ring").sum())
    )
    windows = rings.select(
        *keys,
        *(
            (pl.col(name) * (pl.col("ring") <= ring)).alias(f"{name}_{days}d")
            for ring, days in enumerate(WINDOW_DAYS)
            for name in amounts
        ),
    )
    return (
        windows.group_by(keys)
        .agg(pl.exclude(keys).sum())
        .select(*keys, *(column for days in WINDOW_DAYS for column in _window_columns(prefix, days)))
        .sort(keys)
        # The plan is as good as written; looking for a better one costs more than it saves on so few rows.
        .collect(optimizations=pl.QueryOptFlags.none())
    )


def _ring(at: datetime) -> pl.Expr:
    """Place in `WINDOW_DAYS` of the shortest window that holds the fact."""
    beyond = [(pl.col("event_time") < at - timedelta(days=days)).cast(pl.Int32) for days in WINDOW_DAYS[:-1]]
    return pl.sum_horizontal(beyond).alias("ring")


def _within(at: datetime, days: int) -> pl.Expr:
    return (pl.col("event_time") >= at - timedelta(days=days)) & (pl.col("event_time") < at)


def _window_columns(prefix: str, days: int) -> list[pl.Expr]:
    return [
        pl.col(f"flights_{days}d").cast(pl.Int32).alias(f"{prefix}_flights_{days}d"),
        _ratio(f"late_{days}d", f"landed_{days}d").alias(f"{prefix}_late_share_{days}d"),
        _ratio(f"delay_minutes_{days}d", f"landed_{days}d").alias(f"{prefix}_mean_arrival_delay_{days}d"),
        _ratio(f"cancelled_{days}d", f"flights_{days}d").alias(f"{prefix}_cancelled_share_{days}d"),
    ]


def _ratio(part: str, whole: str) -> pl.Expr:
    """The one division, in Float64, then rounded to Float32; null where the whole is 0."""
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole)).cast(pl.Float32)


def weather_last(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The last weather report of each origin and its last 24 hours.

    Parameters
    ----------
    facts : DataFrame, one row per report
        `origin`, `event_time` (Datetime('us', 'UTC'): the instant the report is known), `temp` (°F), `wind_speed`
        (mph), `precip` (inches in the hour), `pressure` (millibars), `visib` (miles), all Float64 and nullable.
    at : datetime, with time zone
        The instant asked about; reports at or after it, or 24 hours and more before it, are not looked at.

    Returns
    -------
    DataFrame, one row per origin with a report in the 24 hours, sorted by `origin`
        * `weather_temperature` : Float32, °F, -60 to 130: last report;
        * `weather_wind_speed` : Float32, mph, 0 to 150: last report;
        * `weather_pressure` : Float32, millibars, 900 to 1,100: last report that had one;
        * `weather_visibility` : Float32, miles, 0 to 10: last report;
        * `weather_precipitation_24h` : Float32, inches, 0 or more: sum over the 24 hours;
        * `weather_wind_speed_maximum_24h` : Float32, mph, 0 to 150;
        * `weather_visibility_minimum_24h` : Float32, miles, 0 to 10.

        A value that was not measured is null.

    Examples
    --------
    >>> from datetime import UTC
    >>> at = datetime(2013, 3, 2, tzinfo=UTC)
    >>> reports = pl.DataFrame(
    ...     {
    ...         "origin": ["JFK", "JFK"],
    ...         "event_time": [at - timedelta(hours=1), at - timedelta(hours=2)],
    ...         "temp": [39.0, 41.0],
    ...         "wind_speed": [None, 23.0],
    ...         "precip": [0.1, 0.2],
    ...         "pressure": [None, 1012.5],
    ...         "visib": [9.0, 2.5],
    ...     }
    ... )
    >>> weather_last(reports, at).select(pl.exclude("origin").cast(pl.Float64).round(1)).row(0)
    (39.0, None, 1012.5, 9.0, 0.3, 23.0, 2.5)
    """
    last = {"temp": "weather_temperature", "wind_speed": "weather_wind_speed", "visib": "weather_visibility"}
    newest = pl.col("event_time").arg_max()
    return (
        facts.lazy()
        .filter(_within(at, 1))
        .sort("event_time")
        .group_by("origin")
        .agg(
            *(pl.col(name).get(newest).cast(pl.Float32).alias(feature) for name, feature in last.items()),
            pl.col("pressure").drop_nulls().last().cast(pl.Float32).alias("weather_pressure"),
            # In hundredths of an inch, as measured: a sum of floats would depend on the order of the reports.
            pl.when(pl.col("precip").is_not_null().any())
            .then((pl.col("precip") * 100).round().cast(pl.Int64).sum() / 100)
            .cast(pl.Float32)
            .alias("weather_precipitation_24h"),
            pl.col("wind_speed").max().cast(pl.Float32).alias("weather_wind_speed_maximum_24h"),
            pl.col("visib").min().cast(pl.Float32).alias("weather_visibility_minimum_24h"),
        )
        .select(
            "origin",
            "weather_temperature",
            "weather_wind_speed",
            "weather_pressure",
            "weather_visibility",
            "weather_precipitation_24h",
            "weather_wind_speed_maximum_24h",
            "weather_visibility_minimum_24h",
        )
        .sort("origin")
        .collect()
    )


def aircraft(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """What the registry says of each aircraft.

    Parameters
    ----------
    facts : DataFrame, one row per registry entry
        `tailnum`, `event_time` (Datetime('us', 'UTC')), `year`, `seats`, `engines` (integers, nullable),
        `manufacturer` (String, nullable).
    at : datetime, with time zone
        The instant asked about; of several earlier entries the newest counts.

    Returns
    -------
    DataFrame, one row per tail number, sorted by `tailnum`
        * `aircraft_built` : Int32, year, 1950 to now, null when not registered;
        * `aircraft_seats` : Int32, seats, 1 to 900;
        * `aircraft_engines` : Int32, engines, 1 to 4;
        * `aircraft_maker` : String, one of `MAKERS` or `OTHER`, null when not registered.

    Examples
    --------
    >>> from datetime import UTC
    >>> at = datetime(2013, 3, 2, tzinfo=UTC)
    >>> entries = pl.DataFrame(
    ...     {
    ...         "tailnum": ["N1"],
    ...         "event_time": [datetime(2013, 1, 1, tzinfo=UTC)],
    ...         "year": [1998],
    ...         "seats": [182],
    ...         "engines": [2],
    ...         "manufacturer": ["AIRBUS INDUSTRIE"],
    ...     }
    ... )
    >>> aircraft(entries, at).rows()
    [('N1', 1998, 182, 2, 'AIRBUS')]
    """
    maker = {spelling: name for name, spellings in MAKERS.items() for spelling in spellings}
    return (
        facts.lazy()
        .filter(pl.col("event_time") < at, pl.col("tailnum").is_not_null())
        .sort("tailnum", "event_time")
        .unique("tailnum", keep="last", maintain_order=True)
        .select(
            "tailnum",
            pl.col("year").cast(pl.Int32).alias("aircraft_built"),
            pl.col("seats").cast(pl.Int32).alias("aircraft_seats"),
            pl.col("engines").cast(pl.Int32).alias("aircraft_engines"),
            pl.when(pl.col("manufacturer").is_not_null())
            .then(pl.col("manufacturer").replace_strict(maker, default="OTHER", return_dtype=pl.String))
            .alias("aircraft_maker"),
        )
        .collect()
    )


def local_departure(request: pl.DataFrame) -> pl.DataFrame:
    """When the flight leaves, by the clock on the wall of its origin.

    Parameters
    ----------
    request : DataFrame, one row per flight asked about
        `scheduled_departure` (Datetime('us', 'UTC')).

    Returns
    -------
    DataFrame, one row per row of `request`, in its order
        * `departure_minute_of_day` : Int32, minutes since local midnight, 0 to 1,439;
        * `departure_hour` : Int32, local hour, 0 to 23;
        * `departure_weekday` : Int32, 1 (Monday) to 7 (Sunday);
        * `departure_hour_of_week` : Int32, hours since Monday 0:00, 0 to 167.

    Examples
    --------
    >>> from datetime import UTC
    >>> summer = pl.DataFrame({"scheduled_departure": [datetime(2013, 7, 1, 1, 30, tzinfo=UTC)]})
    >>> local_departure(summer).row(0)
    (1290, 21, 7, 165)
    """
    local = pl.col("scheduled_departure").dt.convert_time_zone(DEPARTURE_ZONE)
    hour, weekday = local.dt.hour().cast(pl.Int32), local.dt.weekday().cast(pl.Int32)
    return request.select(
        (hour * 60 + local.dt.minute()).alias("departure_minute_of_day"),
        hour.alias("departure_hour"),
        weekday.alias("departure_weekday"),
        ((weekday - 1) * 24 + hour).alias("departure_hour_of_week"),
    )


def flight_plan(request: pl.DataFrame) -> pl.DataFrame:
    """How far the flight goes and how long the schedule gives it.

    Parameters
    ----------
    request : DataFrame, one row per flight asked about
        `scheduled_departure`, `scheduled_arrival` (Datetime('us', 'UTC')), `distance` (integer, miles, nullable).

    Returns
    -------
    DataFrame, one row per row of `request`, in its order
        * `distance_miles` : Int32, miles, 1 to 12,000;
        * `scheduled_minutes` : Int32, minutes from gate to gate, 1 to 1,200;
        * `scheduled_speed` : Float32, miles per hour of schedule: low where the schedule holds slack; null when the
          schedule gives no time at all.

    Examples
    --------
    >>> from datetime import UTC
    >>> request = pl.DataFrame(
    ...     {
    ...         "scheduled_departure": [datetime(2013, 7, 1, 12, tzinfo=UTC)],
    ...         "scheduled_arrival": [datetime(2013, 7, 1, 14, tzinfo=UTC)],
    ...         "distance": [760],
    ...     }
    ... )
    >>> flight_plan(request).row(0)
    (760, 120, 380.0)
    """
    minutes = (pl.col("scheduled_arrival") - pl.col("scheduled_departure")).dt.total_minutes()
    return request.select(
        pl.col("distance").cast(pl.Int32).alias("distance_miles"),
        minutes.cast(pl.Int32, strict=False).alias("scheduled_minutes"),
        pl.when(minutes > 0)
        .then(pl.col("distance").cast(pl.Int64) * 60 / minutes)
        .cast(pl.Float32)
        .alias("scheduled_speed"),
    )
