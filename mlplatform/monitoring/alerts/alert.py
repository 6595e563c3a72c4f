"""`Alert`: something that is wrong and goes on, from the first finding until its monitor has not found it for a while.

Monitors say the same thing again and again; people want to hear when it begins and when it is over. Whatever shares
domain, rule and subject is one alert. All of this is pure: looks and a time in, alerts and notices out.

Invariants:

* Of one alert there is at most one notice that it began and one that it is over, in this order; reminders lie between.
* An alert is over when every monitor that found it has looked further for a quiet period without finding it; how long,
  is told by the length of its window, in the time of what is looked at. Neither a restart nor a clock ends an alert,
  and a monitor that has gone silent ends none.
* A finding of a time that an alert which is over has covered is no news. So each look may be handed in again.
* What is hushed is kept like everything else, and nobody hears of its beginning. Whoever heard of the beginning hears
  of the end.

It never reads a clock, sends nothing and writes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal

import msgspec

from mlplatform.monitoring.finding import Finding, Layer

Identity = tuple[str, str]
"""Rule and subject; the domain is that of the state."""

Kind = Literal["opened", "still", "over", "passed"]
"""`still` is a reminder; what was over before anybody heard of it has `passed`."""

shortest_quiet = timedelta(minutes=30)
"""Whoever is called to a fault that comes every quarter of an hour wants to be called once."""

quiet_windows = 2
"""Of a monitor's windows, free of the finding one after the other: a fault of every other day is one fault."""

remind_after = timedelta(days=1)
"""An alert that nobody has closed in a day is forgotten, or lives on in somebody's list; either may hear of it."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one monitor said of one window of time; of everything that it judges."""

    monitor: str
    """Who looked, and at what, where it does not always look at all of it."""

    since: datetime
    until: datetime
    """The window: a day, or the last minutes."""

    findings: tuple[Finding, ...] = ()
    """The worst first."""

    asset: str = "prediction_log"
    """Name of the domain's asset in which it can be looked at."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong, from the beginning to the end. Fields may be added, with a default."""

    id: str
    domain: str
    layer: Layer
    rule: str
    subject: str
    asset: str
    opened: datetime
    """When it was noticed."""

    since: datetime
    """Since when it was so: the beginning of the window in which it was found first."""

    last: datetime
    """The end of the last window in which it was found."""

    clear_at: dict[str, datetime]
    """Of each monitor that found it: up to where it must look without finding it."""

    day: str
    summary: str
    manifest: str
    figures: dict[str, float]
    features: tuple[str, ...]
    """As last found."""

    over: datetime | None = None
    """When it was seen to be over."""

    told: datetime | None = None
    """When somebody was last told; None: nobody ever was."""

    closed: str = ""
    """By whom and why, where a person has ended it and not its monitors."""

    @property
    def identity(self) -> Identity:
        """Rule and subject."""
        return self.rule, self.subject

    @property
    def name(self) -> str:
        """`rule:subject`, as commands take it."""
        return f"{self.rule}:{self.subject}"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that people should hear."""

    kind: Kind
    alert: Alert


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of a domain's alerts."""

    domain: str
    alerts: Mapping[Identity, Alert] = field(default_factory=dict)
    """The newest of each identity, be it open or over."""

    judged: Mapping[str, datetime] = field(default_factory=dict)
    """By monitor, how far it has looked. It may be forgotten: then an alert waits for the next look."""

    @property
    def open(self) -> list[Alert]:
        """Alerts that are not over, the oldest first."""
        return sorted((each for each in self.alerts.values() if each.over is None), key=lambda each: each.opened)


