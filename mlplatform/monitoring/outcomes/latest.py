"""The newest outcomes of a domain's models, for who asks how they do: the status, the digest, the retraining policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.tables import day_range
from mlplatform.monitoring.outcomes.tables import days_table, figures_table
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.training.metrics import Interval


@dataclass(frozen=True, kw_only=True)
class LatestOutcome:
    """The deciding metric of one manifest on one day."""

    day: str
    model: str
    """Name of the model in its domain."""

    manifest: str
    """Empty, with the arm, where no label is in."""

    arm: str
    mature: bool
    """Whether its labels could all be in when it was judged."""

    mature_at: datetime
    known_at: datetime
    """When it was judged."""

    answers: int
    """Of the model, whoever gave them; `labelled` of them have their label."""

    labelled: int
    metric: str
    rows: int
    """Labels that the figure is of."""

    figure: Interval
    expected: float | None
    """The metric in the evaluation, and the bound of what chance explains; None where it was not judged."""

    bound: float | None


def latest_outcomes(platform: Platform, domain: Domain, *, days: int = 28, until: str = "") -> list[LatestOutcome]:
    """By day, model, manifest and arm, the newest last; days that nobody has judged are left out.

    Parameters
    ----------
    days : how far back
    until : ISO day, included; empty: today
    """
    last = date.fromisoformat(until) if until else platform.clock().date()
    wanted = day_range((last - timedelta(days=days - 1)).isoformat(), last.isoformat())
    there = list(days_table(platform, domain).current(wanted))
    counts = days_table(platform, domain).read(there, provenance=True)
    deciding = {model.name: model.gate.metric for model in domain.models}
    figures = figures_table(platform, domain).read(there, provenance=True)
    figures = figures.filter(
        pl.col("metric") == pl.col("model").replace_strict(deciding, default=None, return_dtype=pl.String),
        pl.col("segment") == "",
        pl.col("source") == "model",
        pl.col("arm") != SHADOW,
    )
    told = counts.filter(pl.col("model").is_in(list(deciding))).join(
        figures.drop("_revision", "_known_at"), on=["_partition", "model"], how="left"
    )
    ordered = told.sort("_partition", "model", "manifest", "arm")
    return [_latest(row, deciding[row["model"]]) for row in ordered.iter_rows(named=True)]


def _latest(row: Mapping[str, Any], metric: str) -> LatestOutcome:
    return LatestOutcome(
        day=row["_partition"],
        manifest=row["manifest"] or "",
        arm=row["arm"] or "",
        metric=metric,
        rows=row["rows"] or 0,
        figure=Interval(point=row["figure"], low=row["low"], high=row["high"]),
        known_at=row["_known_at"],
        **{name: row[name] for name in ("model", "mature", "mature_at", "answers", "labelled", "expected", "bound")},
    )
