"""The stage table: every revision of every partition, on Delta, written once and never changed.

Each stage of a feature pipeline has one, and so has the ledger. A correction must leave in place what was believed
before; of the ready-made writers one overwrites partitions and another writes only the first day of a window.

Invariants:

* A revision is one Parquet file of its own, whole, also when it has no rows. Its partition and number are the table's
  partition columns, so a compaction has nothing to merge.
* The numbers of a partition are 1, 2, 3 …; the highest is current, whatever the clocks say. `known_at` never falls as
  the number grows: a writer whose clock is behind gets the `known_at` of the revision before its own.
* One `append` is one commit, all or nothing. Its Delta transaction ids are partition and number: of two writers of the
  same number one wins, the other reads again and decides again.
* A revision's metadata are the statistics of its file, which we write ourselves: delta-rs would cut strings at 64
  characters and times at milliseconds. They outlive checkpoints, log clean-up and compaction; the history does not.

It refuses to overwrite, to delete, to vacuum, and to hide a transformation that is not deterministic. It never reads
the clock: who writes says when.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from mlplatform.errors import (
    DataError,
    DeclarationError,
    MissingPartition,
    NonDeterministicStage,
    StaleRevision,
    Unavailable,
)
from mlplatform.provenance.content_hash import content_hash

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_DELTA_TYPES: dict[pl.DataType, str] = {
    pl.String(): "string",
    pl.Binary(): "binary",
    pl.Boolean(): "boolean",
    pl.Int8(): "byte",
    pl.Int16(): "short",
    pl.Int32(): "integer",
    pl.Int64(): "long",
    pl.Float32(): "float",
    pl.Float64(): "double",
    pl.Date(): "date",
    pl.Datetime("us"): "timestamp_ntz",
    pl.Datetime("us", "UTC"): "timestamp",
}
# Delta keeps partition values in the log alone; they are in our files too, because Polars looks for them in `key=value`
# paths or in the file, and a path with `=` in it is what breaks other scans.
_PARTITIONED_BY: dict[str, pl.DataType] = {"_partition": pl.String(), "_revision": pl.Int32()}
_PROVENANCE: dict[str, pl.DataType] = {
    "_content_hash": pl.String(),
    "_known_at": pl.Datetime("us", "UTC"),
    "_run_id": pl.String(),
    "_code_version": pl.String(),
    "_environment": pl.String(),
    "_inputs": pl.String(),
}
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
}
# Each holds the rows of a partition twice. Four keep eight cores busy, as Polars has threads of its own.
_THREADS = 4
# Columns by which rows are looked at before they are sorted: a key, or a time and a key, mostly tells them apart.
_LEADING = 2
# Of N writers of one partition each round has a winner, so N rounds settle them all.
_ATTEMPTS = 32


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


class Stage:
    """An append-only table of revisions.

    Parameters
    ----------
    uri : str
        Folder of the Delta table, or an object store's address of it. The first `append` creates it.
    schema : mapping of column to Polars type
        The columns of a draft, in the order in which `read` gives them. A column that an older table lacks is added to
        it and is null in the older revisions; a column that changes its type is refused.
    name : str
        The table's name in messages.
    sort_by : sequence of str
        A unique key. Rows are sorted by it before they are hashed and written, so that their order means nothing.
        Without it, the order of the rows is part of the content.
    storage_options : mapping of str to str, optional
        For the object store, as deltalake and Polars both understand them.

    Raises
    ------
    DeclarationError
        A column has a type that Delta cannot hold, or the name of a provenance column.
    """

    def __init__(
        self,
        uri: str,
        schema: Mapping[str, pl.DataType] | pl.Schema,
        *,
        name: str,
        sort_by: Sequence[str] = (),
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.schema = pl.Schema(schema)
        self.name = name
        self.sort_by = tuple(sort_by)
        self._storage_options = dict(storage_options) if storage_options else None
        for column, dtype in self.schema.items():
            if column in _PARTITIONED_BY or column in _PROVENANCE:
                raise DeclarationError(f"{name} cannot have a column {column!r}: the stage writes that one itself")
            if dtype not in _DELTA_TYPES:
                known = ", ".join(map(str, _DELTA_TYPES))
                raise DeclarationError(f"column {column!r} of {name} is of type {dtype}, but Delta holds {known}")
        if unknown := set(self.sort_by) - set(self.schema):
            raise DeclarationError(f"{name} is sorted by {sorted(unknown)}, which it does not have")

    def append(
        self, drafts: Mapping[str, Draft], written: Written, *, expect: Mapping[str, int] | None = None
    ) -> dict[str, Revision]:
        """Append a revision of every partition whose content differs from its current one, in one commit.

        Parameters
        ----------
        drafts : mapping of partition to Draft
            A partition is any text that is not empty.
        written : Written
        expect : mapping of partition to int, optional
            Compare-and-set: the number that must be current, 0 for no revision yet.

        Returns
        -------
        dict of partition to Revision
            The current revision of each partition of `drafts`, new or not.

        Raises
        ------
        StaleRevision
            A partition is not at its expected number. Nothing was committed, and nothing is tried again.
        NonDeterministicStage
            An earlier revision had the same inputs, code version and environment, and other content.
        DataError
            Rows are not as the schema says, or a time has no zone.
        DeclarationError
            The table holds a column of the schema under another type.
        Unavailable
            Other writers were faster every time.
        """
        expected = dict(expect or {})
        if unknown := sorted(expected.keys() - drafts.keys()):
            raise DataError(f"{self.name}: a number is expected of {unknown}, but nothing is drafted for them")
        if not drafts:
            return {}
        names = sorted(drafts)
        ready = dict(zip(names, _in_threads(lambda each: self._ready(each, drafts[each], written), names), strict=True))
        files: dict[Revision, AddAction] = {}
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(ready, expected, files)
            except CommitFailedError as error:
                lost = error
        raise Unavailable(f"{self.name}: other writers were faster {_ATTEMPTS} times running; append again") from lost

    def revisions(self, partitions: Iterable[str] | None = None) -> list[Revision]:
        """List every revision, or those of some partitions, by partition and number."""
        return [_revision(row) for row in self._listing(partitions).iter_rows(named=True)]

    def current(
        self, partitions: Iterable[str] | None = None, *, known_at: datetime | None = None
    ) -> dict[str, Revision]:
        """Give the current revision of each partition, or the one that was current as known at a time.

        A partition without one is not in the answer; one that was emptied is there, with no rows.
        """
        newest = _newest(self._listing(partitions), known_at)
        return {row["partition"]: _revision(row) for row in newest.iter_rows(named=True)}

    def read(
        self,
        partitions: Iterable[str] | None = None,
        *,
        numbers: Mapping[str, int] | None = None,
        known_at: datetime | None = None,
        columns: Sequence[str] | None = None,
        provenance: bool = False,
    ) -> pl.DataFrame:
        """Read the rows of one revision of each partition, in the order of the partitions' names.

        Parameters
        ----------
        partitions : iterable of str, optional
            Those to read. Without it: those of `numbers`, and without that one, all.
        numbers : mapping of partition to int, optional
            Pins: for these partitions that very revision, whenever it became known.
        known_at : datetime, optional
            For the others, the newest revision known at that time; without it, the current one.
        columns : sequence of str, optional
            Columns of the schema; without it, all.
        provenance : bool
            Add `_partition` (String), `_revision` (Int32) and `_known_at` (Datetime, UTC) to every row.

        Raises
        ------
        MissingPartition
            A partition that was asked for by name has no such revision.
        """
        pins = dict(numbers or {})
        wanted = set(partitions) if partitions is not None else set(pins) if numbers is not None else None
        return self._rows(self._chosen(wanted, pins, known_at), columns, provenance)

    def pinned(self, numbers: Mapping[str, int], *, rows_at_once: int) -> "Pinned":
        """Read single partitions of pinned revisions, holding about `rows_at_once` rows.

        Raises
        ------
        MissingPartition
            A partition has no such revision.
        """
        return Pinned(self, self._chosen(set(numbers), numbers, None), rows_at_once)

    def _chosen(self, wanted: set[str] | None, pins: Mapping[str, int], known_at: datetime | None) -> pl.DataFrame:
        """List one revision of each partition, by partition."""
        listing = self._listing(wanted)
        pinned_number = pl.col("partition").replace_strict(pins, default=None, return_dtype=pl.Int32)
        pinned = listing.filter(pl.col("number") == pinned_number)
        free = _newest(listing.filter(~pl.col("partition").is_in(list(pins))), known_at)
        chosen = pl.concat([pinned, free]).sort("partition")
        if missing := sorted((wanted or set()) - set(chosen["partition"])):
            raise MissingPartition(self.name, [f"{each}@{pins[each]}" if each in pins else each for each in missing])
        return chosen

    def history(self, partitions: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read the rows of all revisions, by partition and number, with `_partition`, `_revision` and `_known_at`."""
        return self._rows(self._listing(partitions), columns, provenance=True)

    def ordered(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows in the columns and the order in which the table would give them back."""
        return _sorted(rows.select(self.schema.names()), self.sort_by)

    def refuse_undeclared(self, partition: str, rows: pl.DataFrame) -> None:
        """Let rows pass that are as the schema says; `append` does so too, for all of its drafts at once.

        Raises
        ------
        DataError
            A column is missing, undeclared or of another type.
        """
        for column, dtype in self.schema.items():
            if column not in rows.columns:
                raise DataError(f"{self.name} of {partition} lacks the column {column!r}")
            if rows.schema[column] != dtype:
                found = rows.schema[column]
                raise DataError(f"{self.name} of {partition}: column {column!r} is {found}, but is declared as {dtype}")
        if unknown := [column for column in rows.columns if column not in self.schema]:
            raise DataError(f"{self.name} of {partition} has columns that are not declared: {unknown}")

    def _ready(self, partition: str, draft: Draft, written: Written) -> "_Ready":
        """Check a draft against the schema, and sort and hash it."""
        if not partition:
            raise DataError(f"{self.name}: a partition needs a name")
        self.refuse_undeclared(partition, draft.rows)
        rows = self.ordered(draft.rows)
        revision = Revision(
            partition=partition,
            number=0,
            content_hash=content_hash(rows),
            known_at=_utc(draft.known_at or written.known_at),
            run_id=written.run_id,
            code_version=written.code_version,
            environment=written.environment,
            inputs=tuple(sorted(set(draft.inputs))),
            rows=rows.height,
            path="",
        )
        return _Ready(revision, rows, _utc(draft.first_known_at) if draft.first_known_at else None)

    def _attempt(
        self, ready: Mapping[str, "_Ready"], expected: Mapping[str, int], files: dict[Revision, AddAction]
    ) -> dict[str, Revision]:
        """Decide on one state of the table and commit on that very state, or fail with `CommitFailedError`.

        `files` holds what earlier attempts have written, by the revision with an empty path.
        """
        # One handle for the listing, the check of the transaction ids and the commit: deltalake compares with the state
        # of the handle, so a second one would let two writers of one number both through.
        table = self._table_to_write()
        past: dict[str, list[Revision]] = {}
        for row in self._listing_of(table, ready).iter_rows(named=True):
            past.setdefault(row["partition"], []).append(_revision(row))
        own = {action.path for action in files.values()}
        settled: dict[str, Revision] = {}
        fresh: dict[str, Revision] = {}
        contradicting: list[str] = []
        for partition, draft in ready.items():
            earlier = past.get(partition, [])
            # A commit can land and still be reported as lost, by an object store that answered too late.
            if any(revision.path in own for revision in earlier):
                settled[partition] = earlier[-1]
                continue
            number = earlier[-1].number if earlier else 0
            if table.transaction_version(_transaction_id(partition, number + 1)) is not None:
                raise DataError(
                    f"{self.name} of {partition}: revision {number + 1} was committed, but its file is gone from the "
                    "log. Something else has rewritten the table; restore it before anything is appended"
                )
            if expected.get(partition, number) != number:
                raise StaleRevision(self.name, partition, expected[partition], number)
            if earlier and earlier[-1].content_hash == draft.revision.content_hash:
                settled[partition] = earlier[-1]
                continue
            if any(_contradicts(draft.revision, revision) for revision in earlier):
                contradicting.append(partition)
                continue
            wanted = draft.first_known_at if number == 0 and draft.first_known_at else draft.revision.known_at
            known_at = max([wanted, *(revision.known_at for revision in earlier[-1:])])
            fresh[partition] = replace(draft.revision, number=number + 1, known_at=known_at)
        if contradicting:
            raise NonDeterministicStage(self.name, contradicting)
        if not fresh:
            return settled
        unwritten = [revision for revision in fresh.values() if revision not in files]
        actions = _in_threads(lambda each: self._write(each, ready[each.partition].rows), unwritten)
        files.update(zip(unwritten, actions, strict=True))
        transactions = [Transaction(_transaction_id(each.partition, each.number), 1) for each in fresh.values()]
        table.create_write_transaction(
            [files[revision] for revision in fresh.values()],
            "append",
            table.schema(),
            list(_PARTITIONED_BY),
            commit_properties=CommitProperties(app_transactions=transactions),
        )
        appended = {partition: replace(revision, path=files[revision].path) for partition, revision in fresh.items()}
        return {partition: appended.get(partition) or settled[partition] for partition in ready}

    def _write(self, revision: Revision, rows: pl.DataFrame) -> AddAction:
        """Write the file of a revision. Until it is committed nobody sees it, and if it never is, it does no harm."""
        path = f"{_quoted(revision.partition)}/{revision.number}-{uuid4().hex}.parquet"
        texts = {
            "_content_hash": revision.content_hash,
            "_run_id": revision.run_id,
            "_code_version": revision.code_version,
            "_environment": revision.environment,
            "_inputs": json.dumps(revision.inputs),
        }
        rows.with_columns(
            # Repeated by reference: a literal is copied for every row, which cost 2 s for 300 inputs and 1 M rows. As
            # categories, for Parquet holds them as the same dictionary of one text, found without hashing every row.
            *(
                pl.Series(column, [text], pl.Categorical()).new_from_index(0, rows.height)
                for column, text in (texts | {"_partition": revision.partition}).items()
            ),
            pl.lit(revision.known_at).cast(_PROVENANCE["_known_at"]).alias("_known_at"),
            pl.lit(revision.number, dtype=pl.Int32).alias("_revision"),
        ).write_parquet(
            f"{self.uri}/{path}",
            compression="zstd",
            statistics=False,
            storage_options=self._storage_options,
            mkdir=True,
        )
        values = {**texts, "_known_at": revision.known_at.isoformat(timespec="microseconds").replace("+00:00", "Z")}
        statistics = {
            "numRecords": revision.rows,
            "minValues": values,
            "maxValues": values,
            "nullCount": dict.fromkeys(values, 0),
        }
        return AddAction(
            path=path,
            # Asked of the store, for readers seek from the end of the file by it.
            size=DeltaStorageHandler(self.uri, self._storage_options).get_file_info([path])[0].size,
            partition_values={"_partition": revision.partition, "_revision": str(revision.number)},
            # Only a vacuum by age would look at it, so the record time will do, and no clock is read.
            modification_time=int(revision.known_at.timestamp() * 1000),
            data_change=True,
            stats=json.dumps(statistics),
        )

    def _table(self) -> DeltaTable | None:
        # A handle kept open slows from 15 to 81 ms a commit over 700 commits; opening one costs 14 ms.
        try:
            return DeltaTable(self.uri, storage_options=self._storage_options)
        except TableNotFoundError:
            return None
        except OSError as error:
            # It comes in colours, over many lines, and with the store's whole answer.
            told = " ".join(re.sub(r"\x1b\[\d*m|↳", " ", str(error)).split())
            raise Unavailable(
                f"{self.name} cannot be opened at {self.uri} ({told[:400]}). Look whether it may be read from "
                "here; on S3, whether the bucket is there, and AWS_ENDPOINT_URL and the credentials are right"
            ) from error

    def _table_to_write(self) -> DeltaTable:
        """Open the table, created or widened to the schema where need be."""
        declared = _fields(self.schema)
        table = self._table()
        if table is None:
            DeltaTable.create(
                self.uri,
                Schema(declared + _fields(_PROVENANCE | _PARTITIONED_BY)),
                mode="ignore",
                partition_by=list(_PARTITIONED_BY),
                name=self.name,
                configuration={
                    "delta.appendOnly": "true",
                    "delta.enableExpiredLogCleanup": "false",
                    "delta.dataSkippingStatsColumns": ",".join(_PROVENANCE),
                },
                storage_options=self._storage_options,
            )
            table = DeltaTable(self.uri, storage_options=self._storage_options)
        held = {field.name: field.type for field in table.schema().fields}
        for field in declared:
            if field.name in held and held[field.name] != field.type:
                raise DeclarationError(
                    f"column {field.name!r} of {self.name} is declared as {field.type}, but the table at {self.uri} "
                    f"holds {held[field.name]}. Give the column a new name; what was written stays"
                )
        if added := [field for field in declared if field.name not in held]:
            table.alter.add_columns(added)
            table = DeltaTable(self.uri, storage_options=self._storage_options)
        return table

    def _listing(self, partitions: Iterable[str] | None) -> pl.DataFrame:
        table = self._table()
        return pl.DataFrame(schema=_LISTING) if table is None else self._listing_of(table, partitions)

    def _listing_of(self, table: DeltaTable, partitions: Iterable[str] | None) -> pl.DataFrame:
        """List the files of the table, one for each revision, by partition and number."""
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        if actions.is_empty():
            return pl.DataFrame(schema=_LISTING)
        places = {
            "partition": "partition._partition",
            "number": "partition._revision",
            "rows": "num_records",
            "path": "path",
        }
        listing = actions.select(
            pl.col(places.get(column, f"min._{column}")).cast(dtype).alias(column) for column, dtype in _LISTING.items()
        )
        if partitions is not None:
            listing = listing.filter(pl.col("partition").is_in(list(partitions)))
        listing = listing.sort("partition", "number")
        if listing["content_hash"].has_nulls() or listing.select("partition", "number").is_duplicated().any():
            raise DataError(
                f"{self.name}: another writer has rewritten the files of {self.uri}, so a revision is no longer one "
                "whole file. Restore the version before it"
            )
        return listing

    def _rows(self, chosen: pl.DataFrame, columns: Sequence[str] | None, provenance: bool) -> pl.DataFrame:
        """Read the files of a listing, in its order."""
        names = list(self.schema) if columns is None else list(columns)
        if unknown := [column for column in names if column not in self.schema]:
            raise DeclarationError(f"{self.name} has no column {unknown}; it has {self.schema.names()}")
        schema = {column: self.schema[column] for column in names}
        chosen = chosen.filter(pl.col("rows") > 0)
        total = int(chosen["rows"].sum())
        rows = pl.DataFrame(schema=schema)
        if total and names:
            rows = pl.scan_parquet(
                [f"{self.uri}/{path}" for path in chosen["path"]],
                schema=schema,
                # An older revision may lack a column that was declared since, and holds ones that were not asked for.
                missing_columns="insert",
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
                storage_options=self._storage_options,
            ).collect()
            if rows.height != total:
                raise DataError(f"{self.name}: the files at {self.uri} hold {rows.height} rows, the log says {total}")
        if not provenance:
            return rows
        # Each file is one revision, and the scan keeps the order of the files: no need to read it from them.
        of_each_row = chosen[np.repeat(np.arange(chosen.height), chosen["rows"].to_numpy())]
        shown = of_each_row.select(_partition="partition", _revision="number", _known_at="known_at")
        return pl.concat([rows, shown], how="horizontal")


class Pinned:
    """Rows of one revision of each partition, given partition by partition.

    Neighbours are read together, a batch of about `rows_at_once` rows at a time, and one batch is held. Asked in the
    order of the partitions' names it reads every file once; asked in another order it gives the same, and reads more.
    """

    def __init__(self, stage: Stage, chosen: pl.DataFrame, rows_at_once: int) -> None:
        self._stage = stage
        batch = pl.col("rows").cum_sum().shift(1, fill_value=0) // rows_at_once
        self._batches = chosen.with_columns(batch=batch).partition_by("batch", include_key=False)
        self._batch_of = {name: number for number, each in enumerate(self._batches) for name in each["partition"]}
        self._held: dict[str, pl.DataFrame] = {}

    def __call__(self, partition: str) -> pl.DataFrame:
        """The rows of a partition; none for one that is not pinned."""
        if partition not in self._batch_of:
            return pl.DataFrame(schema=self._stage.schema)
        if partition not in self._held:
            # The old batch is let go before the next one is there.
            self._held = {}
            batch = self._batches[self._batch_of[partition]]
            rows = self._stage._rows(batch, None, provenance=False)
            ends = batch["rows"].cum_sum()
            self._held = {
                name: rows.slice(end - height, height)
                for name, height, end in zip(batch["partition"], batch["rows"], ends, strict=True)
            }
        return self._held[partition]


@dataclass(frozen=True)
class _Ready:
    """A draft that was checked, sorted and hashed; its revision has no number and no path yet."""

    revision: Revision
    rows: pl.DataFrame
    first_known_at: datetime | None


def _in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call a function on each item, several at a time."""
    # Neither hashing nor Parquet holds Python's lock, and for the rows of a day neither uses more than a core or so.
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def _sorted(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Sort by all of the columns. Most stages keep the order of the one before, and looking is cheaper than sorting."""
    if not columns or _increases(rows, columns):
        return rows
    # Rows that have the order of the other columns keep it where the first column is equal.
    enough = columns[:1] if _increases(rows, columns[1:]) else columns
    return rows.sort(enough, maintain_order=True)


def _increases(rows: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether rows strictly increase by the first of the columns, so that sorting by all would change nothing.

    A null counts as no increase.
    """
    increases = pl.lit(value=False)
    for column in reversed(columns[:_LEADING]):
        here, before = pl.col(column), pl.col(column).shift(1)
        increases = (here > before) | ((here == before) & increases)
    return bool(rows.select(increases.slice(1).fill_null(value=False).all()).item())


def _fields(schema: Mapping[str, pl.DataType]) -> list[Field]:
    return [Field(column, PrimitiveType(_DELTA_TYPES[dtype])) for column, dtype in schema.items()]


def _contradicts(draft: Revision, earlier: Revision) -> bool:
    """Tell whether the same inputs, code and environment once gave other content."""
    return (
        draft.inputs != ()
        and draft.inputs == earlier.inputs
        and draft.code_version == earlier.code_version
        and draft.environment == earlier.environment
        and draft.content_hash != earlier.content_hash
    )


def _newest(listing: pl.DataFrame, known_at: datetime | None) -> pl.DataFrame:
    """Keep the highest number of each partition, of those known at a time."""
    if known_at is not None:
        listing = listing.filter(pl.col("known_at") <= _utc(known_at))
    return listing.unique("partition", keep="last", maintain_order=True)


def _revision(row: Mapping[str, Any]) -> Revision:
    return Revision(**{**row, "inputs": tuple(json.loads(row["inputs"])), "known_at": row["known_at"].astimezone(UTC)})


def _transaction_id(partition: str, number: int) -> str:
    return f"{partition}|{number}"


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise DataError(f"the known time {time.isoformat()} has no zone; give an aware time, best in UTC")
    return time.astimezone(UTC)


def _quoted(partition: str) -> str:
    """Write a partition as one path segment that means the same to every file system, URL and scanner.

    Neither `%`, which readers decode a different number of times, nor `=`, which they take for a hive partition; nor a
    leading `_` or `.`, which hide a file and could reach `_delta_log`. Only the log is ever asked for a partition, so
    two of them may share a folder.
    """
    quoted = re.sub(r"^[_.]|[^A-Za-z0-9_.-]", lambda met: "".join(f"!{b:02x}" for b in met[0].encode()), partition)
    # File systems take 255 bytes; the rest is told by a hash.
    return quoted if len(quoted) <= 120 else f"{quoted[:100]}-{blake2b(partition.encode(), digest_size=8).hexdigest()}"
