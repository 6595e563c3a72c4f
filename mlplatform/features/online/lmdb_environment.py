"""The LMDB environment of a folder: one handle in a process, whatever the process, its disk and other writers do.

LMDB trusts its caller: a file opened twice loses its locks, a map that has grown elsewhere fails the next transaction,
a file cut short ends the process, and a fork leaves locks that nobody frees. All of that is met here, so that who reads
or writes has a transaction, or `Unavailable` and what to do about it.

Invariants:

* No process opens the same files twice; a handle that came over a fork is not used, and not closed.
* A reader opens the files read-only and makes none. Who writes begins damaged ones anew, and says so: all that is in
  them can be made again from the tables.

It knows nothing of what is written.
"""

import errno
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from mlplatform.errors import Unavailable
from mlplatform.features.online.catalogue import mend
from mlplatform.provenance.files import alone

first_map_bytes = 1 << 30
"""Address space, no memory and no disk; doubled whenever it is full."""

most_readers = 1022
"""Slots of the reader table, 64 bytes each: threads of all processes that read."""

_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)

# LMDB takes a write that was cut short for a fault of the disk, and that is how a full one begins.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)

Result = TypeVar("Result")
Transaction = Any
"""Of LMDB, whose client has no types."""


class Environment:
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

    def read(self, ask: Callable[[Transaction], Result]) -> Result | None:
        """What a read transaction says; None where there is no environment.

        Raises
        ------
        Unavailable
            It cannot be read.
        """
        with self.lock:
            return self._read(ask)

    def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Do some work in a write transaction, with a larger map where it does not fit.

        Raises
        ------
        Unavailable
            It could not be committed; nothing of it is there.
        """
        with self.lock:
            return self._write(work)

    # Apart from the lock, so that where it is free no frame holds on to the handle: see `_pause`.
    def _read(self, ask: Callable[[Transaction], Result]) -> Result | None:
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

    def _write(self, work: Callable[[Transaction], Result]) -> Result:
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


_environments: "weakref.WeakValueDictionary[Path, Environment]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def environment_of(folder: Path) -> Environment:
    """The one of a folder in this process."""
    with _opening:
        held = _environments.get(folder)
        if held is None:
            held = _environments[folder] = Environment(folder)
        return held


_paused: list[Environment] = []


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
