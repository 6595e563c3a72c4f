"""Online reads: the newest published feature values of an entity, for a request that is waiting.

`OnlineStore` is the small interface; `SnapshotStore` is its first implementation: per view an immutable Arrow file
and a
small pointer (JSON) that names it. The pointer is swapped by a rename, so a reader sees the old snapshot or the new one
and never half of one.

What it refuses: to answer with a value that is not available yet at the request's time, or older than the view's time
to live. It computes no feature.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from mlplatform.errors import Unavailable


@dataclass(frozen=True)
class Lookup:
    """What a store knows of some keys."""

    values: pl.DataFrame
    """(n_keys, n_features), rows in the order of the keys; null where the status is not `present`."""

    statuses: pl.Series
    """(n_keys,) String: `present`, `not_found` or `expired`."""


class OnlineStore(Protocol):
    """Newest values by view and key."""

    def version(self, view: str) -> str | None:
        """Version of the view (`owner/view`) that the store holds; None: it holds none."""
        ...

    def revision(self, view: str) -> str | None:
        """Names what the store holds of the view now; another one after each publication. None: it holds nothing."""
        ...

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key as they can be served at its instant."""
        ...


@dataclass(frozen=True)
class _Snapshot:
    stamp: tuple[int, int]
    file: str
    version: str
    ttl: timedelta
    features: tuple[str, ...]
    keys: tuple[str, ...]
    rows: pl.DataFrame
    position: Mapping[tuple[object, ...], int]
    """Row of the newest value, by key."""

    earlier: pl.Series
    """(n_rows,) UInt32: row of the key's value before this one; null where the snapshot holds none."""


class SnapshotStore:
    """Snapshots under one folder, `<owner>/<view>.json` and its Arrow file; a new one is picked up at the next read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, _Snapshot] = {}

    def version(self, view: str) -> str | None:
        """Version of the view that the snapshot was computed with; None where there is no snapshot."""
        if not self._pointer(view).exists():
            return None
        return self._snapshot(view).version

    def revision(self, view: str) -> str | None:
        """Name of the Arrow file that is read; None where there is no snapshot."""
        if not self._pointer(view).exists():
            return None
        return self._snapshot(view).file

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key.

        Parameters
        ----------
        view : `owner/view`
        keys : (n, n_keys) the view's key columns
        at : (n,) Datetime us, UTC

        Raises
        ------
        Unavailable
            There is no snapshot of the view, or it cannot be read.
        """
        snapshot = self._snapshot(view)
        indices = pl.Series(
            [snapshot.position.get(key) for key in keys.select(snapshot.keys).iter_rows()], dtype=pl.UInt32
        )
        found = _gathered(snapshot.rows, indices, at)
        held_back = found["available_at"] > at
        if held_back.any():
            indices = snapshot.earlier.gather(indices).zip_with(held_back.fill_null(value=False), indices)
            found = _gathered(snapshot.rows, indices, at)
        # Null where the key is not found.
        there = (pl.col("available_at") <= pl.col("_at")) & (pl.col("event_time") <= pl.col("_at"))
        fresh = pl.col("event_time") >= pl.col("_at") - snapshot.ttl
        status = (
            pl.when(there & fresh)
            .then(pl.lit("present"))
            .when(there)
            .then(pl.lit("expired"))
            .otherwise(pl.lit("not_found"))
        )
        told = found.with_columns(_status=status)
        values = told.select(
            pl.when(pl.col("_status") == "present").then(pl.col(name)).alias(name) for name in snapshot.features
        )
        return Lookup(values, told["_status"])

    def content(self, view: str) -> str | None:
        """What `publish` was told that the snapshot was made from; None where there is no snapshot."""
        try:
            return str(json.loads(self._pointer(view).read_text())["content"])
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def publish(
        self, view: str, rows: pl.DataFrame, *, version: str, content: str, ttl: timedelta, keys: Sequence[str]
    ) -> Path:
        """Write a snapshot and swap it in.

        Parameters
        ----------
        rows : key columns, features, `event_time`, `available_at`; of each entity the newest value, and where that one
            may not be available yet, before it the one that is served until then
        version : of the view that computed them
        content : names what the rows were made from

        Returns
        -------
        path : of the Arrow file
        """
        pointer = self._pointer(view)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        replaced = _named_by(pointer)
        arrow = pointer.with_name(f"{pointer.stem}-{uuid.uuid4().hex[:12]}.arrow")
        rows.write_ipc(arrow, compression="uncompressed")
        described = {
            "file": arrow.name,
            "version": version,
            "content": content,
            "ttl_seconds": ttl.total_seconds(),
            "keys": list(keys),
        }
        draft = arrow.with_suffix(".json.draft")
        draft.write_text(json.dumps(described))
        os.replace(draft, pointer)
        for stale in pointer.parent.glob(f"{pointer.stem}-{'?' * 12}.arrow"):
            # The snapshot just replaced stays: a reader may have read its name a moment ago.
            if stale.name not in (arrow.name, replaced):
                stale.unlink(missing_ok=True)
        return arrow

    def _pointer(self, view: str) -> Path:
        return self._folder / f"{view}.json"

    def _snapshot(self, view: str) -> _Snapshot:
        pointer = self._pointer(view)
        try:
            status = pointer.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            held = self._held.get(view)
            if held is not None and held.stamp == stamp:
                return held
            described = json.loads(pointer.read_text())
            rows = pl.read_ipc(pointer.with_name(described["file"]))
            snapshot = _snapshot_of(stamp, described, rows)
        except (OSError, pl.exceptions.PolarsError, KeyError, TypeError, ValueError) as error:
            raise Unavailable(
                f"no readable snapshot of {view} at {pointer} ({error}). Materialise feature_store"
            ) from error
        self._held[view] = snapshot
        return snapshot


def _snapshot_of(stamp: tuple[int, int], described: Mapping[str, Any], rows: pl.DataFrame) -> _Snapshot:
    keys = tuple(described["keys"])
    # The newest value of a key stands last. A row without a key is of nobody, here as in the point-in-time join.
    rows = rows.drop_nulls(keys)
    position: dict[tuple[object, ...], int] = {}
    earlier: list[int | None] = []
    for index, key in enumerate(rows.select(keys).iter_rows()):
        earlier.append(position.get(key))
        position[key] = index
    return _Snapshot(
        stamp=stamp,
        file=described["file"],
        version=described["version"],
        ttl=timedelta(seconds=described["ttl_seconds"]),
        features=tuple(name for name in rows.columns if name not in (*keys, "event_time", "available_at")),
        keys=keys,
        rows=rows,
        position=position,
        earlier=pl.Series(earlier, dtype=pl.UInt32),
    )


def _gathered(rows: pl.DataFrame, indices: pl.Series, at: pl.Series) -> pl.DataFrame:
    return rows.select(pl.all().gather(indices)).with_columns(_at=at)


def _named_by(pointer: Path) -> str | None:
    """The Arrow file that a pointer names; None where there is none, or it cannot be read: then it is written anew."""
    try:
        return str(json.loads(pointer.read_text())["file"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
