"""Calibration: from raw scores to probabilities that mean what they say.

A score of 0.3 should come true three times in ten. The curve is fitted in `training.calibrate`; here it is only
applied, row by row: every step is an elementwise operation with one rounding, so a row alone and the same row inside
any batch agree to the bit. `np.interp` is left aside: it takes another path through its C code when the batch is larger
than the curve, and a compiler may fuse its multiply and add.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlplatform.errors import BundleError

Scores = npt.NDArray[np.float64]

EPSILON = 1e-6
"""Calibrated probabilities stay within (EPSILON, 1 - EPSILON): one surprise must not make the log loss infinite."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A rising line through knots, constant beyond both ends."""

    raw: tuple[float, ...]
    """Raw scores of the knots, strictly rising."""

    calibrated: tuple[float, ...]
    """Probability at each knot, never falling, inside (EPSILON, 1 - EPSILON)."""

    def __post_init__(self) -> None:
        raw, calibrated = np.array(self.raw), np.array(self.calibrated)
        if not len(raw) or len(raw) != len(calibrated):
            raise BundleError(f"a calibration curve has {len(raw)} raw scores and {len(calibrated)} probabilities")
        if not (np.all(np.diff(raw) > 0) and np.all(np.diff(calibrated) >= 0)):
            raise BundleError("a calibration curve must rise; calibrate again")
        if not (calibrated[0] > EPSILON and calibrated[-1] < 1 - EPSILON):
            raise BundleError(f"a calibration curve must stay within ({EPSILON}, {1 - EPSILON}); calibrate again")

    @cached_property
    def _lines(self) -> tuple[Scores, Scores, Scores]:
        raw, calibrated = np.array(self.raw), np.array(self.calibrated)
        return raw, calibrated, np.append(np.diff(calibrated) / np.diff(raw), 0.0)

    def apply(self, raw: Scores) -> Scores:
        """(n,) float64 raw scores -> (n,) calibrated probabilities; NaN stays NaN."""
        knots, calibrated, slopes = self._lines
        at = np.clip(raw, knots[0], knots[-1])
        left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 1)
        line = calibrated[left] + slopes[left] * (at - knots[left])
        # Rounding may overshoot the next knot by a bit: without this the curve could fall there.
        return np.asarray(np.clip(line, calibrated[0], calibrated[-1]), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The identity (no curve), one curve (binary), or one curve per class, renormalised (multiclass).

    Examples
    --------
    >>> half = Calibration(curves=(Curve(raw=(0.0, 1.0), calibrated=(0.25, 0.75)),))
    >>> half.apply(np.array([0.0, 0.5, 2.0])).tolist()
    [0.25, 0.5, 0.75]

    References
    ----------
    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002:
    isotonic regression, and one against the rest for several classes.
    """

    curves: tuple[Curve, ...] = field(default=())

    def apply(self, raw: Scores) -> Scores:
        """(n,) or (n, classes) raw scores -> scores of the same shape."""
        raw = np.asarray(raw, dtype=np.float64)
        if not self.curves:
            return raw
        if raw.ndim == 1:
            if len(self.curves) != 1:
                raise BundleError(f"{len(self.curves)} calibration curves for one score per row")
            return self.curves[0].apply(raw)
        if len(self.curves) != raw.shape[1]:
            raise BundleError(f"{len(self.curves)} calibration curves for {raw.shape[1]} classes")
        classes = [curve.apply(np.ascontiguousarray(raw[:, position])) for position, curve in enumerate(self.curves)]
        # Class after class: a reduction along rows may add in another order in another batch.
        total = classes[0].copy()
        for each in classes[1:]:
            total += each
        return np.stack([each / total for each in classes], axis=1)

    def to_json(self) -> str:
        """The curves as JSON; floats come back to the bit."""
        curves = [{"raw": curve.raw, "calibrated": curve.calibrated} for curve in self.curves]
        return json.dumps({"curves": curves}, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """What `to_json` wrote.

        Raises
        ------
        BundleError
            The text is no calibration.
        """
        try:
            curves: Sequence[dict[str, list[float]]] = json.loads(text)["curves"]
            return cls(
                curves=tuple(Curve(raw=tuple(each["raw"]), calibrated=tuple(each["calibrated"])) for each in curves)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"this is no calibration ({error}). Restore the file from a copy") from error
