"""Outcomes of a day: what became of the cases that were answered, and what that says of the models.

A day is judged when its labels can be in, per model; before that its figures are shown with how many labels they are of
and with the bias that early labels had on earlier days. A label that comes later, or is corrected, has the day judged
again; what was said before stays.

Only what the model answered counts for the model. What a fallback answered stands beside it by its source, and what was
only scored in the shadow by its arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Revision, Written
from mlplatform.features.tables import Tables, day_range, partition_end
from mlplatform.monitoring.daily import answers_of_days_over
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import findings_of, keep_findings
from mlplatform.monitoring.outcomes.answers import models_of
from mlplatform.monitoring.outcomes.coverage import Coverage, coverage_finding
from mlplatform.monitoring.outcomes.history import History
from mlplatform.monitoring.outcomes.judge import Watched, findings, verdicts, watched, with_bounds
from mlplatform.monitoring.outcomes.labels import instants, late_partitions, look_through, mature_at, partitions_of
from mlplatform.monitoring.outcomes.model_day import ModelDay, Part, part_of_day
from mlplatform.monitoring.outcomes.reference import reference_of
from mlplatform.monitoring.outcomes.tables import (
    bins_table,
    day_bins_schema,
    day_schema,
    days_table,
    early_schema,
    early_table,
    estimate_schema,
    estimates_table,
    figures_schema,
    figures_table,
    label_schema,
    labels_table,
    window_schema,
)
from mlplatform.provenance.platform import Platform

MONITOR = "outcomes"

rolling = (7, 28)
"""Days of the rolling windows: a week holds every weekday once, four weeks are what a model is evaluated on."""


@dataclass(frozen=True, kw_only=True)
class DayOutcomes:
    """Outcomes of a domain's answers of a day."""

    day: str
    made_from: str
    models: tuple[ModelDay, ...]
    figures: pl.DataFrame
    """As `figures_schema`."""

    windows: Mapping[int, pl.DataFrame]
    """Length in days -> figures of the mature days among so many up to this one, as `window_schema`."""

    findings: tuple[Finding, ...]
    labels: pl.DataFrame
    """As `label_schema`."""

    bins: pl.DataFrame
    early: pl.DataFrame
    estimates: pl.DataFrame
    """As `estimate_schema`."""

    undeclared: Mapping[str, int] = field(default_factory=dict)
    """Models that answered and that the domain no longer declares -> answers."""

    unmeasured: Mapping[str, str] = field(default_factory=dict)
    """Manifest -> why nothing is known of its evaluation, so that its figures are shown and not judged."""

    @property
    def answers(self) -> int:
        """Answers given by all models."""
        return sum(each.answers for each in self.models) + sum(self.undeclared.values())

    @property
    def judged(self) -> bool:
        """Whether any model's labels could be in."""
        return any(each.mature for each in self.models)


def due(platform: Platform, domain: Domain) -> dict[str, str]:
    """ISO day -> what it would be judged from, for the days that are over: answers, mature models, facts.

    Metadata of tables and one small table; no rows of the log or of the facts.
    """
    return _made_from(platform, domain, _facts(platform, domain))


def _facts(platform: Platform, domain: Domain) -> dict[str, Revision]:
    return Tables(platform, domain).facts(domain.requests.facts).current(known_at=platform.clock())


def _made_from(platform: Platform, domain: Domain, current: Mapping[str, Revision]) -> dict[str, str]:
    over = answers_of_days_over(platform, domain)
    late = late_partitions(platform, domain)
    between = instants(platform, domain, list(over))
    made = {}
    for day, answers in over.items():
        first, last = between[day]
        mature = sum(platform.clock() >= mature_at(domain, model, last) for model in domain.models)
        chosen = _partitions(domain, (first, last), late)
        revisions = [f"{each}@{current[each].number}" for each in chosen if each in current]
        made[day] = f"{answers}-{mature}-{blake2b(' '.join(revisions).encode(), digest_size=8).hexdigest()}"
    return made


def judgeable(platform: Platform, domain: Domain) -> dict[str, str]:
    """The same for the days of which some model's labels can be in: those of which findings are to be expected."""
    return {day: made_from for day, made_from in due(platform, domain).items() if made_from.split("-")[1] != "0"}


def _partitions(domain: Domain, between: tuple[datetime, datetime], late: Mapping[str, set[str]]) -> list[str]:
    asked = day_range(between[0].date().isoformat(), between[1].date().isoformat())
    return sorted({*partitions_of(domain, between), *(each for day in asked for each in late.get(day, ()))})


