"""A column and the rules of a frame: what a source or a request promises, declared once.

From these declarations come the Polars rules, the Great Expectations suite, the request validation at serving and
the column schema in the UI. A declaration computes nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mlplatform.errors import DeclarationError

Severity = Literal["quarantine", "warning", "blocking"]


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
    """Share of nulls (0 to 1) above which the partition is marked with a warning."""

    severity: Severity = "quarantine"
    """What a broken value rule does: take the row out, only mark the partition, or stop it."""


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """A rule over several columns of one row."""

    name: str
    holds: Callable[[], pl.Expr]
    """Gives a Boolean expression, true where the row is right; null counts as right."""

    meaning: str
    severity: Severity = "quarantine"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a frame promises: its columns, its key, rules over rows and over the whole partition."""

    columns: tuple[Column, ...]
    unique: tuple[str, ...] = ()
    """The key. Of rows with the same key the first is kept, the others break the rule `unique`."""

    rules: tuple[RowRule, ...] = ()
    min_rows: int = 0
    """Fewer landed rows stop the partition: half a file must not pass for a quiet day."""

    max_rows: int | None = None
    """More landed rows stop the partition."""

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

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order."""
        return tuple(column.name for column in self.columns)

    @property
    def schema(self) -> pl.Schema:
        """Column names and dtypes in declared order."""
        return pl.Schema({column.name: column.dtype for column in self.columns})
