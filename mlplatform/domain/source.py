"""A source, and the tables the pipeline makes of it: raw, validated, base, derived."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from mlplatform.domain.column import Column, Contract


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where facts come from, one file a day, and how their base table is made."""

    name: str
    meaning: str
    contract: Contract
    base: Callable[[pl.DataFrame], pl.DataFrame]
    """Validated rows of one partition -> base rows: typed, in UTC, with an `event_time` (Datetime us, UTC): when the
    fact became known in the world. Pure: no look at any other day, no clock, no random number."""

    base_columns: tuple[Column, ...]
    """What `base` gives, `event_time` not listed."""

    absent: frozenset[date] = frozenset()
    """Days on which the source is known to have sent nothing; a window may pass over them."""


@dataclass(frozen=True, kw_only=True)
class Derived:
    """Facts that need several base tables of the same day, in the domain's own terms; what views read."""

    name: str
    meaning: str
    inputs: tuple[str, ...]
    """Names of sources whose base tables are read."""

    function: Callable[[Mapping[str, pl.DataFrame]], pl.DataFrame]
    """Base tables of one partition, by source name -> rows with `event_time`. Pure."""

    columns: tuple[Column, ...]
    """What `function` gives, `event_time` not listed."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Data that ships with a domain, so that it runs before a real source is connected."""

    start: date
    end: date
    """Last day, inclusive."""

    demo_days: int
    """How many days from `start` the demo lands."""

    read: Callable[[str, date], pl.DataFrame]
    """(source name, day) -> the rows the source would send for that day, in the contract's columns."""
