"""The sensor of what gateways write: one run for what waits, none else; each transition of a breaker observed once."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from mlplatform.definitions import platform_definitions
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.sensors import first_wait
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder, files
from mlplatform.monitoring.pickup import log_table
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.monitoring.sensors import pickup_job_name, prediction_log_sensor, transitions_at_once
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform_tests.fakes.answered import NOON, answered, transition
from mlplatform_tests.fakes.synthetic_home import Clock

JOB = pickup_job_name(DOMAIN)


class Daemon:
    """Ticks the sensor and executes what it requests, when it is told to."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self.platform, self.instance = platform, instance
        self.cursor: str | None = None

    def tick(self, *, dies: bool = False) -> dg.SensorResult:
        """One look of the sensor; Dagster's daemon keeps first the events, and then, unless it dies, the cursor."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        )
        result = prediction_log_sensor(DOMAIN)(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        if not dies:
            self.cursor = result.cursor
        return result

    def observed(self) -> list[dg.AssetObservation]:
        """What Dagster shows on the Bento of the model, oldest first."""
        bento = dg.AssetKey([DOMAIN.name, "late_order", "bento"])
        records = self.instance.fetch_observations(bento, limit=1000, ascending=True).records
        return [each.asset_observation for each in records if each.asset_observation]

    def request(self) -> dg.RunRequest:
        """The one run that a tick requests."""
        (request,) = self.tick().run_requests or []
        return request

    def reason(self) -> str:
        """Why a tick requests no run."""
        result = self.tick()
        assert not result.run_requests
        told = result.skip_reason
        return str(told.skip_message if isinstance(told, dg.SkipReason) else told)

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a requested run."""
        job = platform_definitions({DOMAIN.name: DOMAIN}, self.platform).resolve_job_def(JOB)
        return job.execute_in_process(
            instance=self.instance,
            run_config=quiet,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )


@pytest.fixture
def clock() -> Clock:
    """The real time: Dagster's own records know no other."""
    return Clock(datetime.now(UTC))


@pytest.fixture
def daemon(tmp_path: Path, clock: Clock) -> Iterator[Daemon]:
    """A daemon over an empty home."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(Platform(home=tmp_path, clock=clock, environment="lock"), instance)


def log(daemon: Daemon, rows: int) -> None:
    """One finished segment."""
    segments = Segments(log_folder(daemon.platform.home, DOMAIN.name), size=1 << 16)
    segments.append(encode(answered(rows)), rows)
    segments.close()


def test_it_runs_by_itself() -> None:
    """On by default, twice a minute."""
    sensor = prediction_log_sensor(DOMAIN)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
    assert sensor.job_name == JOB


def test_what_waits_is_picked_up_by_one_run(daemon: Daemon) -> None:
    """Nothing: no run. A segment: one run, that reports the day of its rows, not the day of the run. Then nothing."""
    assert daemon.reason() == "no finished segment waits"
    log(daemon, 3)
    request = daemon.request()
    assert daemon.request().run_key == request.run_key
    run = daemon.execute(request)
    assert run.success
    records = daemon.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    (made,) = [record.asset_materialization for record in records]
    assert made is not None
    assert (made.asset_key.path, made.partition) == ([DOMAIN.name, "prediction_log"], "2024-01-01")
    assert made.metadata["rows_added"].value == 3
    assert pl.read_delta(log_table(daemon.platform, DOMAIN)).height == 3
    assert daemon.reason() == "no finished segment waits"
    log(daemon, 1)
    assert daemon.request().run_key != request.run_key


def test_the_segment_of_a_dead_writer_is_found(daemon: Daemon) -> None:
    """It has no lock any more."""
    log(daemon, 3)
    (path,) = log_folder(daemon.platform.home, DOMAIN.name).glob("*.segment")
    path.rename(path.with_suffix(".open"))
    assert daemon.execute(daemon.request()).success
    assert pl.read_delta(log_table(daemon.platform, DOMAIN)).height == 3


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_one_run_at_a_time(daemon: Daemon, status: dg.DagsterRunStatus) -> None:
    """While one is executed, or waits for its turn, nothing is requested."""
    log(daemon, 3)
    where = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="mlplatform.definitions"))
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(where, "__repository__"), JOB)
    run = create_run_for_test(daemon.instance, job_name=JOB, status=status, remote_job_origin=origin)
    assert daemon.reason() == f"run {run.run_id[:8]} is under way"


def test_a_failed_run_is_tried_again_after_a_wait(daemon: Daemon, clock: Clock) -> None:
    """No hot loop while the table cannot be written, and no row lost."""
    log(daemon, 3)
    table = Path(log_table(daemon.platform, DOMAIN))
    table.parent.mkdir(parents=True)
    table.write_text("a file where the table should be")
    assert not daemon.execute(daemon.request()).success
    assert "failed; tried again at" in daemon.reason()
    clock.now = datetime.now(UTC) + first_wait
    table.unlink()
    assert daemon.execute(daemon.request()).success
    assert pl.read_delta(str(table)).height == 3


@pytest.fixture
def breakers(daemon: Daemon) -> Iterator[BreakerLog]:
    """What a living gateway writes its breakers' transitions with."""
    log = BreakerLog(breaker_folder(daemon.platform.home, DOMAIN.name))
    yield log
    log.close()


