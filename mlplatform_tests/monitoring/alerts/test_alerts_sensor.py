"""The loop as a sensor: it looks, starts no run, and takes its channels from the settings."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy  # the class that the factory gives

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.alerts.assets import kept_fresh
from mlplatform.monitoring.alerts.freshness import heartbeat
from mlplatform.monitoring.alerts.sensors import monitor_sensor, monitor_sensor_name
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.skew.assets import skew_asset
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.alert_endpoint import AlertEndpoint

DRIFT = Finding(layer="data_quality", rule="drift", subject="synthetic/late", day="2024-01-20", summary="it moved")


@pytest.fixture
def endpoint() -> Iterator[AlertEndpoint]:
    """A webhook."""
    made = AlertEndpoint()
    yield made
    made.down()


def test_a_tick_is_a_look(
    platform: Platform, endpoint: AlertEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a monitor has found reaches the webhook that `MLPLATFORM_ALERTS` leads to; the next tick adds nothing."""
    channels = tmp_path / "channels"
    channels.write_text(f"ticket={endpoint.url()}\n")
    monkeypatch.setenv("MLPLATFORM_ALERTS", str(channels))
    monkeypatch.setenv("MLPLATFORM_UI", "http://ui.example/")
    sensor = monitor_sensor(DOMAIN, {})
    assert sensor.name == monitor_sensor_name(DOMAIN)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    keep_findings(platform, DOMAIN, "data_quality", "2024-01-20", [DRIFT], "run")
    with dg.instance_for_test() as instance:
        ticks = []
        for _ in range(2):
            context = dg.build_sensor_context(instance=instance, resources={"platform": platform})
            said = sensor(context)
            assert isinstance(said, dg.SkipReason)
            ticks.append(said.skip_message)
    assert ticks == ["1 alerts are open; 1 sent, 0 not taken", "1 alerts are open"]
    assert len(endpoint.taken) == 1
    assert "http://ui.example/assets/synthetic/data_quality" in endpoint.taken[0]["message"]
    assert heartbeat(platform.home, DOMAIN.name).exists()


def test_it_loads_beside_the_others(platform: Platform) -> None:
    """A sensor without a target is a definition like any other."""
    defs = dg.Definitions(sensors=[monitor_sensor(DOMAIN, {})], resources={"platform": platform})
    assert defs.resolve_sensor_def(monitor_sensor_name(DOMAIN)).minimum_interval_seconds == 30


def test_monitors_have_a_freshness_policy(platform: Platform) -> None:
    """A daily one warns after thirty hours and fails after two days; partitions and checks stay."""
    kept = kept_fresh(skew_asset(DOMAIN))
    (spec,) = kept.specs
    policy = spec.freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.warn_window is not None
    assert policy.warn_window.to_timedelta() == timedelta(hours=30)
    assert policy.fail_window.to_timedelta() == timedelta(days=2)
    assert kept.partitions_def == skew_asset(DOMAIN).partitions_def
    assert [each.name for each in kept.check_specs] == ["served_as_trained"]
