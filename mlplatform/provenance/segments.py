"""Segments: what a process has to say, in files that outlive it.

Who speaks must not wait for a disk, and nothing must be forgotten because its process was killed. So a segment is a
file whose space is taken beforehand and that is mapped into memory: to append is to copy into the page cache, with no
system call, and the kernel keeps what was copied whatever happens to the process.

Invariants:

* Rows appended + rows counted as dropped = rows handed to `append`, in the files themselves, also after `kill -9`.
* A segment is one writer's. It holds a lock on it while it writes (`.open`); a file without a lock is an orphan, and
  whoever looks finishes it. What is finished (`.segment`) is never written again.
* A segment that is full is given up only for another, so that there is always a place to count drops in. (Where there
  never was one, an unwritable folder, drops are counted in memory and go into the first segment.)
* A frame is whole or not there: its length and checksum are written after its payload.

It promises nothing against a machine that loses its power: the kernel writes within about 30 s. It refuses payloads
beyond the size of a segment.

File: magic, dropped rows (u64), then frames (u32 length, u32 crc32, payload); the rest zero. All little-endian.
"""

import fcntl
import itertools
import logging
import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from mlplatform.errors import SegmentUnreadable

logger = logging.getLogger(__name__)

magic = b"mlplog1\n"
_dropped_at = len(magic)
_frames_at = _dropped_at + 8
_frame = struct.Struct("<II")
_count = struct.Struct("<Q")
_piece = 32 * mmap.PAGESIZE

segment_size = 8 << 20
"""Bytes. A second of predictions at full speed; three of them are taken on disk by each writer."""

roll_after = 20.0
"""Seconds after its first row that a segment is finished, full or not; the pick-up comes every 30 s, and a row is to be
in the table within the minute."""

seconds_between_tries = 1.0
"""How long the folder is left in peace after no segment could be made in it."""


class Contents(NamedTuple):
    """What a segment holds."""

    payloads: list[bytes]
    dropped: int
    """Rows that were answered and could not be written."""
    end: int
    """Where the last whole frame ends, in bytes."""
    damaged: int
    """Frames that are not as they were written; those that follow are read all the same."""


class Segments:
    """The writer of one process.

    Parameters
    ----------
    folder : Path
        Of the domain; made when it is not there. It may be unwritable: then rows are dropped and counted.
    size : int
        Bytes of a segment.
    spares : int
        Segments kept ready. More are needed only where a whole one is filled within some 10 ms.
    roll_after : float
        Seconds after its first row that a segment is finished, full or not.
    clock : seconds, monotonic
    now : nanoseconds since the epoch, for names
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int = segment_size,
        spares: int = 2,
        roll_after: float = roll_after,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder, self._size, self._wanted = folder, size, spares
        self._roll_after = roll_after
        self._clock, self._now = clock, now
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._spares: deque[_Open] = deque()
        self._full: deque[_Open] = deque()
        self._untold = 0
        self._closed = False
        self._told = ""
        self.dropped = 0
        """Rows dropped since this writer was made."""
        self._wake = threading.Event()
        self._prepare()
        self._thread = threading.Thread(target=self._look_after, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, payload: bytes, rows: int = 1) -> bool:
        """Write one payload, or count its rows as dropped; False: dropped. Never waits for a disk, never raises."""
        with self._lock:
            if self._open is not None and self._open.put(payload, self._clock()):
                return True
            if len(payload) <= self._size - _frames_at - _frame.size and self._next():
                assert self._open is not None
                return self._open.put(payload, self._clock())
            self.dropped += rows
            if self._open is None:
                self._untold += rows
            else:
                self._open.drop(rows, self._clock())
            return False

    def close(self) -> None:
        """Finish everything. What is appended afterwards is dropped, and counted in `dropped` only."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._thread.join()
        with self._lock:
            left = [*self._spares, *([self._open] if self._open else [])]
            self._full.extend(left)
            self._spares.clear()
            self._open = None
        self._finish()

    def _next(self) -> bool:
        """Under the lock: take the next segment into use."""
        if not self._spares:
            return False
        if self._open is not None:
            self._full.append(self._open)
        self._open = self._spares.popleft()
        if self._untold:
            self._open.drop(self._untold, self._clock())
            self._untold = 0
        self._wake.set()
        return True

    def _look_after(self) -> None:
        """The thread: keeps spares ready, rolls what is old, finishes what is full."""
        while True:
            self._wake.wait(min(seconds_between_tries, self._roll_after))
            self._wake.clear()
            if self._closed:
                return
            self._prepare()
            with self._lock:
                since = self._open.since if self._open else None
                if since is not None and self._clock() - since >= self._roll_after:
                    self._next()
            self._finish()
            self._prepare()

    def _prepare(self) -> None:
        """Make the spares that are missing; without space there are none, and the next second it is tried again."""
        while len(self._spares) < self._wanted:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                name = f"{self._now()}-{os.getpid()}-{next(self._numbers)}"
                spare = _Open.made(self._folder / f"{name}.open", self._size)
            except OSError as error:
                self._tell(f"no room for the prediction log ({error}); rows are dropped once what is open is full")
                return
            with self._lock:
                self._spares.append(spare)
                if self._open is None and not self._closed:
                    self._next()
        self._told = ""

    def _finish(self) -> None:
        while self._full:
            try:
                segment = self._full.popleft()
            except IndexError:
                return  # another thread was faster
            try:
                segment.finish()
            except OSError as error:
                # Its lock is given up with it, so that the pick-up finishes it as an orphan.
                self._tell(f"{segment.path.name} could not be finished ({error}); the next pick-up does it")

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            logger.warning("%s", reason)


