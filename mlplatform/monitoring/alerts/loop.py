"""The monitor loop: one look every half minute at all that is known of a domain, and the alerts that follow from it.

It looks at the last minutes itself, takes what the daily monitors have found, and watches whether they judge. Then it
writes down what has changed and sends what waits. A piece that breaks costs the others nothing, and is an alert itself
when it stays broken.

Everything it must not forget stands in the journal; what it holds in memory only spares it work.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache

import msgspec

from mlplatform.domain.domain import Domain
from mlplatform.features.tables import partition_end
from mlplatform.monitoring.alerts.alert import Alert, Look, State, step
from mlplatform.monitoring.alerts.freshness import Freshness, beat
from mlplatform.monitoring.alerts.journal import Journal, Known, Message, Step, journal_folder
from mlplatform.monitoring.alerts.live import (
    behaviour_looks,
    behaviour_window,
    breaker_looks,
    data_looks,
    rollback_looks,
    traffic_looks,
)
from mlplatform.monitoring.alerts.message import message, messages, short
from mlplatform.monitoring.alerts.nulls import NeverMissing
from mlplatform.monitoring.alerts.recent import recent_answers
from mlplatform.monitoring.alerts.send import Channels, send
from mlplatform.monitoring.daily import Due
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import Judgement, judged, judgements
from mlplatform.monitoring.outcomes.digest import days_back, digest
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform

logger = logging.getLogger(__name__)

days_looked_back = 45
"""Of judgements, before the newest one: a week's labels may come a month late. What is older is history."""

digest_hour = 6
"""UTC, from which on the digest of the day before is sent: the day is judged by then, and people begin theirs."""

freshness_every = timedelta(minutes=5)
"""To ask each monitor for its days is a look into the metadata of a table."""

broken_ticks = 3
"""In a row, until a piece that breaks is an alert: a table that is away for a minute is none."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What one look has done."""

    open: tuple[Alert, ...]
    told: int
    """Messages written."""

    delivered: int
    failed: int
    """Attempts that no receiver took."""

    broken: tuple[str, ...]
    """Pieces that did not work."""


