"""The skew of a day in Dagster: its check, what it shows, and the sensor that has a day compared once it is over."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.sensors import first_wait
from mlplatform.monitoring.partitions import monitor_job_name
from mlplatform.monitoring.pickup import log_table
from mlplatform.monitoring.skew.sensors import skew_sensor
from mlplatform_tests.fakes.monitored import DAY, MIDNIGHT, TWO_BEFORE, Monitored
from mlplatform_tests.fakes.served_day import asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome

JOB = monitor_job_name(DOMAIN, "skew")


@pytest.fixture
def monitor(own_trained: TrainedHome, tmp_path: Path) -> Iterator[Monitored]:
    """One of its own for each test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Monitored(own_trained, instance, tmp_path / "metrics", monitor="skew", sensor=skew_sensor(DOMAIN))


def judged(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """The one result of a run."""
    (result,) = run.get_asset_check_evaluations()
    assert (result.check_name, result.partition) == ("served_as_trained", DAY)
    return result


def test_a_day_that_was_served_as_trained_passes(monitor: Monitored) -> None:
    """With the number of answers, and every feature in the table."""
    monitor.serve()
    run = monitor.execute()
    result = judged(run)
    assert result.passed
    answers = asked_on(monitor.platform, DAY).height
    assert f"{answers} of {answers} answers were compared, and every value is the same" in str(result.description)
    (made,) = run.get_asset_materialization_events()
    told = made.materialization.metadata
    assert told["answers"].value == told["rows_compared"].value == answers
    assert all(f"| {name} |" in str(told["features"].value) for name in monitor.bundle.manifest.features)
    assert "| synthetic/courier | present |" in str(told["statuses"].value)


def test_a_day_with_skew_is_an_error_in_words(monitor: Monitored) -> None:
    """The run succeeds, its check does not: it names features, shares, a request and the cause, the worst first."""
    monitor.serve(as_of=TWO_BEFORE)
    run = monitor.execute()
    result = judged(run)
    assert run.success
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    told = str(result.description)
    assert "courier_mean_minutes_3d was served otherwise in" in told and "for example to request o" in told
    assert "was not published in time" in told
    (made,) = run.get_asset_materialization_events()
    lines = str(made.materialization.metadata["features"].value).splitlines()[2:]
    shares = [float(line.split("|")[4].strip(" %")) for line in lines]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0 and shares[-1] == 0
    assert int(str(made.materialization.metadata["rows_kept"].value)) > 0


def test_a_day_without_answers_passes(monitor: Monitored) -> None:
    """There is no log, so nothing was served otherwise."""
    result = judged(monitor.execute())
    assert result.passed and result.description == f"{DAY}: nothing was served on that day"


def test_a_day_that_cannot_be_compared_is_a_warning(monitor: Monitored) -> None:
    """The bundle is gone: that is no pass, and no skew."""
    monitor.serve()
    monitor.bundle.folder.rename(monitor.folder / "away")
    result = judged(monitor.execute())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "could not be compared" in str(result.description)


def test_it_runs_by_itself() -> None:
    """On by default."""
    sensor = skew_sensor(DOMAIN)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == JOB


def test_a_day_is_compared_once_it_is_over(monitor: Monitored) -> None:
    """Not before its last answers can be in the table; then once, and again when the log has more answers of it."""
    assert monitor.due() == []
    monitor.serve(hours=range(12))
    monitor.at(MIDNIGHT + timedelta(minutes=4))
    assert monitor.due() == []
    monitor.at(MIDNIGHT + timedelta(minutes=5))
    (request,) = monitor.tick().run_requests or []
    assert request.partition_key == DAY
    assert [each.run_key for each in monitor.tick().run_requests or []] == [request.run_key]
    assert monitor.execute().success
    assert monitor.due() == []
    monitor.serve(hours=range(12, 24))
    (again,) = monitor.tick().run_requests or []
    assert again.run_key != request.run_key
    assert monitor.execute().success
    assert monitor.due() == []


def test_a_failed_run_is_tried_again_after_a_wait(monitor: Monitored) -> None:
    """And while one is under way nothing is requested."""
    monitor.serve(hours=range(1))
    now = datetime.now(UTC)  # Dagster's own records know no other time
    monitor.at(now)
    place = Path(log_table(monitor.platform, DOMAIN))
    files = [each.rename(each.with_suffix(".away")) for each in place.rglob("*.parquet")]
    assert not monitor.execute().success
    result = monitor.tick()
    assert not result.run_requests and "failed; tried again later" in str(result.skip_reason)
    for each in files:
        each.rename(each.with_suffix(".parquet"))
    monitor.at(datetime.now(UTC) + first_wait)
    assert monitor.due() == [DAY]
    create_run_for_test(monitor.instance, job_name=JOB, status=dg.DagsterRunStatus.STARTED)
    assert "is under way" in str(monitor.tick().skip_reason)
