"""Data quality in Dagster: what a day shows, its check, its report, and the sensor that has it judged."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import ReportFailed
from mlplatform.features.tables import partition_end
from mlplatform.monitoring.findings_table import judgements
from mlplatform.monitoring.quality import reports
from mlplatform.monitoring.quality.assets import quality_asset
from mlplatform.monitoring.quality.checks import MONITOR
from mlplatform.monitoring.quality.reference import reference_of
from mlplatform.monitoring.quality.reports import report_path
from mlplatform.monitoring.quality.sensors import quality_sensor
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import Matrix
from mlplatform_tests.fakes.logged_vectors import log_vectors
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

DAY = "2024-01-23"


class Monitor:
    """A home whose model has served, and a daemon that ticks and executes when it is told to."""

    def __init__(self, home: TrainedHome, instance: dg.DagsterInstance) -> None:
        self.platform, self.manifest, self.instance = home.platform, home.entry.to_manifest, instance
        self.names = bundle_of(home.platform, self.manifest).manifest.features
        self.at(timedelta(minutes=5))

    def at(self, after: timedelta) -> None:
        """It is so long after the day."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = partition_end(DAY) + after

    def rows(self, count: int = 300) -> Matrix:
        """Rows as in the training set."""
        sample = reference_of(self.platform, DOMAIN, self.manifest).sample
        return sample[np.random.default_rng(0).integers(0, len(sample), count)].copy()

    def serve(self, rows: Matrix) -> None:
        """They were asked on the day."""
        log_vectors(self.platform, DAY, rows, manifest=self.manifest)

    def due(self) -> list[str | None]:
        """Days for which a tick requests a run."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.platform})
        result = quality_sensor(DOMAIN)(context)
        assert isinstance(result, dg.SensorResult)
        return [each.partition_key for each in result.run_requests or []]

    def execute(self) -> dg.ExecuteInProcessResult:
        """Judge the day."""
        return dg.materialize(
            [quality_asset(DOMAIN)],
            instance=self.instance,
            partition_key=DAY,
            resources={"platform": self.platform},
            raise_on_error=False,
        )


@pytest.fixture
def monitor(own_trained: TrainedHome) -> Iterator[Monitor]:
    """One of its own for each test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Monitor(own_trained, instance)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidently fails, which takes no time."""

    def fail(_path: Path, _training: Matrix, _day: Matrix, _names: object, title: str) -> None:
        raise ReportFailed(title, ValueError("an odd column"))

    monkeypatch.setattr(reports, "write_report", fail)


def judged(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """The one result of a run."""
    (result,) = run.get_asset_check_evaluations()
    assert (result.check_name, result.partition) == ("data_as_trained", DAY)
    return result


def shown(run: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Metadata of the materialisation."""
    (made,) = run.get_asset_materialization_events()
    return {name: each.value for name, each in made.materialization.metadata.items()}


def test_a_quiet_day_passes_and_shows_every_feature(monitor: Monitor) -> None:
    """With a table, a picture and a report that lies where it says."""
    monitor.serve(monitor.rows())
    run = monitor.execute()
    result = judged(run)
    assert result.passed and "300 of 300 answers were judged, and all is as usual" in str(result.description)
    told = shown(run)
    name = f"late_order_{monitor.manifest[:12]}"
    assert all(f"| {each} | as usual |" in str(told["features"]) for each in monitor.names)
    assert "| orders | 2024-01-23 | 200 |" in str(told["sources"])
    assert "data:image/png;base64," in str(told[f"picture_{name}"])
    path = report_path(monitor.platform, DOMAIN, DAY, "late_order", monitor.manifest)
    assert told[f"report_{name}"] == str(path) and path.stat().st_size > 1e6
    (kept,) = judgements(monitor.platform, DOMAIN)
    assert (kept.monitor, kept.day, kept.findings) == (MONITOR, DAY, ())


@pytest.mark.usefixtures("no_report")
def test_a_harmful_day_is_an_error_in_words(monitor: Monitor) -> None:
    """And its findings are kept, for alerts; Evidently failing costs the report alone, and is told."""
    rows = monitor.rows()
    rows[:, monitor.names.index("order_distance")] = np.nan
    monitor.serve(rows)
    run = monitor.execute()
    result = judged(run)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "order_distance: 100.0% missing" in str(result.description)
    told = shown(run)
    first = str(told["features"]).splitlines()[2]
    assert "| order_distance | null_rate |" in first
    assert "Evidently raised ValueError (an odd column)" in str(told[f"report_late_order_{monitor.manifest[:12]}"])
    (kept,) = judgements(monitor.platform, DOMAIN)
    assert [each.rule for each in kept.findings] == ["null_rate"]


def test_a_day_without_answers_passes(monitor: Monitor) -> None:
    """Nothing was served."""
    result = judged(monitor.execute())
    assert result.passed and result.description == f"{DAY}: nothing was served on that day"


@pytest.mark.usefixtures("no_report")
def test_what_cannot_be_judged_is_a_warning(monitor: Monitor) -> None:
    """A manifest that nobody knows has answered."""
    log_vectors(monitor.platform, DAY, monitor.rows(10), manifest="0" * 64)
    result = judged(monitor.execute())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "cannot be held to their training set" in str(result.description)


@pytest.mark.usefixtures("no_report")
def test_a_day_is_judged_once_it_is_over_and_again_when_there_is_more(monitor: Monitor) -> None:
    """More answers, in this case."""
    monitor.serve(monitor.rows(250))
    monitor.at(timedelta(minutes=4))
    assert monitor.due() == []
    monitor.at(timedelta(minutes=5))
    assert monitor.due() == [DAY]
    assert monitor.execute().success
    assert monitor.due() == []
    monitor.serve(monitor.rows(20))
    assert monitor.due() == [DAY]
    assert monitor.execute().success
    assert monitor.due() == []


def test_it_runs_by_itself() -> None:
    """On by default."""
    sensor = quality_sensor(DOMAIN)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert (sensor.name, sensor.job_name) == ("synthetic_data_quality", "synthetic_data_quality")
