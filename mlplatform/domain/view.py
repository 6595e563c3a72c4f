"""Feature views, on-demand features and fitted values: the one definition for training and serving."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl


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
class FeatureView:
    """Features of one entity, computed once a day from the facts of a trailing window."""

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
