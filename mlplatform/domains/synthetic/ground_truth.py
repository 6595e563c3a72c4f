"""How the orders come about: every coefficient of the world that the models try to learn.

The minutes from order to door are linear in what is known, plus logistic noise; an order is late when they pass
`late_after_minutes`. So the chance of being late is exactly logistic, with the same coefficients over `noise_minutes`.
Each day has its own random numbers, drawn from the seed and the day alone: a day looks the same whatever is made
before it. Not one of these numbers is seen by a feature.
"""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import exp, log

import polars as pl

from mlplatform.domain.source import Sample

first_day, last_day = date(2024, 1, 1), date(2024, 1, 24)

late_after_minutes = 60
longest_minutes = 360
"""No order is under way longer; so every label is known six hours after the request."""

usual_minutes = 22.0
minutes_per_km = 4.0
minutes_at_the_peak = 8.0
peak_hours = (17, 18, 19)
"""Hours (UTC) of the order in which the streets are full."""

noise_minutes = 7.0
"""Scale of the logistic noise."""

couriers = {"c1": -14.0, "c2": -9.0, "c3": -4.0, "c4": 0.0, "c5": 3.0, "c6": 7.0, "c7": 11.0, "c8": 16.0}
"""Minutes that each courier needs more than the usual one."""

districts = {"harbour": 5.0, "hill": 9.0, "north": -4.0, "old town": 2.0, "south": -6.0}


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What may be made wrong with the world, or with what the shop reports of it."""

    distance_factor: float = 1.0
    """Drift of the inputs: orders come from this many times farther away, and take accordingly longer."""

    couriers_turned: bool = False
    """Drift of the truth: the slow couriers are the fast ones, and the other way round."""

    metres: bool = False
    """Fault of the source: distances in metres in a column of kilometres."""

    null_districts: float = 0.0
    """Fault of the source: share of orders without a district."""


as_usual = Switches()


def expected_minutes(
    courier: str, district: str, distance_km: float, hour: int, switches: Switches = as_usual
) -> float:
    """Minutes from order to door, without the noise."""
    courier_minutes = -couriers[courier] if switches.couriers_turned else couriers[courier]
    peak = minutes_at_the_peak if hour in peak_hours else 0.0
    return usual_minutes + minutes_per_km * distance_km + courier_minutes + districts[district] + peak


def late_probability(minutes: float) -> float:
    """Chance that an order with so many expected minutes is late: the best that any model can say."""
    return 1.0 / (1.0 + exp((late_after_minutes - minutes) / noise_minutes))


def rows(day: date, seed: int = 7, rows_per_day: int = 200, switches: Switches = as_usual) -> pl.DataFrame:
    """What the shop sends for a day: the orders that reached their door on it (UTC), in the order of the doors."""
    chance = random.Random(f"{seed} {day.isoformat()}")
    midnight = datetime.combine(day, time(), UTC)
    sent = [_order(chance, midnight, number, switches) for number in range(rows_per_day)]
    frame = pl.DataFrame(sent, schema=_schema, orient="row")
    return frame.sort("delivered_at", "order_id")


_schema = {
    "order_id": pl.Int64(),
    "courier": pl.String(),
    "district": pl.String(),
    "distance_km": pl.Float64(),
    "items": pl.Int16(),
    "ordered_at": pl.Datetime("us", "UTC"),
    "delivered_at": pl.Datetime("us", "UTC"),
}


def _order(chance: random.Random, midnight: datetime, number: int, switches: Switches) -> tuple[object, ...]:
    courier, district = chance.choice(list(couriers)), chance.choice(list(districts))
    distance = round(chance.uniform(0.5, 9.0) * switches.distance_factor, 1)
    items, hour, share = chance.randint(1, 6), chance.randrange(24), chance.uniform(0.001, 0.999)
    noise = noise_minutes * log(share / (1.0 - share))
    minutes = round(expected_minutes(courier, district, distance, hour, switches) + noise)
    minutes = min(max(minutes, 5), longest_minutes)
    ordered = midnight + timedelta(hours=hour, minutes=chance.randrange(60))
    delivered = ordered + timedelta(minutes=minutes)
    # Whoever reaches the door after midnight is taken back by a day, so that the file of a day needs no other day.
    if delivered >= midnight + timedelta(days=1):
        ordered, delivered = ordered - timedelta(days=1), delivered - timedelta(days=1)
    told_district = None if chance.random() < switches.null_districts else district
    told_distance = distance * 1000 if switches.metres else distance
    order_id = midnight.date().toordinal() * 1_000_000 + number
    return order_id, courier, told_district, told_distance, items, ordered, delivered


def sent_on(_source: str, day: date) -> pl.DataFrame:
    """What the one source sends for a day of the sample."""
    return rows(day)


sample = Sample(start=first_day, end=last_day, demo_days=20, read=sent_on)
