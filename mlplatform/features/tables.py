"""The Delta tables of a domain's pipeline: one per stage and source, derived table or view."""

from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.features.stage import Stage
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

stages = ("raw", "validated", "quarantine", "base", "derived", "feature_store")
"""In the order in which they are made."""

online_store = "online_store"
"""The asset after the stages. It has no table: it is what the newest rows of the last one are served from."""

clocks = {"event_time": instant, "available_at": instant}


class Tables:
    """Opens the tables of one domain."""

    def __init__(self, platform: Platform, domain: Domain) -> None:
        self._platform = platform
        self._domain = domain

    def raw(self, source: str) -> Stage:
        """Rows as they landed, in the contract's columns."""
        return self._landed_rows("raw", source, {})

    def validated(self, source: str) -> Stage:
        """Rows that keep the contract."""
        return self._landed_rows("validated", source, {})

    def quarantine(self, source: str) -> Stage:
        """Rows that break the contract, with the rules that refused them."""
        return self._landed_rows("quarantine", source, {"broken_rules": pl.String()})

    def base(self, source: str) -> Stage:
        """Facts of one source, typed, in UTC, with their clocks."""
        return self._facts("base", source, self._domain.source(source).base_columns)

    def derived(self, name: str) -> Stage:
        """Facts in the domain's own terms."""
        return self._facts("derived", name, self._domain.fact_columns(name))

    def facts(self, name: str) -> Stage:
        """The table that a view's or the requests' `facts` names: derived, else the base table of a source."""
        derived = any(each.name == name for each in self._domain.derived)
        return self.derived(name) if derived else self.base(name)

    def features(self, view: FeatureView) -> Stage:
        """Published feature values: one row per entity and partition."""
        facts = {column.name: column.dtype for column in self._domain.fact_columns(view.facts)}
        keys = {key: facts[key] for key in view.entity}
        features = {feature.name: feature.dtype for feature in view.features}
        return self._open("feature_store", view.name, {**keys, **features, **clocks}, view.entity)

    def confirmations(self, stage: str, table: str) -> Stage:
        """What else a table's current revisions would be made from: found when a run gave the rows that were there."""
        return self._open(
            "confirmed", f"{stage}.{table}", {"number": pl.Int32(), "made_from": pl.String()}, ("number",)
        )

    def failures(self) -> Stage:
        """What could not be computed and was not made good since; one partition per day."""
        schema = {
            "stage": pl.String(),
            "table": pl.String(),
            "reason": pl.String(),
            "made_from": pl.String(),
            "at": instant,
            "attempts": pl.Int32(),
        }
        return self._open("failed", "failures", schema, ("stage", "table"))

    def of(self, stage: str) -> dict[str, Stage]:
        """All tables of one stage, by name."""
        if stage == "feature_store":
            return {view.name: self.features(view) for view in self._domain.views}
        if stage == "derived":
            return {derived.name: self.derived(derived.name) for derived in self._domain.derived}
        return {source.name: getattr(self, stage)(source.name) for source in self._domain.sources}

    def _landed_rows(self, stage: str, source: str, more: dict[str, pl.DataType]) -> Stage:
        contract = self._domain.source(source).contract
        return self._open(stage, source, {**contract.schema, **more}, contract.unique)

    def _facts(self, stage: str, table: str, columns: tuple[Column, ...]) -> Stage:
        return self._open(stage, table, {column.name: column.dtype for column in columns} | clocks, ("event_time",))

    def _open(self, stage: str, table: str, schema: dict[str, pl.DataType], key: tuple[str, ...]) -> Stage:
        # Sorted by every column, the key first: a canonical order needs no unique key.
        order = [*key, *(name for name in schema if name not in key)]
        uri = self._platform.table(self._domain.name, stage, table)
        return Stage(
            uri,
            schema,
            name=f"{self._domain.name}/{stage}/{table}",
            sort_by=order,
            storage_options=self._platform.storage_options,
        )


def partition_end(day: str) -> datetime:
    """The instant at which a daily partition is over: midnight UTC after it."""
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), UTC)


def available_at(domain: Domain, day: str) -> datetime:
    """When what is computed from a partition can first be served: its end and the publishing delay."""
    return partition_end(day) + domain.publishing_delay


def is_of(domain: Domain, day: str) -> bool:
    """Whether a day is one of the domain's; one that was computed need not be, since a domain may be cut."""
    return domain.start <= date.fromisoformat(day) <= (domain.end or date.max)


def day_range(first: str, last: str) -> list[str]:
    """ISO days from first to last, both included."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=number)).isoformat() for number in range((end - start).days + 1)]
