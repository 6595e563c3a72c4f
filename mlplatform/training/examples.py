"""A training set as the arrays that training and evaluation work on, cut by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.view import model_inputs, view_feature_names
from mlplatform.training.split import Parts, split

if TYPE_CHECKING:
    from mlplatform.training.recipe import Recipe  # which names the version of this code


@dataclass(frozen=True)
class Examples:
    """Requests, the values looked up for them, their labels, and the parts of the time axis."""

    requests: pl.DataFrame
    """(n, …) request columns and `at`."""

    view_values: pl.DataFrame
    """(n, n_view_features)."""

    labels: npt.NDArray[np.float64]
    parts: Parts

    def features(self, domain: Domain, model: ModelSpec, fitted: Mapping[str, Any]) -> pl.DataFrame:
        """The model's inputs of all rows."""
        return model_inputs(domain, model, self.requests, self.view_values, fitted)


def examples(domain: Domain, model: ModelSpec, recipe: Recipe, rows: pl.DataFrame) -> Examples:
    """Cut the rows of a training set into requests, values and labels, and the time axis into parts.

    The evaluation part ends one label delay before the cut-off: after that, only the fast labels are in.

    Raises
    ------
    DataError
        The days do not suffice for the declared split.
    """
    start = datetime.combine(domain.start, time(), UTC)
    names = view_feature_names(domain, model)
    return Examples(
        requests=rows.select([column.name for column in domain.requests.columns] + ["at"]),
        # A model of the request alone looks nothing up, yet has as many rows.
        view_values=rows.select(names) if names else pl.DataFrame(height=rows.height),
        labels=rows["label"].to_numpy().astype(np.float64),
        parts=split(
            rows["at"], start=start, as_of=recipe.cut_off - model.label.delay, spec=model.split, gap=model.label.delay
        ),
    )