def outcomes_of_day(platform: Platform, domain: Domain, day: str, *, run_id: str = "") -> DayOutcomes:
    """Join the labels that are known by now to the answers of a day, and judge the models by them."""
    over = instants(platform, domain, list(answers_of_days_over(platform, domain)) or [day])
    between = over.get(day) or instants(platform, domain, [day])[day]
    current = _facts(platform, domain)
    since = min(first for first, _ in (*over.values(), between))
    # First: what is noted now belongs to what this day is judged from.
    look_through(platform, domain, current, since.date().isoformat(), run_id=run_id)
    # Of the very revisions that are read: what lands meanwhile has the day judged again.
    made_from = _made_from(platform, domain, current).get(day, "0")
    chosen = _partitions(domain, between, late_partitions(platform, domain))
    partitions = {each: current[each] for each in chosen if each in current}
    counted = models_of(platform, domain, day)
    past = History(platform, domain, day)
    parts = [
        part_of_day(platform, domain, day, model, partitions=partitions, between=between)
        for model in domain.models
        if model.name in counted
    ]
    references, unmeasured = _references(platform, domain, parts, run_id)
    windows = {part.model.name: {days: past.window(part, days) for days in rolling} for part in parts}
    said = verdicts(_watched(parts, windows, references))
    known = {model.name for model in domain.models}
    return DayOutcomes(
        day=day,
        made_from=made_from,
        models=tuple(_with_bias(platform, part, day, past) for part in parts),
        figures=with_bounds(_stacked(figures_schema, [part.figures for part in parts]), said).select(
            list(figures_schema)
        ),
        windows={
            days: _stacked(
                window_schema,
                [
                    told[days][1].select(
                        pl.lit(name).alias("model"), pl.lit(told[days][0], pl.Int64()).alias("days"), "*"
                    )
                    for name, told in windows.items()
                ],
            )
            for days in rolling
        },
        findings=(*_coverage(platform, domain, day, parts, past), *findings(domain, day, said)),
        labels=_stacked(label_schema, [part.labels for part in parts]),
        bins=_stacked(day_bins_schema, [part.bins for part in parts]),
        early=_stacked(early_schema, [part.early for part in parts]),
        estimates=_stacked(estimate_schema, [part.estimates for part in parts]),
        undeclared={name: answers for name, answers in counted.items() if name not in known},
        unmeasured=unmeasured,
    )


def keep(platform: Platform, domain: Domain, found: DayOutcomes, *, run_id: str) -> Revision:
    """Write a day's labels, figures and findings; the revision of the figures.

    Of a day that was not judged no findings are kept, not even that there are none: nothing is known of it.
    """
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    counts = pl.DataFrame([_row(each) for each in found.models], schema=day_schema)
    labels_table(platform, domain).append({found.day: Draft(rows=found.labels)}, written)
    bins_table(platform, domain).append({found.day: Draft(rows=found.bins)}, written)
    estimates_table(platform, domain).append({found.day: Draft(rows=found.estimates)}, written)
    early_table(platform, domain).append({found.day: Draft(rows=found.early)}, written)
    kept = figures_table(platform, domain).append({found.day: Draft(rows=found.figures)}, written)[found.day]
    # Last: a day counts as there when its counts are.
    days_table(platform, domain).append({found.day: Draft(rows=counts)}, written)
    if found.judged:
        keep_findings(platform, domain, MONITOR, found.day, found.findings, run_id)
    return kept


def _row(counts: ModelDay) -> dict[str, object]:
    early = counts.early
    told = {name: getattr(counts, name) for name in day_schema if not name.startswith("early")}
    bias = {"early_share": early.share, "early_bias": early.bias, "early_days": early.days} if early else {}
    return {**dict.fromkeys(day_schema), **told, **bias}


def _references(
    platform: Platform, domain: Domain, parts: Sequence[Part], run_id: str
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Figures of the evaluation by manifest, and why there are none."""
    references: dict[str, pl.DataFrame] = {}
    unmeasured: dict[str, str] = {}
    for manifest in sorted({each for part in parts for each in part.manifests}):
        told = reference_of(platform, domain, manifest, run_id=run_id)
        if isinstance(told, str):
            unmeasured[manifest] = told
        else:
            references[manifest] = told
    return references, unmeasured


def _watched(
    parts: Sequence[Part],
    windows: Mapping[str, Mapping[int, tuple[int, pl.DataFrame]]],
    references: Mapping[str, pl.DataFrame],
) -> list[Watched]:
    """What is judged: the day, and the week that ends with it where it has more mature days than this one."""
    found = []
    for part in parts:
        if part.counts.mature:
            days, week = windows[part.model.name][rolling[0]]
            found += watched(part.model, part.figures, 1, references)
            if days > 1:
                found += watched(part.model, week, days, references)
    return found


def _with_bias(platform: Platform, part: Part, day: str, past: History) -> ModelDay:
    if part.counts.mature:
        return part.counts
    hours = (platform.clock() - partition_end(day)).total_seconds() / 3600
    return replace(part.counts, early=past.kept.early_bias(part.model.name, hours))


def _coverage(platform: Platform, domain: Domain, day: str, parts: Sequence[Part], past: History) -> list[Finding]:
    """Labels that are due and did not come; days on which that was so before are no measure."""
    since = past.kept.counts["day"].min()
    told = findings_of(platform, domain, monitors=[MONITOR], since=str(since or day), until=day)
    lacking = {(each.subject, each.day) for each in told if each.rule == "label_coverage"}
    found = []
    for part in parts:
        if not part.counts.mature:
            continue
        subject = f"{domain.name}/{part.model.name}"
        earlier = [
            Coverage(labelled + without, labelled, answers)
            for of, labelled, without, answers in past.kept.mature(part.model.name)
            .select("day", "labelled", "without_label", "answers")
            .iter_rows()
            if (subject, of) not in lacking
        ]
        counts = part.counts
        now = Coverage(counts.labelled + counts.without_label, counts.labelled, counts.answers)
        manifest = part.manifests[0] if part.manifests else ""
        found.append(coverage_finding(domain, part.model, day, now, earlier, manifest=manifest))
    return [each for each in found if each]


def _stacked(schema: Mapping[str, pl.DataType], parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=schema), *(part.select(list(schema)) for part in parts)])
