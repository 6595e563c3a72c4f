"""Data quality of a day: each feature that a model was served, held to the training set of that very model.

Every answer of the log counts that had features; the log is read in slices, so that a day of any size fits. What is
usual is learned from the training window (`usual`), what came from the sources is held to the days before (`sources`).
Features are ranked by what the model has learned from them, and a finding is called harmful where the part of the
model's gain that rests on values which have moved is large enough to be felt.

It refuses to guess: of a manifest whose bundle or training set is gone it shows how many answers there were, and why
nothing more can be said. A day with too few rows is shown and not judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.monitoring import Monitoring
from mlplatform.errors import BundleError, DataError, DeclarationError
from mlplatform.features.stage import Draft, Revision, Written
from mlplatform.features.view import feature_names
from mlplatform.monitoring.daily import answers_of_days_over
from mlplatform.monitoring.drift import Mask
from mlplatform.monitoring.pickup import answered, answers_on
from mlplatform.monitoring.quality.day_quality import (
    DayQuality,
    FeatureQuality,
    ManifestQuality,
    order_of_rules,
    slow_drift,
)
from mlplatform.monitoring.quality.reference import Reference, reference_of, rows_of_report
from mlplatform.monitoring.quality.sketch import Sketch, displaced, distances, sketch, stacked
from mlplatform.monitoring.quality.sources import sources_of_day, sources_versions
from mlplatform.monitoring.quality.tables import quality_table, table_schema
from mlplatform.monitoring.quality.usual import (
    Verdict,
    before_each,
    days_at_least,
    judge,
    judged_by,
    recent_at_least,
    rules,
)
from mlplatform.provenance.platform import Platform
from mlplatform.scoring.booster import Matrix

rows_at_once = 100_000
"""Of the log: 50 features of so many rows are 20 MB, and twice that while they are counted."""

days_in_view = 60
"""Days before that are looked through for the last two weeks on which a feature had not changed."""


@dataclass
class _Served:
    """What the log has of one manifest, as its slices are read."""

    reference: Reference | None
    why_not: str = ""
    answers: int = 0
    computed: int = 0
    sketch: Sketch | None = None
    sample: list[Matrix] = field(default_factory=list)


def quality_of_day(platform: Platform, domain: Domain, day: str) -> DayQuality:
    """Judge the data that the models of a domain were served on a day, and what its sources gave."""
    served = _served(platform, domain, day)
    before = _days_before(platform, domain, day) if served else {}
    manifests = [
        _of_manifest(domain, model, manifest, of, before.get(manifest, pl.DataFrame()), day)
        for (model, manifest), of in served.items()
    ]
    return DayQuality(
        domain=domain.name,
        day=day,
        manifests=tuple(sorted(manifests, key=lambda each: (-each.answers, each.model, each.manifest))),
        sources=sources_of_day(platform, domain, day),
    )


def keep(platform: Platform, domain: Domain, found: DayQuality, *, run_id: str) -> Revision:
    """Write the figures of a day; their revision."""
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    figures = pl.DataFrame(
        [{name: getattr(each, name) for name in table_schema} for each in found.features], schema=table_schema
    )
    return quality_table(platform, domain).append({found.day: Draft(rows=figures)}, written)[found.day]


def made_from(platform: Platform, domain: Domain, answers: Mapping[str, int | str]) -> dict[str, str]:
    """What days are judged from: their answers, and the revisions of their source partitions.

    Parameters
    ----------
    answers : ISO day -> how many
    """
    versions = sources_versions(platform, domain, answers)
    return {day: f"{count}-{versions[day]}" for day, count in answers.items()}


def days_to_judge(platform: Platform, domain: Domain) -> dict[str, str]:
    """ISO day -> what it can be judged from, for days with answers that are all there."""
    return made_from(platform, domain, answers_of_days_over(platform, domain))


def _served(platform: Platform, domain: Domain, day: str) -> dict[tuple[str, str], _Served]:
    """By model and manifest."""
    log = answered(platform, domain, day)
    if log is None:
        return {}
    # Every so many-th row, so that the samples of all manifests together are bounded.
    step = 1 + answers_on(platform, domain, day) // (4 * rows_of_report)
    found: dict[tuple[str, str], _Served] = {}
    for part in log.select("model", "manifest", "features").collect_batches(chunk_size=rows_at_once):
        for (model, manifest), rows in part.partition_by("model", "manifest", as_dict=True).items():
            key = (str(model), str(manifest))
            if key not in found:
                found[key] = _start(platform, domain, key[1])
            _add(found[key], rows.get_column("features"), step)
    return found


def _start(platform: Platform, domain: Domain, manifest: str) -> _Served:
    try:
        return _Served(reference=reference_of(platform, domain, manifest))
    except (BundleError, DataError, DeclarationError) as error:
        return _Served(reference=None, why_not=str(error))


def _add(of: _Served, vectors: pl.Series, step: int) -> None:
    """Count a slice of the log."""
    given = vectors.drop_nulls()
    of.answers += len(vectors)
    of.computed += len(given)
    if of.reference is None or not len(given):
        return
    width = len(of.reference.bins.names)
    if not (given.list.len() == width).all():
        of.reference, of.sketch = None, None
        of.why_not = f"the log has vectors of another length than the {width} features of the manifest"
        return
    rows = given.explode().to_numpy().reshape(-1, width)
    counted = sketch(rows, of.reference.bins)
    of.sketch = counted if of.sketch is None else of.sketch + counted
    of.sample.append(rows[::step].copy())


def _of_manifest(
    domain: Domain, model: str, manifest: str, of: _Served, before: pl.DataFrame, day: str
) -> ManifestQuality:
    declared = {each.name: each for each in domain.models}
    monitoring = declared[model].monitoring if model in declared else Monitoring()
    reference = of.reference
    told = ManifestQuality(model=model, manifest=manifest, answers=of.answers, computed=of.computed)
    if reference is None:
        return replace(told, not_judged=of.why_not, missing=True)
    names = reference.bins.names
    now = set(feature_names(domain, declared[model])) if model in declared else set()
    told = replace(
        told,
        window=f"{reference.days[0]} to {reference.days[-1]}",
        undeclared=tuple(name for name in names if name not in now),
        names=names,
        training_sample=reference.sample,
    )
    if of.sketch is None:
        return replace(told, not_judged="no answer had features")
    rows = np.concatenate(of.sample)
    why_not = ""
    if reference.usual.days < days_at_least:
        why_not = f"its training window has {reference.usual.days} whole days, and what is usual takes {days_at_least}"
    elif of.computed < (least := monitoring.min_rows.value):
        why_not = f"{of.computed:,} rows are fewer than the {least:,.0f} that figures are judged from"
    history, unchanged = _history(reference, before, day)
    added, days = before_each(history, unchanged)
    verdict = judge(
        of.sketch,
        reference.usual,
        reference.whole,
        added,
        days,
        reference.bins,
        going_on=~unchanged[-1],
        rate=monitoring.false_discoveries.value,
    )
    features = judged_features(model, of.sketch, reference, verdict, judged=not why_not)
    return replace(
        told,
        features=tuple(sorted(features, key=lambda each: (-each.importance, each.feature))),
        not_judged=why_not,
        sample=rows[:: max(1, len(rows) // rows_of_report)],
    )


def judged_features(
    model: str, of: Sketch, reference: Reference, verdict: Verdict, *, judged: bool
) -> list[FeatureQuality]:
    """Figures of each feature of a day, and what is wrong with it; `judged`: there were rows enough to say."""
    moved = displaced(of, reference.whole, reference.bins)
    told = []
    for place, name in enumerate(reference.bins.names):
        rule = _rule(verdict, place) if judged else ""
        worst = _worst(verdict, place, rule)
        figures = {each: float(verdict.shown[number, place]) for number, each in enumerate(distances)}
        told.append(
            FeatureQuality(
                model=model,
                manifest=reference.manifest,
                feature=name,
                importance=float(reference.importance[place]),
                rows=int(of.rows[place]),
                judged=judged,
                rule=rule,
                displaced=float(moved[place]),
                chance=float(verdict.chance[place]),
                statistic=distances[worst],
                value=float(verdict.shown[worst, place]),
                bound=float(verdict.bound[worst, place]),
                sketch=of.to_bytes(place),
                **figures,
            )
        )
    return told


def _rule(verdict: Verdict, place: int) -> str:
    changed = {rule for number, rule in enumerate(rules) if verdict.changed[number, place]}
    return next((rule for rule in order_of_rules if rule in changed), slow_drift if verdict.slow[place] else "")


def _worst(verdict: Verdict, place: int, rule: str) -> int:
    """The statistic that stands out the most, of the rule's own where there is one."""
    if rule in rules:
        return int(verdict.worst[rules.index(rule), place])
    ratio = np.where(np.isnan(verdict.ratio[:, place]), -1.0, verdict.ratio[:, place])
    return max(judged_by, key=lambda each: ratio[each])