def step(
    state: State, looks: Iterable[Look], now: datetime, hushed: Callable[[Alert], bool] = lambda _: False
) -> tuple[State, list[Notice]]:
    """Take in some looks; gives the state after them, and what is to be told.

    Parameters
    ----------
    now : aware
    hushed : whether nobody is to hear of an alert at present
    """
    alerts, judged = dict(state.alerts), dict(state.judged)
    for look in sorted(looks, key=lambda each: (each.until, each.monitor)):
        judged[look.monitor] = max(look.until, judged.get(look.monitor, look.until))
        found = _by_identity(look.findings)
        for identity, findings in found.items():
            alert = _found(alerts.get(identity), state.domain, look, findings, now)
            if alert is not None:
                alerts[identity] = alert
        for identity, alert in alerts.items():
            # A window that is judged again, and is free of it now: it never was.
            if identity not in found and alert.clear_at.get(look.monitor) == _clear_at(look):
                rest = {name: at for name, at in alert.clear_at.items() if name != look.monitor}
                alerts[identity] = msgspec.structs.replace(alert, clear_at=rest)
    notices = []
    for identity, alert in alerts.items():
        kind, alerts[identity] = _turn(alert, judged, now, hushed)
        if kind is not None:
            notices.append(Notice(kind=kind, alert=alerts[identity]))
    return State(domain=state.domain, alerts=alerts, judged=judged), notices


def _turn(
    alert: Alert, judged: Mapping[str, datetime], now: datetime, hushed: Callable[[Alert], bool]
) -> tuple[Kind | None, Alert]:
    """What is to be told of an alert now, and the alert after that."""
    if alert.over is not None:
        return None, alert
    if not any(name not in judged or judged[name] < at for name, at in alert.clear_at.items()):
        ended = msgspec.structs.replace(alert, over=now)
        if alert.told is not None:
            return "over", ended
        return (None, ended) if hushed(alert) else ("passed", ended)
    if hushed(alert):
        return None, alert
    if alert.told is None:
        return "opened", msgspec.structs.replace(alert, told=now)
    # Of what was not there at the last look nobody is reminded; most likely it is over soon.
    goes_on = any(judged.get(name, alert.last) <= alert.last for name in alert.clear_at)
    if goes_on and now - alert.told >= remind_after:
        return "still", msgspec.structs.replace(alert, told=now)
    return None, alert


def _by_identity(findings: Sequence[Finding]) -> dict[Identity, list[Finding]]:
    found: dict[Identity, list[Finding]] = {}
    for each in findings:
        if each.harmful:
            found.setdefault((each.rule, each.subject), []).append(each)
    return found


def _found(alert: Alert | None, domain: str, look: Look, findings: Sequence[Finding], now: datetime) -> Alert | None:
    """The alert with what was found now; None: it is no news."""
    worst, clear_at = findings[0], _clear_at(look)
    if alert is not None and (look.since < alert.last if alert.over is not None else clear_at <= alert.since):
        return None
    if alert is None or alert.over is not None:
        name = f"{domain} {worst.rule} {worst.subject} {look.monitor} {look.since.isoformat()}"
        alert = Alert(
            id=blake2b(name.encode(), digest_size=4).hexdigest(),
            domain=domain,
            layer=worst.layer,
            rule=worst.rule,
            subject=worst.subject,
            asset=look.asset,
            opened=now,
            since=look.since,
            last=look.until,
            clear_at={},
            day="",
            summary="",
            manifest="",
            figures={},
            features=(),
        )
    known = {**alert.clear_at, look.monitor: max(clear_at, alert.clear_at.get(look.monitor, clear_at))}
    earliest = min(alert.since, look.since)
    if look.until < alert.last:
        return msgspec.structs.replace(alert, clear_at=known, since=earliest)
    others = len(findings) - 1
    return msgspec.structs.replace(
        alert,
        clear_at=known,
        since=earliest,
        last=look.until,
        asset=look.asset,
        day=worst.day,
        summary=worst.summary + (f" (and {others} more)" if others else ""),
        manifest=worst.manifest,
        figures=dict(worst.figures),
        features=tuple(dict.fromkeys(feature for each in findings for feature in each.features)),
    )


def _clear_at(look: Look) -> datetime:
    return look.until + max(shortest_quiet, quiet_windows * (look.until - look.since))
