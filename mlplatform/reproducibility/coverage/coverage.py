"""The promise, checked: a night's sample of old answers given again, and how many of them could be.

Figures stand in the table `replay_coverage`, a row for each manifest and age; every answer that was not the same to the
bit is in `replay_findings`, with its cause. A night that is looked at again is a new revision. What was removed by
policy is counted apart: nobody promised it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Revision, Written
from mlplatform.features.tables import partition_end
from mlplatform.features.tombstones import tombstones
from mlplatform.monitoring.daily import log_settles
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.sample import age_of, draw
from mlplatform.reproducibility.coverage.tables import coverage_rows, coverage_table, row_schema, table_schema
from mlplatform.reproducibility.replay.replay import replay
from mlplatform.reproducibility.replay.verdict import Cause, Replayed
from mlplatform.reproducibility.retention.reproducible_until import reproducible_until

MONITOR = "replay_coverage"
RULE = "not_replayable"

Replay = Callable[[Platform, Domain, pl.DataFrame], list[Replayed]]

_nights_due = 2
"""The last ones: a night that was missed is made up for, and what is older looked at the same log as they do."""


@dataclass(frozen=True, kw_only=True)
class Covered:
    """Answers that were given again, together."""

    replayed: int
    exact: int
    within_tolerance: int
    diverged: int
    impossible: int
    """Without those removed."""

    removed: int
    """By policy, with a tombstone: never promised."""

    shadows: int
    fallbacks: int
    largest: float
    """Difference."""

    cause: Cause | None
    """What most of those that could not be given again have in common; None: all could."""

    example: Replayed | None
    """One of them."""

    @property
    def share(self) -> float:
        """Of what was promised, what is exact or within tolerance; NaN where nothing was."""
        promised = self.replayed - self.removed
        return (self.exact + self.within_tolerance) / promised if promised else float("nan")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What one night found."""

    night: str
    logged: int
    """Rows of the log up to the night."""

    kinds: int
    """Of answers that the sample was drawn from: ages, manifests, arms and tiers."""

    replayed: tuple[Replayed, ...]
    removed_days: int
    """Days of the log that were removed by policy."""

    removed_answers: int

    def age(self, each: Replayed) -> str:
        """How old an answer was on this night."""
        return age_of(each.received.date(), date.fromisoformat(self.night))

    @property
    def all(self) -> Covered:
        """The whole sample."""
        return covered(self.replayed)

    def by(self, *names: str) -> dict[tuple[str, ...], Covered]:
        """By `model`, `manifest`, `model_version`, `age`."""
        groups: dict[tuple[str, ...], list[Replayed]] = {}
        for each in self.replayed:
            told = tuple(self.age(each) if name == "age" else getattr(each, name) for name in names)
            groups.setdefault(told, []).append(each)
        return {told: covered(group) for told, group in sorted(groups.items())}


def coverage_of_night(platform: Platform, domain: Domain, night: str, *, replay: Replay = replay) -> Coverage:
    """Replay the sample of a night.

    Parameters
    ----------
    night : ISO day; answers up to its end are looked at
    replay : gives answers again, in the order of their rows
    """
    drawn = draw(platform, domain, night, domain.reproducibility.nightly_replays)
    gone = [each for (kind, _), each in tombstones(platform, domain).items() if kind == "answers"]
    return Coverage(
        night=night,
        logged=drawn.logged,
        kinds=drawn.kinds,
        replayed=(*(replay(platform, domain, drawn.rows) if drawn.rows.height else ()), *drawn.lost),
        removed_days=len(gone),
        removed_answers=sum(each.rows for each in gone),
    )


def covered(replayed: Iterable[Replayed]) -> Covered:
    """Count some answers together."""
    told = list(replayed)
    outcomes = Counter(each.verdict.outcome for each in told if not _is_removed(each))
    faults = [each for each in told if is_fault(each)]
    causes = Counter(each.verdict.cause for each in faults)
    cause = max(causes, key=lambda each: (causes[each], str(each)), default=None)
    # Of an answer that nobody was given nobody asks.
    alike = [each for each in faults if each.verdict.cause == cause]
    return Covered(
        replayed=len(told),
        exact=outcomes["exact"],
        within_tolerance=outcomes["within_tolerance"],
        diverged=outcomes["diverged"],
        impossible=outcomes["impossible"],
        removed=sum(map(_is_removed, told)),
        shadows=sum(each.arm == SHADOW for each in told),
        fallbacks=sum(each.source != "model" for each in told),
        largest=max((each.difference for each in told), default=0.0),
        cause=cause,
        example=min(alike, key=lambda each: (each.arm == SHADOW, each.request_id), default=None),
    )


