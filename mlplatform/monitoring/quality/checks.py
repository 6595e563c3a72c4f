"""Data quality as a Dagster check: one result per day, in words; and what the asset shows of the day."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.partitions import monitor_check
from mlplatform.monitoring.quality.day_quality import DayQuality
from mlplatform.monitoring.quality.plots import harm_plot
from mlplatform.training.plots import as_markdown

MONITOR = "data_quality"

features_shown = 100
"""Lines of the table of features in the UI; all of them stand in the table `data_quality`."""


def quality_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `data_as_trained` on `data_quality`, partitioned by day as the asset is."""
    return monitor_check(
        domain,
        MONITOR,
        "data_as_trained",
        "Each feature that a model was served is as in its training set, within what the days of that "
        "training set differed among themselves; and the sources gave what they usually give.",
    )


def quality_result(found: DayQuality) -> dg.AssetCheckResult:
    """Passed; an error where a finding is harmful; a warning where one is not, or where nothing could be judged."""
    findings = [each for each in found.findings if each.rule != "slow_drift"]
    harmful = [each for each in findings if each.harmful]
    if findings:
        said = "; ".join(each.summary for each in findings)
    elif not found.answers:
        said = "nothing was served on that day"
    else:
        judged = sum(each.computed for each in found.manifests if not each.not_judged)
        few = [f"{each.model} {each.manifest[:12]}: {each.not_judged}" for each in found.manifests if each.not_judged]
        said = "; ".join([f"{judged:,} of {found.answers:,} answers were judged, and all is as usual", *few])
    return dg.AssetCheckResult(
        passed=not findings,
        severity=dg.AssetCheckSeverity.ERROR if harmful else dg.AssetCheckSeverity.WARN,
        description=f"{found.day}: {said}",
        metadata={"findings": len(findings), "harmful_findings": len(harmful)},
    )


def quality_metadata(found: DayQuality, reports: Mapping[str, Path | str]) -> Mapping[str, Any]:
    """What the asset shows of a day: counts, its manifests, features (the worst first), sources, picture and report.

    Parameters
    ----------
    reports : by manifest, the file of the report, or why there is none
    """
    features = [
        f"| {each.model} | `{each.manifest[:12]}` | {each.feature} | {each.rule or 'as usual'} | "
        f"{each.importance:.1%} | {each.rows:,} | {each.null_rate:.2%} | {each.out_of_range:.2%} | "
        f"{each.new_category:.2%} | {each.spread:.2f} | {each.mean_shift:+.2f} | {each.psi:.3f} | {each.kl:.3f} | "
        f"{each.ks:.3f} | {each.displaced:.1%} | {each.told.partition(': ')[2]} |"
        for each in found.features[:features_shown]
    ]
    manifests = [
        f"| {each.model} | `{each.manifest[:12]}` | {each.answers:,} | {each.computed:,} | {each.window} | "
        f"{each.not_judged or 'judged'} | {', '.join(each.undeclared)} |"
        for each in found.manifests
    ]
    sources = [
        f"| {each.source} | {each.partition} | {'none' if each.rows is None else f'{each.rows:,}'} | "
        f"{each.usual_rows:,.0f} | {each.share:.2%} | {each.bound:.2%} | {each.rule or 'as usual'} |"
        for each in found.sources
    ]
    told: dict[str, Any] = {
        "answers": found.answers,
        "findings": dg.MetadataValue.md("\n".join(f"- {each.summary}" for each in found.findings) or "none"),
        "manifests": _table("model manifest answers with_features training_window outcome undeclared", manifests),
        "features": _table(
            "model manifest feature verdict importance rows null_rate out_of_range new_category spread mean_shift psi "
            "kl ks displaced what_stands_out",
            features,
        ),
        "sources": _table("source partition rows usual_rows quarantined usual_up_to verdict", sources),
    }
    for each in found.manifests:
        name = f"{each.model}_{each.manifest[:12]}"
        if each.features:
            picture = harm_plot(each.features, f"{each.model} {each.manifest[:12]} on {found.day}")
            told[f"picture_{name}"] = dg.MetadataValue.md(as_markdown(picture, name))
        if each.manifest in reports:
            report = reports[each.manifest]
            told[f"report_{name}"] = dg.MetadataValue.path(report) if isinstance(report, Path) else report
    return told


def _table(columns: str, lines: list[str]) -> dg.MarkdownMetadataValue:
    names = [name.replace("_", " ") for name in columns.split()]
    return dg.MetadataValue.md("\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines]))
