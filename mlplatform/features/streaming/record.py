"""The record of what was streamed: which values of which entities were published when, and which facts were there.

It stands beside the tables, append-only, one folder for each version of a view and one for each table of facts. What a
streamed view publishes is recorded first and put into the online store then: nothing is served that is not on record.
When the day is over the record is the day's history (`pipeline`), and a check computes it again from the tables
(`streamed_equals_batch`), for which it has to know what had arrived by then.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import msgspec
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.features.epoch import epoch_micros, epoch_time
from mlplatform.features.streaming.fact_log import Columns, as_columns, as_rows
from mlplatform.features.version import view_version
from mlplatform.features.view import instant
from mlplatform.provenance.append_only import AppendOnlyFiles, day_begun, files, frames
from mlplatform.provenance.platform import Platform


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    """Fields may be added at the end, with a default."""

    instant: int
    """Microseconds since the epoch, UTC: the end of the windows, or when the facts were there."""
    rows: Columns


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class StreamedRecord:
    """What was published, or what arrived, in one folder; days are those of the instants, in UTC.

    Parameters
    ----------
    schema : columns of the rows
    """

    def __init__(self, folder: Path, schema: Mapping[str, pl.DataType], now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._schema = dict(schema)
        self._files = AppendOnlyFiles(folder, now)

    def append(self, at: datetime, rows: pl.DataFrame) -> None:
        """Record rows of an instant; they are on the disk when this returns.

        Raises
        ------
        Unavailable
            It cannot be written.
        """
        self._files.append(_encode(_Entry(epoch_micros(at), as_columns(rows.select(list(self._schema))))))

    def first_day(self) -> date | None:
        """The day of the first entry; None: nothing was ever recorded."""
        return next((day_begun(path) for path in files(self._folder)), None)

    def first_instant(self) -> datetime | None:
        """The instant of the first entry; None: nothing was ever recorded."""
        entries = (_decode(payload) for path in files(self._folder) for payload, _ in frames(path))
        return next((epoch_time(each.instant) for each in entries), None)

    def last_instant(self) -> datetime | None:
        """The instant of the last entry; None: nothing was ever recorded."""
        for path in reversed(files(self._folder)):
            for payload, _ in reversed(list(frames(path))):
                return epoch_time(_decode(payload).instant)
        return None

    def latest_instant(self, since: date) -> datetime:
        """The latest instant that was recorded from a day on, in whatever order; the day's begin, where none was."""
        found = (epoch_time(each.instant) for each in self._entries(since, since + timedelta(days=30)))
        return max(found, default=datetime.combine(since, time(), UTC))

    def rows(self, first: date, last: date) -> pl.DataFrame:
        """Rows of some days, both included, in the order in which they were recorded, with their `_instant`."""
        found = [each for each in self._entries(first, last) if first <= _day(each.instant) <= last]
        columns: list[Columns] = [{**each.rows, "_instant": [each.instant] * _height(each.rows)} for each in found]
        return as_rows(columns, {**self._schema, "_instant": instant})

    def entries(self, day: date) -> int:
        """How many entries a day has: names its content, since none is ever changed."""
        return sum(_day(each.instant) == day for each in self._entries(day, day))

    def _entries(self, first: date, last: date) -> Iterator[_Entry]:
        # What is recorded a moment after midnight is of an instant before it.
        for path in files(self._folder):
            if first <= day_begun(path) <= last + timedelta(days=1):
                for payload, _ in frames(path):
                    yield _decode(payload)


def value_schema(domain: Domain, view: FeatureView) -> dict[str, pl.DataType]:
    """Columns of what a view publishes: key, features, clocks."""
    dtypes = {column.name: column.dtype for column in domain.fact_columns(view.facts)}
    keys = {key: dtypes[key] for key in view.entity}
    return keys | {each.name: each.dtype for each in view.features} | {"event_time": instant, "available_at": instant}


def values_record(home: Path, domain: Domain, view: FeatureView, now: Callable[[], datetime]) -> StreamedRecord:
    """What a view has published, as it is declared now."""
    folder = home / "streamed" / domain.name / "views" / f"{view.name}@{view_version(domain, view)}"
    return StreamedRecord(folder, value_schema(domain, view), now)


def known_at_once(platform: Platform, domain: Domain, view: FeatureView) -> pl.Expr | None:
    """Which rows of a view's table were known as soon as they were available, though the day came later; None: none.

    Those within the day, in the first revision of a partition whose day was streamed, or is declared history. In a
    later revision they are what the correction made of them.
    """
    if not isinstance(view.schedule, AsFactsArrive):
        return None
    since = values_record(platform.home, domain, view, platform.clock).first_day()
    partition = pl.col("_partition")
    streamed = pl.lit(value=False) if since is None else partition >= since.isoformat()
    if domain.history_until is not None:
        streamed |= partition <= domain.history_until.isoformat()
    end = partition.str.to_date().cast(instant) + timedelta(days=1)
    return streamed & (pl.col("_revision") == 1) & (pl.col("available_at") < end)


def arrivals_record(home: Path, domain: Domain, table: str, now: Callable[[], datetime]) -> StreamedRecord:
    """Which facts of a table were there when."""
    dtypes = {column.name: column.dtype for column in domain.fact_columns(table)}
    return StreamedRecord(home / "streamed" / domain.name / "facts" / table, dtypes | {"event_time": instant}, now)


def _day(micros: int) -> date:
    return epoch_time(micros).date()


def _height(rows: Columns) -> int:
    return len(next(iter(rows.values()), []))
