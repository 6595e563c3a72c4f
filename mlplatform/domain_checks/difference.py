"""Where two frames that should be equal differ first: a column and a row that a person can find."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

ROUNDING: Mapping[pl.DataType, float] = {pl.Float32(): 1e-5, pl.Float64(): 1e-9}
"""Relative differences that come of adding floats in another order: some hundred times the spacing of the type, which
some ten thousand additions reach. What depends on the order of rows in earnest differs by far more."""

shown_characters = 60


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first value that differs."""

    column: str
    row: str
    """The row by its leading values; empty where the whole column differs."""

    told: str
    """What stood there and what stands there now."""

    @property
    def where(self) -> str:
        """Column and row."""
        return f"column {self.column}" + (f", row {self.row}" if self.row else "")


def difference(
    expected: pl.DataFrame, found: pl.DataFrame, *, keys: Sequence[str] = (), rounding: bool = False
) -> Difference | None:
    """Compare two frames row by row; None when they are equal.

    Parameters
    ----------
    expected, found : frames whose rows correspond by position; the order of columns does not count
    keys : columns that name a row in the message
    rounding : whether floats may differ as sums in another order do

    Examples
    --------
    >>> one, other = pl.DataFrame({"courier": ["c1"], "late": [1]}), pl.DataFrame({"courier": ["c1"], "late": [2]})
    >>> difference(one, other, keys=["courier"])
    Difference(column='late', row='courier=c1', told='1 became 2')
    """
    for name in [*expected.columns, *(each for each in found.columns if each not in expected.columns)]:
        had, has = expected.schema.get(name), found.schema.get(name)
        if had != has:
            return Difference(column=name, row="", told=f"{had or 'nothing'} became {has or 'nothing'}")
    if expected.height != found.height:
        told = f"{expected.height} rows became {found.height}"
        return Difference(column=", ".join(keys) or "any", row="", told=told)
    for name in expected.columns:
        left, right = expected[name], found[name]
        unequal = ~left.eq_missing(right)
        if rounding and left.dtype.is_float():
            size = pl.max_horizontal(left.abs(), right.abs())
            near = pl.select((left - right).abs() <= size * ROUNDING.get(left.dtype, 0.0)).to_series()
            unequal &= ~near.fill_null(value=False)
        if unequal.any():
            row = int(unequal.arg_max() or 0)
            more = int(unequal.sum()) - 1
            told = f"{left[row]!r} became {right[row]!r}" + (f" (and {more} more rows)" if more else "")
            return Difference(column=name, row=row_name(expected, row, keys), told=told)
    return None


def row_name(frame: pl.DataFrame, row: int, keys: Sequence[str] = ()) -> str:
    """A row by its keys, or by its first columns, or by its number."""
    named = [name for name in keys if name in frame.columns] or frame.columns[:3]
    told = ", ".join(f"{name}={frame[name][row]}" for name in named) or str(row + 1)
    return told if len(told) <= 2 * shown_characters else f"{told[: 2 * shown_characters]}…"


def sorted_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows in an order that depends on nothing but their values, columns by name."""
    names = sorted(frame.columns)
    plain = [name for name in names if not frame.schema[name].is_nested()]
    return frame.select(names).sort(plain, nulls_last=True) if plain else frame.select(names)
