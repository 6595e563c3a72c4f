"""What alerts say: one message for each group of people, with what they need to act, and a subject for a pager.

What, since when, how bad, which features, since which manifest, where to look, and the command to look further.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

from mlplatform.domain.domain import Domain
from mlplatform.domain.monitoring import Alerts
from mlplatform.monitoring.alerts.alert import Alert, Kind, Notice
from mlplatform.monitoring.alerts.journal import Message

subject_length = 70
"""Characters. What a pager shows on one line, and a mail client in a list."""

features_named = 5
"""More are a table, and that stands where the link leads."""

alerts_in_full = 10
"""Of one message; the others by name. A fault that breaks twenty rules is one fault."""

_order: Mapping[Kind, int] = {"opened": 0, "still": 1, "passed": 2, "over": 3}
_said: Mapping[Kind, str] = {"opened": "", "still": "still: ", "passed": "was, and is over: ", "over": "over: "}


def messages(domain: Domain, notices: Sequence[Notice], now: datetime, *, ui: str = "") -> list[Message]:
    """Notices as messages, one for all that go to the same people; `to` is left empty.

    Parameters
    ----------
    ui : base URL of the Dagster UI; empty: not known
    """
    groups: dict[tuple[str, ...], list[Notice]] = {}
    for notice in sorted(notices, key=lambda each: (_order[each.kind], each.alert.opened, each.alert.name)):
        groups.setdefault(_tags(domain.alerts, notice.alert), []).append(notice)
    return [_message(domain, tags, group, now, ui) for tags, group in groups.items()]


def message(key: str, at: datetime, tags: Sequence[str], subject: str, text: str) -> Message:
    """A message about something that is no alert, such as a digest.

    Parameters
    ----------
    key : names it: of two messages with the same key the second is not sent
    """
    return Message(id=_id(key), at=at, tags=tuple(tags), to=(), subject=short(subject), text=text)


def describe(notice: Notice, domain: Domain, *, ui: str = "") -> str:
    """One alert, as lines of text."""
    alert = notice.alert
    lines = {
        "what": alert.summary,
        "since": _since(notice),
        "closed": alert.closed,
        "how bad": ", ".join(f"{name} {worth:.6g}" for name, worth in _ordered(alert.figures)),
        "features": _listed(alert.features),
        "manifest": alert.manifest[:12],
        "look at": _place(alert, domain, ui),
        "command": f"mlplatform alerts history {alert.name}",
    }
    title = f"{_said[notice.kind]}{alert.rule.replace('_', ' ')} of {alert.subject}"
    return "\n".join([title, *(f"  {name:9} {told}" for name, told in lines.items() if told)])


def how_long(since: datetime, until: datetime) -> str:
    """A duration as people say it.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> start = datetime(2024, 1, 1, tzinfo=UTC)
    >>> how_long(start, start + timedelta(minutes=12)), how_long(start, start + timedelta(hours=30))
    ('12 min', '30 h')
    >>> how_long(start, start + timedelta(days=3, hours=2))
    '3 days'
    """
    minutes = max(0, round((until - since).total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def _message(domain: Domain, tags: tuple[str, ...], group: Sequence[Notice], now: datetime, ui: str) -> Message:
    told = [describe(each, domain, ui=ui) for each in group[:alerts_in_full]]
    told += [f"and {_said[each.kind]}{each.alert.name}" for each in group[alerts_in_full:]]
    name = _id(" ".join([now.isoformat(), *tags, *(f"{each.kind} {each.alert.id}" for each in group)]))
    return Message(
        id=name,
        at=now,
        tags=tags,
        to=(),
        subject=_subject(domain, group),
        text="\n\n".join([*told, f"message {name} of mlplatform, {now:%Y-%m-%d %H:%M} UTC"]),
        alerts=tuple(each.alert.id for each in group),
    )


def _subject(domain: Domain, group: Sequence[Notice]) -> str:
    first = group[0]
    alert = first.alert
    about = alert.subject.removeprefix(f"{domain.name}/")
    one = f"{_said[first.kind]}{about} {alert.rule}{_against(alert.figures)}"
    more = f"{len(group)} alerts: " if len(group) > 1 else ""
    return short(f"[{domain.name}] {more}{one}")


def _against(figures: Mapping[str, float]) -> str:
    """Figure against bound, short."""
    if "value" not in figures:
        return ""
    return f" {figures['value']:.3g}" + (f" (bound {figures['bound']:.3g})" if "bound" in figures else "")


def _ordered(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    """Figure and bound before what else is known."""
    return sorted(figures.items(), key=lambda each: (each[0] != "value", each[0] != "bound", each[0]))


def _since(notice: Notice) -> str:
    alert = notice.alert
    began = f"{alert.since:%Y-%m-%d %H:%M} UTC"
    if notice.kind in ("over", "passed"):
        return f"{began} until {alert.last:%Y-%m-%d %H:%M} UTC: it lasted {how_long(alert.since, alert.last)}"
    return f"{began}, noticed {alert.opened:%Y-%m-%d %H:%M} UTC"


def _place(alert: Alert, domain: Domain, ui: str) -> str:
    path = f"assets/{domain.name}/{alert.asset}"
    if not ui:
        return f"{path} in `mlplatform ui`, day {alert.day}"
    return f"{ui.rstrip('/')}/{path}?view=partitions&partition={alert.day}"


def _listed(features: Sequence[str]) -> str:
    more = len(features) - features_named
    return ", ".join(features[:features_named]) + (f" and {more} more" if more > 0 else "")


def _tags(alerts: Alerts, alert: Alert) -> tuple[str, ...]:
    tags: tuple[str, ...] = getattr(alerts, alert.layer)
    return tags


def short(text: str) -> str:
    """A subject on one line, cut where a pager would."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= subject_length else f"{one_line[: subject_length - 1]}…"


def _id(key: str) -> str:
    return blake2b(key.encode(), digest_size=6).hexdigest()
