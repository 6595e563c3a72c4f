"""The contract that a sample suggests: of each column its type, range or words, and of the rows their key.

A sample shows what was, not what may be. So ranges are wider than what was seen, a new word is only marked, and every
proposal says what it was made from: the person who knows the data narrows it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from mlplatform.domain.column import Column

most_words = 20
rows_per_word = 10
"""With fewer rows per word, the sample has not seen all words."""

identifying = frozenset({"id", "key", "no", "nr", "num", "number", "uid", "uuid"})
"""Words in the name of a column that is made to tell rows apart; a remark does so by chance."""

busy_days = 50
"""Rows of an ordinary day from which a share of nulls means something."""


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """A column of the contract, and what it was made from."""

    column: Column
    why: str


def propose_column(
    values: pl.Series, *, written: str, why: str, rows_per_day: float, names_something: bool = False
) -> Proposed:
    """What a column of the sample suggests.

    Parameters
    ----------
    values : (n,) typed
    written : its name in the file
    why : why it has its type
    rows_per_day : of an ordinary day
    names_something : a key: its numbers are no amounts, and tomorrow brings new ones
    """
    share = values.null_count() / len(values)
    known = values.drop_nulls()
    reasons = [why, f"{share:.1%} null" if share else "never null"]
    said, minimum, maximum, allowed = why.split(";")[0].split(",")[0], None, None, None
    if names_something:
        reasons.append(f"a key, {known.n_unique()} different ones")
        said = f"a key, {known.n_unique()} different ones"
    elif values.dtype.is_numeric():
        low, high = float(known.min()), float(known.max())  # type: ignore[arg-type]  # of numbers
        minimum, maximum = wider(low, high)
        said = f"a number from {low:g} to {high:g}" if low < high else f"always {low:g}"
        reasons.append(f"{low:g} to {high:g} seen, {minimum:g} to {maximum:g} allowed")
    elif values.dtype == pl.String():
        words = known.unique().sort().to_list()
        said = f"text, {len(words)} different values" if len(words) > 1 else f"always {short(words[0])}"
        if 1 < len(words) <= most_words and len(known) >= rows_per_word * len(words):
            allowed = tuple(words)
            reasons.append(f"one of {len(words)} words; a new one is marked, not refused")
    column = Column(
        name=values.name,
        dtype=values.dtype,
        meaning=f"Column `{short(written)}` of the sample: {said}",
        nullable=share > 0,
        minimum=minimum,
        maximum=maximum,
        allowed=allowed,
        max_null_share=_null_share(share) if share and rows_per_day >= busy_days else None,
        severity="warning" if allowed else "quarantine",
    )
    return Proposed(column=column, why=", ".join(reasons))


def propose_key(
    rows: pl.DataFrame, entity: Sequence[str], time: str, outcomes: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Columns that tell the rows apart, and why these: an identifier, else entity and time and what else it takes.

    `outcomes` are in it only where nothing else is left: a corrected outcome is the same row.
    """
    whole = [name for name, dtype in rows.schema.items() if not dtype.is_float() and name not in outcomes]
    single = [name for name in whole if name != time and _tells_apart(rows, [name])]
    named = [name for name in single if identifying & set(name.split("_"))]
    if named:
        return (named[0],), "it is another one in every row"
    key = list(dict.fromkeys([*entity, time]))
    if _tells_apart(rows, key):
        return tuple(key), "together they are others in every row"
    for name in whole:
        if name not in key and rows[name].null_count() == 0 and _tells_apart(rows, [*key, name]):
            return (*key, name), "together they are others in every row"
    if single:
        return (single[0],), "it is another one in every row"
    return tuple(rows.columns), "only all columns together tell the rows apart: let the source send an identifier"


def wider(low: float, high: float) -> tuple[float, float]:
    """A range with as much room on either side as it is wide, rounded outwards to two digits; never below a seen 0.

    Examples
    --------
    >>> wider(3.0, 97.0)
    (0, 200)
    """
    room = (high - low) or abs(high) or 1.0
    lower = _rounded(low - room, math.floor)
    return (max(0, lower) if low >= 0 else lower), _rounded(high + room, math.ceil)


def short(text: str) -> str:
    """A name that leaves room for a sentence around it."""
    plain = " ".join(text.replace("`", "'").replace("\\", "/").split())
    return plain if len(plain) <= 30 else f"{plain[:29]}…"


def _null_share(share: float) -> float:
    """Half as much again as in the sample and ten points: days differ."""
    return min(0.99, math.ceil(100 * (1.5 * share + 0.1)) / 100)


def _tells_apart(rows: pl.DataFrame, names: Sequence[str]) -> bool:
    if any(rows[name].null_count() for name in names):
        return False
    return bool(rows.select(pl.struct(names).is_unique().all()).item())


def _rounded(number: float, towards: Callable[[float], int]) -> float:
    if number == 0:
        return 0
    step = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    rounded = towards(round(number / step, 9)) * step
    return int(rounded) if step >= 1 else round(rounded, 12)
