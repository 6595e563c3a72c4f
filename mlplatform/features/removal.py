"""Removal and compaction: the only place, beside the pick-up, where a file of a table is taken away.

What may go, and why, is not decided here (`reproducibility.retention`), nor is it asked whether a tombstone was
written: the caller writes it first.

Invariants:

* `delta.appendOnly` is lifted for the commit that removes, and restored after it. Killed in between, the table is put
  right by the next `sweep`; an error restores it at once.
* A revision is never missing from the listing of its table. The commit that takes its file puts an empty one in its
  place, with all that was known of it and the text of its tombstone. So numbers go on, "as known at" finds the revision
  that was believed, and who reads it is told that it was removed, never given another one.
* Only whole files go, by partition columns. A vacuum takes what the log has removed: a file that another writer is
  about to commit is in no log yet, and stays, unless `unknown` ones are asked for, by an age that no writer reaches.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
from deltalake import DeltaTable, Field, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

from mlplatform.errors import DataError, Unavailable
from mlplatform.features.revision_files import REMOVED, partition_columns
from mlplatform.features.stage import Revision, Stage
from mlplatform.provenance.platform import wall_clock

log = logging.getLogger(__name__)

Options = dict[str, str] | None

rows_in_group = 16_384
"""Rows of a row group of a compacted file. Sorted, one id lies in one of them, and only that one is read: 0.1 MB of a
day. Smaller ones make the file larger, as each has its own dictionaries."""

bytes_in_file = 256 << 20
"""A partition above that stays in several files."""

_append_only = "delta.appendOnly"
_statistics = "delta.dataSkippingStatsColumns"
_attempts = 32


def remove_revisions(stage: Stage, gone: Mapping[tuple[str, int], str]) -> int:
    """Take the rows of some revisions away; what is known of them stays, and says that they were removed.

    Parameters
    ----------
    gone : partition and number -> text of the tombstone

    Returns
    -------
    removed : how many; one that was removed before is none

    Raises
    ------
    DataError
        One of them is the current revision of its partition.
    Unavailable
        The table cannot be written, or other writers were faster every time.
    """
    partitions = {partition for partition, _ in gone}
    listed = stage.revisions(partitions)
    last = {each.partition: each.number for each in listed}
    if current := sorted(f"{day}@{number}" for day, number in gone if last.get(day, number) <= number):
        raise DataError(f"{stage.name}: {current[0]} is current, and what is current is never removed")
    chosen = [each for each in listed if (each.partition, each.number) in gone and not each.removed]
    if not chosen:
        return 0
    empty = pl.DataFrame(schema=stage.schema)
    marks = {
        each: stage.write_file(replace(each, rows=0, removed=gone[each.partition, each.number]), empty)
        for each in chosen
    }
    with _lifted(stage.uri, stage.storage_options):
        _replace(stage, marks)
    vacuum(stage.uri, stage.storage_options)
    return len(chosen)


def remove_partitions(uri: str, column: str, values: Collection[str], options: Options) -> None:
    """Take all rows of some partitions of a table away, by their value of a partition column of days.

    The files stay for who reads them this moment, until the next `sweep`.

    Raises
    ------
    Unavailable
        The table cannot be written, or other writers were faster every time.
    """
    if not values:
        return
    among = ", ".join(f"DATE '{value}'" for value in sorted(values))
    with _lifted(uri, options):
        _until_committed(uri, lambda: _opened(uri, options).delete(f"{column} IN ({among})"))


def is_open(uri: str, options: Options) -> bool:
    """Whether a table is left open to removal: something was killed, or is removing this moment."""
    return DeltaTable.is_deltatable(uri, options) and _is_lifted(_opened(uri, options))


def sweep(uri: str, options: Options, *, older_than_hours: int = 0) -> None:
    """Put a table right that a removal which was killed has left: closed again, and without the files it removed.

    Parameters
    ----------
    older_than_hours : files that were removed since stay, for who reads them this moment
    """
    if not DeltaTable.is_deltatable(uri, options):
        return
    if _is_lifted(_opened(uri, options)):
        log.warning("%s was left open by a removal that was killed; it is append-only again", uri)
        _restore(uri, options)
    vacuum(uri, options, older_than_hours=older_than_hours)


def vacuum(uri: str, options: Options, *, older_than_hours: int = 0, unknown: bool = False) -> None:
    """Delete the files that the log of a table has removed.

    Parameters
    ----------
    unknown : also those that no log names: of writers who were killed, and those that the log has forgotten, which it
        does a week after their removal. Give writers their time, for what they are about to commit is such a file.
    """
    if not DeltaTable.is_deltatable(uri, options):
        return

    def take() -> None:
        table = _opened(uri, options)
        # The dry run first: a vacuum with nothing to do would still write to the log.
        if _to_vacuum(table, older_than_hours, unknown=unknown, dry_run=True):
            _to_vacuum(table, older_than_hours, unknown=unknown, dry_run=False)

    _until_committed(uri, take)


def vacuum_is_due(uri: str, options: Options, *, older_than_hours: int) -> bool:
    """Whether there are files that the log of a table has removed, and remembers.

    On an object store also for a week after they were deleted: the log does not say so, and nobody is asked.
    """
    if not DeltaTable.is_deltatable(uri, options):
        return False
    removed = _to_vacuum(_opened(uri, options), older_than_hours, unknown=False, dry_run=True)
    return any("://" in uri or Path(uri, each).exists() for each in removed)


def crowded(uri: str, column: str, options: Options) -> list[str]:
    """Partitions with more files than their size asks for, by their value of a partition column."""
    if not DeltaTable.is_deltatable(uri, options):
        return []
    files = pl.DataFrame(_opened(uri, options).get_add_actions(flatten=True))
    if files.is_empty():
        return []
    by_value = files.group_by(pl.col(f"partition.{column}").cast(pl.String)).agg(pl.len(), pl.col("size_bytes").sum())
    too_many = by_value.filter(pl.col("len") > 1 + 2 * (pl.col("size_bytes") // bytes_in_file))
    return sorted(too_many.get_column(f"partition.{column}").to_list())


def compact(uri: str, column: str, value: str, *, by: str, options: Options) -> None:
    """Make one file of the many of a partition, sorted by the first 16 bytes of a column. Its rows stay what they are.

    The table stays append-only: a compaction takes no row away. The files before stay for who reads them this moment,
    until the next `sweep`.
    """
    properties = WriterProperties(
        compression="ZSTD", max_row_group_size=rows_in_group, write_batch_size=rows_in_group // 4
    )
    _until_committed(
        uri,
        lambda: _opened(uri, options).optimize.z_order(
            [by], partition_filters=[(column, "=", value)], target_size=bytes_in_file, writer_properties=properties
        ),
    )


@contextmanager
def _lifted(uri: str, options: Options) -> Iterator[None]:
    """A table that lets something be removed."""
    _set(uri, options, {_append_only: "false"})
    try:
        yield
    finally:
        _restore(uri, options)


def _restore(uri: str, options: Options) -> None:
    _set(uri, options, {_append_only: "true"})


def _is_lifted(table: DeltaTable) -> bool:
    return table.metadata().configuration.get(_append_only) != "true"


def _set(uri: str, options: Options, properties: dict[str, str]) -> None:
    _until_committed(uri, lambda: _opened(uri, options).alter.set_table_properties(properties))


def _replace(stage: Stage, marks: Mapping[Revision, AddAction]) -> None:
    """One commit: the files of some revisions go, and their marks come."""
    partitions = {each.partition for each in marks}

    def commit() -> None:
        # A commit can land and still be reported as lost, by an object store that answered too late.
        if {action.path for action in marks.values()} <= {each.path for each in stage.revisions(partitions)}:
            return
        table = _with_mark(stage)
        # By the clock of the vacuum and of the checkpoints, the wall's: an old one is forgotten before it is met.
        now = int(wall_clock().timestamp() * 1000)
        goes = [
            RemoveAction(
                path=each.path,
                data_change=True,
                deletion_timestamp=now,
                partition_values={"_partition": each.partition, "_revision": str(each.number)},
            )
            for each in marks
        ]
        table.create_write_transaction([*goes, *marks.values()], "append", table.schema(), list(partition_columns))

    _until_committed(stage.uri, commit)


def _with_mark(stage: Stage) -> DeltaTable:
    """The table, with the column that tells what was removed, and statistics of it: the listing reads no other."""
    table = _opened(stage.uri, stage.storage_options)
    if REMOVED not in {field.name for field in table.schema().fields}:
        table.alter.add_columns([Field(REMOVED, PrimitiveType("string"))])
        table = _opened(stage.uri, stage.storage_options)
    kept = table.metadata().configuration[_statistics].split(",")
    if REMOVED not in kept:
        table.alter.set_table_properties({_statistics: ",".join([*kept, REMOVED])})
        table = _opened(stage.uri, stage.storage_options)
    return table


def _to_vacuum(table: DeltaTable, older_than_hours: int, *, unknown: bool, dry_run: bool) -> list[str]:
    return table.vacuum(
        retention_hours=older_than_hours, enforce_retention_duration=False, dry_run=dry_run, full=unknown
    )


def _opened(uri: str, options: Options) -> DeltaTable:
    return DeltaTable(uri, storage_options=options)


def _until_committed(uri: str, act: Callable[[], object]) -> None:
    """Act on the newest state of a table, again where another writer was faster."""
    for attempt in range(_attempts):
        try:
            act()
            return
        except (DeltaError, OSError) as error:
            if isinstance(error, CommitFailedError) and attempt + 1 < _attempts:
                continue
            told = " ".join(str(error).split())
            raise Unavailable(
                f"{uri} cannot be written to ({told[:400]}). Look whether it may be written from here; nothing is "
                "lost, and the next run goes on"
            ) from error
