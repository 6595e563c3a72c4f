"""Landed files: what their names say, and how their bytes become rows. Folders and buckets hold the same ones.

A day has one file, `<day>.parquet`, `<day>.csv` or `<day>.jsonl`. What it refuses: two files of one day, for nobody can
tell which is right.
"""

import io
from collections.abc import Iterable
from datetime import date

import polars as pl

from mlplatform.errors import ChangedWhileRead, MalformedFile

formats = {"parquet": "Parquet", "csv": "CSV", "jsonl": "JSON-lines"}
"""Suffix -> what people call it."""


def is_temporary(file: str) -> bool:
    """Whether a name says that somebody is still at it."""
    return file.startswith(".") or file.endswith((".tmp", ".part", "~"))


def by_name(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """File name and version of each -> name without a known suffix -> version; both versions where two share a name.

    A file that is called as a day, without a suffix, is nobody's day: its name says that it has none.
    """
    found: dict[str, str] = {}
    for file, version in sorted(files):
        stem, _, suffix = file.rpartition(".")
        name = stem if suffix in formats else f"{file} (no suffix)" if day_of(file) else file
        found[name] = f"{found[name]}+{version}" if name in found else version
    return found


def day_of(name: str) -> date | None:
    """The day that a name is, as 2024-01-31; None for any other name."""
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    return day if day.isoformat() == name else None


def files_of(day: str) -> list[str]:
    """The names under which a day may land."""
    return [f"{day}.{suffix}" for suffix in formats]


def refuse_two(files: list[str], place: str, version: str) -> None:
    """Let a day with one file pass.

    Parameters
    ----------
    version : what `by_name` said of the day

    Raises
    ------
    MalformedFile
        There are several.
    ChangedWhileRead
        There are several, and there was one when the day was listed, which is not to blame.
    """
    if len(files) > 1:
        if "+" not in version:
            raise ChangedWhileRead(f"{place}/{files[0]}", f"got {' and '.join(files[1:])} beside it")
        reason = f"{' and '.join(files)} are both there, and a day has one file: take the wrong one away"
        raise MalformedFile(f"{place}/{files[0]}", reason)


def parsed(content: bytes, path: str) -> pl.DataFrame:
    """Rows of a file. Every column of a CSV file is text, for the contract knows its types: nothing is guessed.

    Parameters
    ----------
    path : its suffix says what it is

    Raises
    ------
    MalformedFile
        It is not what its suffix says.
    """
    suffix = path.rpartition(".")[2]
    try:
        match suffix:
            case "parquet":
                return pl.read_parquet(io.BytesIO(content))
            case "csv":
                return pl.read_csv(io.BytesIO(content), infer_schema=False)
            case _:
                return pl.read_ndjson(io.BytesIO(content), infer_schema_length=None)
    # Of Parquet files with one broken byte a hundredth make the reader panic, which is no `Exception`.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        # Its first paragraph; what follows is advice on how to call the reader.
        told = " ".join(str(error).partition("\n\n")[0].split())
        raise MalformedFile(path, f"not a readable {formats[suffix]} file ({told})") from error
