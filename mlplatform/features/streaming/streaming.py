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
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Stream
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.errors import DeclarationError, MlplatformError, Unavailable
from mlplatform.features.online.publish import view_record
from mlplatform.features.online.store import OnlineStore, ViewRecord
from mlplatform.features.pipeline import given
from mlplatform.features.streaming.consumers import FactConsumer
from mlplatform.features.streaming.recent_facts import RecentFacts, sources_of
from mlplatform.features.streaming.record import StreamedRecord, arrivals_record, values_record
from mlplatform.features.streaming.within_day import entities_of, values_at
from mlplatform.features.tables import Tables
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
        streamed = [view for view in domain.views if isinstance(view.schedule, AsFactsArrive)]
        if not streamed:
            raise DeclarationError(
                f"no view of {domain.name} is published as facts arrive. Declare `schedule=AsFactsArrive(every=…)`"
            )
        for view in streamed:
            _refuse_other_sources(domain, view)
        self._views = [self._opened(view) for view in streamed]
        self._recent = recent = RecentFacts(platform, domain, streamed)
        self._arrivals = {
            table: arrivals_record(platform.home, domain, table, platform.clock) for table in recent.tables
        }
        self._waiting = {table: recent.none(table) for table in recent.tables}
        self._unrecorded = {table: recent.none(table) for table in recent.tables}
        self._last = datetime.min.replace(tzinfo=UTC)
        self._ahead = self._last
        """The latest instant under a clock that was ahead; over, when it has passed."""
        self._look_at = self._last
        self._failed = 0
        self.published = 0
        """Values that were put into the store."""
        self.late = 0
        """Puts that took longer than `margin`."""
        self._begin()

    @property
    def views(self) -> list[str]:
        """Those that are kept up to date, as `owner/view`."""
        return [view.record.name for view in self._views]

    @property
    def failed(self) -> int:
        """Updates that the domain's code has cost."""
        return self._failed + self._recent.failed

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
        return self._recent.newest(now)

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
        changed = self._recent.take(self._consumer.poll(seconds))
        now = self._instant()
        for table, days in changed.items():
            added, removed = self._recent.recomputed(table, days)
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
            for table in self._recent.tables:
                self._owe(table, self._recent.since(table, self._ahead.date() - day))
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last

    def _opened(self, view: FeatureView) -> _View:
        record = view_record(self._domain, view, Tables(self._platform, self._domain).features(view))
        published = values_record(self._platform.home, self._domain, view, self._platform.clock)
        return _View(view, record, published, pl.DataFrame(schema=dict(record.keys)))

    def _begin(self) -> None:
        """Load the windows, and see what was left undone: facts that are held, entities that are owed."""
        self._recent.load(self._consumer.acknowledged(), self._platform.clock())
        self._look(self._platform.clock())
        for table in self._recent.tables:
            if self._arrivals[table].first_day() is None:
                # What is there from now on has an arrival; what was there before has none, and needs none.
                self._arrivals[table].append(self._platform.clock(), self._recent.none(table))
            facts = self._recent.of_the_log(table)
            # Those that were dated later than all that is on record, so that nobody has published them.
            last = self._arrivals[table].last_instant()
            self._last = max(self._last, self._arrivals[table].latest_instant(self._platform.clock().date() - day))
            self._waiting[table] = facts.filter(pl.col("event_time") >= last)
        for view in self._views:
            # What had arrived when nothing could be published, since the window lacked a day.
            since = view.published.last_instant() or datetime.combine(self._recent.first_day, time(), UTC)
            arrived = self._arrivals[view.declared.facts].rows(since.date(), self._platform.clock().date() + day)
            view.owed = entities_of(view.declared, arrived.filter(pl.col("_instant") > since))

    def _look(self, now: datetime) -> None:
        """Take days from the tables that are whole there, and see who else writes to the store."""
        self._look_at = now + timedelta(seconds=look_seconds)
        self._recent.refresh(now)
        for view in self._views:
            self._put_again(view, now)

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

    def _owe(self, table: str, facts: pl.DataFrame) -> None:
        if facts.height:
            for view in self._views:
                if view.declared.facts == table:
                    touched = entities_of(view.declared, facts)
                    view.owed = pl.concat([view.owed, touched]).unique(maintain_order=True)

    def _publish(self, view: _View, now: datetime) -> int:
        """Compute and put what is owed of a view; gives the number of rows."""
        lacking = self._recent.lacking(view.declared, now)
        if lacking:
            _tell(view, f"{view.record.name} waits for {', '.join(lacking[:3])}, which its window needs")
            return 0
        values = self._values(view, self._recent.of_window(view.declared, now), view.owed, now)
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
                self._failed += 1
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


def _refuse_other_sources(domain: Domain, view: FeatureView) -> None:
    other = [each.name for each in sources_of(domain, view.facts) if not isinstance(each.landing, Stream)]
    if other:
        raise DeclarationError(
            f"{domain.name}/{view.name} is published as facts arrive, but {', '.join(other)} lands whole days. Declare "
            "`landing=Stream(time=…)` there, or the view as `Daily()`"
        )


def _tell(view: _View, reason: str) -> None:
    """Say it once, until something else is to be said."""
    if reason != view.told:
        view.told = reason
        log.warning("%s", reason)
