"""The online store in a folder of this machine: LMDB, written by one publisher at a time, read by any process.

Invariants:

* A publication of a view is one write transaction, values and catalogue together: whoever is killed in the middle, or
  finds the disk full, leaves what was there before. A lookup is one read transaction, so it never meets half of one.
* A rebuild fills a generation that nobody reads yet, piece by piece; its last transaction is the switch. What a killed
  rebuild left behind is marked as such from the start, and swept away by the next publication of the view.
* Readers open the environment read-only and never make one. Between processes there is no lock that a reader waits for.

Keys of the one database: `v` + catalogue's view, `c` + view@version for what it was made from, `d` + generation for
what is to be swept away, `n` for the last generation, and `x` + generation + key for the values.
"""

import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import polars as pl

from mlplatform.errors import Unavailable
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
from mlplatform.features.online.record import Keys, Layout, now_micros
from mlplatform.features.online.store import Found, Lookup, Statistics, ViewRecord
from mlplatform.provenance.files import alone

first_map_bytes = 1 << 30
"""Address space, no memory and no disk; doubled whenever it is full."""

most_readers = 1022
"""Slots of the reader table, 64 bytes each: threads of all processes that read."""

_KEYS_AT_ONCE = 50_000
_SWEPT_AT_ONCE = 20_000
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)

# LMDB takes a write that was cut short for a fault of the disk, and that is how a full one begins.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)

_Result = TypeVar("_Result")
_Transaction = Any


