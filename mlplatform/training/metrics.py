"""Metrics with intervals: how well scores foretell labels, and how sure that is.

Intervals come from a bootstrap over whole days, because the cases of one day share its weather and are not
independent; the same resampled days serve every model, so differences are paired. It refuses to give an interval from
fewer than five days: it would look sharp and mean nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.domain.model import Task
from mlplatform.domain.threshold import Direction

Floats = npt.NDArray[np.float64]

CLIP = 1e-7
"""Probabilities are clipped to [CLIP, 1 - CLIP] before the logarithm: one certain mistake costs 16, not infinity."""

BINS = 10
"""Bins of calibration error and calibration curve: equally many rows in each, edges at quantiles of the score."""

RESAMPLES = 200
"""Enough for the ends of a 95 % interval to about a tenth of its width."""

MIN_DAYS = 5

DIRECTIONS: Mapping[str, Direction] = {
    "log_loss": "lower",
    "auc": "higher",
    "brier": "lower",
    "accuracy": "higher",
    "ece": "lower",
    "mae": "lower",
    "rmse": "lower",
}
"""Which way is better."""

METRICS: Mapping[Task, tuple[str, ...]] = {
    "binary": ("log_loss", "auc", "brier", "accuracy", "ece"),
    "multiclass": ("log_loss", "brier", "accuracy", "ece"),
    "regression": ("mae", "rmse"),
}
"""What is measured for a task, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and the middle 95 % of its bootstrap distribution; None where it cannot be computed."""

    point: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Resamples:
    """Which days are drawn how often: row 0 takes every day once (the point), the others are bootstrap draws."""

    day: npt.NDArray[np.int64]
    """(n,) position of each row's day."""

    draws: Floats
    """(1 + resamples, days)."""

    def of_rows(self, rows: npt.NDArray[np.int64]) -> "Resamples":
        """The same draws for some of the rows, so that a segment stays paired with the whole."""
        return Resamples(day=self.day[rows], draws=self.draws)


def bootstrap(days: npt.NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES) -> Resamples:
    """Draw days with replacement.

    Parameters
    ----------
    days : (n,) int64
        Any number that names the day of each row.
    seed : of the draws

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 (blocks) and 13 (percentile intervals).
    """
    distinct, day = np.unique(days, return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(distinct), np.full(len(distinct), 1.0 / len(distinct)), size=resamples)
    return Resamples(day=day.astype(np.int64), draws=np.vstack([np.ones(len(distinct)), drawn.astype(np.float64)]))


def replicates(metric: str, labels: Floats, scores: Floats, sample: Resamples, *, threshold: float = 0.5) -> Floats:
    """A metric over every row (position 0) and over each bootstrap draw.

    Parameters
    ----------
    metric : one of the names in `METRICS`
    labels : (n,) float64; 0 or 1, class index, or value
    scores : (n,) or (n, classes) float64
    sample : draws of the same n rows
    threshold : probability from which a binary score says 1; read by `accuracy` only

    Returns
    -------
    (1 + resamples,) float64; NaN where the metric does not exist (no row drawn, only one class for AUC),
    and throughout if a single score or label is not finite.
    """
    if not (np.isfinite(scores).all() and np.isfinite(labels).all()):
        # A NaN is said to be no figure at all, even where no draw holds its day, and where a comparison would hide it.
        return np.full(len(sample.draws), np.nan)
    if metric == "auc":
        return _auc(labels, scores, sample)
    if metric == "ece":
        return _calibration_error(labels, scores, sample)
    mean = _drawn_mean(_per_row[metric](labels, scores, threshold), sample)
    return np.sqrt(mean) if metric == "rmse" else mean


def per_row(metric: str, labels: Floats, scores: Floats, *, threshold: float = 0.5) -> Floats:
    """What each row adds to a metric that is a mean over rows: all but `auc` and `ece`; for `rmse` the squared error.

    Parameters
    ----------
    labels, scores, threshold : as in `replicates`, all finite

    Returns
    -------
    (n,) float64
    """
    return _per_row[metric](labels, scores, threshold)


def interval(values: Floats, days: int) -> Interval:
    """Point and 95 % percentile interval of replicates.

    More than one draw in twenty without a value, or fewer than `MIN_DAYS` days, gives no bounds.
    """
    point = float(values[0]) if np.isfinite(values[0]) else None
    drawn = values[1:][np.isfinite(values[1:])]
    if point is None or days < MIN_DAYS or len(drawn) < 0.95 * (len(values) - 1) or not len(drawn):
        return Interval(point=point)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(point=point, low=float(low), high=float(high))


