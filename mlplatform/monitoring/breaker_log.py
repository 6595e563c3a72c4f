"""The breaker log of one process: each transition of its circuit breakers, a line of JSON, in a file that outlives it.

A gateway says what its breakers do, the sensor hands it on to Dagster as observations. They meet in this file only, so
that neither waits for the other.

Invariants:

* A line is whole or not there: what a full disk cut short is taken back, and what has no line end yet is not read.
* A file is one writer's, which holds a lock on it for as long as it lives. A name is never used again, so that a reader
  may remember how far it has read.
* A file is removed only when its writer is gone, and nothing in it is left open.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

logger = logging.getLogger(__name__)


GONE = "gone"
"""State of a breaker whose gateway worker has ended."""


class BreakerTransition(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker went from one state to another. Fields may be added, with a default."""

    model: str
    """`domain/model`."""

    model_version: str
    """Recipe of what was served."""

    manifest: str
    """Digest of the bundle that was served."""

    gateway: str
    """Which gateway worker's breaker it was."""

    breaker: str
    """What is asked through it: the model, or the online store."""

    before: str
    after: str
    reason: str
    at: int
    """Nanoseconds since the epoch, UTC."""


class Line(NamedTuple):
    """A line of a file that was read."""

    start: int
    end: int
    """Bytes; the next line starts there."""

    transition: BreakerTransition | None
    """None: it is none."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BreakerTransition).decode


def breaker_folder(home: Path, domain: str) -> Path:
    """Where the gateways of a machine write, and the sensor looks."""
    return home / "breaker" / domain


class BreakerLog:
    """The writer of one process.

    Parameters
    ----------
    folder : of the domain; it and the file are made with the first transition, which most processes never see
    now : nanoseconds since the epoch, for the name
    """

    def __init__(self, folder: Path, *, now: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._now = now
        self._file: int | None = None

    def append(self, transition: BreakerTransition) -> None:
        """Write one line.

        Raises
        ------
        OSError
            It could not be written, and nothing of it was.
        """
        if self._file is None:
            self._file = self._made()
        line = _encode(transition) + b"\n"
        end = os.fstat(self._file).st_size
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Leave the file to the readers."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _made(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = self._folder / f"{self._now()}-{os.getpid()}.jsonl"
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            # A reader that came in between took it for abandoned; it has it for a moment.
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                return file
            os.close(file)


def files(folder: Path) -> list[Path]:
    """The files of all writers, oldest first."""
    return sorted(folder.glob("*.jsonl"))


def read(path: Path, start: int = 0) -> list[Line]:
    """The whole lines from a line's start on.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        held = file.read()
    lines = []
    for line in held[: held.rfind(b"\n") + 1].splitlines(keepends=True):
        try:
            transition = _decode(line)
        except msgspec.DecodeError as error:
            logger.warning("%s holds a line at %d that is no transition (%s)", path.name, start, error)
            transition = None
        lines.append(Line(start, start + len(line), transition))
        start += len(line)
    return lines


def remove_abandoned(path: Path, read_to: int, *, now: Callable[[], int] = time.time_ns) -> bool:
    """Remove a file that was read so far, where its writer is gone and there is nothing more in it.

    A breaker that it left open is open no more: that is told first, in a line of its own, and the file removed when
    that was read too.
    """
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Under the lock: the writer may have written its last line a moment ago.
        if read(path, read_to):
            return False
        if left := list(_left_open(path, now())):
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.seek(whole)
            file.write(b"".join(_encode(each) + b"\n" for each in left))
            return False
        path.unlink()
        return True


def _left_open(path: Path, now: int) -> Iterator[BreakerTransition]:
    """What is to be told of the breakers of a writer that is gone."""
    told = [line.transition for line in read(path) if line.transition is not None]
    last = {(each.model, each.manifest, each.breaker): each for each in told}
    for each in last.values():
        if each.after not in ("closed", GONE):
            reason = "the gateway worker that it was of has ended"
            yield msgspec.structs.replace(each, before=each.after, after=GONE, reason=reason, at=max(now, each.at))
