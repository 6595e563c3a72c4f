"""The daemon of a simulation: it ticks the domain's own sensors in simulated time, and executes what they ask for here.

So whatever the platform does by itself (features, monitors, retraining, and what will be added to them) it does in a
simulation too, without a list of it. Runs are recorded on the Dagster instance of the home, where the UI shows them.

The real daemon reads the wall's clock: both at once would judge the same days at two different times. It is refused.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES  # not exported
from dagster._core.storage.tags import SENSOR_NAME_TAG

from mlplatform.definitions import platform_definitions
from mlplatform.domain.domain import Domain
from mlplatform.errors import Unavailable
from mlplatform.features.assets import only_due_tag
from mlplatform.features.chain import due
from mlplatform.features.landing.landing import landed
from mlplatform.features.sensors import features_job_name, range_end, range_start
from mlplatform.monitoring.pickup import answers_on
from mlplatform.monitoring.prediction_log import log_folder
from mlplatform.monitoring.sensors import pickup_job_name
from mlplatform.operations.jobs import dagster_instance, quiet
from mlplatform.provenance.person import logged_in
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import end_run, runs_without_process
from mlplatform.provenance.segments import finished
from mlplatform.retraining.sensors import training_job_name

rounds_at_most = 20
"""Of sensors that answer each other; more is a loop."""

log_patience = 10.0
"""Seconds to wait for the last answers of a day: under simulated time a gateway finishes its segment within one."""

alive_within = timedelta(seconds=45)
"""The daemon gives a sign of life every 30 s."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run that a tick has executed."""

    job: str
    partition: str
    """Day, range of days, or recipe."""

    succeeded: bool
    seconds: float
    findings: tuple[str, ...] = ()
    """Checks that did not pass, and what failed."""


@dataclass
class SimulatedDaemon:
    """Ticks the sensors of one domain."""

    platform: Platform
    domain: Domain
    instance: dg.DagsterInstance
    _cursors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        definitions = platform_definitions({self.domain.name: self.domain}, self.platform)
        self._repository = definitions.get_repository_def()
        self._jobs: dict[str, dg.JobDefinition] = {}
        by_hand = {features_job_name(self.domain), pickup_job_name(self.domain)}
        trainings = {training_job_name(self.domain, model): model for model in self.domain.models}
        sensors = [each for each in self._repository.sensor_defs if each.name not in by_hand]
        # What decides on training comes after what it decides by.
        self._sensors = sorted(sensors, key=lambda each: any(name in trainings for name in _targets(each)))
        self._trainings = trainings
        self._let_go_of_killed_runs()

    def tick(self, *, answers: int, day: str) -> Iterator[Ran]:
        """Do all there is to do now: features, the pick-up of answers, and whatever the sensors ask for.

        Parameters
        ----------
        answers : that the log is to hold of the day; waited for a while
        """
        yield from self._features()
        yield from self._pick_up(day, answers)
        for _ in range(rounds_at_most):
            asked = False
            for sensor in self._sensors:
                for ran in self._evaluated(sensor):
                    asked = True
                    yield ran
            if not asked:
                return

    def is_training(self, ran: Ran) -> bool:
        """Whether a run has trained a model."""
        return ran.job in self._trainings

    def _features(self) -> Iterator[Ran]:
        """Take what is due through the stages, range by range, until the same would be due again."""
        tried: set[str] = set()
        while (found := due(self.platform, self.domain)).days and found.version not in tried:
            tried.add(found.version)
            places = [landed(self.platform, self.domain, source) for source in self.domain.sources]
            newest = max((day for place in places for day in place.days), default=found.days[-1])
            first, last = found.first_range(self.domain, newest)
            tags = {range_start: first, range_end: last, only_due_tag: "true"}
            yield self._execute(
                features_job_name(self.domain), tags=tags, told=first if first == last else f"{first}…{last}"
            )

    def _pick_up(self, day: str, answers: int) -> Iterator[Ran]:
        until = time.monotonic() + log_patience
        while True:
            if finished(log_folder(self.platform.home, self.domain.name)):
                job = pickup_job_name(self.domain)
                yield self._execute(job, partition=f"{self.platform.clock():%Y-%m-%d}")
            if answers_on(self.platform, self.domain, day) >= answers or time.monotonic() > until:
                return
            time.sleep(0.05)

    def _evaluated(self, sensor: dg.SensorDefinition) -> Iterator[Ran]:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(sensor.name),
            repository_def=self._repository,
            resources={"platform": self.platform},
            sensor_name=sensor.name,
        )
        with context:
            told = sensor(context)
        if not isinstance(told, dg.SensorResult):
            # A sensor of one request says it as it is; one that has nothing to do gives a reason, or nothing.
            told = dg.SensorResult(run_requests=[told] if isinstance(told, dg.RunRequest) else [])
        if told.cursor is not None:
            self._cursors[sensor.name] = told.cursor
        for added in told.dynamic_partitions_requests or ():
            if isinstance(added, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
        for event in told.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in told.run_requests or ():
            yield self._execute(
                request.job_name or _targets(sensor)[0],
                tags={**request.tags, SENSOR_NAME_TAG: sensor.name},
                partition=request.partition_key,
                keys=list(request.asset_selection) if request.asset_selection else None,
            )

    def _execute(
        self,
        job: str,
        *,
        tags: dict[str, str] | None = None,
        partition: str | None = None,
        keys: list[dg.AssetKey] | None = None,
        told: str = "",
    ) -> Ran:
        if job not in self._jobs:
            self._jobs[job] = self._repository.get_job(job)
        started = time.monotonic()
        # Not in the main thread, where Dagster would take Ctrl-C for itself and break the run off in the middle. This
        # way it reaches us, and the run that is under way comes to its end before we do.
        with ThreadPoolExecutor(max_workers=1) as thread:
            result = thread.submit(
                self._jobs[job].execute_in_process,
                instance=self.instance,
                run_config=quiet,
                tags={"user": logged_in(), **(tags or {})},
                partition_key=partition,
                asset_selection=keys,
                raise_on_error=False,
            ).result()
        end_run(self.platform.home, result.run_id)
        broken = [
            f"{each.asset_key.to_user_string()}: {each.check_name}"
            for each in result.get_asset_check_evaluations()
            if not each.passed
        ]
        failed = [f"{job}: {_message(event)}" for event in result.get_step_failure_events()]
        return Ran(
            job=job.removeprefix(f"{self.domain.name}_"),
            partition=told or partition or "",
            succeeded=result.success,
            seconds=time.monotonic() - started,
            findings=tuple(dict.fromkeys([*broken, *([] if broken else failed)])),
        )

    def _let_go_of_killed_runs(self) -> None:
        """Record as cancelled what a killed simulation has left: after a failure sensors wait, on the wall's clock."""
        gone = set(runs_without_process(self.platform.home))
        for record in self.instance.get_run_records(dg.RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES))):
            if record.dagster_run.run_id in gone:
                self.instance.report_run_canceled(record.dagster_run, message="The simulation that executed it ended")


