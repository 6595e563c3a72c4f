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

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.errors import Unavailable

NOWHERE = -1
"""Place of what a snapshot does not hold: its last row, which is all null."""

_NEVER = 2**63 - 1
_MICROSECOND = timedelta(microseconds=1)


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
    keys: tuple[str, ...]
    values: pl.DataFrame
    """(n_rows + 1, n_features); the last row is all null, and stands for what is not there."""

    position: Mapping[tuple[object, ...], int]
    """Row of the newest value, by key."""

    earlier: npt.NDArray[np.int64]
    """(n_rows + 1,) row of the key's value before this one; `NOWHERE` where the snapshot holds none."""

    event_time: npt.NDArray[np.int64]
    available_at: npt.NDArray[np.int64]
    """(n_rows + 1,) microseconds since 1970, UTC; of what is not there later than every request."""


class SnapshotStore:
    """Snapshots under one folder, `<owner>/<view>.json` and its Arrow file; a new one is picked up at the next read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, _Snapshot] = {}
        self._pointers: dict[str, Path] = {}

    def version(self, view: str) -> str | None:
        """Version of the view that the snapshot was computed with; None where there is no snapshot."""
        return snapshot.version if (snapshot := self._there(view)) else None

    def revision(self, view: str) -> str | None:
        """Name of the Arrow file that is read; None where there is no snapshot."""
        return snapshot.file if (snapshot := self._there(view)) else None

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key.

        Parameters
        ----------
        view : `owner/view`
        keys : (n, …) the view's key columns, and others that are not read
        at : (n,) Datetime us, UTC

        Raises
        ------
        Unavailable
            There is no snapshot of the view, or it cannot be read.
        """
        snapshot = self._snapshot(view)
        columns = [keys.get_column(name).to_list() for name in snapshot.keys]
        position = snapshot.position
        places = np.array([position.get(key, NOWHERE) for key in zip(*columns, strict=True)], dtype=np.int64)
        instants = at.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy()
        # The newest value may not be available yet; then the one before it is served. NOWHERE is the last place.
        held_back = snapshot.available_at[places] > instants
        places = np.where(held_back, snapshot.earlier[places], places)
        there = (snapshot.available_at[places] <= instants) & (snapshot.event_time[places] <= instants)
        fresh = snapshot.event_time[places] >= instants - snapshot.ttl // _MICROSECOND
        present = there & fresh
        values = snapshot.values[np.where(present, places, len(snapshot.event_time) - 1)]
        words = np.where(present, "present", np.where(there, "expired", "not_found"))
        return Lookup(values, pl.Series("status", words.tolist(), dtype=pl.String))

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
        pointer = self._pointers.get(view)
        if pointer is None:
            # Kept, because putting a path together takes longer than asking for the state of the file.
            pointer = self._pointers[view] = self._folder / f"{view}.json"
        return pointer

    def _there(self, view: str) -> _Snapshot | None:
        try:
            return self._snapshot(view)
        except Unavailable:
            if self._pointer(view).exists():
                raise
            return None

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
    earlier: list[int] = []
    for index, key in enumerate(rows.select(keys).iter_rows()):
        earlier.append(position.get(key, NOWHERE))
        position[key] = index
    values = rows.drop(*keys, "event_time", "available_at")
    return _Snapshot(
        stamp=stamp,
        file=described["file"],
        version=described["version"],
        ttl=timedelta(seconds=described["ttl_seconds"]),
        keys=keys,
        values=pl.concat([values, values.clear(1)]),
        position=position,
        earlier=np.array([*earlier, NOWHERE], dtype=np.int64),
        event_time=_instants(rows.get_column("event_time")),
        available_at=_instants(rows.get_column("available_at")),
    )


def _instants(column: pl.Series) -> npt.NDArray[np.int64]:
    micros = column.cast(pl.Datetime("us", "UTC")).to_physical().fill_null(_NEVER).to_numpy()
    return np.append(micros, _NEVER)


def _named_by(pointer: Path) -> str | None:
    """The Arrow file that a pointer names; None where there is none, or it cannot be read: then it is written anew."""
    try:
        return str(json.loads(pointer.read_text())["file"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
