"""The point-in-time join: what could have been known of an entity at an instant, and nothing later.

For each entity row asked at time T it keeps facts with `event_time >= T - ttl` and `available_at <= T`, and takes the
latest by event time, then by revision. No such fact gives nulls and keeps the row. Exactly one output row per input
row, in the same order, repeated keys and times included. Where facts say from when until when they were believed, it
also keeps to those that were believed at T.

What it refuses: facts without clocks. It reads no table and knows no domain: frames in, frame out.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl


def point_in_time_join(
    entities: pl.DataFrame,
    facts: pl.DataFrame,
    *,
    keys: Sequence[str],
    values: Sequence[str],
    ttl: timedelta,
    at: str = "at",
) -> pl.DataFrame:
    """Join each entity row with the newest fact that it could have seen.

    Parameters
    ----------
    entities : (n, …) frame with `keys` and the instant `at` (Datetime us, UTC)
    facts : (m, …) frame with `keys`, `values`, `event_time`, `available_at` (Datetime us, UTC); where a fact may be
        revised, `_revision` (integer); where only some of it was believed at a time, `_known_from` and `_known_until`
        (Datetime us, UTC; the latter exclusive, null for what is still believed)
    values : columns of the facts to give; of two facts that are equal in event time and revision, the one that became
        visible later is given, then the one that stands later
    ttl : how old a fact may be at `at`, inclusive

    Returns
    -------
    joined : (n, len(values) + 1) the values in input order, and `_status`: `present`, `expired` (there is a fact, but
        older than `ttl`) or `not_found`

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> def day(number): return datetime(2013, 1, number, tzinfo=UTC)
    >>> asked = pl.DataFrame({"carrier": ["UA", "UA"], "at": [day(2), day(4)]})
    >>> facts = pl.DataFrame({"carrier": ["UA"], "event_time": [day(2)], "available_at": [day(3)], "late": [0.25]})
    >>> point_in_time_join(asked, facts, keys=["carrier"], values=["late"], ttl=timedelta(days=3)).rows()
    [(None, 'not_found'), (0.25, 'present')]

    References
    ----------
    Polars `join_asof` (backward). A fact is *seen* from max(event_time, available_at) on, yet the latest by event time
    is wanted, not the latest to become available: where a late fact is overtaken by none, both orders agree; where not,
    `_leading` keeps the running maximum.
    """
    asked = entities.select(*keys, pl.col(at).alias("_at")).with_row_index("_row").sort("_at")
    timeline = _timeline(facts, keys)
    found = _seen(asked, timeline, keys)
    if "_known_until" in facts.columns:
        found = _believed(found, timeline, keys)
    # Only now are the values taken, by place: a join that carried them would copy all of them several times.
    place = found.select("_row", "_fact").sort("_row").get_column("_fact")
    event_time = facts.get_column("event_time").gather(place)
    known = pl.col("event_time").is_not_null()
    fresh = known & (pl.col("event_time") >= pl.col("at") - ttl)
    told = pl.select(event_time=event_time, at=entities.get_column(at), place=place).select(
        place=pl.when(fresh).then(pl.col("place")),
        _status=pl.when(fresh)
        .then(pl.lit("present"))
        .when(known)
        .then(pl.lit("expired"))
        .otherwise(pl.lit("not_found")),
    )
    taken = facts.select(values).select(pl.all().gather(told.get_column("place")))
    return taken.with_columns(told.get_column("_status"))


def _timeline(facts: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Each fact's keys, its place among the facts, the instant it is seen from, and its rank; sorted by instant, rank.

    The rank is by event time, then revision, then the instant it is seen from, then place.
    """
    revision = ["_revision"] if "_revision" in facts.columns else []
    seen_from = [name for name in ("event_time", "available_at", "_known_from") if name in facts.columns]
    until = ["_known_until"] if "_known_until" in facts.columns else []
    order = ["event_time", *revision, "_seen_from"]
    timeline = (
        facts.select(*keys, "event_time", "available_at", *revision, *until, _seen_from=pl.max_horizontal(seen_from))
        .with_row_index("_fact")
        # A fact without a key is of nobody; one without a clock cannot be said to have been available.
        .drop_nulls([*keys, "event_time", "available_at"])
        .sort(order, maintain_order=True)
        .drop("event_time", "available_at", *revision)
        .with_row_index("_rank")
    )
    return timeline.sort("_seen_from", maintain_order=True)


def _leading(timeline: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Facts that were, when they became visible, the newest of their entity.

    A fact that becomes visible after a newer one (by event time, then revision) can never be the answer.
    """
    if timeline.get_column("_rank").is_sorted():
        return timeline
    return timeline.filter(pl.col("_rank") == pl.col("_rank").cum_max().over(list(keys)))


def _seen(asked: pl.DataFrame, timeline: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """For each row asked (sorted by `_at`), the place of the newest fact that was visible; null where none was."""
    return asked.join_asof(
        _leading(timeline, keys).drop("_rank"),
        left_on="_at",
        right_on="_seen_from",
        by=list(keys),
        strategy="backward",
        check_sortedness=False,
    )


def _believed(found: pl.DataFrame, timeline: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The same where facts end, once a correction takes their place.

    Mostly the correction has a newer fact of the same key, and nothing is to be done. Where it took the fact out, the
    newest one that was still believed is looked for: between two corrections nothing ends, so one such stretch of time
    is an ordinary join of the facts that last to its end.
    """
    ended = pl.col("_known_until") <= pl.col("_at")
    open_rows = found.filter(ended)
    if open_rows.is_empty():
        return found
    concerned = timeline.join(open_rows.select(keys).unique(), on=list(keys), how="semi", maintain_order="left")
    ends = concerned.get_column("_known_until").drop_nulls().unique().sort()
    stretches = open_rows.select("_row", *keys, "_at").with_columns(
        _stretch=ends.search_sorted(open_rows.get_column("_at"), side="right")
    )
    settled = [found.filter(~ended.fill_null(value=False))]
    for rows in stretches.partition_by("_stretch", maintain_order=True):
        began = ends[rows.get_column("_stretch")[0] - 1]
        lasting = concerned.filter(pl.col("_known_until").is_null() | (pl.col("_known_until") > began))
        settled.append(_seen(rows.drop("_stretch"), lasting, keys))
    return pl.concat(each.select("_row", "_fact") for each in settled)
