"""The landing query: rows of a database, one day after the other.

A day has no file that could be complete, so it counts when it is over, and as long after that as is declared. Its
version is made of its watermark and of the query that reads it: another query lands other rows. The watermark is asked
for again once the rows are read: had they moved meanwhile, nothing is taken in.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from mlplatform.domain.source import Query
from mlplatform.errors import ChangedWhileRead, DeclarationError, MalformedFile, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

rows_at_once = 50_000
"""Rows that are Python objects at the same time, 50 MB at twenty columns; a frame takes a tenth of it."""

in_utc = {
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": "SET time_zone = '+00:00'",
    "mariadb": "SET time_zone = '+00:00'",
}
"""By dialect, what makes a session read a bound without a zone as UTC."""


class LandingQuery:
    """Landed days of one source in a database.

    Parameters
    ----------
    declared : the queries
    url : of the database, as SQLAlchemy writes it
    first, last : days that are asked about; None: up to now
    clock : gives now, to tell a day that is over
    """

    def __init__(
        self, declared: Query, url: str, *, first: date, last: date | None, clock: Callable[[], datetime]
    ) -> None:
        self._declared = declared
        self._url = url
        self._first = first
        self._last = last
        self._clock = clock

    def list(self) -> Mapping[str, str]:
        """Day -> hash of its watermark, for every day that is complete.

        Raises
        ------
        Unavailable
            The database cannot be asked, or does not understand the question.
        """
        over = (self._clock() - self._declared.settle).date() - timedelta(days=1)
        last = over if self._last is None else min(over, self._last)
        if last < self._first:
            return {}
        with self._connected() as connection:
            return self._watermarks(connection, self._first, last)

    def read(self, day: str, version: str) -> pl.DataFrame:
        """Rows of a day."""
        asked = date.fromisoformat(day)
        with self._connected() as connection:
            result = self._asked(connection, self._declared.select, asked, asked)
            try:
                rows = _frame(result)
            except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
                raise MalformedFile(f"{self._declared}, {day}", f"its rows make no table ({error})") from error
            found = self._watermarks(connection, asked, asked).get(day)
        if found != version:
            raise ChangedWhileRead(f"{day} of {self._declared}", "was changed")
        return rows

    def _watermarks(self, connection: "Connection", first: date, last: date) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in self._asked(connection, self._declared.watermark, first, last):
            name, watermark = _name(row[0]), tuple(row)[1:]
            if not watermark or name in found:
                raise DeclarationError(
                    f"the watermark query of {self._declared} gives {name} {'twice' if watermark else 'alone'}. Let it "
                    "give one row per day: the day, and what changes when its rows do"
                )
            # A query that does not look at the bounds gives more days; what is no day at all is for others to tell.
            if _is_day(name) and not first.isoformat() <= name <= last.isoformat():
                continue
            found[name] = self._version(watermark)
        if self._declared.empty_days:
            for number in range((last - first).days + 1):
                found.setdefault((first + timedelta(days=number)).isoformat(), self._version(()))
        return found

    def _version(self, watermark: tuple[object, ...]) -> str:
        told = "\n".join([self._declared.select, *map(str, watermark)])
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def _asked(self, connection: "Connection", query: str, first: date, last: date) -> "CursorResult[Any]":
        from sqlalchemy import text

        after = last + timedelta(days=1)
        bounds: dict[str, object]
        if connection.dialect.name == "sqlite":
            # It has no times but text, whose order is right for a bare date whatever follows the date in the column.
            bounds = {"day_start": first.isoformat(), "day_end": after.isoformat()}
        else:
            bounds = {"day_start": datetime.combine(first, time()), "day_end": datetime.combine(after, time())}
        return connection.execution_options(yield_per=rows_at_once).execute(text(query), bounds)

    @contextmanager
    def _connected(self) -> "Iterator[Connection]":
        from sqlalchemy import NullPool, create_engine
        from sqlalchemy.exc import SQLAlchemyError

        try:
            # Nothing is kept open between looks: they are far apart, and processes fork.
            engine = create_engine(self._url, poolclass=NullPool)
            with engine.connect() as connection:
                if connection.dialect.name in in_utc:
                    connection.exec_driver_sql(in_utc[connection.dialect.name])
                yield connection
        except ImportError as error:
            raise Unavailable(f"{self._declared} needs a driver that is not installed ({error})") from error
        except SQLAlchemyError as error:
            # Not `from error`: what it says is said here, without the password.
            raise Unavailable(
                f"{self._declared} cannot be asked ({self._told(error)}). Start it, or correct the URL or the query"
            ) from None

    def _told(self, error: Exception) -> str:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        said = " ".join(str(getattr(error, "orig", None) or error).split())
        try:
            password = make_url(self._url).password
        except ArgumentError:
            password = None
        for secret in filter(None, (self._url, password)):
            said = said.replace(str(secret), "…")
        return re.sub(r"//[^/\s]*@", "//…@", said)


def _frame(result: "CursorResult[Any]") -> pl.DataFrame:
    names = list(result.keys())
    parts = [
        pl.DataFrame([tuple(row) for row in part], schema=names, orient="row", infer_schema_length=None)
        for part in result.partitions(rows_at_once)
    ]
    # A column that is empty in one part has no type there.
    return pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame(schema=names)


def _name(day: object) -> str:
    """A day as databases give it: a date, a midnight, or text."""
    if isinstance(day, datetime):
        return day.date().isoformat() if day.time() == time() else str(day)
    return day.isoformat() if isinstance(day, date) else str(day)


def _is_day(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False
