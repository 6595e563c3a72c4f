"""The sample as it will be worked with: columns renamed and typed, each with the reason for its type."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from mlplatform.errors import DataError, DeclarationError
from mlplatform.new_domain.names import column_names
from mlplatform.new_domain.reading import read_sample
from mlplatform.new_domain.recognise import recognise

instant = pl.Datetime("us", "UTC")


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A sample file, read and understood."""

    file: str
    frame: pl.DataFrame
    """Int64, Float64, Boolean, String and Datetime us, UTC columns, by their new names."""

    written: Mapping[str, str]
    """New name -> the name in the file."""

    why: Mapping[str, str]
    """New name -> why the column has its type."""

    zone: str
    notes: tuple[str, ...]
    """What was left out or assumed in reading."""

    def column(self, text: str, flag: str) -> str:
        """The new name of a column that was named either way.

        Raises
        ------
        DeclarationError
            The sample has no such column.
        """
        by_written = {written: name for name, written in self.written.items()}
        name = text if text in self.written else by_written.get(text)
        if name is None:
            raise DeclarationError(f"{flag}: the sample has no column {text!r}; it has {', '.join(self.written)}")
        return name

    @property
    def times(self) -> tuple[str, ...]:
        """Columns that hold times."""
        return tuple(name for name, dtype in self.frame.schema.items() if dtype == instant)


def read(path: Path, zone: str) -> Sampled:
    """Read a sample file and recognise its columns.

    Raises
    ------
    DataError
        The file cannot be read or holds nothing.
    DeclarationError
        There is no such zone.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise DeclarationError(f"--zone: there is no time zone {zone!r}. Name one as Europe/Berlin or UTC") from error
    found = read_sample(path)
    notes = list(found.notes)
    names = column_names(found.frame.columns)
    columns, why = {}, {}
    for written, name in names.items():
        known = recognise(found.frame[written], decimal_comma=found.decimal_comma, zone=zone)
        if known.values.null_count() == len(known.values):
            notes.append(f"{written} holds nothing: left out")
            continue
        columns[name], why[name] = known.values.alias(name), known.why
    if not columns:
        raise DataError(f"{path.name} holds nothing but empty columns. Take a sample of some weeks of the real data")
    return Sampled(
        file=path.name,
        frame=pl.DataFrame(list(columns.values())),
        written={name: written for written, name in names.items() if name in columns},
        why=why,
        zone=zone,
        notes=tuple(notes),
    )
