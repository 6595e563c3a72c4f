"""The facts of the days that the windows of streamed views reach into, as far as they are known by now.

A day that is over is taken from the tables; one that is not is made of what the log holds of it, by the code of the
pipeline, and made anew when more of it comes.

It refuses to fill up a day of which nothing is known: who asks for a window is told what it lacks. It publishes nothing
and acknowledges nothing.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source, Stream
from mlplatform.domain.view import FeatureView
from mlplatform.errors import MlplatformError
from mlplatform.features.landing.landing import landing_stream
from mlplatform.features.landing.stream import days_of, rows_by_day, stream_has
from mlplatform.features.materialization import pending
from mlplatform.features.pipeline import absent_days, facts_so_far
from mlplatform.features.streaming.fact_log import Event, Positions, distinct, events_of, fact_folder
from mlplatform.features.tables import Tables
from mlplatform.provenance.append_only import day_begun, files
from mlplatform.provenance.platform import Platform

log = logging.getLogger(__name__)


@dataclass
class _Day:
    """The rows of a source for one day, as far as they were given."""

    rows: pl.DataFrame
    identities: set[str] = field(default_factory=set)


class RecentFacts:
    """Facts by table and day.

    Parameters
    ----------
    views : whose windows it holds
    """

    def __init__(self, platform: Platform, domain: Domain, views: Sequence[FeatureView]) -> None:
        self._platform, self._domain, self._views = platform, domain, views
        self._tables = Tables(platform, domain)
        self._of_table = {view.facts: sources_of(domain, view.facts) for view in views}
        self._days: dict[str, dict[str, _Day]] = {
            source.name: {} for sources in self._of_table.values() for source in sources
        }
        self._facts: dict[str, dict[str, pl.DataFrame]] = {table: {} for table in self._of_table}
        self._numbers: dict[str, dict[str, int]] = {table: {} for table in self._of_table}
        self._unfinished: set[str] = set()
        self._first = ""
        self.failed = 0
        """Days that the domain's code has refused."""

    @property
    def tables(self) -> list[str]:
        """Those that the views are made of."""
        return list(self._of_table)

    @property
    def first_day(self) -> date:
        """The day with which the longest window begins."""
        return date.fromisoformat(self._first)

    def newest(self, now: datetime) -> datetime | None:
        """Time of the newest fact that is not dated later than now."""
        times = [days[each].get_column("event_time") for days in self._facts.values() for each in days]
        newest = [found for each in times if isinstance(found := each.filter(each <= now).max(), datetime)]
        return max(newest, default=None)

    def load(self, taken: Mapping[str, Positions], now: datetime) -> None:
        """Read the log: what was acknowledged of it is there from now on, and for what was not a day is kept open.

        Parameters
        ----------
        taken : by source, how far its log was acknowledged
        """
        self._first = self._begin_of_windows(now)
        for name in self._days:
            source = self._domain.source(name)
            known, new = self._logged(source, taken.get(name, {}))
            self._days[name] = {
                each: _Day(rows, _identities(known, source, each)) for each, rows in _by_day(known, source).items()
            }
            for each in _by_day(new, source):
                self._unfinished.add(each)
                self._days[name].setdefault(each, _Day(pl.DataFrame(schema=source.contract.schema)))

    def refresh(self, now: datetime) -> None:
        """Let go of days that no window reaches any more, and take those from the tables that are whole there."""
        self._first = self._begin_of_windows(now)
        of_day: list[dict[str, Any]] = [*self._facts.values(), *self._numbers.values(), *self._days.values()]
        for kept in of_day:
            for old in [each for each in kept if each < self._first]:
                del kept[old]
        for table, sources in self._of_table.items():
            views = [each for each in self._views if each.facts == table]
            window = sorted({each for view in views for each in self._window(view, now)})
            store = self._tables.facts(table)
            current = store.current(window)
            new = [each for each, found in current.items() if self._numbers[table].get(each) != found.number]
            logged = {each for source in sources for each in self._days[source.name]}
            for each in sorted(set(new) - self._unfinished):
                if each in logged and not self._is_up_to_date(each):
                    continue
                self._facts[table][each] = store.read([each]).drop("available_at")
                self._numbers[table][each] = current[each].number
                for source in sources:
                    self._days[source.name].pop(each, None)

    def of_the_log(self, table: str) -> pl.DataFrame:
        """Make the facts of the days of the log that are in no table yet; gives them."""
        logged = {each for source in self._of_table[table] for each in self._days[source.name]}
        return self.recomputed(table, logged - self._numbers[table].keys())[0]

    def take(self, polled: Mapping[str, list[Event]]) -> dict[str, set[str]]:
        """Keep the rows of new events; gives the days that they are of, by table."""
        days: dict[str, set[str]] = {}
        for name, found in polled.items():
            if name not in self._days:
                continue
            source = self._domain.source(name)
            for each in {each for event in found for each in _days(event, source)}:
                held = self._days[name].get(each)
                if each < self._first:
                    continue
                if held is None and any(each in self._numbers[table] for table in self._of_table):
                    held = self._days[name][each] = self._from_log(source, each)
                    days.setdefault(name, set()).add(each)
                if held is None:
                    held = self._days[name][each] = _Day(pl.DataFrame(schema=source.contract.schema))
                new = [event for event in distinct(found, set(held.identities)) if each in _days(event, source)]
                if new:
                    held.rows = pl.concat([held.rows, _by_day(new, source)[each]])
                    held.identities |= {event.identity for event in new}
                    days.setdefault(name, set()).add(each)
        self._unfinished.clear()
        return {
            table: changed
            for table, sources in self._of_table.items()
            if (changed := set().union(*(days.get(source.name, set()) for source in sources)))
        }

    def recomputed(self, table: str, days: Iterable[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Make the facts of some days anew; gives those that are new, and those that are there no longer."""
        added, removed = [self.none(table)], [self.none(table)]
        for each in sorted(days):
            raw = {
                source.name: self._days[source.name].get(each, _Day(pl.DataFrame(schema=source.contract.schema))).rows
                for source in self._of_table[table]
            }
            try:
                facts = facts_so_far(self._domain, self._tables, table, each, raw).drop("available_at")
            except MlplatformError as error:
                self.failed += 1
                log.warning("%s of %s is not streamed: %s", table, each, error)
                continue
            before = self._facts[table].get(each, facts.clear())
            self._facts[table][each] = facts
            self._numbers[table].pop(each, None)
            more, less = _difference(before, facts)
            added.append(more)
            removed.append(less)
        return pl.concat(added), pl.concat(removed)

    def of_window(self, view: FeatureView, now: datetime) -> pl.DataFrame:
        """Facts of the days that a window which ends now reaches into."""
        days = self._facts[view.facts]
        window = [days[each] for each in self._window(view, now) if each in days]
        return pl.concat(window) if window else self.none(view.facts)

    def since(self, table: str, first: date) -> pl.DataFrame:
        """Facts of a day and those after it."""
        days = self._facts[table]
        return pl.concat([self.none(table), *(days[each] for each in days if each >= str(first))])

    def lacking(self, view: FeatureView, now: datetime) -> list[str]:
        """Days of the window that are over, and that neither a table nor the log has anything of."""
        absent = absent_days(self._domain, view.facts)
        silent = all(
            isinstance(source.landing, Stream) and source.landing.empty_days for source in self._of_table[view.facts]
        )
        return [
            each
            for each in self._window(view, now)[:-1]
            if each not in self._facts[view.facts] and date.fromisoformat(each) not in absent and not silent
        ]

    def none(self, table: str) -> pl.DataFrame:
        """No facts, in the columns of a table."""
        schema = dict(self._tables.facts(table).schema)
        del schema["available_at"]
        return pl.DataFrame(schema=schema)

    def _logged(self, source: Source, taken: Positions) -> tuple[list[Event], list[Event]]:
        """Events of the log that may be of the window: those acknowledged, and those after them."""
        known, new = [], []
        for path in files(fact_folder(self._platform.home, self._domain.name, source.name)):
            # What is dated in the future is of a later day than that on which it came, and never of an earlier file.
            if day_begun(path) < date.fromisoformat(self._first) and path.name in taken:
                continue
            end = taken.get(path.name, 0)
            new += events_of(path, end)[0]
            known += events_of(path, 0, end)[0] if end else []
        return distinct(known, set()), new

    def _from_log(self, source: Source, each: str) -> _Day:
        """A day that was taken from the tables until a late fact came: all of it that the log holds."""
        found = landing_stream(self._platform, self._domain, source).events_of_day(each)
        rows = _by_day(found, source).get(each, pl.DataFrame(schema=source.contract.schema))
        return _Day(rows, {event.identity for event in found})

    def _is_up_to_date(self, each: str) -> bool:
        """Whether the tables of a day were made from what has landed of it by now."""
        stages = ("raw", "validated", "base", "derived")
        return not any(pending(self._platform, self._domain, stage, [each]) for stage in stages)

    def _window(self, view: FeatureView, now: datetime) -> list[str]:
        """Days that a window which ends now reaches into."""
        first = max((now - view.look_back).date(), self._domain.start)
        return [(first + timedelta(days=number)).isoformat() for number in range(max(0, (now.date() - first).days) + 1)]

    def _begin_of_windows(self, now: datetime) -> str:
        return min(self._window(each, now)[0] for each in self._views)


def sources_of(domain: Domain, table: str) -> list[Source]:
    """The sources that a facts table is made of."""
    names = next((each.inputs for each in domain.derived if each.name == table), (table,))
    return [domain.source(name) for name in names]


def _by_day(found: Sequence[Event], source: Source) -> dict[str, pl.DataFrame]:
    assert isinstance(source.landing, Stream)
    rows = rows_by_day(found, source.landing, source.contract)
    return {each: rows[each] for each in rows if stream_has(source, each)}


def _days(event: Event, source: Source) -> set[str]:
    assert isinstance(source.landing, Stream)
    return {each for each in days_of(event, source.landing) if stream_has(source, each)}


def _identities(found: list[Event], source: Source, each: str) -> set[str]:
    return {event.identity for event in found if each in _days(event, source)}


def _difference(before: pl.DataFrame, after: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that were added and rows that were removed, each as often as it is one."""
    if before.is_empty():
        return after, before
    count = pl.lit(1, dtype=pl.Int32)
    both = pl.concat([before.with_columns(_count=-count), after.with_columns(_count=count)])
    counted = both.group_by(after.columns, maintain_order=True).agg(pl.col("_count").sum())

    def times(number: pl.Expr) -> pl.DataFrame:
        chosen = counted.filter(number > 0)
        return chosen.drop("_count").select(pl.all().repeat_by(chosen["_count"].abs()).explode())

    return times(pl.col("_count")), times(-pl.col("_count"))
