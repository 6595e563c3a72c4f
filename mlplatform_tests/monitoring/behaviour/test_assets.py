"""Model behaviour in Dagster: its check, what it shows, what it keeps, and the sensor that has days judged."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import numpy as np
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.assets import prediction_log_asset
from mlplatform.monitoring.behaviour.assets import behaviour_asset, observed_transitions
from mlplatform.monitoring.behaviour.sensors import behaviour_sensor
from mlplatform.monitoring.behaviour.tables import latest_behaviour
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder
from mlplatform.monitoring.findings_table import findings_of
from mlplatform.monitoring.partitions import monitor_job_name, monitor_key
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import Batch, encode, log_folder
from mlplatform.monitoring.sensors import prediction_log_sensor
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform_tests.fakes.answered import transition
from mlplatform_tests.fakes.behaved import MIDNIGHT, batch_of_day, usual_scores
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

DAY = "2024-01-01"
JOB = monitor_job_name(DOMAIN, "model_behaviour")


class Monitor:
    """A home with a log, and a daemon that ticks and executes when it is told to."""

    def __init__(self, home: TrainedHome, instance: dg.DagsterInstance) -> None:
        self.platform: Platform = home.platform
        self.instance = instance
        self.manifest = home.entry.to_manifest
        self.definitions = dg.Definitions(
            assets=[prediction_log_asset(DOMAIN), behaviour_asset(DOMAIN)],
            sensors=[behaviour_sensor(DOMAIN)],
            jobs=[dg.define_asset_job(JOB, dg.AssetSelection.assets(monitor_key(DOMAIN, "model_behaviour")))],
            resources={"platform": home.platform},
            executor=dg.in_process_executor,
        )

    def log(self, *batches: Batch) -> None:
        """Answers in the table."""
        segments = Segments(log_folder(self.platform.home, DOMAIN.name), size=1 << 20, spares=1)
        for batch in batches:
            assert segments.append(encode(batch), len(batch.request_id))
        segments.close()
        pick_up(self.platform, DOMAIN)

    def at(self, moment: datetime) -> None:
        """It is so late."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = moment

    def due(self) -> list[str | None]:
        """Days for which a tick requests a run."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.platform})
        result = behaviour_sensor(DOMAIN)(context)
        assert isinstance(result, dg.SensorResult)
        return [each.partition_key for each in result.run_requests or []]

    def judge(self, day: str = DAY) -> dg.ExecuteInProcessResult:
        """Have a day judged."""
        job = self.definitions.resolve_job_def(JOB)
        return job.execute_in_process(instance=self.instance, run_config=quiet, partition_key=day)


@pytest.fixture
def monitor(own_trained: TrainedHome) -> Iterator[Monitor]:
    """One of its own for each test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Monitor(own_trained, instance)


def judged(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """The one result of a run."""
    (result,) = run.get_asset_check_evaluations()
    assert result.check_name == "behaves_as_evaluated"
    return result


def test_a_day_with_fallbacks_is_an_error_in_words(monitor: Monitor) -> None:
    """The run succeeds, its check does not; figures and findings are kept, plots and tables shown."""
    rows = 600
    sources = ["model"] * 400 + ["rules"] * 200
    monitor.log(
        batch_of_day(
            usual_scores(rows),
            manifest=monitor.manifest,
            source=sources,
            degraded=[each != "model" for each in sources],
            reason=[None] * 400 + ["too | slow"] * 200,
        )
    )
    run = monitor.judge()
    result = judged(run)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "33.3% of 600 answers were not the model's" in str(result.description)
    (made,) = run.get_asset_materialization_events()
    told = made.materialization.metadata
    assert told["answers"].value == rows
    assert str(told["plots"].value).count("data:image/png;base64,") == 3
    assert len(str(told["plots"].value)) < 200_000
    line = str(told["models"].value).splitlines()[2]
    assert line.startswith(f"| late_order | `{monitor.manifest[:12]}` | champion | 600 | 1 | 33.3% |")
    assert "too \\| slow" in str(told["findings"].value)
    assert f"| late_order | `{monitor.manifest[:12]}` | 0 of 400 |" in str(told["scored_again"].value)
    (kept,) = latest_behaviour(monitor.platform, DOMAIN)[DAY]
    assert kept.count("fallbacks") == 200
    assert "fallback_share" in {each.rule for each in findings_of(monitor.platform, DOMAIN)}


def test_a_quiet_day_passes(monitor: Monitor) -> None:
    """Also one without any answer, which says so."""
    result = judged(monitor.judge())
    assert result.passed and result.description == f"{DAY}: nothing was answered on that day"


def test_a_day_that_cannot_be_compared_is_a_warning(monitor: Monitor) -> None:
    """The bundle is gone: that is no pass, and no alarm."""
    monitor.log(batch_of_day(usual_scores(), manifest="gone"))
    result = judged(monitor.judge())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "late_order gone: " in str(result.description)


def test_odd_days_can_be_drawn(monitor: Monitor) -> None:
    """One row, no score at all, and rows of a shadow only."""
    monitor.log(batch_of_day(np.array([0.4])))
    assert monitor.judge().success
    monitor.log(
        batch_of_day(np.full(20, np.nan), arm=["shadow"] * 20, midnight=MIDNIGHT + 1),
        batch_of_day(np.full(20, np.nan), manifest="def", midnight=MIDNIGHT + 2, latency={}),
    )
    assert monitor.judge().success


def test_a_day_is_judged_once_and_again_when_it_grows(monitor: Monitor) -> None:
    """Not before it is over; then once, with the silent days after it, each once."""
    monitor.log(batch_of_day(usual_scores(100), manifest=monitor.manifest))
    monitor.at(datetime(2024, 1, 2, 0, 4, tzinfo=UTC))
    assert monitor.due() == []
    monitor.at(datetime(2024, 1, 3, 0, 5, tzinfo=UTC))
    assert monitor.due() == [DAY, "2024-01-02"]
    assert monitor.judge().success and monitor.judge("2024-01-02").success
    assert monitor.due() == []
    monitor.log(batch_of_day(usual_scores(50), arm=["shadow"] * 50, midnight=MIDNIGHT + 1))
    assert monitor.due() == [DAY]
    assert monitor.judge().success
    assert monitor.due() == []


def test_transitions_outlive_the_files_of_their_gateway(monitor: Monitor) -> None:
    """What the sensor of the log has told of is judged with the day, when the file is gone; once, where it is not."""
    midnight = datetime(2024, 1, 1, tzinfo=UTC)
    written = BreakerLog(breaker_folder(monitor.platform.home, DOMAIN.name))
    written.append(transition(at=int(midnight.timestamp()) * 10**9 + 7_000_000_123))
    context = dg.build_sensor_context(instance=monitor.instance, resources={"platform": monitor.platform})
    told = prediction_log_sensor(DOMAIN)(context)
    assert isinstance(told, dg.SensorResult)
    for event in told.asset_events:
        assert isinstance(event, dg.AssetObservation)
        monitor.instance.report_runless_asset_event(event)
    assert [each.breaker for each in observed_transitions(monitor.instance, DOMAIN)] == ["synthetic/late_order"]
    assert "opened 1 times" in str(judged(monitor.judge()).description)
    written.close()
    for path in breaker_folder(monitor.platform.home, DOMAIN.name).iterdir():
        path.unlink()
    assert "opened 1 times" in str(judged(monitor.judge()).description)


def test_it_runs_by_itself() -> None:
    """On by default."""
    sensor = behaviour_sensor(DOMAIN)
    assert (sensor.default_status, sensor.job_name) == (dg.DefaultSensorStatus.RUNNING, JOB)
