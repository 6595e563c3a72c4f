"""How the orders come about: every coefficient of the world that the models try to learn.

The minutes from order to door are linear in what is known, plus logistic noise; an order is late when they pass
`late_after_minutes`. So the chance of being late is exactly logistic, with the same coefficients over `noise_minutes`.
The courier reports the delivery up to `longest_report_minutes` later, whatever became of it: only then is the label
known. Each order has its own random numbers, drawn from the seed, the day and its number alone: a day looks the same
whatever is made before it, and its first orders look the same however many follow. Not one of these numbers is seen by
a feature.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import exp

import polars as pl

from mlplatform.domain.source import Sample

from .splitmix import uniform

first_day, last_day = date(2024, 1, 1), date(2024, 1, 24)

late_after_minutes = 60
longest_minutes = 300
"""No order is under way longer, whatever the coefficients say."""

longest_report_minutes = 60
"""From the door to the report: 1 to so many minutes, each as likely; but before midnight, when the couriers go home. So
every label is known six hours after the request: `longest_minutes` and this."""

usual_minutes = 22.0
minutes_per_km = 4.0
minutes_at_the_peak = 8.0
peak_hours = (17, 18, 19)
"""Hours (UTC) of the order in which the streets are full."""

noise_minutes = 7.0
"""Scale of the logistic noise."""

couriers = {"c1": -14.0, "c2": -9.0, "c3": -4.0, "c4": 0.0, "c5": 3.0, "c6": 7.0, "c7": 11.0, "c8": 16.0}
"""Minutes that each courier needs more than the usual one. Where there are more than these eight, the ninth is as quick
as the first, and so on."""

districts = {"harbour": 5.0, "hill": 9.0, "north": -4.0, "old town": 2.0, "south": -6.0}
"""Minutes that the way to each district takes longer than the usual one."""

latest_days = 3
"""An order that is sent late is sent in the file of one of so many days after its own."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What may be made wrong with the world, or with what the shop reports of it."""

    distance_factor: float = 1.0
    """Drift of the inputs: orders come from this many times farther away, and take accordingly longer."""

    couriers_turned: bool = False
    """Drift of the truth: the slow couriers are the fast ones, and the other way round."""

    leak: bool = False
    """Fault of the source: `items` is written again at the door and holds the outcome: 20 for a late order, else 1."""

    metres: bool = False
    """Fault of the source: distances in metres in a column of kilometres."""

    null_districts: float = 0.0
    """Fault of the source: share of orders without a district."""

    duplicates: float = 0.0
    """Fault of the source: share of orders that stand in their file twice."""

    sent_again: float = 0.0
    """Fault of the source: share of orders that are sent a second time in the file of the next day."""

    sent_late: float = 0.0
    """Fault of the source: share of orders that are not in the file of the day on which they were reported, but in that
    of one of the `latest_days` after it."""


as_usual = Switches()

_schema = {
    "order_id": pl.Int64(),
    "courier": pl.String(),
    "district": pl.String(),
    "distance_km": pl.Float64(),
    "items": pl.Int16(),
    "ordered_at": pl.Datetime("us", "UTC"),
    "delivered_at": pl.Datetime("us", "UTC"),
    "reported_at": pl.Datetime("us", "UTC"),
}


def expected_minutes(
    courier: str, district: str, distance_km: float, hour: int, switches: Switches = as_usual
) -> float:
    """Minutes from order to door, without the noise."""
    order = pl.DataFrame({"courier": [courier], "district": [district], "distance_km": [distance_km]})
    minutes: float = order.select(expected(pl.lit(hour), switches)).item()
    return minutes


def expected(hour: pl.Expr, switches: Switches = as_usual) -> pl.Expr:
    """The same for each row of a frame of orders as they are, before any fault of the source."""
    number = (pl.col("courier").str.slice(1).cast(pl.Int64) - 1) % len(couriers)
    of_courier = number.replace_strict(dict(enumerate(couriers.values())), return_dtype=pl.Float64)
    of_district = pl.col("district").replace_strict(districts, return_dtype=pl.Float64)
    return (
        usual_minutes
        + minutes_per_km * pl.col("distance_km")
        + (-of_courier if switches.couriers_turned else of_courier)
        + of_district
        + pl.when(hour.is_in(peak_hours)).then(minutes_at_the_peak).otherwise(0.0)
    )


def late_probability(minutes: float) -> float:
    """Chance that an order with so many expected minutes is late: the best that any model can say."""
    return 1.0 / (1.0 + exp((late_after_minutes - minutes) / noise_minutes))


