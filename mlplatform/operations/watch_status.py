"""How a domain is watched: up to which day each monitor has judged, what is open, and which breakers are not closed.

Read from listings and small files. It judges nothing: what is late or harmful, the monitors themselves have said.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.alerts.freshness import heartbeat
from mlplatform.monitoring.behaviour.day import transitions_between
from mlplatform.monitoring.findings_table import judgements
from mlplatform.operations.alerts import alerts
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.tables import past_nights, shares


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one monitor said last."""

    day: str
    """The newest day that it has judged."""

    harmful: int
    """Findings of that day that do harm."""

    findings: int
    """All of them."""


@dataclass(frozen=True, kw_only=True)
class OpenAlert:
    """Something that is wrong now."""

    rule: str
    subject: str
    """`domain/model`, or `domain/table`."""

    opened: datetime
    summary: str
    hushed: str
    """Why nobody hears of it; empty: they do."""


@dataclass(frozen=True, kw_only=True)
class Replays:
    """How many old answers of a model could be given again, the last night they were tried."""

    night: str
    replayed: int
    """Without those removed by policy."""

    share: float
    """Of them, what was exact or within tolerance."""


@dataclass(frozen=True, kw_only=True)
class WatchStatus:
    """How a domain is watched."""

    looked_seconds_ago: float | None
    """Since the monitor loop last looked; None: it never has."""

    judged: dict[str, Judged]
    """By monitor."""

    alerts: tuple[OpenAlert, ...]
    """The newest first."""

    breakers: dict[str, str]
    """Breaker, as `what of gateway` -> its state, where that is not closed."""

    replays: dict[str, Replays]
    """By model; without those of which none were."""


def watch_status(platform: Platform, domain: Domain) -> WatchStatus:
    """What the monitors, the alerts and the breakers say."""
    now = platform.clock()
    newest: dict[str, Judged] = {}
    for each in judgements(platform, domain):
        harmful = sum(finding.harmful for finding in each.findings)
        newest[each.monitor] = Judged(day=each.day, harmful=harmful, findings=len(each.findings))
    states: dict[str, str] = {}
    moved = transitions_between(platform, domain, datetime.fromtimestamp(0, UTC), now)
    for transition in sorted(moved, key=lambda each: each.at):
        states[f"{transition.breaker} of {transition.gateway}"] = transition.after
    sign = heartbeat(platform.home, domain.name)
    looked = (now.timestamp() - sign.stat().st_mtime) if sign.exists() else None
    return WatchStatus(
        looked_seconds_ago=looked,
        judged=dict(sorted(newest.items())),
        alerts=tuple(
            OpenAlert(
                rule=each.alert.rule,
                subject=each.alert.subject,
                opened=each.alert.opened,
                summary=each.alert.summary,
                hushed=each.hushed,
            )
            for each in alerts(platform, [domain])
        ),
        breakers={name: state for name, state in states.items() if state != "closed"},
        replays=_replays(platform, domain),
    )


def _replays(platform: Platform, domain: Domain) -> dict[str, Replays]:
    figures = past_nights(platform, domain, until="9999", at_most=1)
    return {
        told["model"]: Replays(
            night=figures["night"][0], replayed=told["promised"], share=told["exact"] + told["within_tolerance"]
        )
        for told in shares(figures, by="model").iter_rows(named=True)
    }
