"""Which revisions of a view's partitions a historical read looks at, and from when until when each was believed.

The highest number of a partition is what is believed now. As known at T is the highest one with `known_at <= T`; so a
revision is believed from its own `known_at` until that of the next one, and what the next one lacks is gone from then.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Literal

import polars as pl

from mlplatform.features.stage import Revision, Stage
from mlplatform.features.view import instant

Pins = Mapping[str, Mapping[str, int]]
"""`owner/view` -> partition -> revision."""

KnownBy = Literal["then"] | datetime | None
"""`then`: each row sees the revisions known at its own time. A datetime: those known at that time. None: what is
believed now, or the pinned revisions."""


_ever = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Believed:
    """A revision, and when it was the highest one known."""

    partition: str
    number: int
    since: datetime
    until: datetime | None


def known_facts(
    store: Stage,
    first: datetime,
    last: datetime,
    *,
    columns: Sequence[str],
    keys: Sequence[str],
    ttl: timedelta,
    pins: Mapping[str, int] | None,
    known_by: KnownBy,
    expired: bool,
    at_once: pl.Expr | None = None,
    without: Collection[tuple[str, int]] = (),
) -> pl.DataFrame:
    """Facts that requests between two instants could have seen, for the point-in-time join.

    Parameters
    ----------
    columns : features to read
    pins : revision of each partition; partitions that are not pinned are not read. With `known_by`, no later revision
        than the pinned one counts
    expired : whether facts beyond the time to live are given too, without their features: only they tell an entity
        whose value has expired from one that never had any
    at_once : rows that were known as soon as they were available, whenever their partition was computed: those that
        were streamed. None: there are none
    without : partition and number of revisions that cannot be read, or must not be: as if they had no rows

    Returns
    -------
    facts : keys, `columns`, `event_time`, `available_at`, `_partition`, `_revision`, `_known_at`; where `known_by` is
        `then` also `_known_from`, in the place of `_known_at`, and where something was corrected `_known_until`
    """
    clocks = ["event_time", "available_at"]
    until = last.date().isoformat()
    believed = [
        each
        for each in _believed(store, pins, known_by)
        if each.partition <= until and (each.partition, each.number) not in without
    ]
    if known_by == "then":
        # What no request can have seen is not read: it may have been removed.
        believed = [
            each
            for each in believed
            if (each.until is None or each.until > first)
            and (each.since <= last or (at_once is not None and each.number == 1))
        ]
    since = oldest_partition(first, ttl)
    parts = [
        *_read(store, [each for each in believed if each.partition >= since], [*keys, *columns, *clocks]),
        *(_read(store, [each for each in believed if each.partition < since], [*keys, *clocks]) if expired else ()),
    ]
    facts: pl.DataFrame = pl.concat(parts, how="diagonal")
    if len(parts) > 1:
        facts = facts.sort("_partition", "_revision", maintain_order=True)
    if known_by != "then":
        return facts
    ends = pl.DataFrame(
        [(each.partition, each.number, each.until) for each in believed],
        schema={"_partition": pl.String(), "_revision": pl.Int32(), "_known_until": instant},
        orient="row",
    )
    facts = facts.rename({"_known_at": "_known_from"})
    if at_once is not None:
        known = pl.when(at_once).then(pl.min_horizontal("available_at", "_known_from")).otherwise("_known_from")
        facts = facts.with_columns(_known_from=known)
    if ends.get_column("_known_until").null_count() == ends.height:
        return facts
    return facts.join(ends, on=["_partition", "_revision"], how="left", maintain_order="left")


def oldest_partition(at: datetime, ttl: timedelta) -> str:
    """The oldest one that may hold what a request at an instant is told."""
    # A partition holds no value that is newer than its end; the day more costs nothing. Nothing is older than time.
    return (at - min(ttl + timedelta(days=1), at - _ever)).date().isoformat()


def believed_between(
    revisions: Iterable[Revision],
    first: datetime,
    last: datetime,
    *,
    ttl: timedelta,
    pins: Mapping[str, int] | None = None,
) -> list[tuple[Revision, datetime | None]]:
    """The revisions from which `known_facts` takes values by what was known `then`, and until when each was believed.

    Parameters
    ----------
    revisions : of the view's table, as it lists them
    pins : as there

    Returns
    -------
    believed : by partition and number; the instant is exclusive, None for what still is
    """
    since, until = oldest_partition(first, ttl), last.date().isoformat()
    counted = [
        each
        for each in revisions
        if since <= each.partition <= until and (pins is None or each.number <= pins.get(each.partition, 0))
    ]
    by_partition = [list(each) for _, each in groupby(counted, key=lambda each: each.partition)]
    return [believed for each in by_partition for believed in _intervals(each)]


def removed_until(store: Stage, pins: Mapping[str, int]) -> list[datetime]:
    """Until when revisions were believed that were removed by policy since, of those before the pinned ones."""
    revisions = (each for each in store.revisions(pins) if each.number <= pins[each.partition])
    by_partition = [list(each) for _, each in groupby(revisions, key=lambda each: each.partition)]
    believed = (pair for each in by_partition for pair in _intervals(each))
    return [until for revision, until in believed if revision.removed and until is not None]


def _believed(store: Stage, pins: Mapping[str, int] | None, known_by: KnownBy) -> list[_Believed]:
    """The revisions that a read looks at, by partition and number."""
    if known_by is None:
        numbers = pins if pins is not None else {day: each.number for day, each in store.current().items()}
        return [_Believed(day, number, _ever, None) for day, number in sorted(numbers.items())]
    revisions = [
        each
        for each in store.revisions()
        if (pins is None or each.number <= pins.get(each.partition, 0))
        and (known_by == "then" or each.known_at <= known_by)
    ]
    by_partition = [list(each) for _, each in groupby(revisions, key=lambda each: each.partition)]
    if known_by != "then":
        return [_Believed(each[-1].partition, each[-1].number, _ever, None) for each in by_partition]
    return [
        _Believed(revision.partition, revision.number, revision.known_at, until)
        for each in by_partition
        for revision, until in _intervals(each)
    ]


def _intervals(revisions: Sequence[Revision]) -> Iterable[tuple[Revision, datetime | None]]:
    """Of one partition; a revision that was followed at once was never believed."""
    for this, following in pairwise([*revisions, None]):
        assert this is not None
        until = None if following is None else following.known_at
        if until is None or this.known_at < until:
            yield this, until


def _read(store: Stage, believed: Sequence[_Believed], columns: Sequence[str]) -> list[pl.DataFrame]:
    """Their rows, one frame at least; the stage gives one revision of a partition at a time."""
    layers: list[dict[str, int]] = []
    for _, revisions in groupby(believed, key=lambda each: each.partition):
        for place, each in enumerate(revisions):
            if place == len(layers):
                layers.append({})
            layers[place][each.partition] = each.number
    return [store.read(numbers=layer, columns=columns, provenance=True) for layer in layers or [{}]]
