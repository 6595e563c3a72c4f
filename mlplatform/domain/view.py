"""Feature views, on-demand features and fitted values: the one definition for training and serving."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature: a column of a view, with its meaning and honest range."""

    name: str
    dtype: pl.DataType
    meaning: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, kw_only=True)
class Daily:
    """Values are published once a day, when the partition is: an hour after midnight UTC, unless declared otherwise."""


@dataclass(frozen=True, kw_only=True)
class AsFactsArrive:
    """Values of an entity are published whenever a fact of it arrives, and for all entities at the end of the day.

    The function must give an entity the same values whether the facts of others are in the window or not: only the
    entities that a fact touches are computed. `mlplatform stream` publishes; without it, this view is a daily one.
    """

    every: timedelta
    """The cadence at which history is computed for the days of which nobody recorded what was published when: at each
    such instant of the day, for the entities with new facts. The shorter, the closer to what streaming serves, and the
    dearer: one evaluation of the function per instant. It parts a day evenly."""

    def __post_init__(self) -> None:
        if self.every <= timedelta(0) or timedelta(days=1) % self.every:
            raise DeclarationError(f"a view cannot be published every {self.every}: that does not part a day evenly")


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """Features of one entity, computed from the facts of a trailing window."""

    name: str
    meaning: str
    facts: str
    """Name of the derived table (or of a source, for its base table) that is read."""

    entity: tuple[str, ...]
    """Key columns: they name the entity in facts, in requests and in the store."""

    features: tuple[Feature, ...]
    look_back: timedelta
    """Length of the trailing window. The function sees facts with `at - look_back <= event_time < at`."""

    ttl: timedelta
    """How old a value may be at the request, inclusive; older is `expired`, which gives a null."""

    function: Callable[[pl.DataFrame, datetime], pl.DataFrame]
    """(facts of the window, sorted by event time; at: the end of the window, aware UTC) -> one row per entity with
    the key
    and the features. A column `event_time` (Datetime us, UTC) may tell when the value was last true (a report's own
    time); without it, the end of the window counts. Pure, and exact whatever the order of the rows: sum integers,
    divide once."""

    schedule: Daily | AsFactsArrive = Daily()
    """When values are published. Training sees exactly the staleness that it leads to, so it is part of the version."""


@dataclass(frozen=True, kw_only=True)
class ImportedView:
    """A view of another domain, as this one relies on it: read from there, never computed twice.

    It states what it relies on instead of importing the other domain's code, so that a bundle stays whole by itself;
    where both domains are loaded, the statement is compared with the real view.
    """

    domain: str
    name: str
    entity: tuple[str, ...]
    features: tuple[Feature, ...]
    ttl: timedelta


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """Features that are pure functions of the request."""

    name: str
    meaning: str
    features: tuple[Feature, ...]
    function: Callable[[pl.DataFrame], pl.DataFrame]
    """Requests, one a row -> the features, one row per request, in the same order. Elementwise: a row's answer does not
    depend on its neighbours."""


@dataclass(frozen=True, kw_only=True)
class FittedValue:
    """A value learned from the training rows, saved with the model, never recomputed at serving."""

    name: str
    meaning: str
    features: tuple[Feature, ...]
    fit: Callable[[pl.DataFrame], Any]
    """Requests and view features of the training rows -> anything JSON can hold."""

    apply: Callable[[pl.DataFrame, Any], pl.DataFrame]
    """(the same columns for any rows, the fitted value) -> the features, one row per row, in the same order."""
