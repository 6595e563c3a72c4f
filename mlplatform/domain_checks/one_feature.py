"""What one feature alone tells of the label: the yardstick of the checks for leaks.

A feature is cut into bins; the mean label of each bin, seen on earlier rows, is the answer on later ones. So a code, a
category or a curve that goes up and down again is measured as well as a straight line.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.training import metrics

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

bins = 30
"""Enough to follow a curve, few enough that a bin of 200 rows has some in it."""

smallest_class = 10
"""Rows of a class, earlier and later, below which its ranking says nothing."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How well one feature foretells the label."""

    name: str
    """`AUC` (binary, and the best class of several) or `rank correlation`."""

    value: float
    scores: Floats
    """Its answers on the later rows, for any other metric."""


def strength(model: ModelSpec, feature: pl.Series, labels: Floats, earlier: Mask, later: Mask) -> Strength | None:
    """Measure one feature; None where there is nothing to measure.

    Parameters
    ----------
    feature : (n,) numbers or Booleans; a null is a bin of its own
    labels : (n,) float64
    earlier, later : (n,) bool, rows to learn from and rows to be right on

    References
    ----------
    Spearman, "The proof and measurement of association between two things", 1904; Hanley and McNeil, Radiology 143,
    1982, for the area under the curve.
    """
    values = feature.cast(pl.Float64).to_numpy()
    if len(np.unique(values[later])) < 2:
        return None
    bin_of = _bin(values, earlier)
    classes = len(model.label.classes) if model.task == "multiclass" else 0
    targets = np.eye(classes)[labels.astype(np.int64)] if classes else labels[:, None]
    told = np.stack([_means(bin_of, target, earlier)[bin_of[later]] for target in targets.T], axis=1)
    if model.task == "regression":
        direct = abs(_rank_correlation(values[later], labels[later]))
        value = max(direct, _rank_correlation(told[:, 0], labels[later]))
        return Strength(name="rank correlation", value=value, scores=told[:, 0])
    areas = []
    for place, target in enumerate(targets.T):
        if min(target[later].sum(), (1 - target[later]).sum(), target[earlier].sum()) < smallest_class:
            continue
        # A null is ranked last; that it is null may be what tells.
        ranked = np.where(np.isnan(values[later]), np.inf, values[later])
        places = np.searchsorted(np.unique(ranked), ranked).astype(np.float64)
        area = metrics.value("auc", target[later], places)
        areas += [area, 1.0 - area, metrics.value("auc", target[later], told[:, place])]
    if not areas:
        return None
    return Strength(name="AUC", value=max(areas), scores=told if classes else told[:, 0])


def _bin(values: Floats, earlier: Mask) -> npt.NDArray[np.int64]:
    """Bin of each value, 0 for a null; edges at quantiles of the earlier rows."""
    known = values[earlier & ~np.isnan(values)]
    distinct = np.unique(known)
    edges = distinct if len(distinct) <= bins else np.unique(np.quantile(known, np.arange(1, bins) / bins))
    place = 1 + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 0, place).astype(np.int64)


def _means(bin_of: npt.NDArray[np.int64], target: Floats, earlier: Mask) -> Floats:
    """Mean target of each bin on the earlier rows; the mean of all where a bin has none."""
    size = int(bin_of.max()) + 1
    count = np.bincount(bin_of[earlier], minlength=size)
    total = np.bincount(bin_of[earlier], weights=target[earlier], minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), target[earlier].mean()).astype(np.float64)


def _rank_correlation(one: Floats, other: Floats) -> float:
    known = ~(np.isnan(one) | np.isnan(other))
    if known.mean() < 0.5:
        return 0.0
    ranks = [pl.Series(values[known]).rank().to_numpy() for values in (one, other)]
    if min(float(np.ptp(each)) for each in ranks) == 0.0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
