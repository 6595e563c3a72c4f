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

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from mlplatform.errors import DataError, DeclarationError, NonDeterministicStage, StaleRevision, Unavailable
from mlplatform.features.revision import (
    Draft,
    Revision,
    Written,
    contradicts,
    listing_of,
    newest,
    one_of_each,
    revision_of,
    utc,
)
from mlplatform.features.revision_files import (
    Pinned,
    RevisionFiles,
    column_types,
    in_order,
    partition_columns,
    provenance_columns,
    statistics_of,
)
from mlplatform.provenance.content_hash import content_hash

# The nouns of a stage are its own, wherever they stand.
__all__ = ["Draft", "Revision", "Stage", "Written"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Each holds the rows of a partition twice. Four keep eight cores busy, as Polars has threads of its own.
_THREADS = 4
# Of N writers of one partition each round has a winner, so N rounds settle them all.
_ATTEMPTS = 32


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
        self.storage_options = dict(storage_options) if storage_options else None
        self._files = RevisionFiles(self.uri, self.schema, name, self.storage_options)
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
        return [revision_of(row) for row in self._listing(partitions).iter_rows(named=True)]

    def current(
        self, partitions: Iterable[str] | None = None, *, known_at: datetime | None = None
    ) -> dict[str, Revision]:
        """Give the current revision of each partition, or the one that was current as known at a time.

        A partition without one is not in the answer; one that was emptied is there, with no rows.
        """
        found = newest(self._listing(partitions), known_at)
        return {row["partition"]: revision_of(row) for row in found.iter_rows(named=True)}

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
        RemovedByPolicy
            A revision that is the answer was removed; no older one is given in its place.
        """
        pins = dict(numbers or {})
        wanted = set(partitions) if partitions is not None else set(pins) if numbers is not None else None
        chosen = one_of_each(self._listing(wanted), wanted, pins, known_at, name=self.name)
        return self._files.read(chosen, columns, provenance=provenance)

    def pinned(self, numbers: Mapping[str, int], *, rows_at_once: int) -> Pinned:
        """Read single partitions of pinned revisions, holding about `rows_at_once` rows.

        Raises
        ------
        MissingPartition
            A partition has no such revision.
        RemovedByPolicy
            It had, and it was removed.
        """
        wanted = set(numbers)
        chosen = one_of_each(self._listing(wanted), wanted, numbers, None, name=self.name)
        return Pinned(self._files, chosen, rows_at_once)

    def address(self, revision: Revision) -> str:
        """Where the file of a revision lies."""
        return f"{self.uri}/{revision.path}"

    def content(self, revision: Revision) -> bytes:
        """The bytes of the file of a revision.

        Raises
        ------
        OSError
            It is gone, or cannot be read.
        """
        if "://" not in self.uri:
            return Path(self.address(revision)).read_bytes()
        file = DeltaStorageHandler(self.uri, self.storage_options)._handler.open_input_file(revision.path)
        return bytes(file.read(file.size()))

    def file(self, revision: Revision) -> pl.DataFrame:
        """The file of a revision as it was written: its own columns and those of the stage, whatever is declared now.

        Raises
        ------
        OSError, polars.exceptions.PolarsError
            It is gone, or cannot be read.
        """
        return pl.read_parquet(
            self.address(revision), hive_partitioning=False, glob=False, storage_options=self.storage_options
        )

    def history(self, partitions: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read the rows of all revisions, by partition and number, with `_partition`, `_revision` and `_known_at`.

        One that was removed by policy has none.
        """
        return self._files.read(self._listing(partitions), columns, provenance=True)

    def ordered(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows in the columns and the order in which the table would give them back."""
        return in_order(rows.select(self.schema.names()), self.sort_by)

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
            known_at=utc(draft.known_at or written.known_at),
            run_id=written.run_id,
            code_version=written.code_version,
            environment=written.environment,
            inputs=tuple(sorted(set(draft.inputs))),
            rows=rows.height,
            path="",
        )
        return _Ready(revision, rows, utc(draft.first_known_at) if draft.first_known_at else None)

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
        for row in self._listing(ready, table).iter_rows(named=True):
            past.setdefault(row["partition"], []).append(revision_of(row))
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
            if any(contradicts(draft.revision, revision) for revision in earlier):
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
        actions = _in_threads(lambda each: self.write_file(each, ready[each.partition].rows), unwritten)
        files.update(zip(unwritten, actions, strict=True))
        transactions = [Transaction(_transaction_id(each.partition, each.number), 1) for each in fresh.values()]
        table.create_write_transaction(
            [files[revision] for revision in fresh.values()],
            "append",
            table.schema(),
            list(partition_columns),
            commit_properties=CommitProperties(app_transactions=transactions),
        )
        appended = {partition: replace(revision, path=files[revision].path) for partition, revision in fresh.items()}
        return {partition: appended.get(partition) or settled[partition] for partition in ready}

    def write_file(self, revision: Revision, rows: pl.DataFrame) -> AddAction:
        """Write the file of a revision; it is of the table once the action is committed.

        Until then nobody sees it, and if it never is, it does no harm.
        """
        path, content = self._files.encoded(revision, rows)
        if "://" in self.uri:
            # Beneath what hands it to Arrow: of one file the whole content is here.
            file: Any = DeltaStorageHandler(self.uri, self.storage_options)._handler.open_output_stream(path)
            file.write(content)
            file.close()
        else:
            place = Path(self.uri) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return AddAction(
            path=path,
            size=len(content),
            partition_values={"_partition": revision.partition, "_revision": str(revision.number)},
            # Only a vacuum by age would look at it, so the record time will do, and no clock is read.
            modification_time=int(revision.known_at.timestamp() * 1000),
            data_change=True,
            stats=statistics_of(revision),
        )

    def _table(self) -> DeltaTable | None:
        # A handle kept open slows from 15 to 81 ms a commit over 700 commits; opening one costs 14 ms.
        try:
            return DeltaTable(self.uri, storage_options=self.storage_options)
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
                Schema(declared + _fields(provenance_columns | partition_columns)),
                mode="ignore",
                partition_by=list(partition_columns),
                name=self.name,
                configuration={
                    "delta.appendOnly": "true",
                    "delta.enableExpiredLogCleanup": "false",
                    "delta.dataSkippingStatsColumns": ",".join(provenance_columns),
                },
                storage_options=self.storage_options,
            )
            table = DeltaTable(self.uri, storage_options=self.storage_options)
        held = {field.name: field.type for field in table.schema().fields}
        for field in declared:
            if field.name in held and held[field.name] != field.type:
                raise DeclarationError(
                    f"column {field.name!r} of {self.name} is declared as {field.type}, but the table at {self.uri} "
                    f"holds {held[field.name]}. Give the column a new name; what was written stays"
                )
        if added := [field for field in declared if field.name not in held]:
            table.alter.add_columns(added)
            table = DeltaTable(self.uri, storage_options=self.storage_options)
        return table

    def _listing(self, partitions: Iterable[str] | None, table: DeltaTable | None = None) -> pl.DataFrame:
        table = self._table() if table is None else table
        actions = pl.DataFrame() if table is None else pl.DataFrame(table.get_add_actions(flatten=True))
        return listing_of(actions, partitions, name=self.name, uri=self.uri)


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


def _fields(schema: Mapping[str, pl.DataType]) -> list[Field]:
    return [Field(column, PrimitiveType(column_types[dtype])) for column, dtype in schema.items()]


def _transaction_id(partition: str, number: int) -> str:
    return f"{partition}|{number}"
