"""Calibration: bounded, rising, the same to the bit in any batch, and back from JSON."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import BundleError
from mlplatform.scoring.calibration import EPSILON, Calibration, Curve

bent = Curve(raw=(0.05, 0.1, 0.3, 0.31, 0.9), calibrated=(0.001, 0.2, 0.2, 0.7, 0.97))
flat = Curve(raw=(0.5,), calibrated=(0.4,))
probabilities = st.floats(0, 1)


def test_identity_changes_nothing() -> None:
    """Without a curve the raw scores are the answer."""
    raw = np.array([0.0, 0.3, 1.0])
    np.testing.assert_array_equal(Calibration().apply(raw), raw)


def test_knots_map_to_themselves_and_ends_are_constant() -> None:
    """The curve goes through its knots, and outside it stays at the last one."""
    calibration = Calibration(curves=(bent,))
    np.testing.assert_array_equal(calibration.apply(np.array(bent.raw)), np.array(bent.calibrated))
    assert calibration.apply(np.array([-3.0, 7.0])).tolist() == [0.001, 0.97]


def test_interpolation_agrees_with_numpy() -> None:
    """Between the knots it is linear interpolation."""
    raw = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(bent.apply(raw), np.interp(raw, bent.raw, bent.calibrated), rtol=0, atol=1e-15)


@given(st.lists(probabilities, min_size=1, max_size=80))
def test_a_row_alone_equals_the_row_in_the_batch(raw: list[float]) -> None:
    """To the bit, whatever the batch."""
    calibration = Calibration(curves=(bent,))
    together = calibration.apply(np.array(raw))
    assert together.tolist() == [calibration.apply(np.array([each]))[0] for each in raw]


@given(st.lists(st.tuples(probabilities, probabilities, probabilities), min_size=1, max_size=40))
def test_classes_sum_to_one_and_do_not_depend_on_the_batch(raw: list[tuple[float, float, float]]) -> None:
    """One curve per class, renormalised, row by row."""
    calibration = Calibration(curves=(bent, flat, bent))
    together = calibration.apply(np.array(raw))
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-12)
    alone = np.concatenate([calibration.apply(np.array([each])) for each in raw])
    np.testing.assert_array_equal(together, alone)


@given(st.lists(probabilities, min_size=2, max_size=50))
def test_the_curve_never_falls_and_stays_inside(raw: list[float]) -> None:
    """A higher raw score never becomes a lower probability, and none becomes a certainty."""
    calibrated = bent.apply(np.sort(np.array(raw)))
    assert (np.diff(calibrated) >= 0).all()
    assert calibrated.min() > EPSILON
    assert calibrated.max() < 1 - EPSILON


def test_nan_stays_nan() -> None:
    """A score that is no number is not made into one."""
    assert np.isnan(bent.apply(np.array([np.nan]))).all()


def test_json_gives_the_same_calibration() -> None:
    """Floats come back to the bit."""
    calibration = Calibration(curves=(Curve(raw=(0.1, 1 / 3), calibrated=(0.2, 2 / 3)),))
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert Calibration.from_json(Calibration().to_json()) == Calibration()


@pytest.mark.parametrize(
    ("raw", "calibrated"),
    [((), ()), ((0.1, 0.1), (0.2, 0.3)), ((0.1, 0.2), (0.3, 0.2)), ((0.1, 0.2), (0.0, 0.2)), ((0.1,), (0.1, 0.2))],
)
def test_a_broken_curve_is_refused(raw: tuple[float, ...], calibrated: tuple[float, ...]) -> None:
    """No empty, falling or certain curve is applied to anybody."""
    with pytest.raises(BundleError):
        Curve(raw=raw, calibrated=calibrated)


@pytest.mark.parametrize("text", ["", "{}", '{"curves": [1]}', "[]"])
def test_other_text_is_refused(text: str) -> None:
    """A damaged file says so."""
    with pytest.raises(BundleError):
        Calibration.from_json(text)


def test_wrong_number_of_curves_is_refused() -> None:
    """A curve that is missing or left over is not guessed at."""
    with pytest.raises(BundleError):
        Calibration(curves=(bent, flat)).apply(np.array([0.1]))
    with pytest.raises(BundleError):
        Calibration(curves=(bent, flat)).apply(np.full((1, 3), 1 / 3))
