"""`mlplatform alerts`: what is open, what was, who was told, what is to be quiet, and what a person has ended."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlplatform.domain.domain import Domain
from mlplatform.errors import DeclarationError
from mlplatform.monitoring.alerts.alert import Alert, Notice
from mlplatform.monitoring.alerts.journal import Journal, Known, Message, Silence, Step, journal_folder
from mlplatform.monitoring.alerts.loop import hushed
from mlplatform.monitoring.alerts.message import how_long, message, messages
from mlplatform.monitoring.alerts.rule_names import rules_of
from mlplatform.monitoring.alerts.send import Channels, unserved
from mlplatform.provenance.files import alone
from mlplatform.provenance.person import logged_in
from mlplatform.provenance.platform import Platform

_units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One alert, and what became of what was said of it."""

    alert: Alert
    hushed: str
    """Why nobody hears of it; empty: they do."""

    sent: str
    """To whom its last message went, or why to nobody."""


def alerts(platform: Platform, domains: Sequence[Domain], *, what: str = "", ended: bool = False) -> list[Shown]:
    """Alerts of some domains, the newest first.

    Parameters
    ----------
    what : `rule`, `rule:subject`, or empty for all
    ended : those that are over too
    """
    found = []
    for domain in domains:
        known = _known(platform, domain)
        for alert in known.alerts.values():
            if (ended or alert.over is None) and what in ("", alert.rule, alert.name):
                quiet = hushed(domain, known, alert, platform.clock()) if alert.over is None else ""
                found.append(Shown(alert=alert, hushed=quiet, sent=_sent(known, alert)))
    return sorted(found, key=lambda each: each.alert.opened, reverse=True)


def silence(
    platform: Platform, domains: Sequence[Domain], what: str, *, lasting: str, reason: str
) -> tuple[datetime, list[str]]:
    """Hush a rule, or a rule of one subject, for a while; gives until when, and the domains in which that holds.

    Parameters
    ----------
    lasting : `30m`, `4h`, `2d`; `0m` ends a silence

    Raises
    ------
    DeclarationError
        It is no duration, there is no reason, the subject is of no domain, or nobody finds such a rule.
    """
    if not reason.strip():
        raise DeclarationError("a silence needs a reason: whoever wonders why nobody was told reads it")
    rule, _, subject = what.partition(":")
    meant = [each for each in domains if not subject or subject.partition("/")[0] == each.name]
    if not meant:
        known = ", ".join(each.name for each in domains)
        raise DeclarationError(f"{subject!r} is of no domain. A subject is written `domain/model`; there is {known}")
    rules = set().union(*(_rules(platform, each) for each in meant))
    if rule not in rules:
        raise DeclarationError(
            f"nothing finds a rule {rule!r}, so there is nothing to hush. {_there_is(sorted(rules))}"
        )
    now = platform.clock()
    until = now + duration(lasting)
    for domain in meant:
        journal = Journal(journal_folder(platform.home, domain.name), platform.clock)
        journal.append(Silence(at=now, what=what, until=until, reason=reason, actor=logged_in()))
        journal.close()
    return until, [each.name for each in meant]


@dataclass(frozen=True, kw_only=True)
class Hushed:
    """What is silent in a domain."""

    domain: str
    what: str
    until: datetime | None
    """None: for ever, since the domain is declared so."""

    reason: str
    actor: str


def silences(platform: Platform, domains: Sequence[Domain]) -> list[Hushed]:
    """What is silent now, by domain; what ends first stands first."""
    found = []
    for domain in domains:
        told = [
            Hushed(domain=domain.name, what=each.what, until=each.until, reason=each.reason, actor=each.actor)
            for each in _known(platform, domain).silent(platform.clock())
        ]
        found += sorted(told, key=lambda each: (each.until, each.what))
        found += [
            Hushed(domain=domain.name, what=each, until=None, reason="muted in the domain", actor="its declaration")
            for each in domain.alerts.muted
        ]
    return found


def close(
    platform: Platform,
    domains: Sequence[Domain],
    what: str,
    *,
    reason: str,
    channels: Callable[[], Channels],
    ui: str = "",
) -> list[Alert]:
    """End open alerts by hand: of a model or a rule that is no longer declared, which no monitor will ever end.

    Whoever was told of the beginning is told of the end. A monitor that finds it in a later window opens it anew.

    Parameters
    ----------
    what : `rule` or `rule:subject`
    channels : opens them; called where somebody is to be told

    Raises
    ------
    DeclarationError
        There is no reason, or no such alert is open.
    """
    if not reason.strip():
        raise DeclarationError("a closing needs a reason: whoever meets the alert again reads it")
    now, by = platform.clock(), f"by {logged_in()}: {reason}"
    closed: list[Alert] = []
    for domain in domains:
        if not _open(_known(platform, domain), domain, what):
            continue
        journal = Journal(journal_folder(platform.home, domain.name), platform.clock)
        with alone(journal.lock):
            meant = _open(journal.known(), domain, what)
            ended = tuple(msgspec.structs.replace(each, over=now, closed=by) for each in meant)
            notices = [Notice(kind="over", alert=each) for each in ended if each.told is not None]
            told = tuple(
                msgspec.structs.replace(each, to=tuple(channels().receivers(each.tags)))
                for each in messages(domain, notices, now, ui=ui)
            )
            journal.append(Step(at=now, alerts=ended, messages=told))
        journal.close()
        closed += ended
    if not closed:
        names = sorted(each.alert.name for each in alerts(platform, domains))
        raise DeclarationError(f"no alert {what} is open. {_there_is(names)}")
    return closed


