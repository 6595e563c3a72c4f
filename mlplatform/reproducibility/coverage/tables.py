"""The tables of replay coverage: `replay_coverage`, the figures of each night, and `replay_findings`, single answers.

Both are append-only, with a partition per night: a night that is looked at again is a new revision, and what was found
before stays to be read.
"""

from collections.abc import Mapping

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
from mlplatform.features.view import instant
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

table_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "model_version": pl.String(),
    "age": pl.String(),
    "replayed": pl.Int64(),
    "exact": pl.Int64(),
    "within_tolerance": pl.Int64(),
    "diverged": pl.Int64(),
    "impossible": pl.Int64(),
    "removed": pl.Int64(),
    "shadows": pl.Int64(),
    "fallbacks": pl.Int64(),
    "largest": pl.Float64(),
    "cause": pl.String(),
    "example": pl.String(),
}
"""One row per manifest and age, as `coverage.Covered`."""

row_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "model_version": pl.String(),
    "age": pl.String(),
    "request_id": pl.String(),
    "arm": pl.String(),
    "source": pl.String(),
    "received": instant,
    "outcome": pl.String(),
    "cause": pl.String(),
    "reason": pl.String(),
    "notes": pl.String(),
    "difference": pl.Float64(),
}
"""An answer that was not the same to the bit."""


def coverage_table(platform: Platform, domain: Domain) -> Stage:
    """The table `replay_coverage`: the figures of each night."""
    return monitor_table(platform, domain, "replay_coverage", table_schema)


def coverage_rows(platform: Platform, domain: Domain) -> Stage:
    """The table `replay_findings`: the answers of each night that were not the same to the bit."""
    return monitor_table(
        platform, domain, "replay_findings", row_schema, sort_by=("received", "request_id", "manifest", "arm")
    )


def past_nights(platform: Platform, domain: Domain, *, until: str, at_most: int) -> pl.DataFrame:
    """Figures of the last nights as they are believed now, with `night`; the newest last."""
    table = coverage_table(platform, domain)
    nights = sorted(night for night in table.current() if night <= until)[-at_most:]
    if not nights:
        return pl.DataFrame(schema={"night": pl.String(), **table_schema})
    return table.read(nights, provenance=True).rename({"_partition": "night"}).select("night", *table_schema)


def shares(figures: pl.DataFrame, by: str = "night") -> pl.DataFrame:
    """What share of what was promised had each outcome, and how much that was; without what promised nothing.

    Parameters
    ----------
    by : `night`, `model` or another column
    """
    outcomes = ("exact", "within_tolerance", "diverged", "impossible")
    counted = figures.group_by(by).agg(pl.col("replayed", "removed", *outcomes).sum()).sort(by)
    counted = counted.with_columns(promised=pl.col("replayed") - pl.col("removed")).filter(pl.col("promised") > 0)
    return counted.select(by, pl.col(outcomes) / pl.col("promised"), "promised")
