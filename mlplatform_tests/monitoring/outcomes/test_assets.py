"""Outcomes in Dagster: the check, what is shown, and sensors that ask for a day when labels have come."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tables import day_range
from mlplatform.monitoring.outcomes.assets import outcomes_asset, outcomes_weekly_asset
from mlplatform.monitoring.outcomes.sensors import outcomes_sensor, outcomes_weekly_sensor
from mlplatform.monitoring.outcomes.tables import weeks_table
from mlplatform_tests.fakes.judged_answers import JudgedShop, orders_of

LATE = DOMAIN.model("late_order")
MONDAY, SUNDAY = "2024-02-05", "2024-02-11"


class Monitor:
    """A shop, and a daemon that ticks and executes when it is told to."""

    def __init__(self, shop: JudgedShop, instance: dg.DagsterInstance) -> None:
        self.shop, self.instance = shop, instance

    def due(self, sensor: dg.SensorDefinition) -> list[str | None]:
        """Partitions for which a tick requests a run."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.shop.platform})
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return [each.partition_key for each in result.run_requests or []]

    def run(self, asset: dg.AssetsDefinition, partition: str) -> dg.ExecuteInProcessResult:
        """Materialise a partition."""
        return dg.materialize(
            [asset],
            instance=self.instance,
            partition_key=partition,
            resources={"platform": self.shop.platform},
            selection=[asset],
        )


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """One of its own for each test."""
    with dg.DagsterInstance.ephemeral() as instance:
        shop = JudgedShop(tmp_path / "home")
        shop.evaluate(LATE)
        yield Monitor(shop, instance)


def test_a_day_from_its_end_to_its_judgement(monitor: Monitor) -> None:
    """Asked for when it is over, when labels land, and when they can all be in; then never, until one is corrected."""
    shop, sensor, asset = monitor.shop, outcomes_sensor(DOMAIN), outcomes_asset(DOMAIN)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    shop.answer(orders_of(MONDAY), LATE)
    shop.at("2024-02-06", 0, 4)
    assert monitor.due(sensor) == []
    shop.at("2024-02-06", 0, 6)
    assert monitor.due(sensor) == [MONDAY]
    (check,) = monitor.run(asset, MONDAY).get_asset_check_evaluations()
    assert check.passed and "shown and not judged" in str(check.description)
    assert monitor.due(sensor) == []
    shop.land(MONDAY)
    shop.at("2024-02-06", 2)
    assert monitor.due(sensor) == [MONDAY]
    monitor.run(asset, MONDAY)
    assert monitor.due(sensor) == []
    shop.at("2024-02-07", 1)
    assert monitor.due(sensor) == [MONDAY]
    run = monitor.run(asset, MONDAY)
    (check,) = run.get_asset_check_evaluations()
    assert (check.check_name, check.partition, check.passed) == ("predicts_as_evaluated", MONDAY, True)
    (made,) = run.get_asset_materialization_events()
    told = made.materialization.metadata
    assert "| late_order | yes |" in str(told["labels"].value) and "log_loss 0." in str(told["day"].value)
    assert "bound" in str(told["day"].value) and "data:image/png" in str(told["trend"].value)
    assert "district" in str(told["segments"].value) and "accuracy" in str(told["estimated_before_labels"].value)
    assert monitor.due(sensor) == []
    shop.at("2024-02-08", 5)
    shop.send(MONDAY, orders_of(MONDAY, couriers_turned=True))
    assert monitor.due(sensor) == [MONDAY]
    (check,) = monitor.run(asset, MONDAY).get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "log_loss was" in str(check.description)


def test_a_model_that_cannot_be_judged_is_a_warning(monitor: Monitor) -> None:
    """Its evaluation is not here: that is no pass."""
    monitor.shop.answer(orders_of(MONDAY), LATE, manifest="9" * 64)
    monitor.shop.land(MONDAY, "2024-02-06")
    monitor.shop.at("2024-02-07", 1)
    (check,) = monitor.run(outcomes_asset(DOMAIN), MONDAY).get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "999999999999 is not judged" in str(check.description)


def test_a_day_without_answers_passes(monitor: Monitor) -> None:
    """And shows empty tables."""
    (check,) = monitor.run(outcomes_asset(DOMAIN), MONDAY).get_asset_check_evaluations()
    assert check.passed and "nothing was answered" in str(check.description)


def test_a_week_is_put_together_from_its_days(monitor: Monitor) -> None:
    """When it is over, from the days that were judged; again when one is judged again."""
    shop, sensor, asset = monitor.shop, outcomes_weekly_sensor(DOMAIN), outcomes_weekly_asset(DOMAIN)
    days = day_range(MONDAY, SUNDAY)
    for day in days:
        shop.answer(orders_of(day, count=150), LATE)
    shop.land(*days, orders={day: orders_of(day, count=150) for day in days})
    for day in days[:6]:
        shop.at((date.fromisoformat(day) + timedelta(days=2)).isoformat(), 1)
        shop.outcomes(day)
    shop.at(SUNDAY, 23)
    assert monitor.due(sensor) == []
    shop.at("2024-02-12", 2)
    assert monitor.due(sensor) == [MONDAY]
    (made,) = monitor.run(asset, MONDAY).get_asset_materialization_events()
    told = made.materialization.metadata
    assert told["days"].value == 6 and "late_orders_announced" in str(told["week"].value)
    assert monitor.due(sensor) == []
    shop.at("2024-02-13", 2)
    shop.outcomes(SUNDAY)
    assert monitor.due(sensor) == [MONDAY]
    (made,) = monitor.run(asset, MONDAY).get_asset_materialization_events()
    assert made.materialization.metadata["days"].value == 7
    assert [each.number for each in weeks_table(shop.platform, DOMAIN).revisions([MONDAY])] == [1, 2]
    assert monitor.due(sensor) == []


def test_the_week_in_which_a_domain_begins_is_one(tmp_path: Path) -> None:
    """Whichever day of it that is: a week that the sensor asks for and Dagster does not know would stop all of them."""
    midweek = replace(DOMAIN, start=date(2024, 2, 8))
    shop = JudgedShop(tmp_path / "home", midweek)
    orders = orders_of("2024-02-09", count=50)
    shop.answer(orders, LATE)
    shop.land("2024-02-09", "2024-02-10", orders={"2024-02-09": orders})
    shop.at("2024-02-12", 2)
    shop.outcomes("2024-02-09")
    asset = outcomes_weekly_asset(midweek)
    with dg.DagsterInstance.ephemeral() as instance:
        monitor = Monitor(shop, instance)
        assert monitor.due(outcomes_weekly_sensor(midweek)) == [MONDAY]
        assert asset.partitions_def is not None and MONDAY in asset.partitions_def.get_partition_keys()
        assert monitor.run(asset, MONDAY).success