def is_fault(each: Replayed) -> bool:
    """Whether an answer could not be given again, and should have been."""
    return each.verdict.outcome in ("diverged", "impossible") and not _is_removed(each)


def command(each: Replayed) -> str:
    """What shows an answer, where it came from, and what differs."""
    return f"mlplatform replay {each.request_id} --day {each.received:%Y-%m-%d}"


def coverage_findings(domain: Domain, found: Coverage) -> list[Finding]:
    """Findings of a night: a model whose share is below the threshold does harm, any other fault is shown."""
    wanted = domain.reproducibility.min_replayed
    findings = []
    for (model,), each in found.by("model").items():
        if (first := each.example) is not None:
            findings.append(
                Finding(
                    layer="model_behaviour",
                    rule=RULE,
                    subject=f"{domain.name}/{model}",
                    day=found.night,
                    manifest=first.manifest,
                    harmful=each.share < wanted.value,
                    summary=f"{each.share:.1%} of {each.replayed - each.removed:,} old answers of {model} can be given "
                    f"again, {wanted.value:.1%} are promised. Most of the others: {each.cause}, for example "
                    f"{first.verdict.reason}. See `{command(first)}`",
                    figures={"value": each.share, "bound": wanted.value, "answers": float(each.replayed)},
                )
            )
    return sorted(findings, key=lambda each: (not each.harmful, each.figures["value"], each.subject))


def versions_until(platform: Platform, domain: Domain, found: Coverage) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Of the versions of a night: model, version and manifest -> until when they are reproducible, and why."""
    versions = [(each[0], each[1], each[2]) for each in found.by("model", "model_version", "manifest")]
    until = reproducible_until(platform, domain, {manifest for _, _, manifest in versions})
    return {
        version: (f"{end.at:%Y-%m-%d}" if end.at else "no end in sight", end.why)
        for version in versions
        for end in [until[version[2]]]
    }


def nights_due(platform: Platform, domain: Domain) -> dict[str, str]:
    """The last nights on which there was something to replay -> how many rows the log has of the day before."""
    rows, now = rows_by_day(platform, domain), platform.clock()
    over = [now.date() - timedelta(days=back) for back in range(_nights_due + 1, 0, -1)]
    nights = [night.isoformat() for night in over if now >= partition_end(night.isoformat()) + log_settles]
    first = max(min(rows, default="9999"), domain.start.isoformat())
    return {night: str(rows.get(night, 0)) for night in nights[-_nights_due:] if night >= first}


def keep_coverage(platform: Platform, domain: Domain, found: Coverage, *, run_id: str) -> Revision:
    """Write a night to both tables; gives the revision of the figures."""
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    rows = pl.DataFrame([_row(found, each) for each in found.replayed if _is_kept(each)], schema=row_schema)
    # What can be looked up first: who finds the figures finds the rows too.
    coverage_rows(platform, domain).append({found.night: Draft(rows=rows)}, written)
    names = ("model", "manifest", "model_version", "age")
    figures = [
        {
            **dict(zip(names, told, strict=True)),
            **{name: getattr(each, name) for name in table_schema if hasattr(each, name)},
            "example": each.example.request_id if each.example else None,
        }
        for told, each in found.by(*names).items()
    ]
    drafted = Draft(rows=pl.DataFrame(figures, schema=table_schema))
    return coverage_table(platform, domain).append({found.night: drafted}, written)[found.night]


def _is_removed(each: Replayed) -> bool:
    return each.verdict.cause == "removed"


def _is_kept(each: Replayed) -> bool:
    return each.verdict.outcome != "exact"


def _row(found: Coverage, each: Replayed) -> dict[str, Any]:
    told = {name: getattr(each, name) for name in row_schema if hasattr(each, name)}
    said = {name: getattr(each.verdict, name) for name in ("outcome", "cause", "reason")}
    return {**told, **said, "notes": "; ".join(each.verdict.notes), "age": found.age(each)}
