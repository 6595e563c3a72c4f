"""Reading a sample file as it stands: CSV as text, Parquet and JSON lines in their own types.

Nothing is guessed of a CSV's types here; that is `recognise`, which can say why. It refuses what holds no rows, and
names every row that it leaves out.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mlplatform.errors import DataError

suffixes = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}

separators = (",", ";", "\t", "|")


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file's rows, and what had to be decided to read them."""

    frame: pl.DataFrame
    decimal_comma: bool
    """Whether `3,5` is a number: where the fields are parted by semicolons, as spreadsheets of such countries write."""

    notes: tuple[str, ...]


def read_sample(path: Path) -> Read:
    """Rows of a sample file; repeated rows count once.

    Raises
    ------
    DataError
        There is no such file, it is of no known kind, it cannot be read, or it has no rows.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}. Name a CSV, Parquet or JSON-lines file with --sample")
    kind = suffixes.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path.name}: the sample is a file {', '.join(suffixes)}; convert it to one of them")
    notes: list[str] = []
    separator = ","
    try:
        if kind == "csv":
            text = _decoded(path, notes)
            separator = _separator(text, notes)
            frame = _csv(text, separator, notes)
        else:
            frame = pl.read_parquet(path) if kind == "parquet" else pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, csv.Error, OSError) as error:
        raise DataError(f"{path.name} cannot be read as {kind}: {' '.join(str(error).split())[:200]}") from error
    frame = _plain(frame, notes)
    if frame.is_empty() or not frame.width:
        raise DataError(f"{path.name} has no rows. Take a sample of some weeks of the real data")
    once = frame.unique(maintain_order=True)
    if once.height < frame.height:
        notes.append(f"{frame.height - once.height} rows repeat another row in every column: each is taken once")
    return Read(frame=once, decimal_comma=separator == ";", notes=tuple(notes))


def _decoded(path: Path, notes: list[str]) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append("the file is not UTF-8: read as Windows-1252")
        return content.decode("cp1252", errors="replace")


def _separator(text: str, notes: list[str]) -> str:
    """The separator that parts the header into most fields."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {each: len(next(csv.reader([header], delimiter=each), [])) for each in separators}
    best = max(separators, key=lambda each: counts[each])
    if best != ",":
        notes.append(f"fields are parted by {best!r}")
    return best


def _csv(text: str, separator: str, notes: list[str]) -> pl.DataFrame:
    rows = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=separator) if any(map(str.strip, row))]
    if not rows:
        return pl.DataFrame()
    header, *body = rows
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"the header names {', '.join(twice)} twice. Give each column its own name")
    whole = [row for row in body if len(row) == len(names)]
    if len(whole) < len(body):
        notes.append(f"{len(body) - len(whole)} rows have another number of fields than the header: left out")
    return pl.DataFrame(
        {name: [row[number].strip() for row in whole] for number, name in enumerate(names)},
        schema=dict.fromkeys(names, pl.String()),
    )


def _plain(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """The columns that a contract can declare, in the widest type of their kind; NaN is a missing value."""
    kept = {}
    for name, dtype in frame.schema.items():
        here = pl.col(name)
        if dtype.is_integer():
            kept[name] = here.cast(pl.Int64, strict=False)
        elif dtype.is_float() or dtype.is_decimal():
            kept[name] = here.cast(pl.Float64).fill_nan(None)
        elif isinstance(dtype, pl.Categorical | pl.Enum):
            kept[name] = here.cast(pl.String)
        elif isinstance(dtype, pl.Date):
            kept[name] = here.cast(pl.Datetime("us"))
        elif isinstance(dtype, pl.Datetime):
            utc = here if dtype.time_zone is None else here.dt.convert_time_zone("UTC")
            kept[name] = utc.dt.cast_time_unit("us")
        elif isinstance(dtype, pl.String | pl.Boolean):
            kept[name] = here
        else:
            notes.append(f"{name} is {dtype}, which no contract holds: left out")
    return frame.select(expression.alias(name) for name, expression in kept.items())
