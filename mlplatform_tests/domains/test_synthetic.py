"""The synthetic domain: its world is the one that it says it is."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import (
    Switches,
    as_usual,
    couriers,
    expected_minutes,
    late_after_minutes,
    late_probability,
    rows,
    sample,
)
from mlplatform.features.rules import check
from mlplatform.registry.bundled_code import domain_folder, feature_code

DAY = date(2024, 1, 5)
CONTRACT = DOMAIN.source("orders").contract


def minutes(orders: pl.DataFrame) -> pl.Series:
    """Minutes that each order took."""
    return (orders["delivered_at"] - orders["ordered_at"]).dt.total_minutes()


def test_a_day_is_drawn_from_its_seed_and_nothing_else() -> None:
    """The same day again is the same; another seed, another day, another number of orders are others."""
    assert rows(DAY).equals(rows(DAY))
    assert not rows(DAY).equals(rows(DAY, seed=8))
    assert rows(DAY, rows_per_day=0).schema == rows(DAY).schema == CONTRACT.schema
    assert rows(DAY, rows_per_day=30).height == 30


def test_every_order_of_a_day_became_known_on_it() -> None:
    """Delivered within the UTC day, at most six hours after the order, and clean by the contract."""
    midnight = datetime(2024, 1, 5, tzinfo=UTC)
    orders = rows(DAY, rows_per_day=2_000)
    assert orders["delivered_at"].is_between(midnight, midnight + timedelta(days=1), closed="left").all()
    assert minutes(orders).is_between(5, 360).all()
    checked = check(orders, CONTRACT)
    assert (checked.refused.height, checked.warnings, checked.blocking) == (0, (), ())


def test_orders_are_late_as_often_as_the_coefficients_say() -> None:
    """Over many orders, the share of late ones is the mean of the true chances, for each courier."""
    orders = rows(DAY, rows_per_day=20_000)
    told = orders.with_columns(
        late=minutes(orders) > late_after_minutes,
        chance=pl.Series(
            [
                late_probability(
                    expected_minutes(row["courier"], row["district"], row["distance_km"], row["ordered_at"].hour)
                )
                for row in orders.iter_rows(named=True)
            ]
        ),
    )
    shares = told.group_by("courier").agg(pl.col("late", "chance").mean())
    assert shares.height == len(couriers)
    for courier, late, chance in shares.iter_rows():
        # 2,500 orders each: a standard error of at most 0.01, and half a minute is rounded.
        assert late == pytest.approx(chance, abs=0.04), courier


def test_the_switches_do_what_they_say() -> None:
    """Drift makes orders slower or turns the couriers; faults are refused by the contract."""
    usual = rows(DAY, rows_per_day=2_000)
    far = rows(DAY, rows_per_day=2_000, switches=Switches(distance_factor=2.0))
    usual_minutes, far_minutes = minutes(usual).mean(), minutes(far).mean()
    assert isinstance(usual_minutes, float) and isinstance(far_minutes, float)
    assert far_minutes > usual_minutes + 15
    assert expected_minutes("c1", "hill", 1.0, 12, Switches(couriers_turned=True)) == (
        expected_minutes("c1", "hill", 1.0, 12) - 2 * couriers["c1"]
    )
    assert check(rows(DAY, switches=Switches(metres=True)), CONTRACT).kept.is_empty()
    nameless = rows(DAY, rows_per_day=1_000, switches=Switches(null_districts=0.3))["district"].null_count()
    assert 200 < nameless < 400
    assert rows(DAY, switches=as_usual).equals(rows(DAY))


def test_the_sample_is_whole_and_the_example_is_a_request() -> None:
    """Every day of the sample has orders, and what is pasted from the page has the columns of a request."""
    assert (sample.end - sample.start).days == 23
    assert sample.read("orders", sample.start).height == sample.read("orders", sample.end).height == 200
    assert set(DOMAIN.requests.example) == {column.name for column in DOMAIN.requests.columns}
    for model in DOMAIN.models:
        assert model.rules(DOMAIN.requests.example) is not None
        assert model.rules({}) is None


def test_its_code_can_be_bundled() -> None:
    """It imports nothing that a serving host lacks."""
    assert sorted(feature_code(domain_folder("synthetic"))) == [
        f"synthetic/{name}.py" for name in ("__init__", "ground_truth", "models", "sources", "views")
    ]
