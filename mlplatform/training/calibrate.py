"""Fitting the calibration on the part after the training window, and keeping it only where it helps.

A booster's probabilities come from the training window; the weeks after it may differ. The curve is isotonic regression
over bins of the raw score. It is fitted on the earlier half of the calibration part and judged on the later half: only
if it does not worsen the log loss there is it fitted again on the whole part and kept. Otherwise the identity is, and
the result says so.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.scoring.calibration import EPSILON, Calibration, Curve
from mlplatform.training.metrics import value

Floats = npt.NDArray[np.float64]

MIN_ROWS = 400
"""Fewer rows in the part give no curve: a half of 200 leaves 20 or so of the rarer label."""

MAX_KNOTS = 100
MIN_ROWS_PER_KNOT = 50
"""A knot is the mean of at least this many rows (standard error of a share: at most 0.07), or it follows noise."""


@dataclass(frozen=True, kw_only=True)
class FittedCalibration:
    """The calibration that goes into the bundle, and why it is that one."""

    calibration: Calibration
    kept: bool
    """False: the identity."""

    reason: str
    rows: int
    loss_before: float | None = None
    """Log loss of the raw scores on the later half."""

    loss_after: float | None = None
    """Log loss there, calibrated by the earlier half."""


def fit_calibration(spec: ModelSpec, raw: Floats, labels: npt.NDArray[np.float64], at: pl.Series) -> FittedCalibration:
    """Fit a calibration.

    Parameters
    ----------
    raw : (n,) or (n, classes) float64
        Raw scores of the calibration part, which the booster was not fitted on.
    labels : (n,) float64
    at : (n,) Datetime
        Request times; they say which half is the later one.

    Raises
    ------
    DataError
        A raw score or a label is not finite.
    """
    rows = len(labels)
    labels = np.asarray(labels, dtype=np.float64)
    if not (np.isfinite(raw).all() and np.isfinite(labels).all()):
        raise DataError(f"model {spec.name}: a raw score or a label of the calibration part is not finite")
    if spec.task == "regression":
        return FittedCalibration(
            calibration=Calibration(), kept=False, reason="a regression is not calibrated", rows=rows
        )
    if rows < MIN_ROWS:
        reason = f"{rows} rows are fewer than the {MIN_ROWS} that a curve needs"
        return FittedCalibration(calibration=Calibration(), kept=False, reason=reason, rows=rows)
    order = at.arg_sort().to_numpy()
    earlier, later = order[: rows // 2], order[rows // 2 :]
    if not _every_class_seen(spec, labels[earlier]):
        reason = "the earlier half of the part lacks a class"
        return FittedCalibration(calibration=Calibration(), kept=False, reason=reason, rows=rows)
    tried = _curves(spec, raw[earlier], labels[earlier]).apply(raw[later])
    before, after = value("log_loss", labels[later], raw[later]), value("log_loss", labels[later], tried)
    kept = after <= before
    verdict = "is not worse than" if kept else "is worse than"
    return FittedCalibration(
        calibration=_curves(spec, raw, labels) if kept else Calibration(),
        kept=kept,
        reason=f"on the later half of the part, log loss {after:.5f} calibrated {verdict} {before:.5f} as it was",
        rows=rows,
        loss_before=before,
        loss_after=after,
    )


def rising(values: Floats, weights: Floats) -> Floats:
    """Isotonic regression: the never falling sequence nearest to `values` in weighted squares.

    Parameters
    ----------
    values, weights : (n,) float64
        Weights above 0.

    References
    ----------
    Ayer et al., "An empirical distribution function for sampling with incomplete information", Annals of Mathematical
    Statistics 26 (1955): pool adjacent violators.

    Examples
    --------
    >>> rising(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    blocks: list[tuple[float, float, int]] = []
    for value_, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value_, weight, 1
        while blocks and blocks[-1][0] >= mean:
            last_mean, last_total, last_count = blocks.pop()
            mean = (last_mean * last_total + mean * total) / (last_total + total)
            total, count = last_total + total, last_count + count
        blocks.append((mean, total, count))
    return np.repeat([each[0] for each in blocks], [each[2] for each in blocks])


def _every_class_seen(spec: ModelSpec, labels: Floats) -> bool:
    return len(np.unique(labels)) == max(2, len(spec.label.classes))


def _curves(spec: ModelSpec, raw: Floats, labels: Floats) -> Calibration:
    if spec.task == "binary":
        return Calibration(curves=(_curve(raw, labels),))
    return Calibration(
        curves=tuple(_curve(raw[:, each], (labels == each) * 1.0) for each in range(len(spec.label.classes)))
    )


def _curve(raw: Floats, labels: Floats) -> Curve:
    """Bins of equally many rows, their mean score and share, made to rise."""
    knots = max(1, min(MAX_KNOTS, len(raw) // MIN_ROWS_PER_KNOT))
    edges = np.unique(np.quantile(raw, np.arange(1, knots) / knots))
    # Equal scores share a bin: nothing could tell them apart when serving.
    bin_of = np.searchsorted(edges, raw, side="left")
    rows = np.bincount(bin_of)
    filled = rows > 0
    counts = rows[filled].astype(np.float64)
    centres = np.bincount(bin_of, weights=raw)[filled] / counts
    shares = rising(np.bincount(bin_of, weights=labels)[filled] / counts, counts)
    # A share of 0 among n rows says no more than "rarer than one in n", so it never becomes a certainty.
    floor = max(2 * EPSILON, 0.5 / len(raw))
    shares = np.clip(shares, floor, 1.0 - floor)
    distinct = np.concatenate([[True], np.diff(centres) > 0])
    return Curve(raw=tuple(centres[distinct].tolist()), calibrated=tuple(shares[distinct].tolist()))
