"""Whether the monitors judge: a monitor that is late is an alert of its own.

A monitor says itself which days it could judge. One that could be judged for some time and has no judgement is late;
that nothing could be judged, on a day without answers, is no lateness. The loop that runs this leaves a sign of life,
which gateways show, so that Prometheus tells of a loop that has died.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.features.tables import partition_end
from mlplatform.monitoring.daily import Due, log_settles
from mlplatform.monitoring.finding import Finding, Layer
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform

grace = timedelta(hours=1)
"""From when a day can be judged until it must be: a sensor looks every five minutes, takes ten days of a backlog at a
time, and tries a run that failed again after some minutes."""

days_looked_at = 14
"""Before the newest day that can be judged. What is older was an alert for two weeks."""

_layers: Mapping[str, Layer] = {
    "outcomes": "outcomes",
    "model_behaviour": "model_behaviour",
    "replay_coverage": "model_behaviour",
}


class Freshness:
    """Remembers since when each day could be judged: a restart gives every monitor its grace once more.

    Parameters
    ----------
    monitors : name -> which days it can judge
    """

    def __init__(self, platform: Platform, domain: Domain, monitors: Mapping[str, Due]) -> None:
        self._platform, self._domain, self._monitors = platform, domain, monitors
        self._since: dict[tuple[str, str], datetime] = {}

    def findings(self, monitor: str, judged: Collection[str], now: datetime) -> list[Finding]:
        """What is wrong with one monitor.

        Parameters
        ----------
        judged : days that it has judged
        """
        due = sorted(self._monitors[monitor](self._platform, self._domain))[-days_looked_at:]
        waiting = [day for day in due if day not in judged]
        known = {(monitor, day): self._since.get((monitor, day), now) for day in waiting}
        self._since = {key: at for key, at in self._since.items() if key[0] != monitor} | known
        late = [day for day in waiting if now - known[monitor, day] >= grace and now >= deadline(day)]
        if not late:
            return []
        hours = (now - min(known[monitor, day] for day in late)).total_seconds() / 3600
        layer: Layer = next((layer for name, layer in _layers.items() if monitor.startswith(name)), "data_quality")
        return [
            Finding(
                layer=layer,
                rule="monitor_late",
                subject=f"{self._domain.name}/{monitor}",
                day=late[-1],
                summary=f"{monitor} has not judged {_listed(late)}, though it could for {hours:.1f} h. Look at the "
                f"runs of {self._domain.name}_{monitor} and whether its sensor is on",
                figures={"value": hours, "bound": grace.total_seconds() / 3600, "days": float(len(late))},
            )
        ]


def deadline(day: str) -> datetime:
    """Until when a day is to be judged at the earliest: its answers settle, and a run takes its time."""
    return partition_end(day) + log_settles + grace


def heartbeat(home: Path, domain: str) -> Path:
    """The file that the loop writes at the end of each look; its age is what gateways show."""
    return home / "alerts" / domain / "heartbeat"


def beat(home: Path, domain: str, now: datetime) -> None:
    """The loop has looked."""
    write_whole(heartbeat(home, domain), f"{now.isoformat()}\n")


def _listed(days: list[str]) -> str:
    return ", ".join(days[-3:]) + (f" and {len(days) - 3} days before" if len(days) > 3 else "")
