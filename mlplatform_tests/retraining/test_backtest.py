"""The policy replayed: each arm trains when it says, on what was known then, and is judged on the same requests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mlplatform.domain.model import ModelSpec, Retraining
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError
from mlplatform.operations.retraining import as_json, show_backtest
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.backtest import RecordedDays, backtest, evidence_on
from mlplatform_tests.fakes.synthetic_home import ALL_DAYS, TrainedHome

FIRST, LAST = "2024-01-17", "2024-01-24"


def declared(rows: float) -> ModelSpec:
    """A model that is trained again after so many rows, at most every second day."""
    policy = Retraining(new_rows=Threshold(value=rows, reason="a test"), cooldown=Threshold(value=2, reason="a test"))
    return replace(DOMAIN.model("late_order"), retraining=policy)


@pytest.fixture(scope="module")
def platform(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The tables of the trained home; what a backtest keeps goes elsewhere."""
    home: Path = tmp_path_factory.mktemp("backtest")
    return replace(trained.platform, home=home)


def days(steps: Sequence[object]) -> list[str]:
    """On which an arm trained."""
    return [str(getattr(step, "day", "")) for step in steps]


def test_the_arms_are_told_side_by_side(platform: Platform) -> None:
    """By their trainings, their cost and their loss on the same requests; a policy by rows trains every so many."""
    found = backtest(platform, DOMAIN, declared(400), first=FIRST, last=LAST)
    arms = {arm.name: arm for arm in found.arms}
    assert list(arms) == ["policy", "never", "monthly", "weekly", "always"]
    assert days(arms["policy"].trainings) == ["2024-01-19", "2024-01-21", "2024-01-23"]
    assert all("new rows since" in step.reason for step in arms["policy"].trainings)
    assert (len(arms["never"].trainings), days(arms["weekly"].trainings)) == (0, ["2024-01-24"])
    assert len(arms["always"].trainings) == 7
    assert arms["never"].seconds == 0 < arms["always"].seconds
    # In a month without a first day both never train: the same answers.
    assert (arms["never"].loss, arms["never"].difference.point) == (arms["monthly"].loss, 0.0)
    assert arms["always"].loss != arms["never"].loss
    assert 0 < found.requests <= 8 * 200
    console = Console(record=True, width=120)
    show_backtest(found, console)
    assert "2024-01-19" in console.export_text()
    assert '"policy"' in as_json(found)


def test_a_second_look_is_the_same_and_trains_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with other thresholds: the models do not depend on them."""
    before = backtest(platform, DOMAIN, declared(400), first=FIRST, last=LAST)
    monkeypatch.setattr(RecordedDays, "_train", None)
    assert backtest(platform, DOMAIN, declared(400), first=FIRST, last=LAST) == before
    rarely = backtest(platform, DOMAIN, declared(10_000), first=FIRST, last=LAST)
    assert not rarely.arms[0].trainings


def test_nothing_is_known_before_its_time(platform: Platform, tmp_path: Path) -> None:
    """Labels that come later, of requests that were asked before too, change neither the model nor the evidence."""
    day, newest = "2024-01-22", "2024-01-17"
    honest = RecordedDays(platform, DOMAIN, declared(400))
    tampered = RecordedDays(replace(platform, home=tmp_path), DOMAIN, declared(400))
    later = honest.known_at > honest.cut_off(day).timestamp() * 1_000_000
    assert 0 < later.sum() < len(later)
    tampered.labels = np.where(later, 1.0 - honest.labels, honest.labels)
    tampered.rows = honest.rows.with_columns(label=tampered.labels)
    assert evidence_on(tampered, day, newest) == evidence_on(honest, day, newest)
    assert np.array_equal(tampered.as_of(day).scores, honest.as_of(day).scores)
    assert tampered.as_of("2024-01-25").evaluation != honest.as_of("2024-01-25").evaluation


def test_the_evidence_of_a_day(platform: Platform) -> None:
    """Rows of the days since, those of them whose outcome was due, and the age in days."""
    recorded = RecordedDays(platform, DOMAIN, declared(400))
    known = evidence_on(recorded, "2024-01-20", "2024-01-17")
    since = [recorded.facts[day] for day in ("2024-01-17", "2024-01-18", "2024-01-19")]
    assert (known.new_rows, known.age_days, known.since_days) == (sum(since), 3.0, 3.0)
    assert known.labels == sum(since[:2])
    # Three days say nothing sure; from five on there is a figure.
    assert known.true_rise is None
    assert evidence_on(recorded, "2024-01-25", "2024-01-17").true_rise is not None


def test_too_little_to_replay_is_said(platform: Platform) -> None:
    """With the days that are recorded, or how many more are needed."""
    with pytest.raises(DataError, match="there is nothing to replay"):
        backtest(platform, DOMAIN, declared(400), first=LAST, last=FIRST)
    with pytest.raises(DataError, match="more days"):
        backtest(platform, DOMAIN, declared(400), first=ALL_DAYS[3], last=LAST)
