"""The tables in which skew is kept: `skew`, the figures of each day, and `skew_rows`, values served otherwise.

Both are append-only, with a partition per day: a day that is compared again is a new revision, and what was found
before stays to be read.
"""

from collections.abc import Mapping

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
from mlplatform.features.view import instant
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

row_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "feature": pl.String(),
    "kind": pl.String(),
    "request_id": pl.String(),
    "at": instant,
    "received": instant,
    "manifest": pl.String(),
    "online": pl.Float32(),
    "offline": pl.Float32(),
    "view": pl.String(),
    "view_version": pl.String(),
    "publication": pl.String(),
    "online_revision": pl.Int64(),
    "online_event_time": instant,
    "offline_revision": pl.Int64(),
    "offline_event_time": instant,
    "offline_available_at": instant,
    "request": pl.String(),
}
"""A value that was served otherwise. `at` is the instant it was answered as of. `view`, `view_version`, `publication`
and the `online_` columns say what was read of the online store, the `offline_` ones where the value stands that should
have been served; they are null for a feature that is of no view."""

table_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "feature": pl.String(),
    "compared": pl.Int64(),
    "mismatched": pl.Int64(),
    "missing": pl.Int64(),
    "extra": pl.Int64(),
    "unavailable": pl.Int64(),
    "publishing": pl.Int64(),
    "largest": pl.Float64(),
    "example": pl.String(),
    "cause": pl.String(),
}
"""One row per manifest and feature, as `FeatureSkew`."""


def skew_table(platform: Platform, domain: Domain) -> Stage:
    """The table `skew`: the figures of each day."""
    return monitor_table(platform, domain, "skew", table_schema)


def skew_rows(platform: Platform, domain: Domain) -> Stage:
    """The table `skew_rows`: some of the values that were served otherwise, of each day."""
    return monitor_table(platform, domain, "skew_rows", row_schema)
