"""The online store in a folder of this machine: LMDB, written by one publisher at a time, read by any process.

Invariants:

* A publication of a view is one write transaction, values and catalogue together: whoever is killed in the middle, or
  finds the disk full, leaves what was there before. A lookup is one read transaction, so it never meets half of one.
* A rebuild fills a generation that nobody reads yet, piece by piece; its last transaction is the switch. What a killed
  rebuild left behind is marked as such from the start, and swept away by the next publication of the view.
* Readers never make an environment. Between processes there is no lock that a reader waits for.

Keys of the one database: `v` + catalogue's view, `c` + view@version for what it was made from, `d` + generation for
what is to be swept away, `n` for the last generation, and `x` + generation + key for the values.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.errors import Unavailable
from mlplatform.features.epoch import epoch_micros
from mlplatform.features.online.catalogue import (
    Batch,
    Catalogue,
    Catalogues,
    OpenVersion,
    StoredVersion,
    encode_catalogue,
    instants,
    mend,
    new_version,
    same_schema,
)
from mlplatform.features.online.keys import Keys
from mlplatform.features.online.lmdb_environment import Result, Transaction, environment_of
from mlplatform.features.online.record import Layout
from mlplatform.features.online.store import Found, Lookup, Statistics, ViewRecord
from mlplatform.provenance.files import alone

_KEYS_AT_ONCE = 50_000
_SWEPT_AT_ONCE = 20_000


class LmdbStore:
    """An environment in one folder. Nothing is opened before use, and nothing made before the first `put`."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))
        self._environment = environment_of(self._folder)
        self._catalogues = Catalogues()

    def version(self, view: str) -> str | None:
        """Version of the view that is served."""
        return self._catalogue(view).current or None

    def revision(self, view: str) -> str | None:
        """Version, generation and number of publications."""
        opened = self._opened(view)
        return opened.publication if opened else None

    def content(self, view: str) -> str | None:
        """What the version was made from; None also where the last complete publication is still to come."""
        opened = self._opened(view)
        if opened is None:
            return None
        told = self._read(lambda held: held.get(_content_key(view, opened.name)))
        return bytes(told).decode() if told else None

    def statistics(self, view: str) -> Statistics | None:
        """What is held of the view."""
        opened = self._opened(view)
        return opened.stored.statistics() if opened else None

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key, out of one transaction."""

        def values(held: Transaction) -> tuple[OpenVersion, list[bytes | None]]:
            opened = self._open(held, view)
            prefix, get = _prefix(opened.stored.generation), held.get
            return opened, [None if key is None else get(prefix + key) for key in opened.keys.encoded(keys)]

        opened, found = self._there(values)
        return opened.layout.chosen(found, instants(at), opened.stored.ttl, opened.publication)

    def find(self, view: str, key: tuple[object, ...], at: int) -> Found:
        """Value of one key."""

        def value(held: Transaction) -> tuple[OpenVersion, bytes | None]:
            opened = self._open(held, view)
            encoded = opened.keys.encoded_one(key)
            return opened, None if encoded is None else held.get(_prefix(opened.stored.generation) + encoded)

        opened, found = self._there(value)
        return opened.layout.found(found, at, opened.stored.ttl)

    def put(self, view: ViewRecord, rows: pl.DataFrame, *, content: str | None, now: datetime) -> int:
        """Merge rows in, in one transaction."""
        micros = epoch_micros(now)
        batch = Batch.of_rows(Keys(view.keys), Layout(view.features), rows)

        def merge(held: Transaction) -> int:
            catalogue = self._catalogue_in(held, view.name)
            stored = catalogue.versions.get(view.version)
            if stored is None or not same_schema(stored, view):
                stored = new_version(view, _next_generation(held))
                if content is None:
                    # It holds no more than these rows: the next publication is to fill it.
                    held.delete(_content_key(view.name, view.version))
            changed, after = _merge(held, stored, Layout(view.features), batch, micros, empty=not stored.entities)
            if not changed and stored is catalogue.versions.get(view.version):
                after = stored
            _write_catalogue(held, view.name, catalogue, catalogue.with_version(view.version, after))
            if content is not None:
                held.put(_content_key(view.name, view.version), content.encode())
            return changed

        with self._publishing(view.name):
            return self._environment.write(merge)

    def replace(self, view: ViewRecord, chunks: Iterable[pl.DataFrame], *, content: str, now: datetime) -> None:
        """Fill a new generation, then switch."""
        micros = epoch_micros(now)
        keys, layout = Keys(view.keys), Layout(view.features)

        def begin(held: Transaction) -> StoredVersion:
            stored = new_version(view, _next_generation(held))
            held.put(_sweep_key(view.name, stored.generation), b"")
            return stored

        with self._publishing(view.name):
            stored = self._environment.write(begin)
            for rows in chunks:
                # No key stands in two parts of a chunk, so in the first one there is nothing to look for.
                empty = not stored.entities
                for batch in Batch.of_rows(keys, layout, rows).parts(_KEYS_AT_ONCE):
                    stored = self._environment.write(_merging(stored, layout, batch, micros, empty=empty))

            def switch(held: Transaction) -> None:
                catalogue = self._catalogue_in(held, view.name)
                held.delete(_sweep_key(view.name, stored.generation))
                _write_catalogue(held, view.name, catalogue, catalogue.switched(view.version, stored))
                held.put(_content_key(view.name, view.version), content.encode())

            self._environment.write(switch)
            self._sweep(view.name)

    def _publishing(self, name: str) -> AbstractContextManager[None]:
        """One publisher of a view at a time; what an earlier one has left is swept away first."""
        return _Publishing(self, name, self._folder / f"{name.replace('/', '~')}.lock")

    def _sweep(self, name: str) -> None:
        """Remove generations that nobody reads any more, or never did, a little at a time."""

        def some(held: Transaction) -> bool:
            marks = _sweep_key(name, None)
            cursor = held.cursor()
            if not cursor.set_range(marks) or not cursor.key().startswith(marks):
                return False
            mark = cursor.key()
            prefix = b"x" + mark[len(marks) :]
            for _ in range(_SWEPT_AT_ONCE):
                if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                    held.delete(mark)
                    break
                cursor.delete()
            return True

        while self._environment.write(some):
            pass

    def _catalogue(self, view: str) -> Catalogue:
        name = view.partition("@")[0]
        return self._read(lambda held: self._catalogue_in(held, name)) or Catalogue()

    def _catalogue_in(self, held: Transaction, name: str) -> Catalogue:
        return self._catalogues.of(name, held.get(b"v" + name.encode()))

    def _opened(self, view: str) -> OpenVersion | None:
        catalogue = self._catalogue(view)
        version = view.partition("@")[2] or catalogue.current
        return self._catalogues.open(view, catalogue) if version in catalogue.versions else None

    def _open(self, held: Transaction, view: str) -> OpenVersion:
        return self._catalogues.open(view, self._catalogue_in(held, view.partition("@")[0]))

    def _read(self, ask: Callable[[Transaction], Result]) -> Result | None:
        return self._environment.read(ask)

    def _there(self, ask: Callable[[Transaction], Result]) -> Result:
        found = self._environment.read(ask)
        if found is None:
            raise Unavailable(f"there is no online store at {self._folder}. {mend}")
        return found


class _Publishing:
    """The lock of a view's publishers, and the sweep that comes with it."""

    def __init__(self, store: LmdbStore, name: str, lock: Path) -> None:
        self._store = store
        self._name = name
        self._lock = alone(lock)

    def __enter__(self) -> None:
        self._lock.__enter__()
        try:
            self._store._sweep(self._name)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *raised: Any) -> None:
        self._lock.__exit__(*raised)