def rows(
    day: date,
    seed: int = 7,
    rows_per_day: int = 200,
    switches: Switches = as_usual,
    *,
    courier_count: int = len(couriers),
) -> pl.DataFrame:
    """What the shop sends for a day: the orders that were reported on it (UTC), in the order of the reports.

    Parameters
    ----------
    rows_per_day : orders that are reported on a day; what the switches repeat or hold back changes the number that is
        sent
    courier_count : how many couriers there are, `c1`, `c2` and so on: the keys of the courier's features
    """
    own = _orders(day, seed, rows_per_day, switches, courier_count)
    sent = [own.filter(pl.col("days_late") == 0), own.filter("duplicate", pl.col("days_late") == 0)]
    if switches.sent_late or switches.sent_again:
        for back in range(1, latest_days + 1):
            earlier = _orders(day - timedelta(days=back), seed, rows_per_day, switches, courier_count)
            sent.append(earlier.filter(pl.col("days_late") == back))
            if back == 1:
                sent.append(earlier.filter("again", pl.col("days_late") == 0))
    return pl.concat(sent).select(list(_schema)).sort("reported_at", "order_id")


def _orders(day: date, seed: int, count: int, switches: Switches, courier_count: int) -> pl.DataFrame:
    """The orders reported on a day as the source tells them, and when it sends them."""
    number = pl.col("number")

    def chance(of: str) -> pl.Expr:
        return uniform(f"{seed} {day.isoformat()} {of}", number)

    def one_of(of: str, choices: int) -> pl.Expr:
        return (chance(of) * choices).floor().cast(pl.Int64)

    midnight = datetime.combine(day, time(), UTC)
    share = 0.001 + 0.998 * chance("noise")
    hour = one_of("hour", 24)
    made = pl.select(number=pl.int_range(count)).with_columns(
        order_id=day.toordinal() * 1_000_000_000 + number,
        courier=pl.lit("c") + (one_of("courier", courier_count) + 1).cast(pl.String),
        district=one_of("district", len(districts)).replace_strict(dict(enumerate(districts)), return_dtype=pl.String),
        distance_km=((0.5 + 8.5 * chance("distance")) * switches.distance_factor).round(1),
        items=(one_of("items", 6) + 1).cast(pl.Int16),
        noise=noise_minutes * (share / (1.0 - share)).log(),
        hour=hour,
        ordered_at=pl.lit(midnight, dtype=_schema["ordered_at"])
        + pl.duration(minutes=hour * 60 + one_of("minute", 60)),
    )
    # Rounded up: then more than 60 minutes are told exactly where the noise made them more than 60.
    took = (expected(pl.col("hour"), switches) + pl.col("noise")).ceil().cast(pl.Int64).clip(5, longest_minutes)
    made = made.with_columns(took=took).with_columns(delivered_at=pl.col("ordered_at") + pl.duration(minutes="took"))
    # Whoever reaches the door after midnight is taken back by a day, so that the file of a day needs no other day.
    next_midnight = midnight + timedelta(days=1)
    back = pl.duration(days=(pl.col("delivered_at") >= next_midnight).cast(pl.Int64))
    made = made.with_columns(pl.col("ordered_at", "delivered_at") - back)
    reported = pl.col("delivered_at") + pl.duration(minutes=one_of("report", longest_report_minutes) + 1)
    made = made.with_columns(reported_at=reported.clip(upper_bound=next_midnight - timedelta(seconds=1)))
    return made.with_columns(
        _faults(switches, chance("null")),
        duplicate=chance("duplicate") < switches.duplicates,
        again=chance("again") < switches.sent_again,
        days_late=pl.when(chance("late") < switches.sent_late).then(one_of("days late", latest_days) + 1).otherwise(0),
    )


def _faults(switches: Switches, chance: pl.Expr) -> list[pl.Expr]:
    """What the source gets wrong in the columns of an order."""
    told = []
    if switches.leak:
        leaked = pl.when(pl.col("took") > late_after_minutes).then(20).otherwise(1)
        told.append(leaked.cast(pl.Int16).alias("items"))
    if switches.metres:
        told.append(pl.col("distance_km") * 1000)
    if switches.null_districts:
        told.append(pl.when(chance >= switches.null_districts).then("district"))
    return told


def sent_on(_source: str, day: date) -> pl.DataFrame:
    """What the one source sends for a day of the sample."""
    return rows(day)


sample = Sample(start=first_day, end=last_day, demo_days=20, read=sent_on)
