"""The one source, the shop's delivered orders, and the deliveries made of it."""

from collections.abc import Mapping

import polars as pl

from mlplatform.domain.column import Column, Contract, RowRule
from mlplatform.domain.source import Derived, Source

from .ground_truth import districts, late_after_minutes, longest_minutes

instant = pl.Datetime("us", "UTC")


def _delivered_after_ordered() -> pl.Expr:
    return pl.col("delivered_at") > pl.col("ordered_at")


def _delivered_in_time() -> pl.Expr:
    return (pl.col("delivered_at") - pl.col("ordered_at")).dt.total_minutes() <= longest_minutes


order_contract = Contract(
    columns=(
        Column(name="order_id", dtype=pl.Int64(), meaning="Number of the order", minimum=1),
        Column(name="courier", dtype=pl.String(), meaning="Who carries it", pattern="c[0-9]+"),
        Column(name="district", dtype=pl.String(), meaning="Where it goes", allowed=tuple(districts)),
        Column(name="distance_km", dtype=pl.Float64(), unit="km", meaning="How far it is", minimum=0.1, maximum=50),
        Column(name="items", dtype=pl.Int16(), unit="items", meaning="How much it is", minimum=1, maximum=20),
        Column(name="ordered_at", dtype=instant, unit="UTC", meaning="When it was ordered"),
        Column(name="delivered_at", dtype=instant, unit="UTC", meaning="When it was at the door"),
        Column(name="reported_at", dtype=instant, unit="UTC", meaning="When the courier said so"),
    ),
    unique=("order_id",),
    rules=(
        RowRule(
            name="delivered after ordered",
            holds=_delivered_after_ordered,
            meaning="Nothing arrives before it is asked for",
        ),
        RowRule(
            name="delivered within five hours",
            holds=_delivered_in_time,
            meaning="What takes longer is sent back",
            severity="warning",
        ),
    ),
    max_rows=10_000,
)


def order_facts(landed: pl.DataFrame) -> pl.DataFrame:
    """Orders with the whole minutes they took; known when the courier has reported them."""
    took = (pl.col("delivered_at") - pl.col("ordered_at")).dt.total_minutes().cast(pl.Int32)
    return landed.select(
        "order_id",
        "courier",
        "district",
        "distance_km",
        "items",
        "ordered_at",
        minutes=took,
        event_time=pl.col("reported_at"),
    )


def delivery_facts(base: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Orders in the models' words: late or not."""
    return base["orders"].with_columns(late=pl.col("minutes") > late_after_minutes)


_order_columns = (
    Column(name="order_id", dtype=pl.Int64(), meaning="Number of the order"),
    Column(name="courier", dtype=pl.String(), meaning="Who carried it"),
    Column(name="district", dtype=pl.String(), meaning="Where it went"),
    Column(name="distance_km", dtype=pl.Float64(), unit="km", meaning="How far it was"),
    Column(name="items", dtype=pl.Int16(), unit="items", meaning="How much it was"),
    Column(name="ordered_at", dtype=instant, unit="UTC", meaning="When it was ordered"),
    Column(name="minutes", dtype=pl.Int32(), unit="minutes", meaning="From order to door"),
)

orders = Source(
    name="orders",
    meaning="Orders that reached their door, as the shop reports them",
    contract=order_contract,
    base=order_facts,
    base_columns=_order_columns,
)

deliveries = Derived(
    name="deliveries",
    meaning="What became of each order",
    inputs=("orders",),
    function=delivery_facts,
    columns=(
        *_order_columns,
        Column(name="late", dtype=pl.Boolean(), meaning=f"More than {late_after_minutes} minutes"),
    ),
)
