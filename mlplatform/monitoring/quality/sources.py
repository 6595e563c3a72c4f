"""What came from the sources of a domain for a day: whether it came, how much of it, and how much was quarantined.

The contract has judged each row when it was validated; here the shares of a day are held to those of the days before.
Both figures are in the metadata of the tables, so no row is read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source
from mlplatform.features.stage import Revision
from mlplatform.features.tables import Tables, available_at
from mlplatform.monitoring.drift import Floats, effective_days, share_distance
from mlplatform.provenance.platform import Platform

days_looked_back = 90
"""Earlier partitions that tell what is usual: a season."""

days_at_least = 10
"""Earlier partitions, below which nothing is judged but that a partition is there."""

left_out = 0.1
"""Of the earlier days, at the bad end: a fault that goes on for a week must not become what is usual."""

margin = 1.5
"""How far beyond the most that was quarantined on any of the days that count."""

worth_a_word = 0.02
"""Of the rows: less, and a week of it would change no figure of a model."""

chance_at_most = 0.0001
"""Of a quiet day being found: four sources a day for two years give 3,000 looks."""

SourceRule = Literal["", "feed", "quarantine", "rows", "repeated"]


@dataclass(frozen=True, kw_only=True)
class SourceQuality:
    """One source on one day."""

    source: str
    partition: str
    rows: int | None
    """That have landed; None: there is no partition."""

    share: float
    """Quarantined."""

    bound: float
    """From which that share is found; 1 where too few days tell what is usual."""

    usual_rows: float
    """Median of the earlier partitions; 0 where there are none."""

    least_rows: float
    """Below which too few came; 0 where too few days tell."""

    rule: SourceRule
    """What is wrong: nothing came, too much was refused, far fewer rows came than ever, or those of a day before."""


def sources_of_day(platform: Platform, domain: Domain, day: str) -> tuple[SourceQuality, ...]:
    """Each source for the day; and those that lack the day before, which the answers of the day were computed from."""
    before = (date.fromisoformat(day) - timedelta(days=1)).isoformat()
    lacking = [_judge(platform, domain, source, before) for source in domain.sources]
    own = [_judge(platform, domain, source, day) for source in domain.sources]
    return (*own, *(each for each in lacking if each.rule == "feed"))


def sources_versions(platform: Platform, domain: Domain, days: Iterable[str]) -> dict[str, str]:
    """By day, what changes when there is more to judge its sources from; without a colon."""
    tables = Tables(platform, domain)
    listed = [stage(source.name).current() for source in domain.sources for stage in (tables.raw, tables.quarantine)]
    return {day: ".".join(str(each[day].number) if day in each else "0" for each in listed) for day in days}


def _judge(platform: Platform, domain: Domain, source: Source, day: str) -> SourceQuality:
    tables = Tables(platform, domain)
    # As they landed: a partition that a blocking rule has stopped has no validated rows.
    came, refused = tables.raw(source.name).current(), tables.quarantine(source.name).current()
    earlier = [each for each in sorted(came) if each < day][-days_looked_back:]
    rows = np.array([came[each].rows for each in earlier], dtype=np.float64)
    shares = np.array([_share(came[each], refused.get(each)) for each in earlier])
    usual_rows = float(np.median(rows)) if rows.size else 0.0
    # Of a source that has sent rows, none at all are too few even where nothing else is known.
    bound, least_rows = 0.0, 1.0 if usual_rows else 0.0
    if known := len(earlier) >= days_at_least:
        bound = max(_bound(shares, usual_rows), worth_a_word)
        # A source that is empty each Sunday has no least.
        least_rows = 0.5 * float(np.quantile(rows, left_out, method="lower"))
    told = SourceQuality(
        source=source.name,
        partition=day,
        rows=None,
        share=0.0,
        bound=bound if known else 1.0,
        usual_rows=usual_rows,
        least_rows=least_rows,
        rule="feed" if earlier and _should_be_there(platform, domain, source, day) else "",
    )
    if day not in came:
        return told
    share = _share(came[day], refused.get(day))
    rule: SourceRule = ""
    if share > told.bound:
        rule = "quarantine"
    elif came[day].rows < told.least_rows:
        rule = "rows"
    elif _sent_again(came, day):
        rule = "repeated"
    return replace(told, rows=came[day].rows, share=share, rule=rule)


def _share(came: Revision, refused: Revision | None) -> float:
    return refused.rows / max(came.rows, 1) if refused else 0.0


def _sent_again(came: Mapping[str, Revision], day: str) -> bool:
    """The very rows of a day before, of a source that hardly ever did so: a list that seldom changes does it always."""
    earlier = [each.content_hash for each in came.values() if each.partition < day and each.rows]
    return (
        came[day].rows > 0 and came[day].content_hash in earlier and len(set(earlier)) >= (1 - left_out) * len(earlier)
    )


def _should_be_there(platform: Platform, domain: Domain, source: Source, day: str) -> bool:
    """A source that neither has ended nor declares the day absent, once the day was to be published."""
    this = date.fromisoformat(day)
    return (
        this not in source.absent and this <= (domain.end or date.max) and platform.clock() >= available_at(domain, day)
    )


def _bound(shares: Floats, rows: float) -> float:
    """Share that a quiet day does not pass: by its chance, and by a margin over the most there ever was."""
    from scipy.stats import t

    distance = share_distance(shares, 0.0)
    days = float(effective_days(distance))
    distance = np.sort(distance)[: int(np.ceil((1 - left_out) * distance.size))]
    spread = float(np.sqrt(distance.var(ddof=1) + 0.25 / max(rows, 1.0)) * np.sqrt(1 + 1 / days))
    by_chance = float(distance.mean() + t.isf(chance_at_most, max(days - 1, 2)) * spread)
    return float(np.sin(min(max(by_chance, margin * float(distance.max())), np.pi / 2)) ** 2)
