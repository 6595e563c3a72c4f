"""The point-in-time join: what could have been known of an entity at an instant, and nothing later.

For each entity row asked at time T it keeps facts with `event_time >= T - ttl` and `available_at <= T`, and takes the
latest by event time, then by revision. No such fact gives nulls and keeps the row. Exactly one output row per input
row, in the same order, repeated keys and times included.

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
    facts : (m, …) frame with `keys`, `values`, `event_time`, `available_at` (Datetime us, UTC) and, where a fact may be
        revised, `_revision` (integer)
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
    revision = ["_revision"] if "_revision" in facts.columns else []
    # A fact without a key is of nobody; one without a clock cannot be said to have been available.
    facts = facts.drop_nulls([*keys, "event_time", "available_at"])
    leading = _leading(facts.select(*keys, *values, "event_time", "available_at", *revision), keys, revision)
    asked = entities.select(*keys, pl.col(at).alias("_at")).with_row_index("_row")
    joined = asked.sort("_at").join_asof(
        leading,
        left_on="_at",
        right_on="_seen_from",
        by=list(keys),
        strategy="backward",
        check_sortedness=False,
    )
    known = pl.col("event_time").is_not_null()
    fresh = pl.col("event_time") >= pl.col("_at") - ttl
    return (
        joined.sort("_row")
        .with_columns(
            _status=pl.when(known & fresh)
            .then(pl.lit("present"))
            .when(known)
            .then(pl.lit("expired"))
            .otherwise(pl.lit("not_found"))
        )
        .select(
            *(pl.when(pl.col("_status") == "present").then(pl.col(value)).alias(value) for value in values), "_status"
        )
    )


def _leading(facts: pl.DataFrame, keys: Sequence[str], revision: Sequence[str]) -> pl.DataFrame:
    """Facts that were, when they became visible, the newest of their entity; sorted by the instant they are seen from.

    A fact that becomes visible after a newer one (by event time, then revision) can never be the answer.
    """
    order = ["event_time", *revision]
    ranked = facts.with_columns(
        _seen_from=pl.max_horizontal("event_time", "available_at"),
        _rank=pl.struct(order).rank("dense") if revision else pl.col("event_time").rank("dense"),
    ).sort("_seen_from", "_rank", maintain_order=True)
    return (
        ranked.with_columns(_newest=pl.col("_rank").cum_max().over(list(keys)))
        .filter(pl.col("_rank") == pl.col("_newest"))
        .unique(subset=[*keys, "_seen_from"], keep="last", maintain_order=True)
        .sort("_seen_from", maintain_order=True)
    )