def _merging(
    stored: StoredVersion, layout: Layout, batch: Batch, now: int, *, empty: bool
) -> Callable[[Transaction], StoredVersion]:
    return lambda held: _merge(held, stored, layout, batch, now, empty=empty)[1]


def _merge(
    held: Transaction, stored: StoredVersion, layout: Layout, batch: Batch, now: int, *, empty: bool
) -> tuple[int, StoredVersion]:
    """Merge a batch into a generation; how many keys it changed, and the version after it.

    Parameters
    ----------
    empty : none of the keys is there, and none is looked for
    """
    changed, entities, size = 0, 0, 0
    prefix, get = _prefix(stored.generation), held.get
    cursor = held.cursor()
    for part in batch.parts(_KEYS_AT_ONCE):
        keys = [prefix + key for key in part.keys]
        before = [None] * len(keys) if empty else [get(key) for key in keys]
        after = layout.merged(before, part.records, part.of, part.texts, now)
        new = list(zip(keys, after, strict=True))
        replaced = [value for value in before if value is not None]
        fresh = keys
        if replaced:
            new = [each for each, value in zip(new, before, strict=True) if each[1] != value]
            fresh = [key for key, value in zip(keys, before, strict=True) if value is None]
        cursor.putmulti(new)
        changed += len(new)
        entities += len(fresh)
        size += sum(map(len, fresh)) + sum(map(len, after)) - sum(map(len, replaced))
    return changed, stored.grown(batch, entities, size)


def _next_generation(held: Transaction) -> int:
    number = int.from_bytes(held.get(b"n") or b"", "big") + 1
    held.put(b"n", number.to_bytes(4, "big"))
    return number


def _write_catalogue(held: Transaction, name: str, before: Catalogue, after: Catalogue) -> None:
    """Write a catalogue, and mark what nobody reads any more."""
    if after != before:
        held.put(b"v" + name.encode(), encode_catalogue(after))
    for generation in before.generations - after.generations:
        held.put(_sweep_key(name, generation), b"")
    for version in before.versions.keys() - after.versions.keys():
        held.delete(_content_key(name, version))


def _content_key(view: str, version: str) -> bytes:
    return b"c" + f"{view.partition('@')[0]}@{version}".encode()


def _sweep_key(name: str, generation: int | None) -> bytes:
    return b"d" + name.encode() + b"\0" + (b"" if generation is None else generation.to_bytes(4, "big"))


def _prefix(generation: int) -> bytes:
    return b"x" + generation.to_bytes(4, "big")
