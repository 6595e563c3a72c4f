"""Features that are missing now and never were: what a look of some minutes can say of null rates.

Of most features the share that is missing goes with the hour, so that minutes cannot be held to a day. But what was
missing on no day of the training window is missing at no hour either. The other features are judged by the day.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.behaviour.rules import wilson
from mlplatform.monitoring.quality.reference import reference_of, reference_path
from mlplatform.provenance.platform import Platform

never = 0.001
"""Share of a training day up to which a feature counts as never missing."""

many = 0.05
"""Share of the answers of a window from which a feature is missing in earnest: one in twenty, as of fallbacks."""

features_at_most = 20_000
"""Rows whose features are looked at, the newest: a share is known to a third of a point, in some milliseconds."""


class NeverMissing:
    """Which features of a manifest are never missing; remembered, for a manifest never changes."""

    def __init__(self, platform: Platform, domain: Domain) -> None:
        self._platform, self._domain = platform, domain
        self._known: dict[str, tuple[tuple[str, ...], npt.NDArray[np.bool_]]] = {}

    def features(self, manifest: str) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]] | None:
        """Names in the manifest's order, and of each whether it is never missing; None: nobody has looked yet.

        The first day that is judged makes the reference. That takes too long for a look.
        """
        if manifest not in self._known and reference_path(self._platform, self._domain, manifest).exists():
            made = reference_of(self._platform, self._domain, manifest)
            share = (made.sketches.nulls / np.maximum(1, made.sketches.rows)).max(axis=0)
            self._known[manifest] = (tuple(made.bins.names), share <= never)
        return self._known.get(manifest)


def missing(vectors: pl.Series, names: tuple[str, ...], watched: npt.NDArray[np.bool_]) -> Mapping[str, float]:
    """Features that are missing in earnest though they never are, the worst first -> the share of rows.

    Parameters
    ----------
    vectors : lists of Float32, NaN where missing, null where nothing could be computed
    watched : (k,) features that are never missing

    Examples
    --------
    >>> rows = pl.Series([[1.0, float("nan"), float("nan")]] * 300, dtype=pl.List(pl.Float32))
    >>> missing(rows, ("a", "b", "c"), np.array([True, True, False]))
    {'b': 1.0}
    """
    computed = vectors.drop_nulls().tail(features_at_most)
    if not len(computed) or (computed.list.len() != len(names)).any():
        return {}
    nulls = np.isnan(computed.list.to_array(len(names)).to_numpy()).sum(axis=0)
    found = {
        name: float(count) / len(computed)
        for name, count, looked_at in zip(names, nulls, watched, strict=True)
        if looked_at and wilson(int(count), len(computed))[0] > many
    }
    return dict(sorted(found.items(), key=lambda each: -each[1]))
