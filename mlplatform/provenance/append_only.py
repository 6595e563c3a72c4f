"""Append-only files: what was appended is on the disk when `append` returns, and is never changed again.

For what somebody is told to be safe: a posted fact, a streamed value. The prediction log is another thing: an answer
must not wait for a disk.

Invariants:

* A file is one writer's, which holds a lock on it. One without a lock is of a writer that is gone, and grows no more.
* A frame is whole or not there: its length and checksum stand before it, and a reader stops at the first that is not
  whole. After a write that failed the file is cut to what was whole, or given up for another.
* `append` returns after the frame was forced to the disk; those that come meanwhile share the next force.

File: magic, then frames (u32 length, u32 crc32, payload), little-endian. Its name begins with the day it was made and
then the instant, so that files sort by age.
"""

import fcntl
import itertools
import os
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from zlib import crc32

from mlplatform.errors import Unavailable

file_size = 64 << 20
"""Bytes after which the next file is begun: a day of a busy source is some of them, and each is read as a whole."""

largest_payload = 48 << 20
"""Bytes; whoever sends more is told to send less at once."""

_magic = b"mlpappend1\n"
_frame = struct.Struct("<II")


class AppendOnlyFiles:
    """The writer of one process into a folder, for any of its threads.

    Parameters
    ----------
    folder : made when it is not there
    now : aware UTC; names the files
    """

    def __init__(self, folder: Path, now: Callable[[], datetime], *, size: int = file_size) -> None:
        self._folder, self._now, self._size = folder, now, size
        self._writing, self._forcing = threading.Lock(), threading.Lock()
        self._numbers = itertools.count()
        self._open: _Open | None = None

    def append(self, payload: bytes) -> None:
        """Append one payload; it is on the disk when this returns.

        Raises
        ------
        Unavailable
            It cannot be written. It may be there or not: append it again, and let the reader tell twins apart.
        """
        if len(payload) > largest_payload:
            raise Unavailable(f"{len(payload)} bytes are too many for one entry of {self._folder}. Send less at once")
        try:
            with self._writing:
                file = self._current()
                end = file.write(payload)
            with self._forcing:
                file.force(end)
        except OSError as error:
            with self._writing:
                self._give_up()
            raise Unavailable(
                f"{self._folder} cannot be written ({error}). Make room or make it writable, and send it again"
            ) from error

    def close(self) -> None:
        """Let go of the file; the next `append` begins another."""
        with self._writing:
            self._give_up()

    def _current(self) -> "_Open":
        today = self._now().date()
        if self._open is not None and (self._open.day != today or self._open.end >= self._size):
            with self._forcing:
                self._open.force(self._open.end)
            self._give_up()
        if self._open is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Two writers may meet in an instant, and two containers on one volume have the same process ids.
            instant, number = f"{self._now():%H%M%S%f}", next(self._numbers)
            name = f"{today}-{instant}-{number:04}-{os.urandom(6).hex()}"
            self._open = _Open(self._folder, name, today)
        return self._open

    def _give_up(self) -> None:
        if self._open is not None:
            # Whoever is about to force it holds the file, and `force` of a closed one is an error told to its caller.
            with self._forcing:
                self._open.close()
            self._open = None


class _Open:
    """A file that is being appended to."""

    def __init__(self, folder: Path, name: str, day: date) -> None:
        self.day, self.end, self._forced = day, len(_magic), 0
        # Locked and begun before it has its name, so that none is ever taken for the file of a writer that is gone.
        draft = folder / f".{name}"
        self._file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(self._file, _magic)
        os.rename(draft, folder / f"{name}.frames")
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)

    def write(self, payload: bytes) -> int:
        """Where the frame ends."""
        try:
            _write(self._file, _frame.pack(len(payload), crc32(payload)) + payload)
        except OSError:
            os.ftruncate(self._file, self.end)
            raise
        self.end += _frame.size + len(payload)
        return self.end

    def force(self, end: int) -> None:
        """Force to the disk what was written up to `end`, unless somebody has."""
        if self._forced < end:
            reached = self.end
            os.fdatasync(self._file)
            self._forced = reached

    def close(self) -> None:
        """Give up the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def files(folder: Path) -> list[Path]:
    """The files of a folder, oldest first; none where there is no folder."""
    return sorted(folder.glob("*.frames"))


def day_begun(path: Path) -> date:
    """The day on which a file was begun: nothing in it was appended before."""
    return date.fromisoformat(path.name[:10])


def is_growing(path: Path) -> bool:
    """Whether somebody is still writing it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def frames(path: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """Payloads from a place on, each with the place where it ends; up to the first that is not whole.

    Parameters
    ----------
    start : 0, or where a payload ends
    """
    with path.open("rb") as file:
        if file.read(len(_magic)) != _magic:
            return
        end = max(start, len(_magic))
        file.seek(end)
        held = file.read()
    begun, at = end, 0
    while at + _frame.size <= len(held):
        length, checksum = _frame.unpack_from(held, at)
        payload = held[at + _frame.size : at + _frame.size + length]
        if length == 0 or len(payload) < length or crc32(payload) != checksum:
            return
        at += _frame.size + length
        yield payload, begun + at


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
