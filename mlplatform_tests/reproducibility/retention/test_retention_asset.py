"""The nightly removal in Dagster."""

from datetime import timedelta
from pathlib import Path

import dagster as dg

from mlplatform.features.tombstones import tombstones
from mlplatform.reproducibility.retention.assets import retention_asset, retention_key
from mlplatform.reproducibility.retention.sensors import retention_job_name, retention_sensor
from mlplatform_tests.fakes.kept_world import KeptWorld


def test_a_night_removes_what_goes_and_tells_what_stays(tmp_path: Path) -> None:
    """Signed by the run; its figures are in the metadata."""
    world = KeptWorld(tmp_path, superseded=timedelta(days=4))
    world.land("2024-03-01")
    world.days(1)
    world.land("2024-03-01")
    world.days(4)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [retention_asset(world.domain)], resources={"platform": world.platform}, instance=instance
        )
        assert done.success
        told = instance.get_latest_materialization_event(retention_key(world.domain))
        assert told is not None
        assert told.asset_materialization is not None
        assert told.asset_materialization.metadata["removed/revision"].value == 4
        assert {each.actor for each in tombstones(world.platform, world.domain).values()} == {f"run {done.run_id[:8]}"}


def test_one_run_is_asked_for_each_night(tmp_path: Path) -> None:
    """From four in the morning on, by a key that Dagster takes once."""
    world = KeptWorld(tmp_path, superseded=timedelta(days=30))
    sensor = retention_sensor(world.domain)
    keys = []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(4):
            context = dg.build_sensor_context(instance=instance, resources={"platform": world.platform})
            asked = sensor(context)
            assert isinstance(asked, dg.RunRequest)
            assert asked.job_name == retention_job_name(world.domain)
            keys.append(asked.run_key)
            world.days(0.5)
    assert keys == ["2024-03-01", "2024-03-01", "2024-03-02", "2024-03-02"]


def test_a_domain_that_keeps_everything_is_left_alone(tmp_path: Path) -> None:
    """No run is launched each night to remove nothing."""
    world = KeptWorld(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"platform": world.platform})
        assert isinstance(retention_sensor(world.domain)(context), dg.SkipReason)
