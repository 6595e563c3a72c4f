"""The table `data_quality`: one row per manifest and feature of each day, with the sketch that later days are held to.

Append-only, with a partition per day: a day judged again is a new revision, and what was found before stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
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


@dataclass(frozen=True, kw_only=True)
class LatestQuality:
    """What the newest judged day says of what a model is served; for whoever decides about retraining."""

    day: str
    manifest: str
    rows: int
    features: pl.DataFrame
    """`table_schema` without `sketch`, the most important first."""

    @property
    def drifted_importance(self) -> float:
        """Share of the model's gain carried by features that are not as in its training set, at once or slowly."""
        return float(self.features.filter(pl.col("rule") != "")["importance"].sum())

    @property
    def displaced_importance(self) -> float:
        """The part of that gain which rests on rows that have moved: each feature weighted by their share."""
        drifted = self.features.filter(pl.col("rule") != "")
        return float((drifted["importance"] * drifted["displaced"].fill_nan(0.0)).sum())


def quality_table(platform: Platform, domain: Domain) -> Stage:
    """The table `data_quality` of a domain."""
    return Stage(
        platform.table(domain.name, "monitoring", "data_quality"),
        table_schema,
        name=f"{domain.name}/monitoring/data_quality",
        sort_by=("model", "manifest", "feature"),
        storage_options=platform.storage_options,
    )


def latest_quality(
    platform: Platform, domain: Domain, model: str, *, manifest: str = "", until: str = "9999"
) -> LatestQuality | None:
    """The newest day on which what a model is served was judged; None: there is none.

    Parameters
    ----------
    model : its name in the domain
    manifest : digest; empty: whichever served most on that day
    until : ISO day, included
    """
    wanted = (pl.col("model") == model) & pl.col("judged")
    if manifest:
        wanted &= pl.col("manifest") == manifest
    table = quality_table(platform, domain)
    for day in sorted((each for each in table.current() if each <= until), reverse=True):
        rows = table.read([day], columns=[each for each in table_schema if each != "sketch"]).filter(wanted)
        if rows.height:
            most = rows.sort("rows", "manifest", descending=[True, False])["manifest"][0]
            of = rows.filter(pl.col("manifest") == most).sort("importance", descending=True)
            return LatestQuality(day=day, manifest=most, rows=int(of["rows"][0]), features=of)
    return None
