"""Fitting: one booster and one simple model from training rows, to the byte.

The bytes of a booster depend on rows, settings and seed, not on the number of threads. The device is checked first: a
model declared for `cuda` is never fitted on the CPU in silence. Row order matters, so a training set has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec, Task, XGBoostSettings
from mlplatform.errors import DataError, DeclarationError
from mlplatform.scoring.booster import check_device, matrix
from mlplatform.scoring.simple_model import SimpleModel, logistic, standardised

if TYPE_CHECKING:
    import xgboost as xgb

Floats = npt.NDArray[np.float64]

OBJECTIVES: dict[Task, str] = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
}
"""XGBoost's objective where the settings name none."""

NO_PROBABILITY = ("binary:logitraw", "binary:hinge", "multi:softmax")
"""Objectives whose raw score is no probability, which everything after the booster expects."""

SIMPLE_PENALTY = 1.0
"""Ridge penalty on standardised weights, against a sum over rows: next to nothing for thousands of rows, and enough to
keep a feature that separates the labels perfectly from running to infinity."""


def fit(features: pl.DataFrame, labels: npt.NDArray[Any], spec: ModelSpec, settings: XGBoostSettings) -> xgb.Booster:
    """Fit a booster.

    Parameters
    ----------
    features : (n, k) frame
        Columns in the order of the model's feature names.
    labels : (n,) numbers
        0 or 1 (binary), class index (multiclass), value (regression).
    spec : task and classes
    settings : XGBoost's parameters; those of the specification, or what a search found

    Returns
    -------
    A booster that knows its feature names; its bytes are the same for any number of threads.

    Raises
    ------
    DeviceUnavailable
        The device of the settings is not on this machine.
    DataError
        There are no rows, or a label is missing or of no class.
    DeclarationError
        The objective gives no probabilities where they are due.
    """
    told = parameters(spec, settings)
    check_device(settings.device)
    labels = _checked(features, labels, spec)
    import xgboost as xgb

    # Quantiles straight from the matrix: the same bytes as from a DMatrix, in half its memory.
    training = xgb.QuantileDMatrix(
        matrix(features),
        label=labels,
        feature_names=features.columns,
        nthread=settings.threads,
        max_bin=int(told.get("max_bin", 256)),
    )
    return xgb.train(told, training, num_boost_round=settings.rounds)


def parameters(spec: ModelSpec, settings: XGBoostSettings) -> dict[str, Any]:
    """XGBoost's own parameters for these settings."""
    objective = settings.objective or OBJECTIVES[spec.task]
    if objective in NO_PROBABILITY:
        raise DeclarationError(
            f"model {spec.name}: objective {objective} gives no probabilities; use {OBJECTIVES[spec.task]}"
        )
    told: dict[str, Any] = {
        "objective": objective,
        "learning_rate": settings.learning_rate,
        "max_depth": settings.max_depth,
        "min_child_weight": settings.min_child_weight,
        "subsample": settings.subsample,
        "colsample_bytree": settings.colsample_bytree,
        "reg_lambda": settings.reg_lambda,
        "tree_method": "hist",
        "device": settings.device,
        "nthread": settings.threads,
        "seed": settings.seed,
        "verbosity": 1,
    }
    if spec.task == "multiclass":
        told["num_class"] = len(spec.label.classes)
    return told | dict(settings.more)


def importance(booster: xgb.Booster) -> dict[str, float]:
    """Total gain per feature as a share of all gain, in feature order; a feature no tree uses has 0."""
    gains = {name: _number(gain) for name, gain in booster.get_score(importance_type="total_gain").items()}
    whole = sum(gains.values()) or 1.0
    return {name: gains.get(name, 0.0) / whole for name in booster.feature_names or ()}