class LmdbStore:
    """An environment in one folder. Nothing is opened before use, and nothing made before the first `put`."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))
        self._environment = _environment(self._folder)
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

        def values(held: _Transaction) -> tuple[OpenVersion, list[bytes | None]]:
            opened = self._open(held, view)
            prefix, get = _prefix(opened.stored.generation), held.get
            return opened, [None if key is None else get(prefix + key) for key in opened.keys.encoded(keys)]

        opened, found = self._there(values)
        return opened.layout.chosen(found, instants(at), opened.stored.ttl, opened.publication)

    def find(self, view: str, key: tuple[object, ...], at: int) -> Found:
        """Value of one key."""

        def value(held: _Transaction) -> tuple[OpenVersion, bytes | None]:
            opened = self._open(held, view)
            encoded = opened.keys.encoded_one(key)
            return opened, None if encoded is None else held.get(_prefix(opened.stored.generation) + encoded)

        opened, found = self._there(value)
        return opened.layout.found(found, at, opened.stored.ttl)

    def put(self, view: ViewRecord, rows: pl.DataFrame, *, content: str | None, now: datetime) -> int:
        """Merge rows in, in one transaction."""
        micros = now_micros(now)
        batch = Batch.of_rows(Keys(view.keys), Layout(view.features), rows)

        def merge(held: _Transaction) -> int:
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
        micros = now_micros(now)
        keys, layout = Keys(view.keys), Layout(view.features)

        def begin(held: _Transaction) -> StoredVersion:
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

            def switch(held: _Transaction) -> None:
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

        def some(held: _Transaction) -> bool:
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

    def _catalogue_in(self, held: _Transaction, name: str) -> Catalogue:
        return self._catalogues.of(name, held.get(b"v" + name.encode()))

    def _opened(self, view: str) -> OpenVersion | None:
        catalogue = self._catalogue(view)
        version = view.partition("@")[2] or catalogue.current
        return self._catalogues.open(view, catalogue) if version in catalogue.versions else None

    def _open(self, held: _Transaction, view: str) -> OpenVersion:
        return self._catalogues.open(view, self._catalogue_in(held, view.partition("@")[0]))

    def _read(self, ask: Callable[[_Transaction], _Result]) -> _Result | None:
        return self._environment.read(ask)

    def _there(self, ask: Callable[[_Transaction], _Result]) -> _Result:
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


class _Environment:
    """The one handle of this process on the files of a folder.

    LMDB's locks belong to process and file, so no process may open the same files twice. Every store of a folder shares
    this handle; it is opened to read until somebody writes, and anew when the files are others or the process is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data.mdb"
        self._data_name = str(self._data)
        self.lock = threading.RLock()
        self._held: lmdb.Environment | None = None
        self._writable = False
        self._files: tuple[int, int, int] = (0, 0, 0)

    def read(self, ask: Callable[[_Transaction], _Result]) -> _Result | None:
        """What a read transaction says; None where there is no environment.

        Raises
        ------
        Unavailable
            It cannot be read.
        """
        with self.lock:
            return self._read(ask)

    def write(self, work: Callable[[_Transaction], _Result]) -> _Result:
        """Do some work in a write transaction, with a larger map where it does not fit.

        Raises
        ------
        Unavailable
            It could not be committed; nothing of it is there.
        """
        with self.lock:
            return self._write(work)

    # Apart from the lock, so that where it is free no frame holds on to the handle: see `_pause`.
    def _read(self, ask: Callable[[_Transaction], _Result]) -> _Result | None:
        for _ in range(4):
            try:
                held = self._opened()
                if held is None:
                    return None
                with held.begin() as transaction:
                    return ask(transaction)
            except lmdb.MapResizedError:
                # Somebody has written beyond the part of the file that is mapped here.
                assert self._held is not None
                self._held.set_mapsize(0)
            except lmdb.ReadersFullError:
                assert self._held is not None
                self._held.reader_check()
            except lmdb.Error as error:
                self._close()
                raise Unavailable(self._told(error, "read")) from error
            except OSError as error:
                raise Unavailable(self._told(error, "read")) from error
        raise Unavailable(f"the online store at {self._folder} has no place for another reader, or grows all the time")

    def _write(self, work: Callable[[_Transaction], _Result]) -> _Result:
        try:
            held = self._opened_to_write()
            while True:
                try:
                    with held.begin(write=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    held.set_mapsize(held.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    held.set_mapsize(0)
        except _DAMAGED as error:
            self._discard()
            told = f"the online store at {self._folder} was damaged ({error}) and is begun anew. {mend}"
            raise Unavailable(told) from error
        except (lmdb.Error, OSError) as error:
            # After a failed commit LMDB may refuse everything through this handle.
            self._close()
            raise Unavailable(self._told(error, "written")) from error

    def _opened(self) -> lmdb.Environment | None:
        try:
            found = os.stat(self._data_name)
        except FileNotFoundError:
            self._close()
            return None
        if self._held is not None and self._files == (found.st_dev, found.st_ino, os.getpid()):
            return self._held
        self._close()
        return self._open(readonly=True)

    def _opened_to_write(self) -> lmdb.Environment:
        held = self._opened() if self._writable else None
        if held is None or not self._writable:
            self._close()
            self._folder.mkdir(parents=True, exist_ok=True)
            # Two that meet at a folder without files must not both begin one.
            with alone(self._folder / "open.lock"):
                try:
                    held = self._open(readonly=False)
                except _DAMAGED:
                    self._discard()
                    held = self._open(readonly=False)
        # Readers that were killed hold on to old pages, and the file would grow for ever.
        held.reader_check()
        return held

    def _open(self, *, readonly: bool) -> lmdb.Environment:
        new = not self._data.exists() or not self._data.stat().st_size
        held = lmdb.open(
            str(self._folder),
            map_size=first_map_bytes if new else 0,
            readonly=readonly,
            create=not readonly,
            max_readers=most_readers,
        )
        end = (held.info()["last_pgno"] + 1) * held.stat()["psize"]
        there = os.stat(self._data)
        if there.st_size < end:
            held.close()
            # To look at what is missing would end this process.
            raise lmdb.CorruptedError(f"{self._data} has {there.st_size} bytes of {end}")
        self._held, self._writable = held, not readonly
        self._files = (there.st_dev, there.st_ino, os.getpid())
        return held

    def _close(self) -> None:
        if self._held is not None:
            # A handle that came over a fork is the parent's, whose locks are not to be touched.
            if self._files[2] == os.getpid():
                self._held.close()
            self._held, self._writable = None, False

    def _discard(self) -> None:
        """Take away what is damaged: all of it can be made again from the tables."""
        self._close()
        for name in ("data.mdb", "lock.mdb"):
            (self._folder / name).unlink(missing_ok=True)

    def _told(self, error: Exception, done: str) -> str:
        text = f"the online store at {self._folder} cannot be {done} ({error})"
        # LMDB's errors have a code; the one that is raised here has none.
        if getattr(error, "code", getattr(error, "errno", None)) in _NO_ROOM:
            return f"{text}. Make room on the disk; what was published stays, and the next run publishes the rest"
        return f"{text}. Look whether the folder may be {done} from here; where it is damaged, remove it. {mend}"


_environments: "weakref.WeakValueDictionary[Path, _Environment]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _environment(folder: Path) -> _Environment:
    with _opening:
        held = _environments.get(folder)
        if held is None:
            held = _environments[folder] = _Environment(folder)
        return held


_paused: list[_Environment] = []


def _pause() -> None:
    """Let every transaction end before the process forks.

    In the child nobody would free the lock of another thread, nor the handle that its transaction holds on to; and LMDB
    opens no file twice.
    """
    _opening.acquire()
    _paused.extend(_environments.values())
    for each in _paused:
        each.lock.acquire()


def _resume() -> None:
    while _paused:
        _paused.pop().lock.release()
    _opening.release()


os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_resume)


def _merging(
    stored: StoredVersion, layout: Layout, batch: Batch, now: int, *, empty: bool
) -> Callable[[_Transaction], StoredVersion]:
    return lambda held: _merge(held, stored, layout, batch, now, empty=empty)[1]


def _merge(
    held: _Transaction, stored: StoredVersion, layout: Layout, batch: Batch, now: int, *, empty: bool
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


def _next_generation(held: _Transaction) -> int:
    number = int.from_bytes(held.get(b"n") or b"", "big") + 1
    held.put(b"n", number.to_bytes(4, "big"))
    return number


def _write_catalogue(held: _Transaction, name: str, before: Catalogue, after: Catalogue) -> None:
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
