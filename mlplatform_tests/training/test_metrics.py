"""Metrics by hand and against brute force; intervals that are paired, by day, and seeded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.training.metrics import DIRECTIONS, METRICS, bootstrap, interval, replicates, value

generator = np.random.default_rng(2)
labels = np.array([1.0, 0.0, 1.0, 0.0])
scores = np.array([0.8, 0.3, 0.4, 0.4])


def test_binary_metrics_by_hand() -> None:
    """Four rows, worked out on paper."""
    assert value("log_loss", labels, scores) == pytest.approx(-np.log([0.8, 0.7, 0.4, 0.6]).mean())
    assert value("brier", labels, scores) == pytest.approx((0.04 + 0.09 + 0.36 + 0.16) / 4)
    assert value("accuracy", labels, scores) == 0.75
    assert value("accuracy", labels, scores, threshold=0.4) == 0.75
    assert value("auc", labels, scores) == 3.5 / 4


def test_regression_metrics_by_hand() -> None:
    """Errors of 3 and 4."""
    assert value("mae", np.array([0.0, 0.0]), np.array([3.0, -4.0])) == 3.5
    assert value("rmse", np.array([0.0, 0.0]), np.array([3.0, -4.0])) == pytest.approx(np.sqrt(12.5))


def test_multiclass_metrics_by_hand() -> None:
    """Two rows of three classes."""
    said = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    came = np.array([0.0, 1.0])
    assert value("log_loss", came, said) == pytest.approx(-(np.log(0.7) + np.log(0.3)) / 2)
    assert value("accuracy", came, said) == 0.5
    assert value("brier", came, said) == pytest.approx(((0.09 + 0.04 + 0.01) + (0.25 + 0.49 + 0.04)) / 2)


def test_a_certain_mistake_is_not_infinite() -> None:
    """A probability of 0 for what happened costs 16, so that one row cannot decide everything."""
    assert value("log_loss", np.array([1.0]), np.array([0.0])) == pytest.approx(16.118, abs=1e-3)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    """Against all pairs, ties counted half; NaN with one class only."""
    came, said = np.array([each[0] for each in rows]).astype(np.float64), np.array([each[1] for each in rows]) / 4
    up, down = said[came == 1], said[came == 0]
    pairs = (up[:, None] > down[None, :]) + 0.5 * (up[:, None] == down[None, :])
    expected = pairs.mean() if pairs.size else np.nan
    np.testing.assert_allclose(value("auc", came, said), expected)


def test_calibration_error_sees_what_is_off_by_a_tenth() -> None:
    """Honest probabilities have next to none; the same ones moved by 0.1 have 0.1."""
    honest = generator.uniform(0.2, 0.8, 50_000)
    came = (generator.random(50_000) < honest).astype(np.float64)
    assert value("ece", came, honest) < 0.01
    assert value("ece", came, honest + 0.1) == pytest.approx(0.1, abs=0.01)


@given(st.sampled_from(["log_loss", "auc", "brier", "accuracy"]), st.integers(0, 2**31))
def test_a_draw_is_the_metric_of_the_repeated_rows(metric: str, seed: int) -> None:
    """Each replicate equals the plain metric of the rows of the drawn days, repeated as often as drawn."""
    local = np.random.default_rng(seed)
    days, came, said = (
        local.integers(0, 6, 60),
        local.integers(0, 2, 60).astype(np.float64),
        local.integers(1, 9, 60) / 10,
    )
    sample = bootstrap(days, seed=seed, resamples=3)
    drawn = replicates(metric, came, said, sample)
    for position, draw in enumerate(sample.draws):
        rows = np.repeat(np.arange(60), draw[sample.day].astype(int))
        np.testing.assert_allclose(drawn[position], value(metric, came[rows], said[rows]), atol=1e-12)
    np.testing.assert_allclose(drawn[0], value(metric, came, said), atol=1e-12)


def test_days_are_drawn_whole() -> None:
    """Rows of one day that all agree make the interval as wide as if there were one row per day."""
    days = np.repeat(np.arange(30), 400)
    came = np.repeat(generator.integers(0, 2, 30).astype(np.float64), 400)
    clustered = interval(replicates("accuracy", came, np.ones(len(came)), bootstrap(days, seed=1)), 30)
    single = interval(
        replicates("accuracy", came, np.ones(len(came)), bootstrap(np.arange(len(came)), seed=1)), len(came)
    )
    assert clustered.low is not None
    assert clustered.high is not None
    assert single.low is not None
    assert single.high is not None
    assert clustered.high - clustered.low > 10 * (single.high - single.low)


def test_equal_models_differ_by_exactly_nothing() -> None:
    """Differences are paired: the same scores on the same draws leave no noise."""
    days = np.repeat(np.arange(20), 50)
    came, said = generator.integers(0, 2, 1000).astype(np.float64), generator.random(1000)
    sample = bootstrap(days, seed=4)
    for metric in METRICS["binary"]:
        difference = replicates(metric, came, said, sample) - replicates(metric, came, said.copy(), sample)
        assert interval(difference, 20).high == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 worlds of 40 days with a common mood, 95 % intervals hold the true share in 88 % or more."""
    covered = 0
    for world in range(200):
        local = np.random.default_rng(world)
        mood = local.uniform(0.2, 0.6, 40)
        came = (local.random((40, 30)) < mood[:, None]).ravel().astype(np.float64)
        sample = bootstrap(np.repeat(np.arange(40), 30), seed=world)
        found = interval(replicates("accuracy", came, np.ones(1200), sample), 40)
        covered += found.low is not None and found.high is not None and found.low <= 0.4 <= found.high
    assert covered >= 176


def test_few_days_have_no_interval() -> None:
    """Four days would give a sharp interval that means nothing."""
    days = np.repeat(np.arange(4), 100)
    found = interval(replicates("accuracy", np.ones(400), np.ones(400), bootstrap(days, seed=1)), 4)
    assert found.point == 1
    assert found.low is None
    assert found.high is None


@pytest.mark.parametrize("metric", METRICS["binary"])
def test_a_nan_anywhere_leaves_no_figure(metric: str) -> None:
    """A score that is no number is never averaged away."""
    said = np.full(100, 0.5)
    said[3] = np.nan
    found = interval(replicates(metric, np.tile([0.0, 1.0], 50), said, bootstrap(np.arange(100), seed=1)), 100)
    assert (found.point, found.low, found.high) == (None, None, None)


def test_the_seed_decides_the_interval() -> None:
    """The same seed, the same bounds; another seed, others."""
    days = np.arange(50)
    came = generator.integers(0, 2, 50).astype(np.float64)

    def bounds(seed: int) -> tuple[float | None, float | None]:
        found = interval(replicates("brier", came, np.full(50, 0.3), bootstrap(days, seed=seed)), 50)
        return found.low, found.high

    assert bounds(1) == bounds(1)
    assert bounds(1) != bounds(2)


def test_every_metric_has_a_direction() -> None:
    """The gate can turn any of them into harm."""
    assert {name for names in METRICS.values() for name in names} == set(DIRECTIONS)