def value(metric: str, labels: Floats, scores: Floats, *, threshold: float = 0.5) -> float:
    """A metric over all rows, without an interval."""
    once = Resamples(day=np.zeros(len(labels), dtype=np.int64), draws=np.ones((1, 1)))
    return float(replicates(metric, labels, scores, once, threshold=threshold)[0])


def bins(certainty: Floats) -> npt.NDArray[np.int64]:
    """(n,) bin of each score: `BINS` with equally many rows; equal scores share a bin, so there may be fewer."""
    edges = np.unique(np.quantile(certainty, np.arange(1, BINS) / BINS)) if len(certainty) else np.empty(0)
    return np.searchsorted(edges, certainty, side="left").astype(np.int64)


def certainty_and_hit(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """What calibration compares: probability and label (binary), top probability and whether it came true (else)."""
    if scores.ndim == 1:
        return scores, labels
    top: Floats = scores.max(axis=1)
    return top, (scores.argmax(axis=1) == labels) * 1.0


def _log_loss(labels: Floats, scores: Floats, threshold: float) -> Floats:  # noqa: ARG001 - one signature for all
    """Good, "Rational decisions", JRSS B 14 (1952): minus the logarithm of the probability given to what happened."""
    return -np.log(np.clip(_given(labels, scores), CLIP, 1.0 - CLIP))


def _brier(labels: Floats, scores: Floats, threshold: float) -> Floats:  # noqa: ARG001 - one signature for all
    """Brier, "Verification of forecasts expressed in terms of probability", 1950; half of it for a binary score."""
    if scores.ndim == 1:
        return (scores - labels) ** 2
    squares: Floats = (scores**2).sum(axis=1)
    return squares - 2.0 * _given(labels, scores) + 1.0


def _accuracy(labels: Floats, scores: Floats, threshold: float) -> Floats:
    said = scores >= threshold if scores.ndim == 1 else scores.argmax(axis=1)
    hit: Floats = (said == labels) * 1.0
    return hit


def _absolute_error(labels: Floats, scores: Floats, threshold: float) -> Floats:  # noqa: ARG001 - one signature for all
    return np.abs(scores - labels)


def _squared_error(labels: Floats, scores: Floats, threshold: float) -> Floats:  # noqa: ARG001 - one signature for all
    return (scores - labels) ** 2


_per_row: Mapping[str, Callable[[Floats, Floats, float], Floats]] = {
    "log_loss": _log_loss,
    "brier": _brier,
    "accuracy": _accuracy,
    "mae": _absolute_error,
    "rmse": _squared_error,
}


def _given(labels: Floats, scores: Floats) -> Floats:
    """Probability given to what happened."""
    if scores.ndim == 1:
        return np.where(labels == 1.0, scores, 1.0 - scores)
    given: Floats = scores[np.arange(len(labels)), labels.astype(np.int64)]
    return given


def _per_day(values: Floats, sample: Resamples) -> Floats:
    # float64 although the weights make it so: without them bincount would count in integers.
    return np.bincount(sample.day, weights=values, minlength=sample.draws.shape[1]).astype(np.float64)


def _drawn(values: Floats, sample: Resamples) -> Floats:
    """Sum of the values over each draw."""
    sums: Floats = np.einsum("rd,d->r", sample.draws, _per_day(values, sample))
    return sums


def _drawn_mean(values: Floats, sample: Resamples) -> Floats:
    return _ratio(_drawn(values, sample), _drawn(np.ones(len(values)), sample))


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _auc(labels: Floats, scores: Floats, sample: Resamples) -> Floats:
    """Mann-Whitney form of the area under the ROC curve, ties counted half (Hanley and McNeil, Radiology 143, 1982)."""
    if not len(labels):
        return np.full(len(sample.draws), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked, day, positive = scores[order], sample.day[order], labels[order] == 1.0
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    areas = np.empty(len(sample.draws))
    for position, draw in enumerate(sample.draws):
        times = draw[day]
        up = np.add.reduceat(np.where(positive, times, 0.0), starts)
        down = np.add.reduceat(np.where(positive, 0.0, times), starts)
        wins = (up * (np.cumsum(down) - 0.5 * down)).sum()
        pairs = up.sum() * down.sum()
        areas[position] = wins / pairs if pairs > 0 else np.nan
    return areas


def _calibration_error(labels: Floats, scores: Floats, sample: Resamples) -> Floats:
    """Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015), over bins of equally many rows.

    Several classes: of the top class (Guo et al., "On calibration of modern neural networks", ICML 2017).
    """
    certainty, hit = certainty_and_hit(labels, scores)
    bin_of = bins(certainty)
    gaps = np.zeros(len(sample.draws))
    for each in range(BINS):
        gaps += np.abs(_drawn(np.where(bin_of == each, certainty - hit, 0.0), sample))
    return _ratio(gaps, _drawn(np.ones(len(labels)), sample))