@contextmanager
def simulated_daemon(platform: Platform, domain: Domain, *, say: Callable[[str], None]) -> Iterator[SimulatedDaemon]:
    """The daemon of a home that no other daemon looks after.

    Parameters
    ----------
    say : is told what is waited for

    Raises
    ------
    Unavailable
        Another daemon is running.
    """
    with dagster_instance(platform) as instance:
        require_no_daemon(instance, say=say)
        yield SimulatedDaemon(platform, domain, instance)


def require_no_daemon(
    instance: dg.DagsterInstance, *, say: Callable[[str], None], wait: Callable[[float], None] = time.sleep
) -> None:
    """Wait until a daemon that has just been stopped shows by its silence that it was.

    Raises
    ------
    Unavailable
        It gives another sign of life.
    """
    first = _newest_sign(instance)
    if first is None:
        return
    while datetime.now(UTC).timestamp() - first < alive_within.total_seconds():
        if _newest_sign(instance) != first:
            raise Unavailable(
                "the Dagster daemon of this home is running (`mlplatform demo` or `mlplatform ui`), and its sensors go "
                "by the wall's clock. Stop it while days are replayed; `--ui-port 3000` shows the UI without it"
            )
        say("waiting to see whether the Dagster daemon of this home has stopped")
        wait(1.0)


def _newest_sign(instance: dg.DagsterInstance) -> float | None:
    return max((each.timestamp for each in instance.get_daemon_heartbeats().values()), default=None)


def _message(event: dg.DagsterEvent) -> str:
    """What a step has failed of, in one line."""
    error = event.step_failure_data.error
    # Around what was raised Dagster puts an error of its own.
    error = error.cause if error is not None and error.cause is not None else error
    return " ".join((error.message if error else "").split())[:300]


def _targets(sensor: dg.SensorDefinition) -> list[str]:
    return [each.job_name for each in sensor.targets]