class _Open:
    """A segment that is being written."""

    def __init__(self, path: Path, file: int, memory: mmap.mmap) -> None:
        self.path, self._file, self._memory = path, file, memory
        self._size = len(memory)
        self._end = _frames_at
        self._dropped = 0
        self.since: float | None = None
        """When the first thing was written to it."""

    @classmethod
    def made(cls, path: Path, size: int) -> "_Open":
        """Take the space, lock the file and only then give it its name, so that none is ever taken for an orphan."""
        draft = path.with_suffix(".new")
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _take_space(file, size)
            memory = mmap.mmap(file, size)
            # Each page is written once, here: the first write to a page may wait for the file system's journal. It is
            # done with Python's lock held, so in pieces with a pause: without it an answer now and then waits 5 ms.
            for start in range(0, size, _piece):
                pages = len(range(start, min(start + _piece, size), mmap.PAGESIZE))
                memory[start : start + _piece : mmap.PAGESIZE] = bytes(pages)
                time.sleep(0.0002)
            memory[:_dropped_at] = magic
            os.rename(draft, path)
        except OSError:
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        return cls(path, file, memory)

    def put(self, payload: bytes, now: float) -> bool:
        """Append a frame; False: it does not fit."""
        start = self._end + _frame.size
        end = start + len(payload)
        if end > self._size:
            return False
        self._memory[start:end] = payload
        _frame.pack_into(self._memory, self._end, len(payload), crc32(payload))
        self._end = end
        if self.since is None:
            self.since = now
        return True

    def drop(self, rows: int, now: float) -> None:
        """Count rows that could not be written."""
        self._dropped += rows
        _count.pack_into(self._memory, _dropped_at, self._dropped)
        if self.since is None:
            self.since = now

    def finish(self) -> None:
        """Cut it to its length and give it its final name; an empty one goes."""
        self._memory.close()
        try:
            _seal(self.path, self._file, self._end if self.since is not None else 0)
        finally:
            os.close(self._file)


def finished(folder: Path) -> list[Path]:
    """Segments that nobody writes any more, oldest first; those of dead writers are finished on the way."""
    for path in (*folder.glob("*.open"), *folder.glob("*.new")):
        _adopt(path)
    return sorted(folder.glob("*.segment"))


def backlog_bytes(folder: Path) -> int:
    """Bytes of the finished segments that wait to be picked up."""
    total = 0
    for path in folder.glob("*.segment"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def read(path: Path) -> Contents:
    """What a segment holds: its frames that are whole.

    Raises
    ------
    SegmentUnreadable
        It is no segment.
    OSError
        It cannot be read.
    """
    held = path.read_bytes()
    if not held.startswith(magic) or len(held) < _frames_at:
        raise SegmentUnreadable(path.name, "does not begin like a segment")
    return _contents(held)


def _contents(held: bytes) -> Contents:
    payloads = []
    at = end = _frames_at
    damaged = 0
    while at + _frame.size <= len(held):
        length, checksum = _frame.unpack_from(held, at)
        # Written last: a frame that its writer did not finish has none.
        if length == 0:
            break
        start = at + _frame.size
        at = start + length
        payload = held[start:at]
        if len(payload) == length and crc32(payload) == checksum:
            payloads.append(payload)
            end = at
        else:
            damaged += 1
    return Contents(payloads, _count.unpack_from(held, _dropped_at)[0], end, damaged)


def _adopt(path: Path) -> None:
    """Finish the segment of a dead writer; leave that of a living one."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_ino != path.stat().st_ino:
            return
        if path.suffix == ".new":
            path.unlink()
            return
        held = path.read_bytes()
        if not held.startswith(magic):
            os.rename(path, path.with_suffix(".segment"))
            return
        contents = _contents(held)
        if contents.damaged:
            # For whoever picks it up to tell of, and to keep.
            _seal(path, file, len(held))
            return
        if held[contents.end :].strip(b"\0"):
            logger.warning("%s: what follows its byte %d is torn and is left out", path.name, contents.end)
        _seal(path, file, contents.end if contents.payloads or contents.dropped else 0)
    except (BlockingIOError, FileNotFoundError):
        return  # its writer lives, or has just finished it
    finally:
        os.close(file)


def _seal(path: Path, file: int, end: int) -> None:
    if end == 0:
        path.unlink()
        return
    os.ftruncate(file, end)
    os.fsync(file)
    os.rename(path, path.with_suffix(".segment"))


def _take_space(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    # Where there is no such call, zeros do the same.
    written = 0
    while written < size:
        written += os.pwrite(file, bytes(min(1 << 20, size - written)), written)
