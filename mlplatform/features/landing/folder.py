"""The landing folder: one file per day, under its final name.

Whoever lands should write beside the final name and rename. Who writes in place is waited for: a Parquet file without
its closing mark, and any text file, counts only when it has been left alone for a while. After that a Parquet file
without its end is malformed, and is said to be; it is never passed over in silence.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from mlplatform.errors import ChangedWhileRead, MalformedFile, Unavailable
from mlplatform.features.landing.files import by_name, files_of, is_temporary, parsed, refuse_two

settling_seconds = {"parquet": 60.0, "csv": 5.0, "jsonl": 5.0}
"""How long a file must have been left alone before it counts, where it cannot say itself that it is complete. A text
file has no end mark: 5 s outlast a writer that flushes line by line. A Parquet file has: one that lacks it a minute
after its last byte was broken off."""

racy_seconds = 2.0
"""A file changed so lately may change again within the resolution of its time stamp; its hash is not remembered."""

unreadable = "unreadable"
"""Version of a file whose bytes cannot be had."""

Stamp = tuple[int, int, int, int]
"""Inode, time of change in ns, the same as the file system tells it (nobody can set that one), size."""

_hashes: dict[str, tuple[Stamp, str]] = {}
"""By path. A sensor that looks every few seconds must not read every file: to look at 1,000 of them takes 10 ms."""


class LandingFolder:
    """Landed days of one source in a folder.

    Parameters
    ----------
    folder : where the files are; one that does not exist holds nothing
    clock : gives now, to tell a file that is being written from one that was left alone
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock

    def list(self) -> Mapping[str, str]:
        """Name without suffix -> hash of the bytes (BLAKE2b), and folders; what is hidden or temporary is left out.

        Raises
        ------
        Unavailable
            The folder cannot be read.
        """
        try:
            entries = [entry for entry in os.scandir(self._folder) if not is_temporary(entry.name)]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be read ({error}). Make it readable for this process") from error
        now = self._clock().timestamp()
        files = [(entry.name, version) for entry in entries if (version := _version(entry, now)) is not None]
        folders = [(f"{entry.name}/", "") for entry in entries if entry.is_dir()]
        return by_name(files + folders)

    def read(self, day: str, version: str) -> pl.DataFrame:
        """Rows of a day's file."""
        files = [file for file in files_of(day) if (self._folder / file).is_file()]
        refuse_two(files, str(self._folder), version)
        if not files:
            raise ChangedWhileRead(str(self._folder / day), "has gone")
        path = self._folder / files[0]
        try:
            content = path.read_bytes()
        except OSError as error:
            if version == unreadable:
                raise MalformedFile(str(path), f"it cannot be read ({error})") from error
            raise ChangedWhileRead(str(path), f"could no longer be read ({error})") from error
        if _hash(io.BytesIO(content)) != version:
            raise ChangedWhileRead(str(path), "was landed again")
        return parsed(content, str(path))


def file_version(path: Path) -> str:
    """The version that a file has now, whoever is still writing to it.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        return _hash(file)


def _version(entry: "os.DirEntry[str]", now: float) -> str | None:
    """Hash of a file; None while it is being written, or when it has just gone."""
    try:
        status = os.stat(entry.path)
        if not stat.S_ISREG(status.st_mode):
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        known = _hashes.get(entry.path)
        if known and known[0] == stamp:
            return known[1]
        # A time in the future is of another clock, or made up: it says nothing of a writer.
        age = abs(now - status.st_mtime)
        path = Path(entry.path)
        with path.open("rb") as file:
            if age < settling_seconds.get(path.suffix[1:], 0) and not _is_whole_parquet(path.suffix, file):
                return None
            found = _hash(file)
    except FileNotFoundError:
        return None
    except OSError:
        # The day is there, and reading it will say what is the matter.
        return unreadable
    if min(age, abs(now - status.st_ctime)) >= racy_seconds:
        _hashes[entry.path] = (stamp, found)
    return found


def _is_whole_parquet(suffix: str, file: io.BufferedReader) -> bool:
    """Whether it ends with the mark that a writer puts last."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 4))
    end = file.read()
    file.seek(0)
    return suffix == ".parquet" and size >= 12 and end == b"PAR1"


def _hash(file: io.BufferedIOBase) -> str:
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
