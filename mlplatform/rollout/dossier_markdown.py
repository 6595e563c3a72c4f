"""Pieces of Markdown: text that stays text, figures with their units, tables.

What people have typed into a reason or a name must come out as they typed it, and never as markup.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from mlplatform.training.metrics import Interval

MISSING = "*not recorded*"

_markup = re.compile(r"[\\`*\[\]<>|#~&!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_digest = re.compile(r"[0-9a-f]{16,}")


def text(told: object) -> str:
    r"""One line of text, whatever it holds.

    Examples
    --------
    >>> text("a_b|c <i>")
    'a_b\\|c \\<i\\>'
    """
    return _markup.sub(r"\\\g<0>", " ".join(str(told).split())) or MISSING


def code(told: object) -> str:
    """A digest or a version, in letters of one width."""
    line = " ".join(str(told).split())
    return f"`{line}`" if line and not set(line) & set("`|") else text(line)


def number(figure: float | None, unit: str = "") -> str:
    """A figure with its unit: four digits that count, of a large one all before the point.

    Examples
    --------
    >>> number(1234567.8), number(0.123456, "ms"), number(None)
    ('1,234,568', '0.1235 ms', '*not recorded*')
    """
    if figure is None:
        return MISSING
    told = f"{figure:,.0f}" if float(figure).is_integer() or abs(figure) >= 1_000 else f"{figure:.4g}"
    return f"{told} {text(unit)}" if unit else told


def interval(figure: Interval | None) -> str:
    """A figure and the ends of its interval."""
    if figure is None or figure.point is None:
        return MISSING
    if figure.low is None or figure.high is None:
        return f"{figure.point:.4g} (no interval)"
    return f"{figure.point:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def percent(share: float | None) -> str:
    """A share of the whole; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.3g} %"


def duration(length: timedelta) -> str:
    """Whole days in days, the rest in hours."""
    days = length / timedelta(days=1)
    told, unit = (days, "day") if days >= 1 and days.is_integer() else (24 * days, "hour")
    return f"{told:g} {unit}{'' if told == 1 else 's'}"


def moment(time: datetime) -> str:
    """An instant, to the minute."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def cell(value: Any) -> str:
    """Anything that JSON can hold. A whole number keeps its digits as they are: it may be a seed."""
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case Mapping():
            return "; ".join(f"{text(name)}: {cell(each)}" for name, each in value.items()) or "–"
        case list() | tuple():
            return ", ".join(map(cell, value)) or "–"
    return code(value) if _digest.fullmatch(str(value)) and not isinstance(value, int) else text(value)


def paragraph(*sentences: str) -> tuple[str, str]:
    """Lines of a paragraph."""
    return " ".join(sentences), ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, figures: Iterable[int] = ()) -> list[str]:
    """Lines of a table whose cells are Markdown already; the columns of `figures` are set to the right."""
    right = set(figures)
    rule = ["---:" if place in right else "---" for place in range(len(head))]
    return [f"| {' | '.join(each)} |" for each in (head, rule, *rows)] + [""]


def facts(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a table without a head: what, and how it is."""
    return table(("", ""), rows)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
