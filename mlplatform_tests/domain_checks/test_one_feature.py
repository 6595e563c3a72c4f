"""What one feature tells of the label is measured for every task and every shape."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.model import Task
from mlplatform.domain_checks.one_feature import strength
from mlplatform_tests.fakes.declared_models import model_of

ROWS = 2_000
CHANCE = np.random.default_rng(3)
NOISE = CHANCE.normal(size=ROWS)
EARLIER = np.arange(ROWS) < 1_000
LATER = ~EARLIER


def measured(task: Task, feature: Any, labels: Any) -> float:
    """Strength of one feature."""
    found = strength(model_of(task), pl.Series(feature), np.asarray(labels, dtype=np.float64), EARLIER, LATER)
    assert found is not None
    return found.value


LABELS: dict[Task, Any] = {
    "binary": (NOISE > 0.5) * 1.0,
    "multiclass": np.digitize(NOISE, [-0.5, 0.5]) * 1.0,
    "regression": NOISE,
}


@pytest.mark.parametrize("task", list(LABELS))
def test_a_copy_of_the_label_is_perfect_in_any_disguise(task: Task) -> None:
    """Turned round, squeezed, or coded: a copy is a copy."""
    assert measured(task, -LABELS[task], LABELS[task]) > 0.999
    assert measured(task, np.exp(NOISE), LABELS[task]) > 0.999


@pytest.mark.parametrize("task", list(LABELS))
def test_noise_tells_nothing(task: Task) -> None:
    """Far below any threshold."""
    assert measured(task, CHANCE.normal(size=ROWS), LABELS[task]) < 0.6


def test_a_code_without_order_is_seen() -> None:
    """The outcome by a number that neither rises nor falls with it."""
    codes = np.array([4.0, 0.0, 2.0, 5.0, 1.0, 3.0])
    groups = CHANCE.integers(0, 6, ROWS)
    assert measured("binary", codes[groups], groups % 2) > 0.999


def test_a_null_that_tells_is_seen() -> None:
    """Filled in only when it happened."""
    labels = LABELS["binary"]
    filled = pl.Series(NOISE).zip_with(pl.Series(labels == 1.0), pl.Series([None] * ROWS, dtype=pl.Float64))
    assert measured("binary", filled, labels) > 0.999


def test_what_cannot_be_measured_is_nothing() -> None:
    """A constant feature, and a class of three rows."""
    spec = model_of("binary")
    few = np.zeros(ROWS)
    few[-3:] = 1.0
    assert strength(spec, pl.Series([1.0] * ROWS), LABELS["binary"], EARLIER, LATER) is None
    assert strength(spec, pl.Series(NOISE), few, EARLIER, LATER) is None
