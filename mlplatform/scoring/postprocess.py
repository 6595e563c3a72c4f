"""Post-processing: from scores to the answer that a caller gets.

The same few lines make the answers of batch scoring, of replay and of the gateway. A score that is no answer (NaN, a
probability of 1.2) is refused, never repaired.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DeclarationError, ScoreOutOfRange

SUM_TOLERANCE = 1e-4
"""How far the probabilities of one row may sum from 1: float32 rounding over a few classes stays below 1e-6."""


class Answers(NamedTuple):
    """The answers to some rows, column by column, as plain Python values; names and meaning as in `answers`."""

    prediction: list[Any]
    probability: list[float | None]
    confidence: list[float | None]
    needs_review: list[bool]


def answers(spec: ModelSpec, scores: npt.NDArray[np.float64]) -> pl.DataFrame:
    """Scores as answers.

    Parameters
    ----------
    spec : the model; its `decision` and `review_below` decide
    scores : (n,) float64, or (n, classes) for a multiclass model
        Calibrated.

    Returns
    -------
    One row per score, in order, with

    - `prediction`: Int8 0 or 1 (binary: 1 from `decision` on), String class name (multiclass: the most probable, the
      first of equals), Float64 (regression);
    - `probability`: Float64, of label 1 (binary) or of the predicted class (multiclass); null for regression;
    - `confidence`: Float64, the probability of the likelier label; null for regression, since one value says nothing
      about its own spread;
    - `needs_review`: Boolean, confidence below `review_below`; false where none is declared or there is no confidence.

    Raises
    ------
    ScoreOutOfRange
        A score is not finite, or not a probability where one is due.
    """
    kinds = {"binary": pl.Int8(), "multiclass": pl.String(), "regression": pl.Float64()}
    schema = {
        "prediction": kinds[spec.task],
        "probability": pl.Float64(),
        "confidence": pl.Float64(),
        "needs_review": pl.Boolean(),
    }
    return pl.DataFrame(list(plain_answers(spec, scores)), schema=schema, orient="col")


def plain_answers(spec: ModelSpec, scores: npt.NDArray[np.float64]) -> Answers:
    """The same without a frame, which costs a batch of a few rows more than all the rest.

    Raises
    ------
    ScoreOutOfRange
        As in `answers`.
    """
    _refuse_out_of_range(spec, scores)
    if spec.task == "regression":
        nothing: list[float | None] = [None] * len(scores)
        return Answers(scores.tolist(), nothing, nothing, [False] * len(scores))
    if spec.task == "binary":
        if spec.decision is None:
            raise DeclarationError(f"model {spec.name}: a binary model needs `decision`")
        predicted: list[Any] = (scores >= spec.decision.value).astype(np.int8).tolist()
        probability, confidence = scores, np.maximum(scores, 1.0 - scores)
    else:
        best = scores.argmax(axis=1)
        predicted = [spec.label.classes[each] for each in best.tolist()]
        probability = confidence = scores[np.arange(len(scores)), best]
    unsure = confidence < (-np.inf if spec.review_below is None else spec.review_below.value)
    return Answers(predicted, probability.tolist(), confidence.tolist(), unsure.tolist())


def _refuse_out_of_range(spec: ModelSpec, scores: npt.NDArray[np.float64]) -> None:
    classes = len(spec.label.classes) if spec.task == "multiclass" else 0
    if scores.ndim != (2 if classes else 1) or (classes and scores.shape[1] != classes):
        due = f"(n, {classes})" if classes else "(n,)"
        raise ScoreOutOfRange(spec.name, range(len(scores)), f"of shape {scores.shape}, not {due}")
    rows = scores if classes else scores[:, None]
    _refuse(spec, np.any(~np.isfinite(rows), axis=1), "not finite")
    if spec.task == "regression":
        return
    _refuse(spec, np.any((rows < 0.0) | (rows > 1.0), axis=1), "no probability between 0 and 1")
    if classes:
        _refuse(spec, np.abs(rows.sum(axis=1) - 1.0) > SUM_TOLERANCE, "a set of probabilities that do not sum to 1")


def _refuse(spec: ModelSpec, wrong: Any, reason: str) -> None:
    if wrong.any():
        raise ScoreOutOfRange(spec.name, np.flatnonzero(wrong).tolist(), reason)
