"""Values within the day, of a view that is published as facts arrive: at which instants, of whom, and what they are.

One function computes them for the history and for the stream, from the same facts in the same order, so that both are
equal to the bit. It costs one evaluation of the view's function per instant, over the facts of the entities that it
touches and no others.
"""

from datetime import datetime, timedelta

import polars as pl

from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.features.view import compute_view, instant

assumed_delay = timedelta(seconds=1)
"""From an instant of the cadence until its values count as available, in the history that nobody recorded: the time in
which a streamed value must be visible. A shorter one would promise to training what serving need not keep."""


def values_at(view: FeatureView, facts: pl.DataFrame, entities: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Values of some entities from the window that ends at an instant.

    Parameters
    ----------
    facts : in any order, of any entity and time
    entities : (n, …) key columns, each key once

    Returns
    -------
    values : key columns, features, `event_time`; no row for an entity without a fact in its window
    """
    window = facts.filter(pl.col("event_time").is_between(at - view.look_back, at, closed="left"))
    theirs = window.join(entities, on=list(view.entity), how="semi")
    # Canonical: whatever came first, and whichever day it is kept under.
    order = ["event_time", *(name for name in theirs.columns if name != "event_time")]
    return compute_view(view, theirs.sort(order, maintain_order=True), at)


def history_within(view: FeatureView, facts: pl.DataFrame, end: datetime) -> pl.DataFrame:
    """Values within a day of which nobody recorded what was published: at each instant of the cadence.

    Parameters
    ----------
    facts : sorted by `event_time`, from a look-back before the day on
    end : of the day; its values at that instant are here too, for those who have new facts then

    Returns
    -------
    values : as `values_at`, with `available_at`
    """
    assert isinstance(view.schedule, AsFactsArrive)
    every = view.schedule.every
    times = facts.get_column("event_time")
    parts = [_available(values_at(view, facts.clear(), entities_of(view, facts.clear()), end), end)]
    at = end - timedelta(days=1)
    while at < end:
        at += every
        # Sorted: a piece is cut out, where a filter would look at every fact of the window at every instant.
        oldest, since, until = (_place(times, each) for each in (at - view.look_back, at - every, at))
        touched = entities_of(view, facts.slice(since, until - since))
        if touched.height:
            parts.append(_available(values_at(view, facts.slice(oldest, until - oldest), touched, at), at))
    return pl.concat(parts)


def entities_of(view: FeatureView, facts: pl.DataFrame) -> pl.DataFrame:
    """(n, …) the entities that some facts are of, each once; a fact without a key is of nobody."""
    return facts.select(view.entity).drop_nulls().unique(maintain_order=True)


def _available(values: pl.DataFrame, at: datetime) -> pl.DataFrame:
    return values.with_columns(available_at=pl.lit(at + assumed_delay, dtype=instant))


def _place(times: pl.Series, at: datetime) -> int:
    """How many of some sorted times are before an instant."""
    return int(times.search_sorted(at, side="left"))
