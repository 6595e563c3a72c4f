"""Pieces of Python as text, laid out as the formatter of this repository lays them out."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

import polars as pl

width = 120


def text(value: object) -> str:
    """A value as Python writes it, texts in double quotes.

    Examples
    --------
    >>> text(("a", 2, None))
    '("a", 2, None)'
    """
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(text, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, date):
        return f"date({value.year}, {value.month}, {value.day})"
    if isinstance(value, timedelta):
        whole = value // timedelta(days=1)
        return f"timedelta(days={whole})" if value == timedelta(days=whole) else f"timedelta(hours={_hours(value)})"
    if isinstance(value, float):
        return f"{value:.12g}"
    return repr(value)


def dtype_text(dtype: pl.DataType) -> str:
    """How a written module names a type."""
    return "instant" if isinstance(dtype, pl.Datetime) else f"pl.{type(dtype).__name__}()"


def call(name: str, arguments: Mapping[str, str] | Iterable[str], *, indent: int = 0, end: str = "") -> str:
    """A call, a tuple (empty name) or an assignment of one, on one line if it fits; arguments may span lines."""
    told = [f"{key}={value}" for key, value in arguments.items()] if isinstance(arguments, Mapping) else list(arguments)
    pad, inner = " " * indent, " " * (indent + 4)
    comma = "," if not name.split(" ")[-1] and len(told) == 1 else ""
    flat = f"{pad}{name}({', '.join(told)}{comma}){end}"
    if "\n" not in flat and len(flat) <= width:
        return flat
    folded = f"{inner}{', '.join(told)}{comma}"
    if "\n" not in folded and len(folded) <= width and not comma:
        return f"{pad}{name}(\n{folded}\n{pad}){end}"
    return "\n".join([f"{pad}{name}(", *(f"{inner}{each.lstrip()}," for each in told), f"{pad}){end}"])


def block(name: str, parts: Iterable[str], *, indent: int = 0, end: str = "") -> str:
    """A tuple or call whose parts stand on lines of their own, each already laid out, indented and with its comma."""
    pad = " " * indent
    return "\n".join([f"{pad}{name}(", *parts, f"{pad}){end}"])


def docstring(first: str, more: str = "", *, indent: int = 0) -> str:
    """A docstring: a sentence, and perhaps a paragraph, wrapped to the width."""
    pad = " " * indent
    if not more:
        return _wrapped(f'"""{first}"""', pad)
    return f'{_wrapped(chr(34) * 3 + first, pad)}\n\n{_wrapped(more, pad)}\n{pad}"""'


def imports(module: str, names: Sequence[str]) -> str:
    """An import of several names, on one line if it fits."""
    flat = f"from {module} import {', '.join(names)}"
    return (
        flat if len(flat) <= width else "\n".join([f"from {module} import (", *(f"    {each}," for each in names), ")"])
    )


def _wrapped(paragraph: str, pad: str) -> str:
    return textwrap.fill(
        paragraph, width, initial_indent=pad, subsequent_indent=pad, break_long_words=False, break_on_hyphens=False
    )


def _hours(value: timedelta) -> str:
    return f"{value / timedelta(hours=1):.12g}"