def _days_before(platform: Platform, domain: Domain, day: str) -> Mapping[str, pl.DataFrame]:
    """By manifest, what was found of the days before: `feature`, `rule`, `sketch` and `_partition`."""
    table = quality_table(platform, domain)
    earliest = (date.fromisoformat(day) - timedelta(days=days_in_view)).isoformat()
    days = [each for each, revision in table.current().items() if earliest <= each < day and revision.rows]
    if not days:
        return {}
    rows = table.read(days, columns=["manifest", "feature", "rule", "sketch"], provenance=True)
    return {str(manifest): of for (manifest,), of in rows.partition_by("manifest", as_dict=True).items()}


def _history(reference: Reference, before: pl.DataFrame, day: str) -> tuple[Sketch, Mask]:
    """The days before, of the training window and of serving: (days, k), and where nothing had changed."""
    known = {
        each: (reference.sketches[number], np.ones(len(reference.bins.names), dtype=np.bool_))
        for number, each in enumerate(reference.days)
    }
    # A day of the past that is judged again by a model of today has none before it; any two weeks are better then.
    earlier = {each: of for each, of in known.items() if each < day}
    known = earlier if len(earlier) >= recent_at_least else known
    known = dict(list(known.items())[-days_in_view:])
    for (each,), rows in before.partition_by("_partition", as_dict=True).items() if before.height else ():
        of = {feature: (rule, kept) for feature, rule, kept in rows.select("feature", "rule", "sketch").iter_rows()}
        if of.keys() == set(reference.bins.names):
            ordered = [of[name] for name in reference.bins.names]
            unchanged = np.array([rule in ("", slow_drift) for rule, _ in ordered])
            known[str(each)] = (Sketch.from_bytes([kept for _, kept in ordered]), unchanged)
    days = sorted(known)
    return stacked([known[each][0] for each in days]), np.stack([known[each][1] for each in days])
