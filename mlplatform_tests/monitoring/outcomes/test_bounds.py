"""Bounds from earlier days: seldom passed where nothing has changed, passed at once where much has."""

import numpy as np
import numpy.typing as npt
import pytest

from mlplatform.monitoring.outcomes.bounds import expected

CHANCE = 0.001


def series(days: int, *, memory: float, apart: float, rows: int, seed: int) -> npt.NDArray[np.float64]:
    """Means of so many rows on days that differ by an autoregression."""
    drawn = np.random.default_rng(seed)
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = memory * level[day - 1] + drawn.normal() * apart * np.sqrt(1 - memory**2)
    values: npt.NDArray[np.float64] = 0.45 + level + drawn.normal(size=days) * 0.5 / np.sqrt(rows)
    return values


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize(("memory", "apart"), [(0.0, 0.0), (0.0, 0.05), (0.7, 0.05)])
def test_what_only_varies_is_seldom_found(memory: float, apart: float, length: int) -> None:
    """Days and weeks after four weeks of evaluation pass the bound about as often as was asked for."""
    passed = looked = 0
    for seed in range(400):
        days = series(28 + 35, memory=memory, apart=apart, rows=500, seed=seed)
        bound = expected(list(days[:28]), [500] * 28, [0.5] * 28, days=length, of_rows=500 * length, chance=CHANCE)
        assert bound is not None
        for start in range(28, 63, 7):
            passed += days[start : start + length].mean() > bound.high
            looked += 1
    # Strong memory cannot be told from four weeks; a week is then found up to once in two hundred.
    assert passed / looked <= (8 if memory and length > 1 else 2) * CHANCE


def test_a_real_rise_is_found() -> None:
    """Half as much again on one day, and a fifth in a week."""
    days = series(28, memory=0.3, apart=0.02, rows=500, seed=1)
    one = expected(list(days), [500] * 28, [0.5] * 28, days=1, of_rows=500, chance=CHANCE)
    week = expected(list(days), [500] * 28, [0.5] * 28, days=7, of_rows=3500, chance=CHANCE)
    assert one is not None and week is not None
    assert 0.45 * 1.5 > one.high > week.high and week.high < 0.45 * 1.2


def test_fewer_rows_have_a_wider_bound() -> None:
    """A day of fifty labels may show what one of five hundred may not."""
    days = list(series(28, memory=0.0, apart=0.0, rows=500, seed=1))
    few = expected(days, [500] * 28, [0.5] * 28, days=1, of_rows=50, chance=CHANCE)
    many = expected(days, [500] * 28, [0.5] * 28, days=1, of_rows=500, chance=CHANCE)
    assert few is not None and many is not None
    assert few.high - few.figure > 2 * (many.high - many.figure)


def test_losses_differ_by_a_factor() -> None:
    """The bound of a ratio lies farther above than below, and never below zero."""
    days = [0.2, 0.4, 0.3, 0.8, 0.25, 0.35]
    told = expected(days, [500] * 6, [0.3] * 6, days=1, of_rows=500, chance=CHANCE, ratio=True)
    assert told is not None and told.low > 0 and told.high - told.figure > told.figure - told.low


def test_days_that_are_too_few_or_all_alike() -> None:
    """Two days bound nothing; days without any spread bound by themselves."""
    assert expected([0.4, 0.5], [9, 9], [0.1, 0.1], days=1, of_rows=9, chance=CHANCE) is None
    same = expected([1.0] * 9, [100] * 9, [0.0] * 9, days=1, of_rows=100, chance=CHANCE)
    assert same is not None and same.low == same.high == 1.0