def fit_simple(features: pl.DataFrame, labels: npt.NDArray[Any], spec: ModelSpec) -> SimpleModel:
    """Fit the simple model on the declared `simple_features`.

    Ridge regression, or logistic regression by Newton's method with the same penalty (one class against the rest for
    several). All sums run in a fixed order, none through a threaded matrix product, so the result is the same to the
    bit on any number of cores.

    Parameters
    ----------
    features : (n, ≥ k) frame, holding the `simple_features`
    labels : (n,) numbers, as for `fit`

    Raises
    ------
    DataError
        There are no rows, or a label is missing or of no class.

    References
    ----------
    Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, sections 3.4.1 and 4.4.1.
    """
    labels = _checked(features, labels, spec)
    means, scales, columns = [], [], []
    for name in spec.simple_features:
        mean, scale = _mean_and_scale(features.get_column(name))
        means.append(mean)
        scales.append(scale)
        columns.append(standardised(features.get_column(name), mean, scale))
    design = np.stack([np.ones(len(labels)), *columns], axis=1)
    if spec.task == "regression":
        solved = [_ridge(design, np.ones(len(labels)), labels)]
    elif spec.task == "binary":
        solved = [_logistic_regression(design, labels)]
    else:
        solved = [_logistic_regression(design, (labels == each) * 1.0) for each in range(len(spec.label.classes))]
    return SimpleModel(
        task=spec.task,
        features=spec.simple_features,
        means=tuple(means),
        scales=tuple(scales),
        weights=tuple(tuple(each[1:].tolist()) for each in solved),
        intercepts=tuple(float(each[0]) for each in solved),
    )


def _number(gain: float | list[float]) -> float:
    return float(sum(gain)) if isinstance(gain, list) else float(gain)


def _checked(features: pl.DataFrame, labels: npt.NDArray[Any], spec: ModelSpec) -> Floats:
    values = np.asarray(labels, dtype=np.float64)
    if not len(values) or len(values) != features.height:
        raise DataError(
            f"model {spec.name}: {features.height} rows and {len(values)} labels; there must be as many, and some"
        )
    allowed = {"binary": 2, "multiclass": len(spec.label.classes)}.get(spec.task)
    wrong = ~np.isfinite(values) if allowed is None else ~np.isin(values, np.arange(allowed))
    if wrong.any():
        raise DataError(
            f"model {spec.name}: {int(wrong.sum())} labels are missing or no label, the first in row "
            f"{int(np.flatnonzero(wrong)[0])}. Leave rows without a label out of the training set"
        )
    return values


def _mean_and_scale(column: pl.Series) -> tuple[float, float]:
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    mean, scale = float(values.mean()), float(values.std())
    return mean, scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0


def _ridge(design: Floats, weights: Floats, target: Floats) -> Floats:
    penalty = np.diag([0.0, *[SIMPLE_PENALTY] * (design.shape[1] - 1)])
    weighted = design * weights[:, None]
    # einsum without `optimize` is a plain loop in C: no BLAS, whose sums depend on the number of threads.
    gram = np.einsum("ni,nj->ij", weighted, design)
    return np.asarray(np.linalg.solve(gram + penalty, np.einsum("ni,n->i", weighted, target)), dtype=np.float64)


def _logistic_regression(design: Floats, labels: Floats) -> Floats:
    # A constant label has no finite log odds; one pseudo-row on either side keeps them finite.
    share = (labels.sum() + 1.0) / (len(labels) + 2.0)
    coefficients = np.zeros(design.shape[1])
    coefficients[0] = np.log(share / (1.0 - share))
    if labels.min() == labels.max():
        return coefficients
    for _ in range(25):
        log_odds = np.einsum("ni,i->n", design, coefficients)
        probability = logistic(log_odds)
        weights = np.maximum(probability * (1.0 - probability), 1e-6)
        updated = _ridge(design, weights, log_odds + (labels - probability) / weights)
        step = updated - coefficients
        # Newton may overshoot where the labels are nearly separable: no coordinate moves further than 5.
        coefficients = coefficients + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    return coefficients
