"""From the rows of a training set to all that a model is: search, fit, calibrate, the simple model, what it says.

One function of its arguments, without a file or a clock: so a model is made once and made again by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.view import fit_values
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.scoring.calibration import Calibration
from mlplatform.scoring.simple_model import SimpleModel
from mlplatform.training.calibrate import fit_calibration
from mlplatform.training.examples import examples
from mlplatform.training.fit import fit, fit_simple, importance
from mlplatform.training.search import search

if TYPE_CHECKING:
    import xgboost as xgb

    from mlplatform.training.recipe import Recipe  # which names the version of this code

golden_rows = 16
"""Rows kept in the bundle with their scores: enough to meet a wrong column or device, quick enough for readiness."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the making of a model said of itself."""

    settings: Mapping[str, Any]
    """What was fitted with: the declared settings, or the best of the search."""

    trials: tuple[Mapping[str, Any], ...]
    importance: Mapping[str, float]
    """Feature -> share of the total gain."""

    calibrated: bool
    calibration_reason: str
    rows: Mapping[str, int]
    """Rows by part."""

    windows: Mapping[str, str]
    """Window of request times by part."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model in memory."""

    fitted: Mapping[str, Any]
    booster: xgb.Booster
    calibration: Calibration
    simple: SimpleModel
    scores: npt.NDArray[np.float64]
    """Calibrated, of the rows of the evaluation part."""

    golden: tuple[pl.DataFrame, npt.NDArray[np.float64]]
    """The first of those rows (request columns, `at`, view values) with their scores."""

    said: Said


def train(domain: Domain, model: ModelSpec, recipe: Recipe, rows: pl.DataFrame) -> Trained:
    """Train the model of a recipe on the rows of its training set.

    Raises
    ------
    DataError
        The rows do not suffice for the declared split.
    """
    cut = examples(domain, model, recipe, rows)
    learned, parts = cut.parts.train, cut.parts
    fitted = fit_values(domain, model, cut.requests[learned], cut.view_values[learned])
    features = cut.features(domain, model, fitted)
    found = search(features[learned], cut.labels[learned], cut.requests["at"].gather(learned), model)
    booster = fit(features[learned], cut.labels[learned], model, found.settings)
    raw = raw_scores(booster, matrix(features[parts.calibration]))
    calibration = fit_calibration(
        model, raw, cut.labels[parts.calibration], cut.requests["at"].gather(parts.calibration)
    )
    scores = calibration.calibration.apply(raw_scores(booster, matrix(features[parts.evaluation])))
    golden = parts.evaluation[:golden_rows]
    return Trained(
        fitted=fitted,
        booster=booster,
        calibration=calibration.calibration,
        simple=fit_simple(features[learned], cut.labels[learned], model),
        scores=scores,
        golden=(pl.concat([cut.requests[golden], cut.view_values[golden]], how="horizontal"), scores[:golden_rows]),
        said=Said(
            settings=asdict(found.settings),
            trials=found.trials,
            importance=importance(booster),
            calibrated=calibration.kept,
            calibration_reason=calibration.reason,
            rows={
                "train": len(learned),
                "calibration": len(parts.calibration),
                "evaluation": len(parts.evaluation),
            },
            windows={part: str(window) for part, window in vars(parts.windows).items()},
        ),
    )
