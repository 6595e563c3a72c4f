"""The skew check as a Dagster check: one result per day, which names the features and what to look at."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.partitions import monitor_check
from mlplatform.monitoring.skew.comparison import DaySkew

MONITOR = "skew"


def skew_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `served_as_trained` on `skew`, partitioned by day as the asset is."""
    return monitor_check(
        domain,
        MONITOR,
        "served_as_trained",
        "Every logged feature is, to the bit, what the historical join and the feature code give for "
        "the same request at its own time. The threshold is zero.",
    )


def skew_result(found: DaySkew) -> dg.AssetCheckResult:
    """Passed; an error that names the worst features; a warning where not all could be compared."""
    faults = found.faults
    looked_at = sum(each.looked_at for each in found.manifests)
    not_compared = [
        f"{each.raised or each.answers:,} answers of {each.model} {each.manifest[:12]} could not be compared: "
        f"{each.not_compared}"
        for each in found.manifests
        if each.not_compared
    ]
    if not found.answers:
        said = "nothing was served on that day"
    elif faults or not_compared:
        said = "; ".join([*faults, *not_compared])
    else:
        said = f"{looked_at:,} of {found.answers:,} answers were compared, and every value is the same"
    return dg.AssetCheckResult(
        passed=not faults and not not_compared,
        severity=dg.AssetCheckSeverity.ERROR if faults else dg.AssetCheckSeverity.WARN,
        description=f"{found.day}: {said}",
        metadata={"skewed_features": sum(1 for each in found.features if each.wrong), "rows_compared": looked_at},
    )


features_shown = 100
"""Lines of the table of features in the UI; all of them stand in the table `skew`."""


def skew_metadata(found: DaySkew) -> Mapping[str, Any]:
    """What the asset shows of a day: counts, a table of its manifests, and one of their features, the worst first."""
    manifests = [
        f"| {each.model} | `{each.manifest[:12]}` | {each.answers:,} | {each.computed:,} | {each.looked_at:,} | "
        f"{each.looked_at / max(1, each.computed):.1%} | {each.refused:,} | {each.misdated:,} | "
        f"{each.not_compared or 'compared'} |"
        for each in found.manifests
    ]
    features = [
        f"| {each.model} | `{each.manifest[:12]}` | {each.feature} | {each.share:.2%} | {each.compared:,} | "
        f"{each.mismatched:,} | {each.missing:,} | {each.extra:,} | {each.unavailable:,} | {each.publishing:,} | "
        f"{each.largest:.6g} | {each.example} | {each.cause} |"
        for each in found.features[:features_shown]
    ]
    statuses = [
        f"| {each.model} | `{each.manifest[:12]}` | {view} | {status} | {rows:,} |"
        for each in found.manifests
        for view, counted in each.statuses.items()
        for status, rows in counted.items()
    ]
    return {
        "answers": found.answers,
        "rows_compared": sum(each.looked_at for each in found.manifests),
        "manifests": _table("model manifest answers with_features compared share refused misdated outcome", manifests),
        "features": _table(
            "model manifest feature share compared mismatched missing extra unavailable publishing largest example "
            "cause",
            features,
        ),
        "statuses": _table("model manifest view status rows", statuses),
    }


def _table(columns: str, lines: list[str]) -> dg.MarkdownMetadataValue:
    names = [name.replace("_", " ") for name in columns.split()]
    return dg.MetadataValue.md("\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines]))
