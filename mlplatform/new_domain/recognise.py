"""What a text column holds: whole numbers, numbers, true or false, times, or text. Each answer says why.

A column is what nearly all of its values are, if the few others are words for "nothing": a sensor that writes `err` now
and then still sends numbers. A number with leading zeros is a name made of digits.
"""

from dataclasses import dataclass

import polars as pl

from mlplatform.new_domain.times import times_of

nothing = ("", "na", "n/a", "nan", "null", "#n/a")
"""Words for a missing value in any column, in any case."""

nearly_all = 0.95
"""Share of the values that decides what a column is."""

few_words = 5
"""Different values that may stand for "nothing" beside the numbers or times."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A column in its type."""

    values: pl.Series
    why: str


def recognise(column: pl.Series, *, decimal_comma: bool, zone: str) -> Recognised:
    """The type of a column: text is looked at value by value, anything else is what it is.

    Parameters
    ----------
    column : as it was read
    decimal_comma : whether `3,5` is a number and `1.000` a thousand
    zone : of times that name none, such as `Europe/Berlin`

    Returns
    -------
    Int64, Float64, Boolean, String or Datetime us, UTC, of the same length; null where nothing was said.
    """
    if column.dtype != pl.String():
        found = times_of(column, zone) if isinstance(column.dtype, pl.Datetime) else None
        return Recognised(values=column, why=_of_dtype(column)) if found is None else _times(found.values, found.why)
    text = column.str.strip_chars()
    text = text.set(text.str.to_lowercase().is_in(nothing).fill_null(value=False), None)
    known = text.null_count() < len(text)
    if known and (flags := _flags(text)) is not None:
        return Recognised(values=flags, why="true or false")
    if known and (numbers := _numbers(text, decimal_comma=decimal_comma)) is not None:
        return numbers
    times = times_of(text, zone) if known else None
    if times is not None and (words := _left_over(text, times.values)) is not None:
        return _times(times.values, times.why + words)
    return Recognised(values=text, why="text")


def _of_dtype(column: pl.Series) -> str:
    return {pl.Int64(): "whole numbers", pl.Float64(): "numbers", pl.Boolean(): "true or false"}.get(
        column.dtype, "text"
    )


def _times(values: pl.Series, why: str) -> Recognised:
    return Recognised(values=values, why=why)


def _flags(text: pl.Series) -> pl.Series | None:
    lower = text.str.to_lowercase()
    if not lower.drop_nulls().is_in(["true", "false"]).all():
        return None
    return lower == "true"


def _numbers(text: pl.Series, *, decimal_comma: bool) -> Recognised | None:
    bare = text.str.replace(r"^[$€£]\s*", "").str.replace(r"\s*[%€$£]$", "")
    marks = "; the sign beside them is dropped" if (bare.str.len_chars() < text.str.len_chars()).any() else ""
    if decimal_comma:
        grouped = bare.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+(,\d+)?$").fill_null(value=False)
        bare = bare.str.replace_all(".", "", literal=True).zip_with(grouped, bare).str.replace(",", ".", literal=True)
    else:
        grouped = bare.str.contains(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$").fill_null(value=False)
        bare = bare.str.replace_all(",", "", literal=True).zip_with(grouped, bare)
    if bare.str.contains(r"^[+-]?0\d").any():
        return None
    written = bare.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").fill_null(value=False)
    numbers = bare.set(~written, None).cast(pl.Float64, strict=False)
    words = _left_over(text, numbers)
    if words is None:
        return None
    if bare.filter(numbers.is_not_null()).str.contains(r"^[+-]?\d{1,18}$").all():
        return Recognised(values=bare.set(~written, None).cast(pl.Int64), why=f"whole numbers{words}{marks}")
    return Recognised(values=numbers, why=f"numbers{words}{marks}")


def _left_over(text: pl.Series, values: pl.Series) -> str | None:
    """What is said of the texts that gave no value; None: they are too many for that."""
    lost = text.filter(values.is_null()).drop_nulls()
    known = len(text) - text.null_count()
    if len(lost) > (1 - nearly_all) * known or lost.n_unique() > few_words:
        return None
    return f"; {', '.join(map(repr, sorted(lost.unique())))} read as missing" if len(lost) else ""
