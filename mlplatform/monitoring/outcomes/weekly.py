"""Outcomes of a week: its mature days together, beside the week before.

It reads no answer and no label, only what was kept of the days, and judges nothing: the rolling week of each day has
been judged. A day that is judged again makes the week anew.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import blake2b

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Revision, Written
from mlplatform.features.tables import day_range, partition_end
from mlplatform.monitoring.outcomes.history import KeptDays, window_figures
from mlplatform.monitoring.outcomes.tables import days_table, monday_of, weeks_table, window_schema
from mlplatform.provenance.platform import Platform

MONITOR = "outcomes_weekly"


@dataclass(frozen=True, kw_only=True)
class WeekOutcomes:
    """Outcomes of the week that begins on a Monday."""

    week: str
    """ISO day of its Monday."""

    made_from: str
    answers: int
    labelled: int
    """On mature days."""

    figures: pl.DataFrame
    """As `window_schema`."""

    before: pl.DataFrame
    """The same of the week before; no rows where nothing was judged."""


def weeks_due(platform: Platform, domain: Domain) -> dict[str, str]:
    """Monday -> what the week would be made from, for weeks that are over and have a day that was judged."""
    judged: dict[str, list[str]] = {}
    for day, revision in sorted(days_table(platform, domain).current().items()):
        judged.setdefault(monday_of(day), []).append(f"{day}@{revision.number}")
    return {
        week: blake2b(" ".join(revisions).encode(), digest_size=8).hexdigest()
        for week, revisions in judged.items()
        if platform.clock() >= partition_end(_days(week)[-1])
    }


def outcomes_of_week(platform: Platform, domain: Domain, week: str) -> WeekOutcomes:
    """Put the mature days of a week together.

    Parameters
    ----------
    week : ISO day of its Monday
    """
    made_from = weeks_due(platform, domain).get(week, "0")
    before = (date.fromisoformat(week) - timedelta(days=7)).isoformat()
    kept = KeptDays(platform, domain, _days(week))
    mature = kept.counts.filter("mature")
    return WeekOutcomes(
        week=week,
        made_from=made_from,
        answers=int(mature["answers"].sum()),
        labelled=int(mature["labelled"].sum()),
        figures=_figures(domain, kept),
        before=_figures(domain, KeptDays(platform, domain, _days(before))),
    )


def keep_week(platform: Platform, domain: Domain, found: WeekOutcomes, *, run_id: str) -> Revision:
    """Write a week's figures."""
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    return weeks_table(platform, domain).append({found.week: Draft(rows=found.figures)}, written)[found.week]


def _days(week: str) -> list[str]:
    return day_range(week, (date.fromisoformat(week) + timedelta(days=6)).isoformat())


def _figures(domain: Domain, kept: KeptDays) -> pl.DataFrame:
    parts = [pl.DataFrame(schema=window_schema)]
    for model in domain.models:
        if of := kept.parts(model.name):
            told = window_figures(model, of).with_columns(
                model=pl.lit(model.name), days=pl.lit(len(of), dtype=pl.Int64())
            )
            parts.append(told.select(list(window_schema)))
    return pl.concat(parts)
