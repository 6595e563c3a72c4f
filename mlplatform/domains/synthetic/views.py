"""Feature views over three days of deliveries, features of the order itself, and one fitted value."""

from datetime import datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.view import Feature, FeatureView, FittedValue, OnDemand

WINDOW = timedelta(days=3)


def courier_window(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
    """How each courier did lately."""
    return facts.group_by("courier").agg(
        pl.len().cast(pl.Int32).alias("courier_deliveries_3d"),
        _share("late").alias("courier_late_share_3d"),
        _share("minutes").alias("courier_mean_minutes_3d"),
    )


def district_window(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
    """How deliveries to each district went lately; as old as the last of them."""
    return facts.group_by("district").agg(
        pl.len().cast(pl.Int32).alias("district_deliveries_3d"),
        _share("minutes").alias("district_mean_minutes_3d"),
        pl.col("event_time").max(),
    )


def _share(column: str) -> pl.Expr:
    """Mean of whole numbers, by one division: the order of the rows cannot be seen in it."""
    return (pl.col(column).cast(pl.Int64).sum() / pl.len()).cast(pl.Float32)


def of_order(requests: pl.DataFrame) -> pl.DataFrame:
    """What the order itself tells."""
    return requests.select(
        order_distance=pl.col("distance_km").cast(pl.Float32),
        order_items=pl.col("items").cast(pl.Int32),
        order_hour=pl.col("ordered_at").dt.hour().cast(pl.Int32),
    )


views = (
    FeatureView(
        name="courier",
        meaning="Recent deliveries of the courier",
        facts="deliveries",
        entity=("courier",),
        features=(
            Feature(
                name="courier_deliveries_3d",
                dtype=pl.Int32(),
                unit="orders",
                minimum=1,
                meaning="Orders of the courier in 3 d",
            ),
            Feature(
                name="courier_late_share_3d",
                dtype=pl.Float32(),
                minimum=0,
                maximum=1,
                meaning="Share late of the courier in 3 d",
            ),
            Feature(
                name="courier_mean_minutes_3d",
                dtype=pl.Float32(),
                unit="minutes",
                minimum=0,
                meaning="Mean minutes of the courier in 3 d",
            ),
        ),
        look_back=WINDOW,
        ttl=timedelta(days=2),
        function=courier_window,
    ),
    FeatureView(
        name="district",
        meaning="Recent deliveries to the district",
        facts="deliveries",
        entity=("district",),
        features=(
            Feature(
                name="district_deliveries_3d",
                dtype=pl.Int32(),
                unit="orders",
                minimum=1,
                meaning="Orders to the district in 3 d",
            ),
            Feature(
                name="district_mean_minutes_3d",
                dtype=pl.Float32(),
                unit="minutes",
                minimum=0,
                meaning="Mean minutes to the district in 3 d",
            ),
        ),
        look_back=WINDOW,
        ttl=timedelta(days=2),
        function=district_window,
    ),
)

on_demand = (
    OnDemand(
        name="order",
        meaning="What the order itself tells",
        function=of_order,
        features=(
            Feature(
                name="order_distance", dtype=pl.Float32(), unit="km", minimum=0, maximum=50, meaning="How far it is"
            ),
            Feature(
                name="order_items", dtype=pl.Int32(), unit="items", minimum=1, maximum=20, meaning="How much it is"
            ),
            Feature(
                name="order_hour",
                dtype=pl.Int32(),
                unit="hours",
                minimum=0,
                maximum=23,
                meaning="Hour of the order, UTC",
            ),
        ),
    ),
)


def fit_courier_codes(rows: pl.DataFrame) -> Any:
    """Couriers of the training rows, the busiest first."""
    counted = rows.drop_nulls("courier").group_by("courier").len()
    return counted.sort(["len", "courier"], descending=[True, False])["courier"].to_list()


def apply_courier_codes(rows: pl.DataFrame, known: Any) -> pl.DataFrame:
    """Place of each courier among the known ones; null for a new one."""
    codes = {courier: code for code, courier in enumerate(known)}
    return rows.select(courier_code=pl.col("courier").replace_strict(codes, default=None, return_dtype=pl.Int32))


fitted = (
    FittedValue(
        name="courier_codes",
        meaning="Couriers known from the training window, the busiest first",
        features=(
            Feature(name="courier_code", dtype=pl.Int32(), minimum=0, meaning="Place of the courier; null: a new one"),
        ),
        fit=fit_courier_codes,
        apply=apply_courier_codes,
    ),
)