def send_test(domain: Domain, channels: Channels, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Send a message to everybody a domain names, at once; gives tag, receiver, and why it was not taken."""
    declared = domain.alerts
    for tag in sorted({*declared.data_quality, *declared.model_behaviour, *declared.outcomes, *declared.digest}):
        told = message(
            f"test {domain.name} {tag} {now.isoformat()}",
            now,
            [tag],
            f"[{domain.name}] a test of the alerts tagged {tag}",
            f"Nothing is wrong. Alerts of {domain.name} with the tag {tag} come this way.",
        )
        receivers = channels.receivers([tag])
        if not receivers:
            yield tag, "nobody", "no service of the configuration has this tag"
        for receiver in receivers:
            yield tag, receiver, channels.deliver(told, receiver)


def waiting(
    platform: Platform, domains: Sequence[Domain], channels: Callable[[], Channels]
) -> Iterator[tuple[Message, str]]:
    """Messages that somebody has not taken yet, and why.

    Parameters
    ----------
    channels : opens them; called where something waits only, as Apprise takes seconds to import
    """
    opened: Channels | None = None
    for domain in domains:
        known = _known(platform, domain)
        for each in known.waiting(platform.clock()):
            opened = opened or channels()
            if unserved(known, each, opened):
                attempts = known.attempts.get(each.id)
                yield each, attempts[-1].why if attempts else "not tried yet"


def duration(text: str) -> timedelta:
    """How long `30m`, `4h` or `2d` is.

    Examples
    --------
    >>> duration("4h")
    datetime.timedelta(seconds=14400)
    """
    met = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if met is None:
        raise DeclarationError(f"{text!r} is no duration. Write it as 30m, 4h or 2d")
    return int(met[1]) * _units[met[2]]


def show(found: Sequence[Shown], now: datetime, console: Console, *, nothing: str) -> None:
    """Print alerts as a table, and of each what it says."""
    if not found:
        console.print(nothing)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("alert", "since", "for", "figure"):
        table.add_column(heading, no_wrap=True)
    for each in found:
        alert = each.alert
        bound = f" / {alert.figures['bound']:.4g}" if "bound" in alert.figures else ""
        table.add_row(
            Text(alert.name, style="dim" if alert.over or each.hushed else "bold red"),
            f"{alert.since:%Y-%m-%d %H:%M}",
            how_long(alert.since, alert.last if alert.over else now) + (", over" if alert.over else ""),
            f"{alert.figures['value']:.4g}{bound}" if "value" in alert.figures else "",
        )
    console.print(table)
    for each in found:
        console.print(f"\n{each.alert.name}", style="bold", highlight=False, markup=False)
        console.print(f"  {each.alert.summary}", highlight=False, markup=False, soft_wrap=True)
        if each.alert.features:
            console.print(
                f"  features: {', '.join(each.alert.features)}", highlight=False, markup=False, soft_wrap=True
            )
        console.print(f"  told: {each.hushed or each.sent}", highlight=False, markup=False, soft_wrap=True)
        if each.alert.closed:
            console.print(f"  closed {each.alert.closed}", highlight=False, markup=False, soft_wrap=True)


def as_json(found: Sequence[Shown]) -> str:
    """For scripts."""
    told: list[dict[str, Any]] = [
        {**msgspec.to_builtins(each.alert), "hushed": each.hushed, "sent": each.sent} for each in found
    ]
    return json.dumps(told, indent=2)


def _known(platform: Platform, domain: Domain) -> Known:
    return Journal(journal_folder(platform.home, domain.name), platform.clock).known()


def _open(known: Known, domain: Domain, what: str) -> list[Alert]:
    return [each for each in known.state(domain.name).open if what in (each.rule, each.name)]


def _rules(platform: Platform, domain: Domain) -> set[str]:
    """What monitors find, and what they have found before the platform or the domain was changed."""
    return rules_of(domain) | {each.rule for each in _known(platform, domain).alerts.values()}


def _there_is(names: Sequence[str]) -> str:
    return f"There is {', '.join(names)}" if names else "There is none"


def _sent(known: Known, alert: Alert) -> str:
    """Where the last message about an alert is."""
    about = [each for each in known.messages.values() if alert.id in each.alerts]
    if not about:
        return "nobody yet"
    last = about[-1]
    if not last.to:
        return "nobody: no channel"
    taken = known.delivered(last.id)
    return f"{', '.join(sorted(taken))} {last.at:%Y-%m-%d %H:%M}" if taken else "waits for its channel"
