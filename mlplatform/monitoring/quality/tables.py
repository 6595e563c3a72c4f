"""The table `data_quality`: one row per manifest and feature of each day, with the sketch that later days are held to.

Append-only, with a partition per day: a day judged again is a new revision, and what was found before stays.
"""

from collections.abc import Mapping

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

table_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "feature": pl.String(),
    "importance": pl.Float64(),
    "rows": pl.Int64(),
    "judged": pl.Boolean(),
    "rule": pl.String(),
    "null_rate": pl.Float64(),
    "out_of_range": pl.Float64(),
    "new_category": pl.Float64(),
    "spread": pl.Float64(),
    "mean_shift": pl.Float64(),
    "psi": pl.Float64(),
    "kl": pl.Float64(),
    "ks": pl.Float64(),
    "displaced": pl.Float64(),
    "chance": pl.Float64(),
    "statistic": pl.String(),
    "value": pl.Float64(),
    "bound": pl.Float64(),
    "sketch": pl.Binary(),
}
"""As `FeatureQuality`. `sketch` is `Sketch.to_bytes`, in the bins of the manifest's reference."""


def quality_table(platform: Platform, domain: Domain) -> Stage:
    """The table `data_quality` of a domain."""
    return monitor_table(platform, domain, "data_quality", table_schema, sort_by=("model", "manifest", "feature"))
