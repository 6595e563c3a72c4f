"""The simple model: predictions by hand, batches of any size, nulls, JSON."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import BundleError
from mlplatform.scoring.simple_model import SimpleModel, logistic

binary = SimpleModel(
    task="binary", features=("a", "b"), means=(1.0, 10.0), scales=(2.0, 5.0), weights=((0.7, -1.3),), intercepts=(0.2,)
)
three = SimpleModel(
    task="multiclass",
    features=("a", "b"),
    means=(1.0, 10.0),
    scales=(2.0, 5.0),
    weights=((0.7, -1.3), (0.1, 0.1), (-2.0, 0.5)),
    intercepts=(0.2, -0.4, 0.0),
)
line = SimpleModel(
    task="regression", features=("a",), means=(1.0,), scales=(2.0,), weights=((3.0,),), intercepts=(5.0,)
)
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6))


def test_binary_is_the_logistic_of_the_weighted_sum() -> None:
    """Computed by hand for one row; other columns are not read."""
    said = binary.predict(pl.DataFrame({"b": [15.0], "other": ["x"], "a": [3.0]}))
    assert said.tolist() == [1 / (1 + math.exp(-(0.2 + 0.7 * 1.0 - 1.3 * 1.0)))]


def test_regression_is_the_weighted_sum() -> None:
    """Computed by hand."""
    assert line.predict(pl.DataFrame({"a": [1.0, 5.0]})).tolist() == [5.0, 11.0]


def test_a_null_counts_as_the_mean() -> None:
    """No value is no evidence: the answer is that of an average case."""
    rows = pl.DataFrame({"a": [None, 1.0, math.nan, math.inf], "b": [10.0] * 4})
    assert len(set(binary.predict(rows).tolist())) == 1


@pytest.mark.parametrize("model", [binary, three])
@given(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_a_row_alone_equals_the_row_in_the_batch(
    model: SimpleModel, rows: list[tuple[float | None, float | None]]
) -> None:
    """To the bit, and every probability is one."""
    frame = pl.DataFrame(rows, schema={"a": pl.Float64, "b": pl.Float64}, orient="row")
    together = model.predict(frame)
    alone = np.concatenate([model.predict(frame[position]) for position in range(len(rows))])
    np.testing.assert_array_equal(together, alone)
    assert ((together >= 0) & (together <= 1)).all()
    if together.ndim == 2:
        np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-12)


def test_logistic_does_not_overflow() -> None:
    """Log odds of a thousand are a certainty, not an error."""
    assert logistic(np.array([-1e3, 0.0, 1e3])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("model", [binary, three, line])
def test_json_gives_the_same_model(model: SimpleModel) -> None:
    """Floats come back to the bit."""
    assert SimpleModel.from_json(model.to_json()) == model


@pytest.mark.parametrize("text", ["", "{}", '{"task": "binary"}', "3"])
def test_other_text_is_refused(text: str) -> None:
    """A damaged file says so."""
    with pytest.raises(BundleError):
        SimpleModel.from_json(text)


def test_parts_that_do_not_fit_are_refused() -> None:
    """A weight too few, or one that is no number, is no model."""
    with pytest.raises(BundleError):
        SimpleModel(task="binary", features=("a",), means=(0.0,), scales=(1.0,), weights=((),), intercepts=(0.0,))
    with pytest.raises(BundleError):
        SimpleModel(
            task="binary", features=("a",), means=(0.0,), scales=(1.0,), weights=((math.nan,),), intercepts=(0.0,)
        )
