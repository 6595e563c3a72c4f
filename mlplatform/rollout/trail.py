"""The table `rollout_looks`: what was seen of each rollout of a domain, append-only.

A move stands in the ledger with its evidence. In between there are thousands of looks that say `hold`; kept of them is
each one that says something new, and one an hour, so that the way to a decision can be followed later.

A partition is a day of one model, a revision one look.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform
from mlplatform.rollout.tick import Tick, harm_as_record

at_least_every = timedelta(hours=1)

_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "at": instant,
    "champion": pl.String(),
    "challenger": pl.String(),
    "recipe": pl.String(),
    "outcome": pl.String(),
    "mode": pl.String(),
    "weight": pl.Int64(),
    "step": pl.Int64(),
    "reasons": pl.String(),
    "harms": pl.String(),
    "trips": pl.String(),
    "entry": pl.Int64(),
}
"""One row per look; `reasons`, `harms` and `trips` as JSON; `entry`: number in the ledger of what was done."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A look as it was kept."""

    model: str
    at: datetime
    champion: str
    challenger: str
    recipe: str
    outcome: str
    mode: str
    weight: int
    step: int
    reasons: Sequence[str]
    harms: Sequence[Mapping[str, Any]]
    trips: Sequence[Mapping[str, Any]]
    entry: int | None


def looks_table(platform: Platform, domain: Domain) -> Stage:
    """The table of a domain."""
    return Stage(
        platform.table(domain.name, "rollout", "rollout_looks"),
        _schema,
        name=f"{domain.name}/rollout/rollout_looks",
        storage_options=platform.storage_options,
    )


def looks(platform: Platform, domain: Domain, model: str, *, last: int = 1) -> list[Seen]:
    """The newest looks that were kept, oldest first.

    Parameters
    ----------
    model : its name within the domain
    last : so many, if there are
    """
    table = looks_table(platform, domain)
    days = {day: each.number for day, each in table.current().items() if day.endswith(f" {model}")}
    chosen: list[str] = []
    for day in sorted(days, reverse=True):
        if sum(days[each] for each in chosen) >= last:
            break
        chosen.append(day)
    rows = table.history(chosen) if chosen else pl.DataFrame()
    return [_seen(row) for row in rows.iter_rows(named=True)][-last:]


def keep(platform: Platform, domain: Domain, found: Tick) -> bool:
    """Keep a look, if it is worth it; whether it was."""
    model = found.model.partition("/")[2]
    before = looks(platform, domain, model)
    if before and not _is_news(before[-1], found):
        return False
    row = {
        **{name: getattr(found, name) for name in _schema if name not in ("reasons", "harms", "trips", "entry")},
        "reasons": json.dumps(found.reasons),
        "harms": json.dumps([harm_as_record(each) for each in found.harms]),
        "trips": json.dumps([{"trip": each.name, "reason": each.reason} for each in found.trips]),
        "entry": found.entry.number if found.entry else None,
    }
    written = Written(run_id="", code_version="", environment=platform.environment, known_at=found.at)
    # A look never lies before the one kept last: by `Tick.at` it may, where a clock was put back and nothing was done.
    day = max(found.at, before[-1].at) if before else found.at
    draft = Draft(rows=pl.DataFrame([row], schema=_schema))
    looks_table(platform, domain).append({f"{day.astimezone(UTC):%Y-%m-%d} {model}": draft}, written)
    return True


def _is_news(before: Seen, found: Tick) -> bool:
    if found.entry is not None or found.challenger != before.challenger or found.at - before.at >= at_least_every:
        return True
    return (found.outcome, _kinds(found.reasons)) != (before.outcome, _kinds(before.reasons))


def _kinds(reasons: Sequence[str]) -> list[str]:
    """Reasons without their figures, which are others with each look."""
    return [re.sub(r"[-+]?\d[\d.,:%]*", "#", each) for each in reasons]


def _seen(row: Mapping[str, Any]) -> Seen:
    told = {name: row[name] for name in _schema}
    return Seen(**told | {name: json.loads(row[name]) for name in ("reasons", "harms", "trips")})
