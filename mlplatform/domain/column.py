"""A column and the rules of a frame: what a source or a request promises, declared once.

From these declarations come the Polars rules, the Great Expectations suite, the request validation at serving and
the column schema in the UI. A declaration computes nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from mlplatform.errors import DeclarationError

Severity = Literal["quarantine", "warning", "blocking"]
"""What a broken rule over rows does: take the rows out, only mark the partition, or stop it."""

PartitionSeverity = Literal["warning", "blocking"]
"""The same for a rule over the whole partition, which has no rows to take out."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its type, unit and meaning, and the rules that every value must keep."""

    name: str
    dtype: pl.DataType
    meaning: str
    """One line for the reader of the UI and of the API page."""

    unit: str = ""
    """SI unit, currency or a word such as `minutes`; empty for names and categories."""

    nullable: bool = False
    """Whether a null is an honest value. False: a row with a null breaks the rule `<name>: not null`."""

    minimum: float | None = None
    """Smallest value allowed, inclusive."""

    maximum: float | None = None
    """Largest value allowed, inclusive."""

    allowed: tuple[str, ...] | None = None
    """The whole set of values, for a column of a few words."""

    pattern: str | None = None
    """Regular expression (Rust syntax) that the whole string must match."""

    max_null_share: float | None = None
    """Share of nulls (0 to 1) above which `null_share_severity` says what becomes of the partition."""

    null_share_severity: PartitionSeverity = "warning"
    """A column that is suddenly empty is worth a look; `blocking` where nothing downstream makes sense without it."""

    severity: Severity = "quarantine"
    """What a broken value rule does: take the row out, only mark the partition, or stop it."""

    def __post_init__(self) -> None:
        if self.max_null_share is not None and not 0 <= self.max_null_share <= 1:
            raise DeclarationError(
                f"column {self.name}: max_null_share is a share from 0 to 1, not {self.max_null_share}"
            )
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise DeclarationError(f"column {self.name}: minimum {self.minimum} is above maximum {self.maximum}")


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """A rule over several columns of one row."""

    name: str
    holds: Callable[[], pl.Expr]
    """Gives a Boolean expression, true where the row is right; null counts as right."""

    meaning: str
    severity: Severity = "quarantine"


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How close to the end of its day the newest row must be: half a day's export must not pass for a quiet day.

    Rows that are refused do not count, and a day without any other is not fresh.
    """

    column: str
    """A time with a zone."""

    within: timedelta
    """From the newest value to the end of the day (midnight UTC), at most."""

    ahead: timedelta | None = None
    """How far after the end of the day a row may be dated; a later one breaks a value rule of its column. Zero for
    what has happened, more for a timetable. None: as far as it likes, and one mistyped year makes any day fresh."""

    severity: PartitionSeverity = "blocking"
    """Of a day whose newest row is too old."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a frame promises: its columns, its key, rules over rows and over the whole partition."""

    columns: tuple[Column, ...]
    """Every column that a landed day has, in order."""

    unique: tuple[str, ...] = ()
    """The key. Of rows with the same key the first is kept, the others break the rule `unique`."""

    unique_severity: Severity = "quarantine"
    """`warning` keeps every row of a key, and only counts them."""

    rules: tuple[RowRule, ...] = ()
    """Rules over several columns of one row, such as that it ends after it begins."""

    min_rows: int = 0
    """Fewer landed rows stop the partition: half a file must not pass for a quiet day."""

    max_rows: int | None = None
    """More landed rows stop the partition."""

    row_count_severity: PartitionSeverity = "blocking"
    """Of `min_rows` and `max_rows`."""

    freshness: Freshness | None = None
    """How close to the end of its day the newest row must be: one `Freshness(column=…, within=…)`, of one column.
    None: a day that breaks off early is taken for a quiet one."""

    max_refused_share: float = 0.05
    """Share of rows in quarantine above which the rest is not trusted either and the partition stops.
    5 %: well above the honest dirt of a working source, well below a broken export."""

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise DeclarationError(f"a contract declares a column twice: {sorted(names)}. Name each column once")
        for key in self.unique:
            if key not in names:
                raise DeclarationError(f"unique names {key!r}, which is no column. Declare it or take it out")
        if self.max_rows is not None and self.min_rows > self.max_rows:
            raise DeclarationError(f"min_rows {self.min_rows} is above max_rows {self.max_rows}: no day could pass")
        if not 0 <= self.max_refused_share <= 1:
            raise DeclarationError(f"max_refused_share is a share from 0 to 1, not {self.max_refused_share}")
        if self.freshness is not None and not isinstance(self.freshness, Freshness):
            raise DeclarationError(
                f"freshness of a contract is a {type(self.freshness).__name__}. Give one Freshness(column=…, within=…)"
            )
        if self.freshness is not None:
            dtype = self.schema.get(self.freshness.column)
            if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
                raise DeclarationError(
                    f"freshness looks at {self.freshness.column!r}, which is {dtype or 'no column'}. Name a column of "
                    "times with a zone"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order."""
        return tuple(column.name for column in self.columns)

    @property
    def schema(self) -> pl.Schema:
        """Column names and dtypes in declared order."""
        return pl.Schema({column.name: column.dtype for column in self.columns})