class Monitor:
    """The loop of one domain, in one process.

    Parameters
    ----------
    monitors : name of each daily monitor -> which days it can judge
    channels : opens what messages are sent through; asked anew at each look, since its file may change
    ui : base URL of the Dagster UI, for links
    """

    def __init__(
        self,
        platform: Platform,
        domain: Domain,
        *,
        monitors: Mapping[str, Due],
        channels: Callable[[], Channels],
        ui: str = "",
    ) -> None:
        self._platform, self._domain, self._channels, self._ui = platform, domain, channels, ui
        self._journal = Journal(journal_folder(platform.home, domain.name), platform.clock)
        self._freshness = Freshness(platform, domain, monitors)
        self._never_missing = NeverMissing(platform, domain)
        self._monitors = monitors
        self._digests: list[Message] = []
        self._fresh_at: datetime | None = None
        # Judgements that were taken in, and those that will be once their step is written down.
        self._taken: Mapping[tuple[str, str], datetime] = {}
        self._to_take: Mapping[tuple[str, str], datetime] = {}
        self._judged: Mapping[str, datetime] = {}
        self._broken: dict[str, int] = {}

    def look(self) -> Looked:
        """Look once, and tell what is to be told. Of its pieces none can make it raise.

        Raises
        ------
        Unavailable
            The journal cannot be written: nothing is sent that is not written down.
        """
        now = self._platform.clock()
        with alone(self._journal.lock):
            pieces: Mapping[str, Callable[[datetime], Iterator[Look]]] = {
                "answers": self._answers,
                "breakers": lambda at: breaker_looks(self._platform, self._domain, at),
                "rollbacks": lambda at: rollback_looks(self._platform, self._domain, at),
                "judgements": self._judgements,
                "freshness": self._late,
                "digest": self._digest,
            }
            looks = [look for name, piece in pieces.items() for look in self._tried(name, piece, now)]
            channels = cache(self._channels)
            open_alerts, told = self._step(looks, now, channels)
            attempts = send(self._journal, channels(), now) if self._journal.known().waiting(now) else []
        beat(self._platform.home, self._domain.name, now)
        return Looked(
            open=tuple(open_alerts),
            told=told,
            delivered=sum(each.delivered for each in attempts),
            failed=sum(not each.delivered for each in attempts),
            broken=tuple(name for name, times in self._broken.items() if times),
        )

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _tried(self, name: str, piece: Callable[[datetime], Iterator[Look]], now: datetime) -> list[Look]:
        """What a piece says, and whether it works."""
        looks: list[Look] = []
        findings: tuple[Finding, ...] = ()
        try:
            looks.extend(piece(now))
            self._broken[name] = 0
        except Exception as error:
            # Whatever it is: the other pieces are looked at, and this one is told of.
            logger.exception("the look at %s broke", name)
            self._broken[name] = self._broken.get(name, 0) + 1
            if self._broken[name] >= broken_ticks:
                findings = (self._broken_finding(name, error, now),)
        looks.append(Look(monitor=f"loop {name}", since=now, until=now, findings=findings))
        return looks

    def _broken_finding(self, name: str, error: Exception, now: datetime) -> Finding:
        return Finding(
            layer="data_quality",
            rule="monitor_broken",
            subject=f"{self._domain.name}/{name}",
            day=f"{now:%Y-%m-%d}",
            # Its words may hold a value or an address, and alerts leave the house.
            summary=f"the monitor loop cannot look at {name} ({type(error).__name__}). Look at the log of the sensor",
            figures={"value": float(self._broken[name]), "bound": float(broken_ticks)},
        )

    def _answers(self, now: datetime) -> Iterator[Look]:
        answers = recent_answers(self._platform, self._domain, now - behaviour_window)
        yield from data_looks(self._domain, answers, now, self._never_missing)
        yield from behaviour_looks(self._domain, answers, now)
        yield from traffic_looks(self._platform, self._domain, answers, now)

    def _judgements(self, now: datetime) -> Iterator[Look]:
        """What the daily monitors have said since the last look."""
        said = self._said()
        fresh = {key for key, at in said.items() if self._taken.get(key) != at}
        if fresh:
            days = sorted(day for _, day in fresh)
            for each in judgements(self._platform, self._domain, since=days[0], until=days[-1]):
                if (each.monitor, each.day) in fresh:
                    yield _look_of(each)
        self._to_take = said

    def _said(self) -> dict[tuple[str, str], datetime]:
        """Monitor and day of the judgements that are no history, and when they were made."""
        found = judged(self._platform, self._domain)
        if not found:
            return {}
        newest = date.fromisoformat(max(day for _, day in found))
        oldest = (newest - timedelta(days=days_looked_back)).isoformat()
        return {key: at for key, at in found.items() if key[1] >= oldest}

    def _late(self, now: datetime) -> Iterator[Look]:
        """Whether the daily monitors judge."""
        if self._fresh_at is not None and now - self._fresh_at < freshness_every:
            return
        found = judged(self._platform, self._domain)
        for monitor in self._monitors:
            findings = self._freshness.findings(monitor, {day for name, day in found if name == monitor}, now)
            name = f"freshness of {self._domain.name}/{monitor}"
            yield Look(monitor=name, since=now, until=now, findings=tuple(findings), asset=monitor)
        self._fresh_at = now

    def _digest(self, now: datetime) -> Iterator[Look]:
        """What is to be sent of the day before, once a day; nothing where nobody has asked for two weeks."""
        day = f"{now - timedelta(days=1):%Y-%m-%d}"
        made = message(f"digest {self._domain.name} {day}", now, self._domain.alerts.digest, "", "")
        if now.hour < digest_hour or made.id in self._journal.known().messages:
            return
        answered = max((each for each in rows_by_day(self._platform, self._domain) if each <= day), default="")
        if answered >= f"{now - timedelta(days=days_back):%Y-%m-%d}":
            told = digest(self._platform, self._domain, day, monitors=self._monitors)
            self._digests = [msgspec.structs.replace(made, subject=short(told.subject), text=told.text)]
        yield from ()

    def _step(self, looks: list[Look], now: datetime, channels: Callable[[], Channels]) -> tuple[list[Alert], int]:
        known = self._journal.known()
        before = known.state(self._domain.name)
        state = State(domain=before.domain, alerts=before.alerts, judged=self._judged)
        after, notices = step(state, looks, now, lambda alert: hushed(self._domain, known, alert, now) != "")
        changed = [alert for identity, alert in after.alerts.items() if _differs(before.alerts.get(identity), alert)]
        written: list[Message] = []
        for each in [*messages(self._domain, notices, now, ui=self._ui), *self._digests]:
            written.append(msgspec.structs.replace(each, to=tuple(channels().receivers(each.tags))))
        if changed or written:
            self._journal.append(Step(at=now, alerts=tuple(changed), messages=tuple(written)))
        self._judged, self._taken, self._digests = after.judged, self._to_take, []
        for notice in notices:
            logger.info("alert %s: %s: %s", notice.kind, notice.alert.name, notice.alert.summary)
        return after.open, len(written)


def hushed(domain: Domain, known: Known, alert: Alert, now: datetime) -> str:
    """Why nobody is to hear of an alert at present; empty: they are."""
    if alert.rule in domain.alerts.muted or alert.name in domain.alerts.muted:
        return "muted in the domain"
    silence = known.silenced(alert, now)
    return "" if silence is None else f"silenced until {silence.until:%Y-%m-%d %H:%M} UTC: {silence.reason}"


def _differs(before: Alert | None, after: Alert) -> bool:
    """Whether an alert has to be written down: not at each look for which it goes on."""
    if before is None or (before.id, before.over, before.told) != (after.id, after.over, after.told):
        return True
    # How far a daily monitor has found it is not looked at again; minutes are.
    return before.clear_at.keys() != after.clear_at.keys() or after.last - before.last >= timedelta(minutes=5)


def _look_of(said: Judgement) -> Look:
    end = partition_end(said.day)
    return Look(
        monitor=said.monitor,
        since=end - (timedelta(days=7) if said.monitor.endswith("_weekly") else timedelta(days=1)),
        until=end,
        findings=said.findings,
        asset=said.monitor,
    )
