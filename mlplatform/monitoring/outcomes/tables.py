"""The tables of outcomes: joined labels, the figures of each day, and what bounds and roll-ups are made of.

All are append-only, with a partition per day: a day that is judged again is a new revision, and what was found before
stays to be read.
"""

from collections.abc import Mapping
from datetime import date

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
from mlplatform.features.view import instant
from mlplatform.monitoring.outcomes.tally import bins_schema, figure_schema
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

label_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "request_id": pl.String(),
    "day": pl.String(),
    "label": pl.Float64(),
    "known_at": instant,
    "fact_partition": pl.String(),
    "fact_revision": pl.Int32(),
    "contradicted": pl.Boolean(),
}
"""The label of an answered request. `day` is the one on which it was asked; `known_at` when the platform had the label,
and `fact_partition` and `fact_revision` the first revision of the facts that had it. Time and revision are null where
that one was removed before the label was first kept. `contradicted`: other facts of the same case say otherwise, and
this is the newest."""

day_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "mature": pl.Boolean(),
    "mature_at": instant,
    "answers": pl.Int64(),
    "labelled": pl.Int64(),
    "without_label": pl.Int64(),
    "pending": pl.Int64(),
    "contradicted": pl.Int64(),
    "refused": pl.Int64(),
    "facts": pl.Int64(),
    "facts_asked": pl.Int64(),
    "early_share": pl.Float64(),
    "early_bias": pl.Float64(),
    "early_days": pl.Int64(),
}
"""One row per model, as `ModelDay`."""

figures_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    **figure_schema,
    "expected": pl.Float64(),
    "bound": pl.Float64(),
}
"""Figures of a day; `expected` and `bound` where the figure was held against the evaluation of its model."""

day_bins_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    **{name: dtype for name, dtype in bins_schema.items() if name != "block"},
}

early_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "hours": pl.Int32(),
    "labelled": pl.Int64(),
    "rows": pl.Int64(),
    "early": pl.Float64(),
    "all": pl.Float64(),
}
"""Of a mature day: so many hours after its end `labelled` of its `rows` had their label, the deciding metric was
`early` on those, and is `all` on all of them."""

reference_schema: Mapping[str, pl.DataType] = {"day": pl.String(), **figure_schema}
"""Figures of the days on which a model was evaluated, by manifest."""

estimate_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "metric": pl.String(),
    "rows": pl.Int64(),
    **dict.fromkeys(("estimated", "low", "high", "truth", "error"), pl.Float64()),
}
"""What was estimated of a mature day before its labels were in, beside what they say."""

fact_day_schema: Mapping[str, pl.DataType] = {"revision": pl.Int32(), "day": pl.String(), "facts": pl.Int64()}
"""By partition of the facts: of which days its requests are."""

window_schema: Mapping[str, pl.DataType] = {"model": pl.String(), "days": pl.Int64(), **figure_schema}
"""Figures of the mature days of a window or a week, `days` of them."""


def labels_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_labels`."""
    return monitor_table(platform, domain, "outcome_labels", label_schema, sort_by=("model", "request_id"))


def days_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_days`: counts of each day and model."""
    return monitor_table(platform, domain, "outcome_days", day_schema)


def figures_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcomes`: the figures of each day."""
    return monitor_table(platform, domain, "outcomes", figures_schema)


def bins_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_bins`: what AUC and calibration of several days are made of."""
    return monitor_table(platform, domain, "outcome_bins", day_bins_schema)


def early_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_early`: what the early labels of each mature day said."""
    return monitor_table(platform, domain, "outcome_early", early_schema)


def estimates_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_estimates`: the estimates before labels against the truth."""
    return monitor_table(platform, domain, "outcome_estimates", estimate_schema)


def reference_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_reference`, a partition per manifest."""
    return monitor_table(platform, domain, "outcome_reference", reference_schema)


def fact_days_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcome_fact_days`, a partition per partition of the facts."""
    return monitor_table(platform, domain, "outcome_fact_days", fact_day_schema)


def weeks_table(platform: Platform, domain: Domain) -> Stage:
    """The table `outcomes_weekly`, a partition per week, named by its Monday."""
    return monitor_table(platform, domain, "outcomes_weekly", window_schema)


def monday_of(day: str) -> str:
    """The first day of a day's week.

    Examples
    --------
    >>> monday_of("2024-01-10")
    '2024-01-08'
    """
    given = date.fromisoformat(day)
    return date.fromordinal(given.toordinal() - given.weekday()).isoformat()
