"""The landing folder: one Parquet file per source and day, `<source>/<day>.parquet`.

A file counts when it bears its final name: whoever lands writes beside it and renames. Anything else in the folder is
left alone. What it refuses: a file that is not what the source's contract declares (`MalformedFile`).
"""

import hashlib
import io
import os
import uuid
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source
from mlplatform.errors import DataError, DeclarationError, MalformedFile
from mlplatform.features.rules import cast_to_contract


def landed_days(folder: Path, source: Source) -> list[str]:
    """ISO days for which the source has landed a file, in order."""
    return sorted(path.stem for path in (folder / source.name).glob("*.parquet") if _is_day(path.stem))


def file_version(folder: Path, source: Source, day: str) -> str:
    """`landing/<source>/<day>@<hash>`: what a raw revision names as its input; the hash is BLAKE2b of the bytes."""
    return _version(source, day, _path(folder, source, day).read_bytes())


def read_landed(folder: Path, source: Source, day: str, *, version: str | None = None) -> pl.DataFrame:
    """Rows of one landed file in the contract's columns and types.

    Parameters
    ----------
    version : what `file_version` said; None: whatever is there

    Raises
    ------
    MalformedFile
        The file is no Parquet, lacks a column, or holds a value that cannot be of its declared type.
    DataError
        The file has been landed again since `file_version` looked at it.
    """
    path = _path(folder, source, day)
    try:
        content = path.read_bytes()
        if version is not None and _version(source, day, content) != version:
            raise DataError(f"{path} was landed again while it was being read. Run the day again")
        frame = pl.read_parquet(io.BytesIO(content))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise MalformedFile(str(path), f"not a readable Parquet file ({error})") from error
    return cast_to_contract(frame, source.contract, path=str(path))


def land(folder: Path, source: Source, day: date, rows: pl.DataFrame) -> Path:
    """Put a day's rows into the landing folder as a source does: whole or not at all. Same rows change nothing."""
    path = _path(folder, source, day.isoformat())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    rows.write_parquet(draft)
    if path.exists() and path.read_bytes() == draft.read_bytes():
        draft.unlink()
        return path
    os.replace(draft, path)
    return path


def land_sample(folder: Path, domain: Domain, first: date, last: date) -> int:
    """Land the sample of a domain for some days; returns the number of files.

    Raises
    ------
    DeclarationError
        The domain has no sample.
    """
    if domain.sample is None:
        raise DeclarationError(f"{domain.name} has no sample. Let its sources write into {folder}")
    if first < domain.sample.start or last > domain.sample.end:
        raise DataError(
            f"the sample of {domain.name} holds {domain.sample.start} to {domain.sample.end}, not {first} to {last}"
        )
    files = 0
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        for source in domain.sources:
            land(folder, source, day, domain.sample.read(source.name, day))
            files += 1
    return files


def days_landed_by_all(folder: Path, sources: Iterable[Source]) -> list[str]:
    """Days for which every source has landed its file or is declared absent."""
    landed = {source.name: set(landed_days(folder, source)) for source in sources}
    every = sorted(set().union(*landed.values()))
    return [
        day
        for day in every
        if all(day in landed[source.name] or date.fromisoformat(day) in source.absent for source in sources)
    ]


def _version(source: Source, day: str, content: bytes) -> str:
    return f"landing/{source.name}/{day}@{hashlib.blake2b(content, digest_size=8).hexdigest()}"


def _path(folder: Path, source: Source, day: str) -> Path:
    return folder / source.name / f"{day}.parquet"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
