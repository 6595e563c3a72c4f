"""A served home under one monitor, and a daemon that ticks and executes when it is told to."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from mlplatform.definitions import platform_definitions
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.online.publish import publish_values
from mlplatform.monitoring.partitions import monitor_job_name
from mlplatform.operations.jobs import quiet
from mlplatform.registry.candidate import bundle_of
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

DAY, BEFORE, TWO_BEFORE = "2024-01-20", "2024-01-19", "2024-01-18"
MIDNIGHT = datetime(2024, 1, 21, tzinfo=UTC)


class Monitored:
    """A day of answers, looked at by a monitor and its sensor.

    Parameters
    ----------
    folder : for what the gateway measures
    """

    def __init__(
        self,
        home: TrainedHome,
        instance: dg.DagsterInstance,
        folder: Path,
        *,
        monitor: str,
        sensor: dg.SensorDefinition,
    ) -> None:
        self.platform, self.instance, self.folder = home.platform, instance, folder
        self.bundle = bundle_of(home.platform, home.entry.to_manifest)
        self.job = monitor_job_name(DOMAIN, monitor)
        self._sensor = sensor
        self.at(MIDNIGHT - timedelta(hours=23, minutes=50))

    def at(self, moment: datetime) -> None:
        """It is so late."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = moment

    def serve(self, *, as_of: str = BEFORE, hours: range = range(24)) -> int:
        """Publish up to a day, and answer requests of the next one; how many they are."""
        publish_values(self.platform, DOMAIN, as_of=as_of)
        requests = asked_on(self.platform, DAY, hours=hours)
        Gateway(self.platform, self.bundle).serve(requests, self.folder)
        return requests.height

    def tick(self) -> dg.SensorResult:
        """One look of the sensor."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.platform})
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def due(self) -> list[str | None]:
        """Days for which a tick requests a run."""
        return [each.partition_key for each in self.tick().run_requests or []]

    def execute(self, day: str = DAY) -> dg.ExecuteInProcessResult:
        """Have the monitor look at a day."""
        job = platform_definitions({DOMAIN.name: DOMAIN}, self.platform).resolve_job_def(self.job)
        return job.execute_in_process(instance=self.instance, run_config=quiet, partition_key=day, raise_on_error=False)