def reasons(daemon: Daemon) -> list[object]:
    """Of all that was observed."""
    return [each.metadata["reason"].value for each in daemon.observed()]


def test_a_transition_of_a_breaker_is_observed_once(daemon: Daemon, breakers: BreakerLog) -> None:
    """On the Bento that was served, with all that is known of it; beside the run that picks answers up."""
    assert daemon.reason() == "no finished segment waits"
    breakers.append(transition(reason="too slow"))
    log(daemon, 3)
    assert daemon.request().job_name == JOB
    (seen,) = daemon.observed()
    bentos = platform_definitions({DOMAIN.name: DOMAIN}, daemon.platform).resolve_all_asset_keys()
    assert seen.asset_key in bentos
    assert seen.partition == "2024-01-01-abcd"
    told = {name: value.value for name, value in seen.metadata.items() if name != "line"}
    assert told == {
        "model": "synthetic/late_order",
        "manifest": "abc",
        "gateway": "g1",
        "breaker": "synthetic/late_order",
        "from": "closed",
        "to": "open",
        "reason": "too slow",
        "at": NOON / 1e9,
    }
    daemon.tick()
    breakers.append(transition(reason="the wait is over"))
    daemon.tick()
    daemon.tick()
    assert reasons(daemon) == ["too slow", "the wait is over"]


def test_what_a_daemon_told_that_died_is_not_told_again(daemon: Daemon, breakers: BreakerLog) -> None:
    """It had reported the observations, and not yet kept how far it had read."""
    breakers.append(transition(reason="first"))
    daemon.tick(dies=True)
    breakers.append(transition(reason="second"))
    daemon.tick(dies=True)
    daemon.tick()
    assert reasons(daemon) == ["first", "second"]


def test_the_file_of_a_gateway_that_is_gone_goes_when_all_of_it_was_observed(
    daemon: Daemon, breakers: BreakerLog
) -> None:
    """And not before; however much it holds, one tick tells of so much and the next of the rest."""
    folder = breaker_folder(daemon.platform.home, DOMAIN.name)
    rest = 3
    for number in range(transitions_at_once + rest):
        breakers.append(transition(reason=str(number)))
    for told in (transitions_at_once, transitions_at_once + rest):
        daemon.tick()
        assert len(daemon.observed()) == told
    daemon.tick()
    assert len(files(folder)) == 1  # its writer lives
    breakers.append(transition(reason="last"))
    breakers.close()
    daemon.tick(dies=True)
    assert len(files(folder)) == 1
    for _ in range(4):
        daemon.tick()
    assert files(folder) == []
    gone = "the gateway worker that it was of has ended"
    assert reasons(daemon) == [*map(str, range(transitions_at_once + rest)), "last", gone]
    daemon.tick()
    assert daemon.cursor == "{}"
