"""The simple model: logistic or linear regression that answers when the booster cannot, and that the booster must beat.

It needs numpy and nothing else, so the gateway holds it itself. It is fitted in `training.fit`; here it only predicts.
A row alone and the same row inside any batch agree to the bit: sums go column by column, never through a matrix
product, and the exponential is the scalar one of the C library.
"""

import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Task
from mlplatform.errors import BundleError

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SimpleModel:
    """A fitted linear model on a few features. Several classes are one against the rest, renormalised."""

    task: Task
    features: tuple[str, ...]
    means: tuple[float, ...]
    """Of the training rows; a null counts as the mean, that is as no evidence."""

    scales: tuple[float, ...]
    """Standard deviations of the training rows; 1 for a constant feature."""

    weights: tuple[tuple[float, ...], ...]
    """One row per output (one for binary and regression, one per class else), on standardised features."""

    intercepts: tuple[float, ...]

    def __post_init__(self) -> None:
        width = len(self.features)
        numbers = [*self.means, *self.scales, *self.intercepts, *(each for row in self.weights for each in row)]
        shaped = len(self.means) == len(self.scales) == width and all(len(row) == width for row in self.weights)
        if not shaped or not self.weights or len(self.weights) != len(self.intercepts):
            raise BundleError("a simple model whose parts have different lengths; fit it again")
        if not all(map(math.isfinite, numbers)):
            raise BundleError("a simple model with a coefficient that is not finite; fit it again")

    def predict(self, features: pl.DataFrame) -> Scores:
        """Answers for rows of features.

        Parameters
        ----------
        features : (n, ≥ k) frame
            Holds at least the columns `features`; the others are not read.

        Returns
        -------
        (n,) float64 probabilities (binary) or values (regression), or (n, classes) probabilities.
        """
        columns = [
            standardised(features.get_column(name), mean, scale)
            for name, mean, scale in zip(self.features, self.means, self.scales, strict=True)
        ]
        outputs = []
        for weights, intercept in zip(self.weights, self.intercepts, strict=True):
            total = np.full(features.height, intercept)
            for column, weight in zip(columns, weights, strict=True):
                total += weight * column
            outputs.append(total if self.task == "regression" else logistic(total))
        if len(outputs) == 1:
            return outputs[0]
        whole = outputs[0].copy()
        for each in outputs[1:]:
            whole += each
        # All classes as good as ruled out: no evidence for any of them.
        ruled_out = whole < 1e-300
        whole[ruled_out] = 1.0
        shares = [np.where(ruled_out, 1.0 / len(outputs), each / whole) for each in outputs]
        return np.stack(shares, axis=1)

    def to_json(self) -> str:
        """The model as JSON; floats come back to the bit."""
        return json.dumps(asdict(self), allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "SimpleModel":
        """What `to_json` wrote.

        Raises
        ------
        BundleError
            The text is no simple model.
        """
        try:
            told = json.loads(text)
            return cls(
                task=told["task"],
                features=tuple(told["features"]),
                means=tuple(told["means"]),
                scales=tuple(told["scales"]),
                weights=tuple(tuple(row) for row in told["weights"]),
                intercepts=tuple(told["intercepts"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"this is no simple model ({error}). Restore the file from a copy") from error


def standardised(column: pl.Series, mean: float, scale: float) -> Scores:
    """(n,) float64: distance from the mean in scales, and 0 for a null or a value that is not finite."""
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), (values - mean) / scale, 0.0)


def logistic(total: Scores) -> Scores:
    """(n,) float64 log odds -> probabilities, without overflow."""
    return np.fromiter((_logistic(each) for each in total.tolist()), dtype=np.float64, count=len(total))


def _logistic(log_odds: float) -> float:
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1.0 + odds)
