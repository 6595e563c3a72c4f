"""Which column of a request weighs most in a model: by how far its scores move when the column changes places."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from mlplatform.features.view import view_feature_names
from mlplatform.registry.bundle import GOLDEN_ROWS, Bundle


def important_column(bundle: Bundle, names: Sequence[str]) -> str:
    """The column whose exchange between the bundle's golden rows moves their scores most; empty: there is none.

    What views know of another key is not looked up: a column counts by what the model itself makes of it.
    """
    rows = pl.read_ipc(bundle.folder / GOLDEN_ROWS)
    values = rows.select(view_feature_names(bundle.domain, bundle.model))
    requests = rows.drop(values.columns)
    honest = bundle.scores(bundle.features(requests, values))
    half = rows.height // 2

    def moved(name: str) -> float:
        swapped = pl.concat([requests.get_column(name)[half:], requests.get_column(name)[:half]])
        scores = bundle.scores(bundle.features(requests.with_columns(swapped.alias(name)), values))
        return float(np.abs(scores - honest).mean())

    return max(names, key=moved, default="")
