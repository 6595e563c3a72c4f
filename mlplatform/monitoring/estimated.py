"""Performance estimated before labels arrive: what calibrated scores say of themselves.

A calibrated probability tells how often it will be right. So the expected log loss, accuracy, area under the ROC curve
and share of positives of some answers follow from their scores alone.

Two assumptions, and neither can be tested without labels:

* The scores are calibrated, for the requests that come now. The calibration part of the training has seen to it for
  the requests of then.
* What follows from a request has not changed: no concept drift. A courier who got slower in the same traffic changes
  no score, and no estimate.

So an estimate that is worse is a reason to look; one that is not worse is no proof of anything. Once labels are in,
`estimated_against_truth` says how far it was off.

The intervals are for labels that are independent given their scores. The labels of one day share its weather, and then
a day's truth leaves them more often than one time in twenty: the error on days whose labels are known is kept beside.

Of a regression the score says nothing about its own spread: there is no estimate, and it says so.

References
----------
"Confidence-based performance estimation (CBPE)": NannyML's documentation, "How it works: performance estimation";
Białek et al., "Estimating model performance under covariate shift without labels", 2024 (arXiv 2401.08348).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Task
from mlplatform.training import metrics
from mlplatform.training.metrics import CLIP, Interval

Floats = npt.NDArray[np.float64]

NORMAL_95 = 1.959963984540054
"""Half the width of a 95 % interval, in standard deviations of a sum of many."""


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What some scores say of themselves."""

    rows: int
    """Finite scores."""

    figures: Mapping[str, Interval] = field(default_factory=dict)
    """By metric, with the middle 95 % of what these very rows may show; a point of None: it does not exist."""

    reason: str = ""
    """Why there are no figures."""


def estimated(task: Task, scores: Floats, *, threshold: float = 0.5) -> Estimated:
    """Expected performance of calibrated scores.

    Parameters
    ----------
    scores : (n,) float64 in [0, 1], or (n, classes); rows that are not finite are left out
    threshold : probability from which a binary score says 1

    Notes
    -----
    Labels are taken for independent Bernoulli variables with the scores as their rates. Log loss, accuracy and the
    share of positives are then sums of independent terms, whose variance is exact (Poisson-binomial). The area under
    the ROC curve is the expected number of pairs in the right order over the expected number of pairs; its variance is
    to the first order in the labels. All intervals are normal: fair from some thirty rows on.

    Examples
    --------
    >>> said = estimated("binary", np.full(1000, 0.2)).figures
    >>> [round(said[metric].point, 3) for metric in ("accuracy", "positive_rate", "auc")]
    [0.8, 0.2, 0.5]
    >>> estimated("regression", np.full(1000, 0.2)).figures
    {}
    """
    finite = scores[np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1)]
    if task == "regression":
        return Estimated(rows=len(finite), reason="a predicted value says nothing about its own spread")
    if not len(finite):
        return Estimated(rows=0, reason="no answer has a score")
    figures = _binary(finite, threshold) if task == "binary" else _multiclass(finite)
    return Estimated(rows=len(finite), figures=figures)


def estimated_against_truth(
    task: Task, days: pl.Series, labels: Floats, scores: Floats, *, threshold: float = 0.5
) -> pl.DataFrame:
    """What was estimated of each day, beside what its labels say.

    Parameters
    ----------
    days : (n,) of whatever type, the day of each row
    labels : (n,) float64; 0 or 1, or class index
    scores : (n,) or (n, classes) float64

    Returns
    -------
    One row per day and metric: `day`, `metric`, `rows`, `estimated`, `low`, `high`, `truth`, `error` (estimate − truth)
    and `inside` (whether the truth lies within the interval); null where one of them does not exist. Empty for a
    regression. Rows without a finite score or label are left out.
    """
    known = np.isfinite(labels) & (np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1))
    told = []
    places = pl.DataFrame({"day": days, "place": np.arange(len(days)), "known": known}).filter("known").sort("day")
    for (day,), rows in places.group_by("day", maintain_order=True):
        at = rows["place"].to_numpy()
        said = estimated(task, scores[at], threshold=threshold)
        for metric, figure in said.figures.items():
            truth = truth_of(metric, labels[at], scores[at], threshold=threshold)
            told.append((day, metric, said.rows, figure.point, figure.low, figure.high, truth))
    frame = pl.DataFrame(told, schema=_compared(days.dtype), orient="row")
    return frame.with_columns(
        error=pl.col("estimated") - pl.col("truth"), inside=pl.col("truth").is_between("low", "high")
    )


