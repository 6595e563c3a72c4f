"""What is asked of the shop's orders, and one model of each task."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Requests
from mlplatform.domain.model import Gate, Label, ModelSpec, Objectives, Retraining, Segment, Split, XGBoostSettings
from mlplatform.domain.monitoring import BusinessMetric, Monitoring
from mlplatform.domain.threshold import Threshold

from .ground_truth import (
    districts,
    late_after_minutes,
    longest_minutes,
    longest_report_minutes,
    minutes_per_km,
    usual_minutes,
)
from .sources import instant

quick_minutes = 45


def asked(facts: pl.DataFrame) -> pl.DataFrame:
    """Each delivery as the request that was made when it was ordered."""
    return facts.select(
        "order_id", "courier", "district", "distance_km", "items", "ordered_at", at=pl.col("ordered_at")
    )


requests = Requests(
    columns=(
        Column(name="order_id", dtype=pl.Int64(), meaning="Number of the order", minimum=1),
        Column(name="courier", dtype=pl.String(), meaning="Who will carry it", pattern="c[0-9]+"),
        Column(name="district", dtype=pl.String(), meaning="Where it goes", allowed=tuple(districts)),
        Column(name="distance_km", dtype=pl.Float64(), unit="km", meaning="How far it is", minimum=0.1, maximum=50),
        Column(name="items", dtype=pl.Int16(), unit="items", meaning="How much it is", minimum=1, maximum=20),
        Column(name="ordered_at", dtype=instant, unit="UTC", meaning="When it was ordered"),
    ),
    facts="deliveries",
    of_facts=asked,
    identity=("order_id",),
    example={
        "order_id": 1,
        "courier": "c3",
        "district": "hill",
        "distance_km": 4.2,
        "items": 2,
        "ordered_at": "2024-01-25T12:30:00Z",
    },
)


def _is_late() -> pl.Expr:
    return pl.col("late").cast(pl.Float64)


def _minutes() -> pl.Expr:
    return pl.col("minutes").cast(pl.Float64)


def _speed() -> pl.Expr:
    minutes = pl.col("minutes")
    return (minutes > quick_minutes).cast(pl.Float64) + (minutes > late_after_minutes).cast(pl.Float64)


def guessed_minutes(request: Mapping[str, Any]) -> float | None:
    """The shop's rule of thumb: so long for the way, whoever goes; None without a distance."""
    distance = request.get("distance_km")
    return usual_minutes + minutes_per_km * distance if isinstance(distance, int | float) else None


def guessed_late(request: Mapping[str, Any]) -> float | None:
    """Chance of being late by the rule of thumb."""
    minutes = guessed_minutes(request)
    return None if minutes is None else 0.8 if minutes > late_after_minutes else 0.2


def guessed_speed(request: Mapping[str, Any]) -> float | None:
    """Class of speed by the rule of thumb."""
    minutes = guessed_minutes(request)
    return None if minutes is None else float((minutes > quick_minutes) + (minutes > late_after_minutes))


def _warned() -> pl.Expr:
    # Only late orders count: of the others nobody needed to be warned.
    return pl.when(pl.col("label") == 1).then(pl.col("prediction"))


def _kept_promises() -> pl.Expr:
    return pl.col("label") <= pl.col("prediction") + 10


def _slow_called_quick() -> pl.Expr:
    return (pl.col("prediction") == "quick") & (pl.col("label") == 2)


def _monitoring(business: BusinessMetric) -> Monitoring:
    return Monitoring(
        min_rows=Threshold(value=100, reason="half a day of the small shop: tests must be quick"), business=(business,)
    )


_label_delay = timedelta(minutes=longest_minutes + longest_report_minutes)

late_order = ModelSpec(
    name="late_order",
    meaning="Will the order take more than an hour? Asked when it is made",
    task="binary",
    label=Label(name="late", meaning="Took more than an hour", value=_is_late, delay=_label_delay),
    views=("courier", "district"),
    on_demand=("order",),
    fitted=("courier_codes",),
    settings=XGBoostSettings(rounds=20, learning_rate=0.3, max_depth=3, threads=1, seed=20240101),
    split=Split(warm_up=timedelta(days=3), calibration=timedelta(days=4), evaluation=timedelta(days=4)),
    segments=(Segment(name="district", column="district", min_rows=100),),
    gate=Gate(
        metric="log_loss",
        min_rows=Threshold(value=200, reason="a day of the small shop: tests must be quick"),
        margin=Threshold(
            value=0.1, reason="wide: the interval of four small days must fit in, or every test waits for data"
        ),
        segment_margin=Threshold(value=0.3, reason="wide: a district has a fifth of the rows"),
    ),
    objectives=Objectives(
        p99_ms=Threshold(value=2_000, reason="far above any machine: a busy test machine must not decide"),
        rows_per_second=Threshold(value=50, reason="far below any machine, for the same reason"),
    ),
    retraining=Retraining(
        new_rows=Threshold(value=1_000, reason="five days of the small shop: tests must not wait for a month of orders")
    ),
    simple_features=("order_distance", "courier_late_share_3d", "courier_mean_minutes_3d", "district_mean_minutes_3d"),
    rules=guessed_late,
    monitoring=_monitoring(
        BusinessMetric(
            name="late_orders_announced",
            meaning="Of the orders that came late, the share that was announced: only these customers can plan",
            unit="share of late orders",
            better="higher",
            value=_warned,
        )
    ),
    decision=Threshold(value=0.5, reason="both mistakes cost the same"),
    review_below=Threshold(value=0.55, reason="so close to a coin toss that a person may look"),
)

minutes_to_door = replace(
    late_order,
    name="minutes_to_door",
    meaning="How many minutes will the order take? Asked when it is made",
    task="regression",
    label=Label(
        name="minutes", meaning="Minutes from order to door", value=_minutes, delay=_label_delay, unit="minutes"
    ),
    gate=replace(
        late_order.gate,
        metric="mae",
        margin=Threshold(value=2.0, reason="minutes; wide, as for the binary model"),
        segment_margin=Threshold(value=6.0, reason="minutes; a district has a fifth of the rows"),
    ),
    rules=guessed_minutes,
    monitoring=_monitoring(
        BusinessMetric(
            name="promises_kept",
            meaning="Share of orders at the door ten minutes after the time that was told, or before: the shop "
            "promises that much, and pays for the others",
            unit="share of orders",
            better="higher",
            value=_kept_promises,
        )
    ),
    decision=None,
    review_below=None,
)

speed = replace(
    late_order,
    name="speed",
    meaning="Quick, usual or slow? Asked when the order is made",
    task="multiclass",
    label=Label(
        name="speed",
        meaning="Up to 45 minutes, up to an hour, longer",
        value=_speed,
        delay=_label_delay,
        classes=("quick", "usual", "slow"),
    ),
    gate=replace(
        late_order.gate, margin=Threshold(value=0.15, reason="wide, as for the binary model; three classes vary more")
    ),
    rules=guessed_speed,
    monitoring=_monitoring(
        BusinessMetric(
            name="slow_called_quick",
            meaning="Share of orders that were called quick and took more than an hour: the mistake that loses a "
            "customer",
            unit="share of orders",
            better="lower",
            value=_slow_called_quick,
        )
    ),
    decision=None,
)
