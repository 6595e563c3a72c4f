"""The sensor whose ticks are the monitor loop of a domain."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.alerts.loop import Monitor
from mlplatform.monitoring.alerts.send import open_channels
from mlplatform.monitoring.daily import Due
from mlplatform.provenance.platform import Platform
from mlplatform.settings import settings

seconds_between_looks = 30
"""Layer 1 is to be heard of within five minutes; a look takes a second or two."""


def monitor_sensor_name(domain: Domain) -> str:
    """Name of the sensor."""
    return f"{domain.name}_monitor"


def monitor_sensor(domain: Domain, monitors: Mapping[str, Due]) -> dg.SensorDefinition:
    """What is known of a domain this moment -> alerts, and the messages about them.

    Parameters
    ----------
    monitors : name of each daily monitor -> which days it can judge
    """
    # A look remembers what it has read. It may forget: a new process reads it again.
    of_home: dict[Path, Monitor] = {}

    @dg.sensor(
        name=monitor_sensor_name(domain),
        minimum_interval_seconds=seconds_between_looks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Looks at the last minutes of {domain.name} and at what its daily monitors have found, and tells those "
            "whom it concerns. It starts no run: `mlplatform alerts` shows what is open."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
        monitor = of_home.get(platform.home)
        if monitor is None:
            told = settings()
            monitor = of_home[platform.home] = Monitor(
                platform, domain, monitors=monitors, channels=lambda: open_channels(told.alerts), ui=told.ui
            )
        looked = monitor.look()
        for name in looked.broken:
            context.log.warning(f"the look at {name} broke; the log of the code server says why")
        told_to = f"; {looked.delivered} sent, {looked.failed} not taken" if looked.delivered or looked.failed else ""
        return dg.SkipReason(f"{len(looked.open)} alerts are open{told_to}")

    return sensor
