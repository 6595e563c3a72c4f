"""The nightly replays in Dagster: the check, what the asset shows, and the sensor that asks for it once a night."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.findings_table import findings_of
from mlplatform.reproducibility.coverage.checks import coverage_check
from mlplatform.reproducibility.coverage.coverage import MONITOR
from mlplatform.reproducibility.coverage.sensors import coverage_sensor
from mlplatform.reproducibility.coverage.tables import coverage_rows
from mlplatform_tests.fakes.monitored import DAY, MIDNIGHT, Monitored
from mlplatform_tests.fakes.synthetic_home import TrainedHome


@pytest.fixture
def nights(own_trained: TrainedHome, tmp_path: Path) -> Iterator[Monitored]:
    """One of its own for each test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Monitored(own_trained, instance, tmp_path / "metrics", monitor=MONITOR, sensor=coverage_sensor(DOMAIN))


def served(nights: Monitored) -> int:
    """Answer the requests of the day, and wait until it may be looked at; how many they are."""
    answers = nights.serve()
    nights.at(MIDNIGHT + timedelta(minutes=5))
    return answers


def judged(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """The one result of a run."""
    assert run.success
    (result,) = run.get_asset_check_evaluations()
    assert result.check_name == coverage_check(DOMAIN).name == "replayable"
    return result


def shown(run: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Metadata of what a run has made."""
    (made,) = run.get_asset_materialization_events()
    return {name: each.value for name, each in made.materialization.metadata.items()}


def test_answers_that_can_be_given_again_pass(nights: Monitored) -> None:
    """To the bit; the shares are figures, which the UI plots over the nights, and the nights are a picture."""
    answers = served(nights)
    run = nights.execute()
    result = judged(run)
    assert result.passed, result.description
    assert f"{answers} of {answers} answers were given again: {answers} to the bit" in str(result.description)
    told = shown(run)
    assert (told["replayed"], told["exact_share"], told["replayable_share"]) == (answers, 1.0, 1.0)
    assert str(told["nights"]).startswith("![replay coverage](data:image/png;base64,")
    assert nights.bundle.manifest.model_version in str(told["by_manifest_and_age"])
    assert nights.bundle.manifest.short_digest in str(told["reproducible_until"])
    assert "faults" not in told


def test_answers_that_cannot_are_an_error_in_words(nights: Monitored) -> None:
    """The run succeeds, its check does not: it names share, cause, a request, and the command that shows it."""
    answers = served(nights)
    nights.bundle.folder.rename(nights.folder / "away")
    run = nights.execute()
    result = judged(run)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    told = str(result.description)
    assert f"0.0% of {answers} old answers of late_order" in told and "bundle" in told
    assert "See `mlplatform replay o" in told
    assert shown(run)["impossible_share"] == 1.0 and "bundle" in str(shown(run)["causes"])
    assert coverage_rows(nights.platform, DOMAIN).read().height == answers
    (finding,) = findings_of(nights.platform, DOMAIN, monitors=[MONITOR])
    assert (finding.rule, finding.subject, finding.harmful) == ("not_replayable", "synthetic/late_order", True)


def test_a_night_before_the_first_answer_passes_and_says_so(nights: Monitored) -> None:
    """There is no log, so there is nothing to lose."""
    run = nights.execute()
    result = judged(run)
    assert result.passed and result.description == f"{DAY}: nothing was answered up to that night"
    assert "nights" not in shown(run)


def test_it_runs_by_itself_once_a_night(nights: Monitored) -> None:
    """When the log of the day has settled; the night after also where nobody asked anything."""
    assert coverage_sensor(DOMAIN).default_status is dg.DefaultSensorStatus.RUNNING
    assert nights.due() == []
    served(nights)
    nights.at(MIDNIGHT + timedelta(minutes=4))
    assert nights.due() == []
    nights.at(MIDNIGHT + timedelta(minutes=5))
    assert nights.due() == [DAY]
    judged(nights.execute())
    assert nights.due() == []
    nights.at(MIDNIGHT + timedelta(days=1, minutes=5))
    assert nights.due() == ["2024-01-21"]
    assert judged(nights.execute("2024-01-21")).passed
    assert nights.due() == []