def truth_of(metric: str, labels: Floats, scores: Floats, *, threshold: float = 0.5) -> float | None:
    """What a metric that can be estimated really was; None where it does not exist."""
    if metric == "positive_rate":
        return float(labels.mean()) if len(labels) else None
    value = metrics.value(metric, labels, scores, threshold=threshold)
    return value if np.isfinite(value) else None


def uncertainty(scores: Floats) -> Floats:
    """(n,) expected log loss of each row: the entropy of its score.

    Parameters
    ----------
    scores : (n,) or (n, classes) float64, finite
    """
    chances = scores if scores.ndim == 2 else np.column_stack([1.0 - scores, scores])
    entropy: Floats = -(chances * np.log(np.clip(chances, CLIP, 1.0 - CLIP))).sum(axis=1)
    return entropy


def _compared(day: pl.DataType) -> dict[str, pl.DataType]:
    floats = dict.fromkeys(("estimated", "low", "high", "truth"), pl.Float64())
    return {"day": day, "metric": pl.String(), "rows": pl.Int64(), **floats}


def _binary(scores: Floats, threshold: float) -> dict[str, Interval]:
    chance = scores * (1.0 - scores)
    odds = np.log(np.clip(scores, CLIP, 1.0 - CLIP)) - np.log(np.clip(1.0 - scores, CLIP, 1.0 - CLIP))
    return {
        "log_loss": _mean(uncertainty(scores), chance * odds**2),
        "accuracy": _mean(np.where(scores >= threshold, scores, 1.0 - scores), chance, within=True),
        "auc": _auc(scores),
        "positive_rate": _mean(scores, chance, within=True),
    }


def _multiclass(scores: Floats) -> dict[str, Interval]:
    entropy = uncertainty(scores)
    squares = (scores * np.log(np.clip(scores, CLIP, 1.0 - CLIP)) ** 2).sum(axis=1)
    top = scores.max(axis=1)
    return {
        "log_loss": _mean(entropy, np.maximum(0.0, squares - entropy**2)),
        "accuracy": _mean(top, top * (1.0 - top), within=True),
    }


def _mean(expected: Floats, variance: Floats, *, within: bool = False) -> Interval:
    """Of independent terms with these expectations and variances."""
    return _interval(float(expected.mean()), float(np.sqrt(variance.sum())) / len(expected), within=within)


def _interval(point: float, deviation: float, *, within: bool) -> Interval:
    """`within`: it cannot leave 0 to 1."""
    low, high = point - NORMAL_95 * deviation, point + NORMAL_95 * deviation
    return Interval(point=point, low=max(0.0, low), high=min(1.0, high) if within else high)


def _auc(scores: Floats) -> Interval:
    """Of all ordered pairs of rows, those in the right order by chance; ties count half."""
    ranked = np.sort(scores)
    rows, positives = len(ranked), float(ranked.sum())
    chance = ranked * (1.0 - ranked)
    pairs = positives * (rows - positives) - float(chance.sum())
    # What rounding leaves of no pair at all is none: with scores of 0 and 1 only, of one kind.
    if pairs <= 1e-9 * rows:
        return Interval(point=None)
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    tied = np.diff(np.append(starts, rows))
    up, down = np.add.reduceat(ranked, starts), np.add.reduceat(1.0 - ranked, starts)
    # No row is a pair with itself.
    below = np.repeat(np.cumsum(down) - 0.5 * down, tied) - 0.5 * (1.0 - ranked)
    above = np.repeat(positives - np.cumsum(up) + 0.5 * up, tied) - 0.5 * ranked
    area = float((ranked * below).sum()) / pairs
    more_pairs = rows - 1.0 - 2.0 * (positives - ranked)
    slope = (below - above - area * more_pairs) / pairs
    return _interval(area, float(np.sqrt((chance * slope**2).sum())), within=True)
