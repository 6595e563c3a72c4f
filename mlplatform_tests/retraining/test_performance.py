"""How much worse a model does: a hard month is no harm, outdated rates are, and few days say nothing."""

from mlplatform.retraining.performance import JudgedDay, recalibration_gain, rise, unexplained_rise


def days(count: int, **said: float) -> list[JudgedDay]:
    """As many days, alike."""
    told: dict[str, float] = {"truth": 0.5} | said
    return [JudgedDay(rows=1_000, **told) for _ in range(count)]


def test_which_way_is_worse_is_the_metric_s() -> None:
    """A loss rises, an accuracy falls; without an evaluation nothing is worse than it."""
    assert rise("log_loss", 0.75, 0.5) == rise("mae", 6.0, 4.0) == 0.5
    assert (rise("accuracy", 0.4, 0.5) or 0) > 0 > (rise("accuracy", 0.6, 0.5) or 0)
    assert rise("log_loss", 0.6, 0.0) is None


def test_a_loss_that_the_model_itself_expects_is_no_harm() -> None:
    """It is the cases that are harder; a loss that it does not expect is."""
    assert (unexplained_rise("log_loss", days(10, truth=0.6, expected=0.6), 0.4) or 0) <= 0
    found = unexplained_rise("log_loss", days(10, truth=0.6, expected=0.4), 0.4)
    assert found is not None
    assert abs(found - 0.5) < 1e-9


def test_few_days_say_nothing_sure() -> None:
    """However bad they are."""
    assert unexplained_rise("log_loss", days(4, truth=9.0, expected=0.4), 0.4) is None
    assert recalibration_gain(days(4, rate=0.1, mean_score=0.9), 0.4) is None


def test_days_that_go_to_and_fro_are_not_surely_outdated() -> None:
    """The end of the interval that is kinder to the model counts."""
    swinging = [*days(5, rate=0.4, mean_score=0.2), *days(5, rate=0.05, mean_score=0.2)]
    steady = days(10, rate=0.4, mean_score=0.2)
    assert recalibration_gain(swinging, 0.5) == 0.0
    assert (recalibration_gain(steady, 0.5) or 0) > 0.1


def test_rates_that_are_unknown_are_no_gain() -> None:
    """Of a regression, and of several classes."""
    assert recalibration_gain(days(10), 0.5) is None
