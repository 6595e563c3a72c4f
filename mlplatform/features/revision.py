"""Revisions: what one is made of, what is known of it, and which one of a partition counts as of a time.

A table's log is read as a listing, one row for each revision. It is small, so every question to a stage is asked of it
first, and rows are read of the revisions that are the answer.

It refuses a time without a zone, of which nobody could say what was known by then.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mlplatform.errors import DataError, MissingPartition, RemovedByPolicy


@dataclass(frozen=True, kw_only=True)
class Written:
    """Who writes, and from what."""

    run_id: str
    code_version: str
    environment: str
    """Hash of the lock file."""
    known_at: datetime
    """When this platform has the rows; aware. `Draft.known_at` overrides it for one partition."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What one partition should become."""

    rows: pl.DataFrame
    inputs: tuple[str, ...] = ()
    """`table/partition@number` of every input revision; sorted by the stage. Empty for rows from outside: then nothing
    determines them, and other rows are a correction, never a `NonDeterministicStage`."""
    known_at: datetime | None = None
    """When this content became known; None: when it is written."""

    first_known_at: datetime | None = None
    """The same, but only if this becomes revision 1: a declared backfill counts as known when it was available, a
    correction of it never does."""


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One revision of one partition, as the table's log tells it."""

    partition: str
    number: int
    content_hash: str
    known_at: datetime
    run_id: str
    code_version: str
    environment: str
    inputs: tuple[str, ...]
    rows: int
    path: str
    """Of its Parquet file, relative to the table."""

    removed: str = ""
    """Its tombstone, where its rows were removed by policy; all else that is known of it stays. Empty: they are there.
    """


_LISTING: dict[str, pl.DataType] = {
    "partition": pl.String(),
    "number": pl.Int32(),
    "content_hash": pl.String(),
    "known_at": pl.Datetime("us", "UTC"),
    "run_id": pl.String(),
    "code_version": pl.String(),
    "environment": pl.String(),
    "inputs": pl.String(),
    "rows": pl.Int64(),
    "path": pl.String(),
    "removed": pl.String(),
}


def listing_of(actions: pl.DataFrame, partitions: Iterable[str] | None, *, name: str, uri: str) -> pl.DataFrame:
    """The listing of a table, by partition and number.

    Parameters
    ----------
    actions : of the log, flat: a row for each file of the table
    partitions : those to list; None: all
    name, uri : of the table, for messages

    Raises
    ------
    DataError
        A revision is not one whole file any more.
    """
    if actions.is_empty():
        return pl.DataFrame(schema=_LISTING)
    places = {
        "partition": "partition._partition",
        "number": "partition._revision",
        "rows": "num_records",
        "path": "path",
    }
    if "min._removed" not in actions.columns:  # nothing ever was
        actions = actions.with_columns(pl.lit("").alias("min._removed"))
    listing = actions.select(
        pl.col(places.get(column, f"min._{column}")).cast(dtype).alias(column) for column, dtype in _LISTING.items()
    ).with_columns(pl.col("removed").fill_null(""))
    if partitions is not None:
        listing = listing.filter(pl.col("partition").is_in(list(partitions)))
    listing = listing.sort("partition", "number")
    if listing["content_hash"].has_nulls() or listing.select("partition", "number").is_duplicated().any():
        raise DataError(
            f"{name}: another writer has rewritten the files of {uri}, so a revision is no longer one whole file. "
            "Restore the version before it"
        )
    return listing


def revision_of(row: Mapping[str, Any]) -> Revision:
    """The revision that a row of a listing tells of."""
    return Revision(**{**row, "inputs": tuple(json.loads(row["inputs"])), "known_at": row["known_at"].astimezone(UTC)})


def newest(listing: pl.DataFrame, known_at: datetime | None) -> pl.DataFrame:
    """The highest number of each partition, of those known at a time."""
    if known_at is not None:
        listing = listing.filter(pl.col("known_at") <= utc(known_at))
    return listing.unique("partition", keep="last", maintain_order=True)


def one_of_each(
    listing: pl.DataFrame,
    wanted: set[str] | None,
    pins: Mapping[str, int],
    known_at: datetime | None,
    *,
    name: str,
) -> pl.DataFrame:
    """One revision of each partition, by partition: the pinned number, else the newest known at a time.

    Raises
    ------
    MissingPartition
        A wanted partition of the table `name` has no such revision.
    RemovedByPolicy
        It had, and its rows were removed.
    """
    pinned_number = pl.col("partition").replace_strict(pins, default=None, return_dtype=pl.Int32)
    pinned = listing.filter(pl.col("number") == pinned_number)
    free = newest(listing.filter(~pl.col("partition").is_in(list(pins))), known_at)
    found = pl.concat([pinned, free]).sort("partition")
    if missing := sorted((wanted or set()) - set(found["partition"])):
        raise MissingPartition(name, [f"{each}@{pins[each]}" if each in pins else each for each in missing])
    if gone := found.filter(pl.col("removed") != "")["removed"].to_list():
        raise RemovedByPolicy(gone[0])
    return found


def contradicts(draft: Revision, earlier: Revision) -> bool:
    """Whether the same inputs, code and environment once gave other content."""
    return (
        draft.inputs != ()
        and draft.inputs == earlier.inputs
        and draft.code_version == earlier.code_version
        and draft.environment == earlier.environment
        and draft.content_hash != earlier.content_hash
    )


def utc(time: datetime) -> datetime:
    """The same instant in UTC.

    Raises
    ------
    DataError
        It has no zone.
    """
    if time.tzinfo is None:
        raise DataError(f"the known time {time.isoformat()} has no zone; give an aware time, best in UTC")
    return time.astimezone(UTC)
