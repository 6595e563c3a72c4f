"""Faults of data, as pure functions on frames: of source files, of requests, of features.

Each is what goes wrong in a working platform, with no word of the domain in it; the same rows and seed give the same
result. They are injected into simulations, and monitors are measured by them. Which rows and days are hit is the
caller's choice: what is here changes a whole frame.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import polars as pl

from mlplatform.domain.column import Column
from mlplatform.errors import DeclarationError

Fault = Literal["drift", "nulls", "break-feed", "repeat-feed", "label-shift", "leak"]
fault_names: tuple[Fault, ...] = get_args(Fault)


def drift(
    frame: pl.DataFrame, column: str, *, reference: pl.Series, by: float = 2.0, limits: Column | None = None
) -> pl.DataFrame:
    """The inputs move, and the outcomes do not follow: another population, another unit, a sensor that reads high.

    A value depends on nothing but itself, so that a request and the fact that is recorded of it later move alike.

    Parameters
    ----------
    reference : (m,) the column's values before the fault
    by : of numbers, standard deviations of the reference by which each value rises. Of categories it counts only
        whether it is zero: each of the commoner half becomes one of the rarer
    limits : the declared column; numbers stay within its minimum and maximum

    Returns
    -------
    frame : the same rows in the same order, the column of the same type, its nulls where they were

    Raises
    ------
    DeclarationError
        The column holds neither numbers nor text.

    Examples
    --------
    >>> rows = pl.DataFrame({"km": [1.0, 3.0, None], "town": ["a", "a", "b"]})
    >>> drift(rows, "km", reference=pl.Series([1.0, 3.0]), by=1.0)["km"].round(3).to_list()
    [2.414, 4.414, None]
    >>> drift(rows, "town", reference=rows["town"])["town"].to_list()
    ['b', 'b', 'b']
    """
    values = frame.get_column(column)
    if isinstance(values.dtype, pl.String):
        commonest = reference.drop_nulls().value_counts(sort=True, name="_count").sort("_count", reference.name)
        names = commonest.get_column(reference.name).to_list()
        moved = dict(zip(reversed(names[(len(names) + 1) // 2 :]), names, strict=False)) if by else {}
        return frame.with_columns(values.replace(moved))
    if not values.dtype.is_numeric():
        raise DeclarationError(
            f"{column} holds {values.dtype}, which cannot drift. Name a column of numbers or of text"
        )
    spread = reference.cast(pl.Float64).std()
    risen = values.cast(pl.Float64) + by * (float(spread) if isinstance(spread, float) else 0.0)
    if limits is not None:
        risen = risen.clip(limits.minimum, limits.maximum)
    if values.dtype.is_integer():
        risen = risen.round()
    return frame.with_columns(risen.cast(values.dtype).alias(column))


def nulls(frame: pl.DataFrame, column: str, *, share: float = 1.0, seed: int = 0) -> pl.DataFrame:
    """A column becomes null: somebody upstream has renamed it, or joins on a key that is not there any more.

    Parameters
    ----------
    share : 0 to 1, of the rows, drawn by the seed

    Examples
    --------
    >>> nulls(pl.DataFrame({"km": [1.0, 3.0]}), "km")["km"].to_list()
    [None, None]
    """
    hit = pl.Series(np.random.default_rng(seed).random(frame.height) < share)
    return frame.with_columns(pl.when(~hit).then(pl.col(column)).alias(column))


def break_feed(today: pl.DataFrame, before: pl.DataFrame | None = None) -> pl.DataFrame:
    """A source stops: no rows; or, with a file of an earlier day, it sends that one again instead of today's.

    Examples
    --------
    >>> today, before = pl.DataFrame({"order": [2]}), pl.DataFrame({"order": [1]})
    >>> break_feed(today).height, break_feed(today, before)["order"].to_list()
    (0, [1])
    """
    return today.clear() if before is None else before


def label_shift(
    frame: pl.DataFrame,
    outcomes: Sequence[str],
    *,
    probability: float = 0.5,
    seed: int = 0,
    since: str | None = None,
) -> pl.DataFrame:
    """The outcomes change sides: the highest becomes the lowest. As many as before are high, but not the same ones.

    The relation of inputs and outcome goes, with probability 1 it turns round; no column by itself looks different.

    Parameters
    ----------
    outcomes : the columns to be turned round, each by itself; what is null has no outcome and keeps it
    probability : that a row takes part
    since : of outcomes that are times, the column of the time from which they count. None: they are exchanged as such

    Examples
    --------
    >>> rows = pl.DataFrame({"km": [1, 2, 3, 4], "late": [0, 0, 1, None]})
    >>> label_shift(rows, ["late"], probability=1.0)["late"].to_list()
    [1, 0, 0, None]
    """
    chosen = pl.Series(np.random.default_rng(seed).random(frame.height) < probability)
    for name in outcomes:
        values = frame.get_column(name)
        part = (chosen & values.is_not_null()).arg_true()
        relative = since is not None and isinstance(values.dtype, pl.Datetime)
        lengths = values - frame.get_column(since) if relative and since is not None else values
        told = lengths.gather(part)
        order = told.arg_sort()
        turned = told.gather(order.reverse()).gather(order.arg_sort())
        if relative and since is not None:
            turned = frame.get_column(since).gather(part) + turned
        frame = frame.with_columns(values.clone().scatter(part, turned.cast(values.dtype)).alias(name))
    return frame


def leak(frame: pl.DataFrame, column: str, outcome: pl.Series) -> pl.DataFrame:
    """A column is written again when the outcome is known, and carries it: the higher the one, the higher the other.

    Who asks for a prediction cannot know it: what is trained on such rows shines in every evaluation, and fails its
    users.

    Parameters
    ----------
    outcome : (n,) anything with an order; rows without one keep their value

    Returns
    -------
    frame : the column takes its own values, from the lowest to the highest, in the order of the outcome

    Examples
    --------
    >>> rows = pl.DataFrame({"items": [2, 1, 3, 2]})
    >>> leak(rows, "items", pl.Series([0, 1, 0, 1]))["items"].to_list()
    [1, 3, 1, 3]
    """
    values = frame.get_column(column)
    seen = values.drop_nulls().unique().sort()
    if seen.is_empty():
        return frame
    # Equal outcomes give equal values: of a yes or a no only the two ends are left.
    rank = outcome.rank("dense").cast(pl.Float64)
    highest = rank.max()
    steps = max(float(highest) - 1.0, 1.0) if isinstance(highest, float) else 1.0
    place = ((rank - 1.0) / steps * (len(seen) - 1)).round().cast(pl.Int64)
    told = seen.gather(place.fill_null(0))
    return frame.with_columns(
        pl.select(pl.when(outcome.is_not_null()).then(told).otherwise(values)).to_series().alias(column)
    )
