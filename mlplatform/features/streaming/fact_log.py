"""The fact log of a source: every fact that was sent as it happened, durable, each event once.

Gateways and `mlplatform stream` append; the landing (`landing.stream`) and the stream (`streaming`) read. An event is
what was sent at once: some rows under one id. The same event may lie there several times: somebody did not hear the
answer and sent it again, or a consumer died between appending and acknowledging. Who reads takes each *identity* once:
id and content together, so that a sender who gives two events one id loses neither.

No import of this module may drag in more than Polars: gateways use it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
import polars as pl

from mlplatform.provenance.append_only import AppendOnlyFiles, files, frames
from mlplatform.provenance.content_hash import content_hash

Columns = dict[str, list[object]]
"""Rows as msgpack holds them: column -> values, temporal ones as integers."""


class Event(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What was sent at once. Fields may be added at the end, with a default."""

    id: str
    content: str
    """Hash of the rows."""
    received: int
    """Microseconds since the epoch, UTC, on the clock of whoever took it in."""
    rows: Columns
    """In the types of the contract as it was then."""

    @property
    def identity(self) -> str:
        """What makes it the same event, however often it was sent."""
        return blake2b(f"{self.id}\n{self.content}".encode(), digest_size=12).hexdigest()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode

Positions = dict[str, int]
"""File name -> where the last event that was taken from it ends."""


def fact_folder(home: Path, domain: str, source: str) -> Path:
    """Where the facts of a source are kept."""
    return home / "facts" / domain / source


class FactWriter:
    """Appends the events of one source; one per process."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self._files = AppendOnlyFiles(folder, now)
        self._now = now

    def append(self, event_id: str, rows: pl.DataFrame) -> str:
        """Append an event; it is on the disk when this returns its identity.

        Parameters
        ----------
        rows : in the columns and types of the contract

        Raises
        ------
        Unavailable
            It cannot be written: it may be there or not. Append it again under the same id.
        """
        received = int(self._now().timestamp() * 1_000_000)
        event = Event(id=event_id, content=content_hash(rows), received=received, rows=as_columns(rows))
        self._files.append(_encode(event))
        return event.identity


def events_of(path: Path, start: int = 0, end: int | None = None) -> tuple[list[Event], int]:
    """The events of one file behind a place, up to another or to the last whole one, and the place behind them."""
    found = []
    for payload, behind in frames(path, start):
        if end is not None and behind > end:
            break
        found.append(_decode(payload))
        start = behind
    return found, start


def events(folder: Path, since: Positions | None = None) -> tuple[list[Event], Positions]:
    """The events behind some positions, in the order of their files, and the positions behind them.

    Parameters
    ----------
    since : as it was given last time; None: from the beginning
    """
    found, reached = [], dict(since or {})
    for path in files(folder):
        start = reached.get(path.name, 0)
        if path.stat().st_size > start:
            more, reached[path.name] = events_of(path, start)
            found += more
    return found, reached


def as_columns(rows: pl.DataFrame) -> Columns:
    """Rows as msgpack holds them."""
    return {column.name: column.to_physical().to_list() for column in rows.get_columns()}


def as_rows(parts: Sequence[Columns], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows of several events, one below the other; a column that an event lacks is null in its rows."""
    return pl.DataFrame([_column(name, dtype, parts) for name, dtype in schema.items()])


def _column(name: str, dtype: pl.DataType, parts: Sequence[Columns]) -> pl.Series:
    values: list[object] = []
    for part in parts:
        held = part.get(name)
        values += [None] * len(next(iter(part.values()), [])) if held is None else held
    physical = pl.Series(name, [], dtype=dtype).to_physical().dtype
    return pl.Series(name, values, dtype=physical).cast(dtype)


def distinct(found: Iterable[Event], seen: set[str]) -> list[Event]:
    """The events that were not seen yet, the first of each identity; `seen` has them afterwards."""
    new = []
    for event in found:
        if event.identity not in seen:
            seen.add(event.identity)
            new.append(event)
    return new
