"""How a domain's assets are partitioned: by day, and per model by recipe."""

from datetime import timedelta

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FeatureView
from mlplatform.features.view import look_back_days


def daily(domain: Domain) -> dg.DailyPartitionsDefinition:
    """One partition per UTC day, from the domain's first day on."""
    end = None if domain.end is None else (domain.end + timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(start_date=domain.start.isoformat(), end_date=end, timezone="UTC")


def recipes(domain: Domain, model: ModelSpec) -> dg.DynamicPartitionsDefinition:
    """One partition per recipe: the as-of day and a short hash of everything that goes into the model."""
    return dg.DynamicPartitionsDefinition(name=f"{domain.name}/{model.name}/recipe")


def trailing(views: tuple[FeatureView, ...]) -> dg.TimeWindowPartitionMapping:
    """A day of features reads the days of the longest look-back; at the start of time, those that exist."""
    days = max((look_back_days(view) for view in views), default=1)
    return dg.TimeWindowPartitionMapping(start_offset=1 - days, allow_nonexistent_upstream_partitions=True)
