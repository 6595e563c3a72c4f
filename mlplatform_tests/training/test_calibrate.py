"""Fitting a calibration: it mends what is bent, leaves what is straight, and says which."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression  # type: ignore[import-untyped, unused-ignore]

from mlplatform.errors import DataError
from mlplatform.training.calibrate import fit_calibration, rising
from mlplatform.training.metrics import value
from mlplatform_tests.fakes.declared_models import model_of

ROWS = 6000
generator = np.random.default_rng(3)
truth = generator.random(ROWS)
labels = (generator.random(ROWS) < truth).astype(np.float64)
bent = truth**3
at = pl.Series([datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=each) for each in range(ROWS)])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 20)), min_size=1, max_size=40))
def test_rising_is_isotonic_regression(points: list[tuple[float, float]]) -> None:
    """The same as SciPy's, whatever the values and weights."""
    values, weights = np.array([each[0] for each in points]), np.array([each[1] for each in points])
    np.testing.assert_allclose(rising(values, weights), isotonic_regression(values, weights=weights).x, atol=1e-12)


def test_bent_scores_are_mended() -> None:
    """Log loss and calibration error fall, and the curve is near the truth."""
    fitted = fit_calibration(model_of("binary"), bent, labels, at)
    assert fitted.kept
    assert fitted.loss_after is not None
    assert fitted.loss_before is not None
    assert fitted.loss_after < fitted.loss_before
    calibrated = fitted.calibration.apply(bent)
    assert value("log_loss", labels, calibrated) < value("log_loss", labels, bent) - 0.1
    assert np.abs(calibrated - truth).mean() < 0.05


def test_a_curve_that_does_not_help_is_not_kept() -> None:
    """The later half tells another story than the earlier one: the identity stays, and the reason says why."""
    turned = np.where(np.arange(ROWS) < ROWS // 2, labels, 1 - labels)
    fitted = fit_calibration(model_of("binary"), np.full(ROWS, 0.5) + 0.001 * truth, turned, at)
    assert not fitted.kept
    assert fitted.calibration.curves == ()
    assert "worse" in fitted.reason


def test_halves_go_by_time_not_by_row() -> None:
    """Shuffled rows give the same result."""
    order = generator.permutation(ROWS)
    straight = fit_calibration(model_of("binary"), bent, labels, at)
    shuffled = fit_calibration(model_of("binary"), bent[order], labels[order], at.gather(order))
    assert shuffled.loss_after == pytest.approx(straight.loss_after, abs=1e-12)


def test_several_classes_are_mended() -> None:
    """One curve per class; probabilities still sum to 1."""
    shares = generator.dirichlet([1, 1, 1], size=ROWS)
    drawn = (shares.cumsum(axis=1) < generator.random((ROWS, 1))).sum(axis=1).astype(np.float64)
    raw = shares**3 / (shares**3).sum(axis=1, keepdims=True)
    fitted = fit_calibration(model_of("multiclass"), raw, drawn, at)
    assert fitted.kept
    assert len(fitted.calibration.curves) == 3
    assert value("log_loss", drawn, fitted.calibration.apply(raw)) < value("log_loss", drawn, raw)


@pytest.mark.parametrize("rows", [0, 1, 399])
def test_few_rows_give_the_identity(rows: int) -> None:
    """A curve through noise is worse than none."""
    fitted = fit_calibration(model_of("binary"), bent[:rows], labels[:rows], at[:rows])
    assert not fitted.kept
    assert str(rows) in fitted.reason


def test_one_class_gives_the_identity() -> None:
    """A part without a single late flight cannot say how often they come."""
    fitted = fit_calibration(model_of("binary"), bent, np.zeros(ROWS), at)
    assert not fitted.kept
    assert "class" in fitted.reason


def test_a_regression_is_left_alone() -> None:
    """There is nothing to calibrate."""
    assert not fit_calibration(model_of("regression"), bent, labels, at).kept


def test_a_constant_score_gives_its_share() -> None:
    """All raw scores equal: one knot, the share of label 1."""
    fitted = fit_calibration(model_of("binary"), np.full(ROWS, 0.9), labels, at)
    assert fitted.kept
    assert fitted.calibration.apply(np.array([0.9]))[0] == pytest.approx(labels.mean())


def test_what_is_no_number_is_refused() -> None:
    """A NaN among the raw scores is a fault, not a probability."""
    with pytest.raises(DataError):
        fit_calibration(model_of("binary"), np.where(truth > 0.99, np.nan, bent), labels, at)
