"""The landing stream: the days of a source whose facts were sent one by one.

A day is made of the rows that its events hold, each event once (`fact_log`), whichever day they came on and in whatever
order. It counts when it is over, and as long after that as is declared. Its version names its events, so that one that
comes later makes it a correction.

What each file holds of which day is kept beside it once nobody writes it any more: to look at a year of days must not
mean to read a year of facts. Of a day that was cleared (`landing.clearing`) the rows are those of `raw`, with what has
come since.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import msgspec
import polars as pl

from mlplatform.domain.column import Contract
from mlplatform.domain.source import Source, Stream
from mlplatform.errors import ChangedWhileRead
from mlplatform.features.streaming.fact_log import Event, as_rows, distinct, events_of
from mlplatform.features.tables import partition_end
from mlplatform.provenance.append_only import files, is_growing
from mlplatform.provenance.files import write_whole

Held = dict[str, list[str]]
"""Day -> identities of the events that have rows of it."""


class Cleared(msgspec.Struct, frozen=True):
    """What is left of a day whose facts are in `raw`."""

    revision: int
    """Of `raw`, with the rows of all those events."""

    events: list[str]
    """Their identities."""


_EPOCH = date(1970, 1, 1)
_DAY = 86_400_000_000

_read: dict[str, tuple[int, Held]] = {}
"""By path of a file that is still being written: how much of it was looked at, and what is in there. A sensor looks
every few seconds, and must not read the whole day again."""


class LandingStream:
    """Landed days of one source that is streamed.

    Parameters
    ----------
    folder : of its fact log
    declared, contract : as the source declares them
    clock : gives now, to tell a day that is over
    first, last : the domain's days, to tell those on which nothing was sent
    raw : (day, revision) -> rows of the source's table `raw`
    """

    def __init__(
        self,
        folder: Path,
        declared: Stream,
        contract: Contract,
        clock: Callable[[], datetime],
        *,
        first: date,
        last: date | None,
        raw: Callable[[str, int], pl.DataFrame],
    ) -> None:
        self._folder = folder
        self._declared = declared
        self._contract = contract
        self._clock = clock
        self._first = first
        self._last = last
        self._raw = raw

    def list(self) -> Mapping[str, str]:
        """Day -> hash of its events, for every day that is over and has settled."""
        settled = self._clock() - self._declared.grace
        held = self.events_by_day()
        days = {day: _version(found) for day, found in held.items() if partition_end(day) <= settled}
        if self._declared.empty_days and held:
            # What was silent before the first fact was no stream yet.
            day, over = max(self._first, date.fromisoformat(min(held))), (settled - timedelta(days=1)).date()
            while day <= min(over, self._last or over):
                days.setdefault(day.isoformat(), _version(set()))
                day += timedelta(days=1)
        since = "" if self._declared.since is None else self._declared.since.isoformat()
        return {day if day >= since else f"{day} (before the stream)": days[day] for day in sorted(days)}

    def read(self, day: str, version: str) -> pl.DataFrame:
        """Rows of a day, those of each event once."""
        rows, found = self.rows_of(day)
        if found != version:
            raise ChangedWhileRead(f"{self._folder} of {day}", "got more facts")
        return rows

    def rows_of(self, day: str) -> tuple[pl.DataFrame, str]:
        """Rows of a day as far as they have come, and the version that this is."""
        cleared = self._cleared(day)
        before = set(cleared.events) if cleared else set[str]()
        found = [each for each in self.events_of_day(day) if each.identity not in before]
        rows = rows_by_day(found, self._declared, self._contract).get(day, pl.DataFrame(schema=self._contract.schema))
        if cleared:
            rows = pl.concat([self._raw(day, cleared.revision).select(rows.columns), rows])
        return rows, _version(before.union(each.identity for each in found))

    def events_of_day(self, day: str) -> Sequence[Event]:
        """The events that have rows of a day, each once; without those that were cleared."""
        wanted = [path for path in files(self._folder) if day in self.of_file(path)]
        found = (event for path in wanted for event in events_of(path)[0])
        return distinct((event for event in found if day in days_of(event, self._declared)), set())

    def events_by_day(self) -> dict[str, set[str]]:
        """Identities of the events of each day, complete or not."""
        held = {path.stem: set(_decode_cleared(path.read_bytes()).events) for path in self._folder.glob("*.cleared")}
        for path in files(self._folder):
            for day, found in self.of_file(path).items():
                held.setdefault(day, set()).update(found)
        return held

    def clear(self, day: str, revision: int, events: Iterable[str]) -> Path:
        """Take the rows of some events of a day from a revision of `raw` from now on; gives the file that says so."""
        file = self._file_of(day)
        write_whole(file, msgspec.json.encode(Cleared(revision, sorted(events))))
        return file

    def _cleared(self, day: str) -> Cleared | None:
        try:
            return _decode_cleared(self._file_of(day).read_bytes())
        except FileNotFoundError:
            return None

    def _file_of(self, day: str) -> Path:
        return self._folder / f"{day}.cleared"

    def of_file(self, path: Path) -> Held:
        """What one file of the log holds."""
        kept = path.with_name(f"{path.stem}.{self._declared.time}.days")
        if kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=Held)
        # Asked before the file is read: what is appended to one that grows is found by the next look.
        growing = is_growing(path)
        start, held = _read.get(str(path), (0, {}))
        found, end = events_of(path, start)
        for event in found:
            for day in days_of(event, self._declared):
                held.setdefault(day, []).append(event.identity)
        if growing:
            _read[str(path)] = (end, held)
        else:
            _read.pop(str(path), None)
            write_whole(kept, msgspec.json.encode(held))
        return held


def rows_by_day(found: Sequence[Event], declared: Stream, contract: Contract) -> dict[str, pl.DataFrame]:
    """The rows of some events by the day that they are of, in the columns and types of the contract."""
    if not found:
        return {}
    rows = as_rows([each.rows for each in found], contract.schema)
    # Every row has a time: without one none is taken in.
    days = rows.get_column(declared.time).dt.date().alias("_day")
    parts = rows.with_columns(days).partition_by("_day", as_dict=True, include_key=False)
    return {day.isoformat(): part for (day,), part in parts.items() if day is not None}


def stream_has(source: Source, day: str) -> bool:
    """Whether a day of a source is its stream's, and not of where it landed before."""
    return not (isinstance(source.landing, Stream) and source.landing.since and day < source.landing.since.isoformat())


def days_of(event: Event, declared: Stream) -> set[str]:
    """The days that an event has rows of."""
    numbers = {value // _DAY for value in event.rows.get(declared.time, []) if isinstance(value, int)}
    return {(_EPOCH + timedelta(days=number)).isoformat() for number in numbers}


_decode_cleared = msgspec.json.Decoder(Cleared).decode


def _version(identities: Iterable[str]) -> str:
    told = "\n".join(sorted(identities))
    return blake2b(told.encode(), digest_size=8).hexdigest()
