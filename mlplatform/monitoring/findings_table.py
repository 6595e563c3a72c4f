"""The table `findings`: what every monitor of a domain has found on each day, in one place for alerts and policies.

A partition is a day as one monitor has judged it. A day without a finding is there too, with no rows: that it was
judged is what lets an alert recover, and what a monitor that is late has not written. A day judged again is a new
revision; what was found before stays.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Revision, Stage, Written
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

table_schema: Mapping[str, pl.DataType] = {
    "layer": pl.String(),
    "rule": pl.String(),
    "subject": pl.String(),
    "manifest": pl.String(),
    "day": pl.String(),
    "harmful": pl.Boolean(),
    "summary": pl.String(),
    "figures": pl.String(),
    "features": pl.String(),
}
"""One row per finding, in the monitor's order; `figures` and `features` as JSON."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one monitor said of one day."""

    monitor: str
    day: str
    known_at: datetime
    """When it said so; unchanged where a later look found the same."""

    run_id: str
    findings: tuple[Finding, ...]


def findings_table(platform: Platform, domain: Domain) -> Stage:
    """The table `findings` of a domain."""
    return monitor_table(platform, domain, "findings", table_schema, sort_by=())


def keep_findings(
    platform: Platform, domain: Domain, monitor: str, day: str, findings: Sequence[Finding], run_id: str
) -> Revision:
    """Write what a monitor has found on a day, also when that is nothing.

    Parameters
    ----------
    monitor : name of its asset, such as `data_quality`
    day : ISO day of the partition
    findings : the worst first
    """
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    rows = pl.DataFrame([_row(each) for each in findings], schema=table_schema)
    partition = f"{day} {monitor}"
    return findings_table(platform, domain).append({partition: Draft(rows=rows)}, written)[partition]


def judged(platform: Platform, domain: Domain) -> dict[tuple[str, str], datetime]:
    """Monitor and day -> when it was judged as it is believed now, from the table's log alone."""
    current = findings_table(platform, domain).current()
    return {(_monitor(name), _day(name)): revision.known_at for name, revision in current.items()}


def judgements(
    platform: Platform, domain: Domain, *, monitors: Collection[str] = (), since: str = "", until: str = "9999"
) -> list[Judgement]:
    """What was judged, by day and monitor, as it is believed now.

    Parameters
    ----------
    monitors : these only; empty: all
    since, until : ISO days, both included
    """
    table = findings_table(platform, domain)
    chosen = {
        partition: revision
        for partition, revision in table.current().items()
        if since <= _day(partition) <= until and (not monitors or _monitor(partition) in monitors)
    }
    found: dict[str, list[Finding]] = {partition: [] for partition in chosen}
    numbers = {partition: each.number for partition, each in chosen.items() if each.rows}
    if numbers:
        for row in table.read(numbers=numbers, provenance=True).iter_rows(named=True):
            found[row["_partition"]].append(_finding(row))
    return [
        Judgement(
            monitor=_monitor(partition),
            day=_day(partition),
            known_at=chosen[partition].known_at,
            run_id=chosen[partition].run_id,
            findings=tuple(found[partition]),
        )
        for partition in sorted(chosen)
    ]


def findings_of(
    platform: Platform, domain: Domain, *, monitors: Collection[str] = (), since: str = "", until: str = "9999"
) -> list[Finding]:
    """What was found, by day and monitor, as it is believed now; the parameters are those of `judgements`."""
    judged = judgements(platform, domain, monitors=monitors, since=since, until=until)
    return [finding for each in judged for finding in each.findings]


def _row(finding: Finding) -> dict[str, Any]:
    return {
        **{name: getattr(finding, name) for name in table_schema},
        "figures": json.dumps(dict(finding.figures), sort_keys=True),
        "features": json.dumps(list(finding.features)),
    }


def _finding(row: Mapping[str, Any]) -> Finding:
    told = {name: row[name] for name in table_schema}
    return Finding(
        **{**told, "figures": json.loads(row["figures"]), "features": tuple(json.loads(row["features"]))},
    )


def _day(partition: str) -> str:
    return partition.partition(" ")[0]


def _monitor(partition: str) -> str:
    return partition.partition(" ")[2]
