"""The files of a stage table: one Parquet file for each revision, whole, and how its rows come out of it again.

Which of them count the log says (`stage`): a file that no commit names is of no table, so a writer that dies or loses
leaves nothing to clear. Each is written under a name of its own and never again.

It refuses to give other than as many rows as the log says.
"""

import io
import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from uuid import uuid4

import numpy as np
import polars as pl

from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.revision import Revision

column_types: dict[pl.DataType, str] = {
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
"""What a stage table can hold, and how Delta calls it."""

# Delta keeps partition values in the log alone; they are in our files too, because Polars looks for them in `key=value`
# paths or in the file, and a path with `=` in it is what breaks other scans.
partition_columns: dict[str, pl.DataType] = {"_partition": pl.String(), "_revision": pl.Int32()}
provenance_columns: dict[str, pl.DataType] = {
    "_content_hash": pl.String(),
    "_known_at": pl.Datetime("us", "UTC"),
    "_run_id": pl.String(),
    "_code_version": pl.String(),
    "_environment": pl.String(),
    "_inputs": pl.String(),
}
REMOVED = "_removed"
"""Column that a table gets when the first of its revisions is removed: the tombstone."""

# Columns by which rows are looked at before they are sorted: a key, or a time and a key, mostly tells them apart.
_LEADING = 2


class RevisionFiles:
    """The files of one table.

    Parameters
    ----------
    uri : where the table lies
    schema : columns of the rows
    name : the table's name in messages

    Raises
    ------
    DeclarationError
        A column has a type that Delta cannot hold, or the name of a provenance column.
    """

    def __init__(self, uri: str, schema: pl.Schema, name: str, storage_options: dict[str, str] | None) -> None:
        self.schema = schema
        self._uri = uri
        self._name = name
        self._storage_options = storage_options
        for column, dtype in schema.items():
            if column in partition_columns or column in provenance_columns:
                raise DeclarationError(f"{name} cannot have a column {column!r}: the stage writes that one itself")
            if dtype not in column_types:
                known = ", ".join(map(str, column_types))
                raise DeclarationError(f"column {column!r} of {name} is of type {dtype}, but Delta holds {known}")

    def encoded(self, revision: Revision, rows: pl.DataFrame) -> tuple[str, bytes]:
        """The file of a revision: its path in the table, which names the hash of its bytes, and these."""
        texts = _texts(revision) | {"_partition": revision.partition}
        written = io.BytesIO()
        rows.with_columns(
            # Repeated by reference: a literal is copied for every row, which cost 2 s for 300 inputs and 1 M rows. As
            # categories, for Parquet holds them as the same dictionary of one text, found without hashing every row.
            *(
                pl.Series(column, [text], pl.Categorical()).new_from_index(0, rows.height)
                for column, text in texts.items()
            ),
            pl.lit(revision.known_at).cast(provenance_columns["_known_at"]).alias("_known_at"),
            pl.lit(revision.number, dtype=pl.Int32).alias("_revision"),
        ).write_parquet(written, compression="zstd", statistics=False)
        content = written.getvalue()
        name = f"{revision.number}-{uuid4().hex}-{hash_of_bytes(content)}.parquet"
        return f"{_quoted(revision.partition)}/{name}", content

    def read(self, chosen: pl.DataFrame, columns: Sequence[str] | None, *, provenance: bool) -> pl.DataFrame:
        """Read the files of a listing, in its order.

        Raises
        ------
        DeclarationError
            The table has no such column.
        DataError
            The files hold more or fewer rows than the listing says.
        """
        names = list(self.schema) if columns is None else list(columns)
        if unknown := [column for column in names if column not in self.schema]:
            raise DeclarationError(f"{self._name} has no column {unknown}; it has {self.schema.names()}")
        schema = {column: self.schema[column] for column in names}
        chosen = chosen.filter(pl.col("rows") > 0)
        total = int(chosen["rows"].sum())
        rows = pl.DataFrame(schema=schema)
        if total and names:
            rows = pl.scan_parquet(
                [f"{self._uri}/{path}" for path in chosen["path"]],
                schema=schema,
                # An older revision may lack a column that was declared since, and holds ones that were not asked for.
                missing_columns="insert",
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
                storage_options=self._storage_options,
            ).collect()
            if rows.height != total:
                raise DataError(f"{self._name}: the files at {self._uri} hold {rows.height} rows, the log says {total}")
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

    def __init__(self, files: RevisionFiles, chosen: pl.DataFrame, rows_at_once: int) -> None:
        self._files = files
        batch = pl.col("rows").cum_sum().shift(1, fill_value=0) // rows_at_once
        self._batches = chosen.with_columns(batch=batch).partition_by("batch", include_key=False)
        self._batch_of = {name: number for number, each in enumerate(self._batches) for name in each["partition"]}
        self._held: dict[str, pl.DataFrame] = {}

    def __call__(self, partition: str) -> pl.DataFrame:
        """The rows of a partition; none for one that is not pinned."""
        if partition not in self._batch_of:
            return pl.DataFrame(schema=self._files.schema)
        if partition not in self._held:
            # The old batch is let go before the next one is there.
            self._held = {}
            batch = self._batches[self._batch_of[partition]]
            rows = self._files.read(batch, None, provenance=False)
            ends = batch["rows"].cum_sum()
            self._held = {
                name: rows.slice(end - height, height)
                for name, height, end in zip(batch["partition"], batch["rows"], ends, strict=True)
            }
        return self._held[partition]


def promised_bytes(path: str) -> str:
    """The hash of the bytes of a file, which its name tells; empty for an older one, whose name does not."""
    met = re.search(r"-[0-9a-f]{32}-([0-9a-f]{32})\.parquet$", path)
    return met[1] if met else ""


def hash_of_bytes(content: bytes) -> str:
    """As the name of a file tells it."""
    return blake2b(content, digest_size=16).hexdigest()


def statistics_of(revision: Revision) -> str:
    """What the log keeps of a revision: the statistics of its file, as Delta writes them."""
    known_at = revision.known_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    values = _texts(revision) | {"_known_at": known_at}
    return json.dumps(
        {
            "numRecords": revision.rows,
            "minValues": values,
            "maxValues": values,
            "nullCount": dict.fromkeys(values, 0),
        }
    )


def in_order(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Sort by all of the columns. Most stages keep the order of the one before, and looking is cheaper than sorting."""
    if not columns or _increases(rows, columns):
        return rows
    # Rows that have the order of the other columns keep it where the first column is equal.
    enough = columns[:1] if _increases(rows, columns[1:]) else columns
    return rows.sort(enough, maintain_order=True)


def _texts(revision: Revision) -> dict[str, str]:
    removed = {REMOVED: revision.removed} if revision.removed else {}
    return {
        **removed,
        "_content_hash": revision.content_hash,
        "_run_id": revision.run_id,
        "_code_version": revision.code_version,
        "_environment": revision.environment,
        "_inputs": json.dumps(revision.inputs),
    }


def _increases(rows: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether rows strictly increase by the first of the columns, so that sorting by all would change nothing.

    A null counts as no increase.
    """
    increases = pl.lit(value=False)
    for column in reversed(columns[:_LEADING]):
        here, before = pl.col(column), pl.col(column).shift(1)
        increases = (here > before) | ((here == before) & increases)
    return bool(rows.select(increases.slice(1).fill_null(value=False).all()).item())


def _quoted(partition: str) -> str:
    """Write a partition as one path segment that means the same to every file system, URL and scanner.

    Neither `%`, which readers decode a different number of times, nor `=`, which they take for a hive partition; nor a
    leading `_` or `.`, which hide a file and could reach `_delta_log`. Only the log is ever asked for a partition, so
    two of them may share a folder.
    """
    quoted = re.sub(r"^[_.]|[^A-Za-z0-9_.-]", lambda met: "".join(f"!{b:02x}" for b in met[0].encode()), partition)
    # File systems take 255 bytes; the rest is told by a hash.
    return quoted if len(quoted) <= 120 else f"{quoted[:100]}-{blake2b(partition.encode(), digest_size=8).hexdigest()}"
