"""Streaming: facts that arrive within the day update the online store within a second, by the code of the pipeline.

The rows of a day that have come so far go through the very stages that will make its partition when it is over; what
that adds to the facts, touches entities; of those the windows are computed anew, as of now, and put into the store. So
a fact may be late, come twice, or in any order: what counts is which facts are there.

Invariants:

* Nothing is computed on a window of which a day is missing, as in the pipeline: such a view waits, and says so.
* A value is put into the store before it is recorded, and counts as available a moment after both (`margin`), so that
  what was served and what the record says is the same. Events are acknowledged after that. Whoever dies in between does
  it again as of later, which is true as well.
* What the domain's code raises costs the update of that view or day, and is told once; the stream goes on. While the
  store is away nothing is acknowledged, and what it lacks is put when it is back.
* A fact that is dated later than now is held until then.
* Where the clock was ahead and was put right, also over a restart, what was published then stands above what follows;
  once that time has passed, the entities of the day are published again.
* What a rebuild of the store has dropped, since it is not in the tables yet, is put again from the record.

It refuses a domain of which no view is published as facts arrive, and a view that also needs a source which is not
streamed: its values would not be those of the tables.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source, Stream
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.errors import DeclarationError, MlplatformError, Unavailable
from mlplatform.features.landing.landing import landing_stream
from mlplatform.features.landing.stream import days_of, rows_by_day, stream_has
from mlplatform.features.online.publish import view_record
from mlplatform.features.online.store import OnlineStore, ViewRecord
from mlplatform.features.pipeline import absent_days, facts_so_far, given, pending
from mlplatform.features.streaming.consumers import FactConsumer
from mlplatform.features.streaming.fact_log import Event, Positions, distinct, events_of, fact_folder
from mlplatform.features.streaming.record import StreamedRecord, arrivals_record, values_record
from mlplatform.features.streaming.within_day import entities_of, values_at
from mlplatform.features.tables import Tables
from mlplatform.provenance.append_only import day_begun, files
from mlplatform.provenance.platform import Platform

log = logging.getLogger(__name__)

margin = timedelta(milliseconds=50)
"""From the moment at which a value is put into the store until it counts as available. Longer than a put takes, so that
no request sees less than the history says it saw; what took longer is counted (`Streaming.late`)."""

streamed_revision = 0
"""Revision of a streamed value: before the first one of its partition, whose values of the same clocks replace it."""

look_seconds = 5.0
"""Between two looks at the tables, and at whether somebody else has written to the store."""

put_right = timedelta(seconds=5)
"""How far a clock must go back to be taken for one that was ahead."""

day = timedelta(days=1)


@dataclass
class _Day:
    """The rows of a source for one day, as far as they were given."""

    rows: pl.DataFrame
    identities: set[str] = field(default_factory=set)


@dataclass
class _View:
    """A view that is published as facts arrive."""

    declared: FeatureView
    record: ViewRecord
    published: StreamedRecord
    owed: pl.DataFrame
    """Entities that a fact has touched and whose new values are not in the store yet."""

    seen: str | None = None
    """Revision of the store after the last put of ours."""

    told: str = ""


class Streaming:
    """Keeps the streamed views of a domain up to date.

    Parameters
    ----------
    store : where values go
    consumer : gives the facts

    Raises
    ------
    DeclarationError
        Nothing is published as facts arrive, or not from streamed sources alone.
    """

    def __init__(self, platform: Platform, domain: Domain, store: OnlineStore, consumer: FactConsumer) -> None:
        self._platform, self._domain, self._store, self._consumer = platform, domain, store, consumer
        self._tables = Tables(platform, domain)
        streamed = [view for view in domain.views if isinstance(view.schedule, AsFactsArrive)]
        if not streamed:
            raise DeclarationError(
                f"no view of {domain.name} is published as facts arrive. Declare `schedule=AsFactsArrive(every=…)`"
            )
        for view in streamed:
            _refuse_other_sources(domain, view)
        self._views = [self._opened(view) for view in streamed]
        self._of_table = {view.facts: _sources(domain, view.facts) for view in streamed}
        self._arrivals = {
            table: arrivals_record(platform.home, domain, table, platform.clock) for table in self._of_table
        }
        self._days: dict[str, dict[str, _Day]] = {
            source.name: {} for sources in self._of_table.values() for source in sources
        }
        self._facts: dict[str, dict[str, pl.DataFrame]] = {table: {} for table in self._of_table}
        self._numbers: dict[str, dict[str, int]] = {table: {} for table in self._of_table}
        self._waiting = {table: self._no_facts(table) for table in self._of_table}
        self._unrecorded = {table: self._no_facts(table) for table in self._of_table}
        self._last = datetime.min.replace(tzinfo=UTC)
        self._ahead = self._last
        """The latest instant under a clock that was ahead; over, when it has passed."""
        self._unfinished: set[str] = set()
        self._look_at = self._last
        self.published = 0
        """Values that were put into the store."""
        self.failed = 0
        """Updates that the domain's code has cost."""
        self.late = 0
        """Puts that took longer than `margin`."""
        self._begin()

    @property
    def views(self) -> list[str]:
        """Those that are kept up to date, as `owner/view`."""
        return [view.record.name for view in self._views]

    @property
    def held(self) -> int:
        """Facts that are dated later than now."""
        return sum(each.height for each in self._waiting.values())

    @property
    def blocked(self) -> str:
        """Why values that are owed are not in the store; empty where none are."""
        return next((view.told for view in self._views if view.owed.height and view.told), "")

    def newest_fact(self, now: datetime) -> datetime | None:
        """Time of the newest fact in the windows that is not dated later than now."""
        times = [days[each].get_column("event_time") for days in self._facts.values() for each in days]
        newest = [found for each in times if isinstance(found := each.filter(each <= now).max(), datetime)]
        return max(newest, default=None)

    def step(self, seconds: float) -> int:
        """Wait for facts, so many seconds at most, and publish what they change.

        Returns
        -------
        values : rows put into the store

        Raises
        ------
        Unavailable
            The record or the log cannot be written.
        """
        if self._platform.clock() >= self._look_at:
            self._look(self._platform.clock())
        changed = self._take(self._consumer.poll(seconds))
        self._unfinished.clear()
        now = self._instant()
        for table, days in changed.items():
            added, removed = self._recomputed(table, days)
            self._unrecorded[table] = pl.concat([self._unrecorded[table], added])
            self._waiting[table] = pl.concat([self._waiting[table], added])
            self._owe(table, removed)
        for table, arrived in self._unrecorded.items():
            if arrived.height:
                self._arrivals[table].append(now, arrived)
                self._unrecorded[table] = arrived.clear()
        for table, waiting in self._waiting.items():
            due = pl.col("event_time") < now
            if waiting.height:
                self._owe(table, waiting.filter(due))
                self._waiting[table] = waiting.filter(~due)
        try:
            put = sum(self._publish(view, now) for view in self._views if view.owed.height)
        except Unavailable as error:
            owing = next(view for view in self._views if view.owed.height)
            _tell(owing, f"{error}; what it lacks is put when it is back")
            return 0
        self._consumer.acknowledge()
        self.published += put
        return put

    def _instant(self) -> datetime:
        """Now, and never what it was before: windows that end at one instant have one content."""
        now = self._platform.clock()
        if self._last - now > put_right:
            self._ahead, self._last = max(self._ahead, self._last), now
            self._look_at = now
        if self._last <= self._ahead < now:
            for table, days in self._facts.items():
                today = [days[each] for each in days if each >= str(self._ahead.date() - day)]
                self._owe(table, pl.concat([self._no_facts(table), *today]))
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last

    def _opened(self, view: FeatureView) -> _View:
        record = view_record(self._domain, view, self._tables.features(view))
        published = values_record(self._platform.home, self._domain, view, self._platform.clock)
        return _View(view, record, published, pl.DataFrame(schema=dict(record.keys)))

    def _begin(self) -> None:
        """Load the windows: days that are whole from the tables, the others from what was acknowledged of the log."""
        taken = self._consumer.acknowledged()
        self._first = min(self._window(each.declared, self._platform.clock())[0] for each in self._views)
        for name in self._days:
            source = self._domain.source(name)
            known, new = self._logged(source, taken.get(name, {}))
            self._days[name] = {
                each: _Day(rows, _identities(known, source, each)) for each, rows in _by_day(known, source).items()
            }
            for each in _by_day(new, source):
                self._unfinished.add(each)
                self._days[name].setdefault(each, _Day(pl.DataFrame(schema=source.contract.schema)))
        self._look(self._platform.clock())
        for table in self._of_table:
            if self._arrivals[table].first_day() is None:
                # What is there from now on has an arrival; what was there before has none, and needs none.
                self._arrivals[table].append(self._platform.clock(), self._no_facts(table))
            logged = {each for source in self._of_table[table] for each in self._days[source.name]}
            facts, _ = self._recomputed(table, logged - self._numbers[table].keys())
            # Those that were dated later than all that is on record, so that nobody has published them.
            last = self._arrivals[table].last_instant()
            self._last = max(self._last, self._arrivals[table].latest_instant(self._platform.clock().date() - day))
            self._waiting[table] = facts.filter(pl.col("event_time") >= last)
        for view in self._views:
            # What had arrived when nothing could be published, since the window lacked a day.
            since = view.published.last_instant() or datetime.combine(date.fromisoformat(self._first), time(), UTC)
            arrived = self._arrivals[view.declared.facts].rows(since.date(), self._platform.clock().date() + day)
            view.owed = entities_of(view.declared, arrived.filter(pl.col("_instant") > since))

    def _look(self, now: datetime) -> None:
        """Take days from the tables that are whole there, and see who else writes to the store."""
        self._look_at = now + timedelta(seconds=look_seconds)
        self._first = min(self._window(each.declared, now)[0] for each in self._views)
        of_day: list[dict[str, Any]] = [*self._facts.values(), *self._numbers.values(), *self._days.values()]
        for kept in of_day:
            for old in [each for each in kept if each < self._first]:
                del kept[old]
        for table, sources in self._of_table.items():
            views = [each.declared for each in self._views if each.declared.facts == table]
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
        for view in self._views:
            self._put_again(view, now)

    def _is_up_to_date(self, each: str) -> bool:
        """Whether the tables of a day were made from what has landed of it by now."""
        stages = ("raw", "validated", "base", "derived")
        return not any(pending(self._platform, self._domain, stage, [each]) for stage in stages)

    def _put_again(self, view: _View, now: datetime) -> None:
        """Put what is on record and not in the tables yet, where somebody else has written: it may be a rebuild."""
        try:
            revision = self._store.revision(view.record.name)
            if revision is not None and revision == view.seen:
                return
            rows = view.published.rows(now.date() - day, now.date()).drop("_instant")
            if rows.height:
                self._put(view, rows, now)
            view.seen = self._store.revision(view.record.name)
        except Unavailable as error:
            _tell(view, str(error))

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

    def _window(self, view: FeatureView, now: datetime) -> list[str]:
        """Days that a window which ends now reaches into."""
        first = max((now - view.look_back).date(), self._domain.start)
        return [(first + number * day).isoformat() for number in range(max(0, (now.date() - first).days) + 1)]

    def _take(self, polled: Mapping[str, list[Event]]) -> dict[str, set[str]]:
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
        return {
            table: changed
            for table, sources in self._of_table.items()
            if (changed := set().union(*(days.get(source.name, set()) for source in sources)))
        }

    def _from_log(self, source: Source, each: str) -> _Day:
        """A day that was taken from the tables until a late fact came: all of it that the log holds."""
        found = landing_stream(self._platform, self._domain, source).events_of_day(each)
        rows = _by_day(found, source).get(each, pl.DataFrame(schema=source.contract.schema))
        return _Day(rows, {event.identity for event in found})

    def _recomputed(self, table: str, days: Iterable[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Make the facts of some days anew; gives those that are new, and those that are there no longer."""
        added, removed = [self._no_facts(table)], [self._no_facts(table)]
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

    def _owe(self, table: str, facts: pl.DataFrame) -> None:
        if facts.height:
            for view in self._views:
                if view.declared.facts == table:
                    touched = entities_of(view.declared, facts)
                    view.owed = pl.concat([view.owed, touched]).unique(maintain_order=True)

    def _publish(self, view: _View, now: datetime) -> int:
        """Compute and put what is owed of a view; gives the number of rows."""
        lacking = self._lacking(view.declared, now)
        if lacking:
            _tell(view, f"{view.record.name} waits for {', '.join(lacking[:3])}, which its window needs")
            return 0
        days = self._facts[view.declared.facts]
        window = [days[each] for each in self._window(view.declared, now) if each in days]
        facts = pl.concat(window) if window else self._no_facts(view.declared.facts)
        values = self._values(view, facts, view.owed, now)
        if values is None:
            view.owed = view.owed.clear()
            return 0
        available = self._platform.clock() + margin
        rows = values.with_columns(available_at=pl.lit(available, dtype=values.schema["event_time"]))
        if rows.height:
            self._put(view, rows, now)
            self.late += self._platform.clock() > available
            view.published.append(now, rows)
            view.seen = self._store.revision(view.record.name)
        view.owed = view.owed.clear()
        return rows.height

    def _values(self, view: _View, facts: pl.DataFrame, entities: pl.DataFrame, now: datetime) -> pl.DataFrame | None:
        """Values of some entities; without those on which the view's function raises."""
        try:
            return given(values_at, f"view {view.declared.name}", str(now.date()), view.declared, facts, entities, now)
        except MlplatformError as error:
            if entities.height == 1:
                self.failed += 1
                _tell(view, f"{view.record.name} of {entities.row(0)} is not streamed: {error}")
                return None
        # One entity must not cost the others their update.
        half = entities.height // 2
        parts = [self._values(view, facts, part, now) for part in (entities[:half], entities[half:])]
        there = [each for each in parts if each is not None]
        return pl.concat(there) if there else None

    def _put(self, view: _View, rows: pl.DataFrame, now: datetime) -> None:
        numbered = rows.with_columns(_revision=pl.lit(streamed_revision, dtype=pl.Int32))
        self._store.put(view.record, numbered, content=None, now=now)

    def _lacking(self, view: FeatureView, now: datetime) -> list[str]:
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

    def _no_facts(self, table: str) -> pl.DataFrame:
        schema = dict(self._tables.facts(table).schema)
        del schema["available_at"]
        return pl.DataFrame(schema=schema)


def _sources(domain: Domain, table: str) -> list[Source]:
    """The sources that a facts table is made of."""
    names = next((each.inputs for each in domain.derived if each.name == table), (table,))
    return [domain.source(name) for name in names]


def _refuse_other_sources(domain: Domain, view: FeatureView) -> None:
    other = [each.name for each in _sources(domain, view.facts) if not isinstance(each.landing, Stream)]
    if other:
        raise DeclarationError(
            f"{domain.name}/{view.name} is published as facts arrive, but {', '.join(other)} lands whole days. Declare "
            "`landing=Stream(time=…)` there, or the view as `Daily()`"
        )


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


def _tell(view: _View, reason: str) -> None:
    """Say it once, until something else is to be said."""
    if reason != view.told:
        view.told = reason
        log.warning("%s", reason)
