"""How much worse a model does than it was promised to, in a form that does not mistake a hard month for a bad model.

A loss rises when the cases get harder, and no training mends that. A model that is calibrated knows it: its own
probabilities then expect a higher loss. So what counts is what lies above both the evaluation and that expectation; and
of an interval over days the end that is kinder to the model, so that a few bad days do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.domain.model import ModelSpec
from mlplatform.training.metrics import CLIP, DIRECTIONS, MIN_DAYS, Interval, bootstrap, interval, value

Floats = npt.NDArray[np.float64]


def rise(metric: str, now: float, evaluation: float) -> float | None:
    """By what share a metric is worse than at the evaluation; below 0: better. None where that has no meaning.

    Examples
    --------
    >>> rise("log_loss", 0.55, 0.5), rise("accuracy", 0.72, 0.8)
    (0.10000000000000009, 0.10000000000000009)
    """
    if not evaluation:
        return None
    worse = now - evaluation if DIRECTIONS[metric] == "lower" else evaluation - now
    return worse / abs(evaluation)


@dataclass(frozen=True, kw_only=True)
class JudgedDay:
    """How a model did on a day whose outcomes are in."""

    rows: int
    truth: float
    """The metric on outcomes."""

    expected: float | None = None
    """The same, if the model's probabilities were right; None: it says nothing of it."""

    rate: float | None = None
    """Of label 1 among the outcomes; None where the labels are no yes or no."""

    mean_score: float | None = None
    """Its mean probability."""


def judged_day(model: ModelSpec, labels: Floats, scores: Floats) -> JudgedDay:
    """A day from its labels and scores, in the gate's metric."""
    metric = model.gate.metric
    known = metric == "log_loss" and scores.ndim == 1
    return JudgedDay(
        rows=len(labels),
        truth=value(metric, labels, scores),
        expected=expected_log_loss(scores) if metric == "log_loss" else None,
        rate=float(labels.mean()) if known else None,
        mean_score=float(scores.mean()) if known else None,
    )


def unexplained_rise(metric: str, days: Sequence[JudgedDay], evaluation: float) -> float | None:
    """By what share a metric is surely worse than both its evaluation and what the model itself expected.

    Parameters
    ----------
    days : those on which the model served; fewer than five say nothing sure
    evaluation : at the model's evaluation

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the lower end of a percentile interval.
    """
    if not evaluation or len(days) < MIN_DAYS:
        return None
    sign = 1.0 if DIRECTIONS[metric] == "lower" else -1.0
    truth = np.array([each.truth for each in days])
    worse = [sign * (truth - evaluation)]
    if all(each.expected is not None for each in days):
        worse.append(sign * (truth - np.array([each.expected for each in days], dtype=np.float64)))
    lows = [_over(days, each).low for each in worse]
    told = [each / abs(evaluation) for each in lows if each is not None]
    return min(told) if len(told) == len(worse) else None


def recalibration_gain(days: Sequence[JudgedDay], evaluation: float) -> float | None:
    """Share of a log loss that is surely lost for nothing but a mean probability that is not the rate of the outcomes.

    It is the divergence of the two, with the end of the interval of their difference that is nearer to none: the part
    of the loss that no harder case explains and that any training on newer outcomes mends.

    Parameters
    ----------
    days : those on which the model served; fewer than five say nothing sure
    evaluation : log loss at the model's evaluation

    References
    ----------
    DeGroot and Fienberg, "The comparison and evaluation of forecasters", The Statistician 32 (1983): a proper score is
    refinement and calibration, and this is the latter in the large.

    Examples
    --------
    >>> week = [JudgedDay(rows=1_000, truth=0.4, rate=0.13, mean_score=0.25)] * 7
    >>> round(recalibration_gain(week, 0.5), 3)
    0.088
    """
    if evaluation <= 0 or len(days) < MIN_DAYS or any(each.rate is None or each.mean_score is None for each in days):
        return None
    scores = np.array([each.mean_score for each in days], dtype=np.float64)
    bias = _over(days, np.array([each.rate for each in days], dtype=np.float64) - scores)
    if bias.low is None or bias.high is None:
        return None
    sure = 0.0 if bias.low <= 0.0 <= bias.high else min(bias.low, bias.high, key=abs)
    rows = np.array([each.rows for each in days], dtype=np.float64)
    said = float(np.clip((scores * rows).sum() / rows.sum(), CLIP, 1.0 - CLIP))
    was = float(np.clip(said + sure, CLIP, 1.0 - CLIP))
    lost = was * np.log(was / said) + (1.0 - was) * np.log((1.0 - was) / (1.0 - said))
    return float(lost) / evaluation


def _over(days: Sequence[JudgedDay], figures: Floats) -> Interval:
    """The mean of a figure over days, each as often as it has rows, and its interval."""
    rows = np.array([each.rows for each in days], dtype=np.float64)
    weights = bootstrap(np.arange(len(days)), seed=len(days)).draws * rows
    return interval(np.einsum("rd,d->r", weights, figures) / weights.sum(axis=1), len(days))


def expected_log_loss(scores: Floats) -> float:
    """What the log loss would be if the probabilities were right: their mean entropy.

    Parameters
    ----------
    scores : (n,) probability of label 1, or (n, classes)

    Examples
    --------
    >>> round(expected_log_loss(np.array([0.5, 0.5])), 4)
    0.6931
    """
    whole = scores if scores.ndim == 2 else np.stack([scores, 1.0 - scores], axis=1)
    clipped = np.clip(whole, CLIP, 1.0 - CLIP)
    return float(-(clipped * np.log(clipped)).sum(axis=1).mean())
