"""The synthetic domain: its world is the one that it says it is, and each switch does what it says and no more."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import (
    Switches,
    as_usual,
    couriers,
    expected,
    expected_minutes,
    late_after_minutes,
    late_probability,
    latest_days,
    longest_minutes,
    longest_report_minutes,
    rows,
    sample,
)
from mlplatform.domains.synthetic.splitmix import bits, uniform
from mlplatform.features.rules import check
from mlplatform.features.view import fit_values, model_inputs
from mlplatform.registry.bundled_code import domain_folder, feature_code
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.dataset import build_training_set
from mlplatform.training.examples import examples
from mlplatform.training.fit import fit
from mlplatform.training.metrics import value
from mlplatform.training.recipe import recipe
from mlplatform_tests.fakes.synthetic_home import ALL_DAYS, backfill, land_orders, platform_in

DAY = date(2024, 1, 5)
CONTRACT = DOMAIN.source("orders").contract


def minutes(orders: pl.DataFrame) -> pl.Series:
    """Minutes that each order took."""
    return (orders["delivered_at"] - orders["ordered_at"]).dt.total_minutes()


def true_chances(orders: pl.DataFrame, switches: Switches = as_usual) -> pl.Series:
    """The chance of being late that the coefficients give each order: the best that any model can say."""
    told = orders.select(expected(pl.col("ordered_at").dt.hour(), switches)).to_series()
    return told.map_elements(late_probability, return_dtype=pl.Float64)


def log_loss(orders: pl.DataFrame, chances: pl.Series) -> float:
    """Mean log loss of chances of being late."""
    late = (minutes(orders) > late_after_minutes).cast(pl.Float64).to_numpy()
    return value("log_loss", late, chances.to_numpy())


def test_the_numbers_are_those_of_splitmix64() -> None:
    """The published first outputs of seed 1234567, and they fill the unit interval evenly."""
    number = pl.int_range(5, dtype=pl.UInt64())
    assert pl.select(bits(1234567, number)).to_series().to_list() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    drawn = pl.select(one=uniform("one", pl.int_range(100_000)), other=uniform("other", pl.int_range(100_000)))
    shares = drawn["one"].hist(bins=[0.0, 0.25, 0.5, 0.75, 1.0])["count"]
    assert shares.sum() == 100_000
    # Standard error of a quarter of 100,000: 137.
    assert all(abs(count - 25_000) < 600 for count in shares)
    assert abs(float(drawn.select(pl.corr("one", "other")).item())) < 0.015


def test_a_day_is_drawn_from_its_seed_and_nothing_else() -> None:
    """The same day again is the same; another seed, another day, another number of orders are others."""
    assert rows(DAY).equals(rows(DAY))
    assert not rows(DAY).equals(rows(DAY, seed=8))
    assert not rows(DAY)["distance_km"].sort().equals(rows(DAY + timedelta(days=1))["distance_km"].sort())
    assert rows(DAY, rows_per_day=0).schema == rows(DAY).schema == CONTRACT.schema
    assert rows(DAY, rows_per_day=30).height == 30
    few, many = rows(DAY, rows_per_day=30), rows(DAY, rows_per_day=1_000)
    assert many.filter(pl.col("order_id").is_in(few["order_id"].to_list())).equals(few)


def test_every_order_of_a_day_became_known_on_it() -> None:
    """Delivered and reported within the UTC day, known within the declared label delay, clean by the contract."""
    midnight = datetime(2024, 1, 5, tzinfo=UTC)
    orders = rows(DAY, rows_per_day=2_000)
    for column in ("delivered_at", "reported_at"):
        assert orders[column].is_between(midnight, midnight + timedelta(days=1), closed="left").all()
    assert minutes(orders).is_between(5, longest_minutes).all()
    report = (orders["reported_at"] - orders["delivered_at"]).dt.total_seconds() / 60
    assert report.is_between(0, longest_report_minutes).all()
    # Uniform over an hour, but for the last hour of the day.
    mean, longest = report.mean(), report.max()
    assert isinstance(mean, float) and 28 < mean < 32 and longest == longest_report_minutes
    for model in DOMAIN.models:
        assert (orders["reported_at"] - orders["ordered_at"]).max() <= model.label.delay  # type: ignore[operator]
        assert model.label.delay == timedelta(minutes=longest_minutes + longest_report_minutes)
    checked = check(orders, CONTRACT)
    assert (checked.refused.height, checked.warnings, checked.blocking) == (0, (), ())


def test_orders_are_late_as_often_as_the_coefficients_say() -> None:
    """Over many orders, the share of late ones is the mean of the true chances, for each courier."""
    orders = rows(DAY, rows_per_day=80_000)
    told = orders.with_columns(late=minutes(orders) > late_after_minutes, chance=true_chances(orders))
    shares = told.group_by("courier").agg(pl.col("late", "chance").mean())
    assert shares.height == len(couriers)
    for courier, late, chance in shares.iter_rows():
        # 10,000 orders each: a standard error of at most 0.005.
        assert late == pytest.approx(chance, abs=0.02), courier


def test_more_couriers_are_more_keys_with_the_same_truth() -> None:
    """As many couriers as asked for; the ninth is as quick as the first."""
    orders = rows(DAY, rows_per_day=20_000, courier_count=1_000)
    assert orders["courier"].n_unique() == 1_000
    assert check(orders, CONTRACT).refused.is_empty()
    assert expected_minutes("c9", "hill", 1.0, 12) == expected_minutes("c1", "hill", 1.0, 12)
    share = (minutes(orders) > late_after_minutes).mean()
    assert share == pytest.approx(true_chances(orders).mean(), abs=0.02)


def test_the_truth_can_be_learned(tmp_path: Path) -> None:
    """On 24 days of 400 orders the model comes close to the best log loss that the coefficients allow."""
    platform, model = platform_in(tmp_path), DOMAIN.model("late_order")
    land_orders(platform, ALL_DAYS, rows_per_day=400)
    backfill(platform, ALL_DAYS)
    made = recipe(platform, DOMAIN, model)
    cut = examples(DOMAIN, model, made, build_training_set(platform, DOMAIN, model, made).rows)
    train, held_out = cut.parts.train, cut.parts.evaluation
    learned = fit_values(DOMAIN, model, cut.requests[train], cut.view_values[train])
    features = model_inputs(DOMAIN, model, cut.requests, cut.view_values, learned)
    booster = fit(features[train], cut.labels[train], model, model.settings)
    scores = raw_scores(booster, matrix(features[held_out]))
    best = true_chances(cut.requests[held_out]).to_numpy()
    constant = np.full(len(best), cut.labels[train].mean())
    labels = cut.labels[held_out]
    loss = {
        name: value("log_loss", labels, each)
        for name, each in {"model": scores, "best": best, "constant": constant}.items()
    }
    assert loss["best"] < loss["model"] < loss["best"] + 0.2 * (loss["constant"] - loss["best"]), loss


def test_drift_of_the_inputs_is_seen_in_the_inputs() -> None:
    """Twice the distance: orders come from farther away and take longer, and the truth about them still holds."""
    usual, far = rows(DAY, rows_per_day=2_000), rows(DAY, rows_per_day=2_000, switches=Switches(distance_factor=2.0))
    assert far["distance_km"].mean() == pytest.approx(2 * float(usual["distance_km"].mean() or 0), rel=0.01)  # type: ignore[arg-type]
    assert minutes(far).mean() > minutes(usual).mean() + 15  # type: ignore[operator]
    told = (minutes(far) > late_after_minutes).mean()
    assert told == pytest.approx(true_chances(far).mean(), abs=0.03)
    assert (
        far.select("order_id", "courier", "items")
        .sort("order_id")
        .equals(usual.select("order_id", "courier", "items").sort("order_id"))
    )


def test_drift_of_the_truth_is_seen_in_the_outcomes_alone() -> None:
    """With the couriers turned the requests are what they were, and what was known before is wrong of them."""
    turned = Switches(couriers_turned=True)
    usual, after = rows(DAY, rows_per_day=5_000), rows(DAY, rows_per_day=5_000, switches=turned)
    asked = ["order_id", "courier", "district", "distance_km", "items"]
    assert after.select(asked).sort("order_id").equals(usual.select(asked).sort("order_id"))
    assert expected_minutes("c1", "hill", 1.0, 12, turned) == (
        expected_minutes("c1", "hill", 1.0, 12) - 2 * couriers["c1"]
    )
    assert log_loss(after, true_chances(after)) > log_loss(after, true_chances(after, turned)) + 0.2
    assert log_loss(usual, true_chances(usual)) == pytest.approx(log_loss(after, true_chances(after, turned)), abs=0.03)


def test_a_leak_tells_the_outcome() -> None:
    """`items` alone separates late orders from the others, within the contract; nothing else is changed."""
    leaking = rows(DAY, rows_per_day=2_000, switches=Switches(leak=True))
    late = minutes(leaking) > late_after_minutes
    assert ((leaking["items"] == 20) == late).all()
    assert ((leaking["items"] == 1) == ~late).all()
    assert check(leaking, CONTRACT).refused.is_empty()
    assert leaking.drop("items").equals(rows(DAY, rows_per_day=2_000).drop("items"))


def test_faults_of_columns_are_refused_by_the_contract() -> None:
    """Metres for kilometres refuse every row; orders without a district are refused, as many as were asked for."""
    assert check(rows(DAY, switches=Switches(metres=True)), CONTRACT).kept.is_empty()
    nameless = rows(DAY, rows_per_day=1_000, switches=Switches(null_districts=0.3))
    assert 250 < nameless["district"].null_count() < 350
    assert check(nameless, CONTRACT).refused.height == nameless["district"].null_count()
    assert rows(DAY, switches=Switches(null_districts=1.0))["district"].null_count() == 200


def test_duplicates_stand_in_their_file_twice() -> None:
    """As many as asked for, to the bit, and the contract keeps the first of them."""
    usual = rows(DAY, rows_per_day=1_000)
    twice = rows(DAY, rows_per_day=1_000, switches=Switches(duplicates=0.1))
    assert 70 < twice.height - usual.height < 130
    assert twice.unique().sort("reported_at", "order_id").equals(usual)
    checked = check(twice, CONTRACT)
    assert checked.kept.equals(usual)
    assert checked.counts["unique(order_id)"] == twice.height - usual.height


def test_orders_that_are_sent_again_are_in_the_next_file_too() -> None:
    """They are orders of the day before, unchanged; every other order of the file is its own."""
    again = Switches(sent_again=0.1)
    file, before = rows(DAY, rows_per_day=1_000, switches=again), rows(DAY - timedelta(days=1), rows_per_day=1_000)
    own = rows(DAY, rows_per_day=1_000)
    repeated = file.join(own, on="order_id", how="anti")
    assert 70 < repeated.height < 130
    assert repeated.join(before, on=before.columns, how="semi").equals(repeated)
    assert file.height == own.height + repeated.height


def test_late_orders_are_in_the_file_of_a_later_day() -> None:
    """Every order is sent exactly once, on its day or on one of the three after it."""
    late = Switches(sent_late=0.1)
    days = [DAY + timedelta(days=number) for number in range(latest_days + 1)]
    files = {day: rows(day, rows_per_day=1_000, switches=late) for day in days}
    own = rows(DAY, rows_per_day=1_000)
    of_day = {day: own.join(file, on=own.columns, how="semi").height for day, file in files.items()}
    assert sum(of_day.values()) == own.height
    assert 870 < of_day[DAY] < 930
    assert all(of_day[day] > 10 for day in days[1:])
    # A day that was made alone holds the same orders as one made after the others.
    assert rows(days[-1], rows_per_day=1_000, switches=late).equals(files[days[-1]])


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
        f"synthetic/{name}.py" for name in ("__init__", "ground_truth", "models", "sources", "splitmix", "views")
    ]
