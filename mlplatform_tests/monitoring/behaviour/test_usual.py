"""What is usual of a model: bounds of daily values that quiet days stay within, made from what it was trained on."""

import numpy as np
import numpy.typing as npt
import pytest

from mlplatform.monitoring.behaviour.usual import Usual, band, days_at_least, usual_of
from mlplatform.training.dataset import load_rows
from mlplatform_tests.fakes.behaved import usual_days
from mlplatform_tests.fakes.synthetic_home import TrainedHome

Floats = npt.NDArray[np.float64]


def quiet(days: int, *, alike: float, season: float, random: np.random.Generator) -> Floats:
    """Daily values with an autocorrelation, a week, and a season whose swing is so many of their deviations."""
    noise = random.standard_normal(days) * np.sqrt(1.0 - alike**2)
    values = np.zeros(days)
    for day in range(1, days):
        values[day] = alike * values[day - 1] + noise[day]
    time_of_year = 2.0 * np.pi * (np.arange(days) / 365.0 + random.random())
    values += 0.7 * np.sin(2.0 * np.pi * np.arange(days) / 7.0) + season * np.sin(time_of_year)
    return values


@pytest.mark.parametrize(("trained", "held_out"), [(13, 8), (60, 28), (150, 49)])
@pytest.mark.parametrize(("alike", "season"), [(0.3, 0.0), (0.5, 1.0), (0.7, 1.0), (0.7, 2.0)])
def test_quiet_months_stay_within(trained: int, held_out: int, alike: float, season: float) -> None:
    """Season and autocorrelation and all: on either side less than one alarm in a year, retrained every four months."""
    random = np.random.default_rng(20241)
    alarms = weeks = 0.0
    for _ in range(40):
        days = quiet(trained + held_out + 600, alike=alike, season=season, random=random)
        for start in range(0, 600, 120):
            edge = start + trained + held_out
            made = band(days[start + trained : edge], days[start : start + trained])
            assert made is not None
            after = days[edge : edge + 120]
            alarms += ((after < made.low) | (after > made.high)).sum()
            weeks += len(after) / 7.0
    assert alarms / weeks < 0.04


def test_what_was_seen_is_usual() -> None:
    """An odd day among those that were held out does not alarm when it comes again."""
    made = band([0.2] * 20 + [0.9], [0.2] * 20)
    assert made is not None and made.low <= 0.2 and made.high >= 0.9


def test_a_break_is_outside() -> None:
    """Bounds that nothing leaves would be none: ten deviations are outside with a few months of days."""
    days = quiet(150, alike=0.5, season=0.5, random=np.random.default_rng(1))
    made = band(days[110:], days[:110])
    assert made is not None and made.high < days.mean() + 10.0 * days.std()


def test_few_days_give_no_bounds() -> None:
    """Nor does a model without held-out days."""
    assert band([0.2] * (days_at_least - 1), []) is None
    assert band([], [0.2] * 50) is None
    assert usual_days(days=6).bands == {}


def test_it_is_made_of_the_days_of_the_training_set(own_trained: TrainedHome) -> None:
    """Each day once, those the model was fitted to and those it was not; a regression has no loss to expect."""
    manifest = own_trained.entry.to_manifest
    usual = usual_of(own_trained.platform, own_trained.domain, "late_order", manifest)
    assert isinstance(usual, Usual)
    days = [each.day for each in usual.days]
    asked = load_rows(own_trained.folder)["at"].dt.strftime("%Y-%m-%d").unique().to_list()
    assert len(days) >= 15 and set(days) <= set(asked)
    assert {each.held_out for each in usual.days} == {True, False}
    assert len(usual.edges) == 19 and usual.hours > 8 and usual.rarest_class > 0.0
    assert set(usual.bands) == {"mean_score", "log_loss"}
    said = usual.evaluation
    assert set(said) == {"log_loss", "accuracy", "auc", "positive_rate"}
    assert abs(said["log_loss"].estimated - said["log_loss"].truth) < 0.1


def test_it_is_made_once(own_trained: TrainedHome) -> None:
    """And read from then on, also where the training set was cleared away since."""
    manifest = own_trained.entry.to_manifest
    made = usual_of(own_trained.platform, own_trained.domain, "late_order", manifest)
    (own_trained.folder / "training_set.parquet").unlink()
    again = usual_of(own_trained.platform, own_trained.domain, "late_order", manifest)
    assert isinstance(made, Usual) and isinstance(again, Usual)
    assert (again.days, again.edges, again.evaluation) == (made.days, made.edges, made.evaluation)


def test_what_was_kept_by_another_version_is_made_anew(own_trained: TrainedHome) -> None:
    """A file that does not hold what is needed now is not guessed at."""
    manifest = own_trained.entry.to_manifest
    made = usual_of(own_trained.platform, own_trained.domain, "late_order", manifest)
    (kept,) = own_trained.folder.glob("usual-*.json")
    kept.write_text('{"edges": []}')
    again = usual_of(own_trained.platform, own_trained.domain, "late_order", manifest)
    assert isinstance(made, Usual) and isinstance(again, Usual) and again.days == made.days


def test_a_bundle_or_a_training_set_that_is_gone_is_told(own_trained: TrainedHome) -> None:
    """In words, and nothing is raised."""
    manifest = own_trained.entry.to_manifest
    assert "Restore the file" in str(usual_of(own_trained.platform, own_trained.domain, "late_order", "abc"))
    (own_trained.folder / "training_set.parquet").unlink()
    assert "there is no training set" in str(usual_of(own_trained.platform, own_trained.domain, "late_order", manifest))
