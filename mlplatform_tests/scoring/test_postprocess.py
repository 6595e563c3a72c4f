"""Post-processing: answers of each task, thresholds to the point, and scores that are refused."""

import numpy as np
import polars as pl
import pytest

from mlplatform.errors import ScoreOutOfRange
from mlplatform.scoring.postprocess import answers
from mlplatform_tests.fakes.declared_models import model_of


def test_binary_answers() -> None:
    """1 from the decision on, confidence of the likelier label, review below the threshold only."""
    frame = answers(model_of("binary"), np.array([0.1, 0.4, 0.39, 0.65]))
    assert frame.schema == pl.Schema(
        {"prediction": pl.Int8, "probability": pl.Float64, "confidence": pl.Float64, "needs_review": pl.Boolean}
    )
    assert frame["prediction"].to_list() == [0, 1, 0, 1]
    assert frame["probability"].to_list() == [0.1, 0.4, 0.39, 0.65]
    assert frame["confidence"].to_list() == [0.9, 0.6, 0.61, 0.65]
    assert frame["needs_review"].to_list() == [False, True, True, False]


def test_multiclass_answers() -> None:
    """The name of the most probable class, the first of equals."""
    frame = answers(model_of("multiclass"), np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]]))
    assert frame["prediction"].to_list() == ["green", "red"]
    assert frame["probability"].to_list() == [0.7, 0.4]
    assert frame["confidence"].to_list() == [0.7, 0.4]
    assert frame["needs_review"].to_list() == [False, True]


def test_regression_answers() -> None:
    """A value, without a probability, a confidence, or a review."""
    frame = answers(model_of("regression"), np.array([-3.0, 12.5]))
    assert frame["prediction"].to_list() == [-3.0, 12.5]
    assert frame["probability"].to_list() == [None, None]
    assert frame["confidence"].to_list() == [None, None]
    assert frame["needs_review"].to_list() == [False, False]


def test_without_a_review_threshold_nobody_is_asked() -> None:
    """Review is off unless declared."""
    assert answers(model_of("binary", review_below=None), np.array([0.5]))["needs_review"].to_list() == [False]


@pytest.mark.parametrize("score", [np.nan, np.inf, -0.01, 1.01])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    """The row at fault is named; nothing is clipped."""
    with pytest.raises(ScoreOutOfRange, match="row 1") as caught:
        answers(model_of("binary"), np.array([0.5, score]))
    assert caught.value.rows == (1,)


def test_a_regression_refuses_only_what_is_not_finite() -> None:
    """Any finite value may be an answer."""
    answers(model_of("regression"), np.array([-1e9]))
    with pytest.raises(ScoreOutOfRange):
        answers(model_of("regression"), np.array([np.nan]))


@pytest.mark.parametrize("scores", [[[0.5, 0.5, 0.5]], [[0.5, 0.5]], [0.5]])
def test_classes_that_do_not_add_up_are_refused(scores: list[object]) -> None:
    """Probabilities of one row sum to 1, one for each declared class."""
    with pytest.raises(ScoreOutOfRange):
        answers(model_of("multiclass"), np.array(scores))


def test_no_scores_give_no_answers() -> None:
    """An empty batch keeps its columns."""
    for task, shape in (("binary", (0,)), ("multiclass", (0, 3)), ("regression", (0,))):
        assert answers(model_of(task), np.empty(shape)).height == 0  # type: ignore[arg-type]
