"""The check of a night of replays, and what the asset shows of it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.partitions import monitor_check
from mlplatform.reproducibility.coverage.coverage import MONITOR, Coverage, coverage_findings
from mlplatform.reproducibility.coverage.plots import (
    cause_lines,
    coverage_lines,
    coverage_plot,
    fault_lines,
    until_lines,
)
from mlplatform.training.plots import as_markdown

Until = Mapping[tuple[str, str, str], tuple[str, str]]
"""Model, version and manifest -> until when it can be made again, and why until then."""


def coverage_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `replayable` on `replay_coverage`, partitioned by night as the asset is."""
    return monitor_check(
        domain,
        MONITOR,
        "replayable",
        "Of the old answers of each model that were given again, the share that the domain promises "
        f"({domain.reproducibility.min_replayed.value:.1%}) is exact or within tolerance; what was removed by "
        "policy is not counted.",
    )


def coverage_result(domain: Domain, found: Coverage) -> dg.AssetCheckResult:
    """Passed; an error that names the worst cause, a request and the command; a warning above the threshold."""
    findings = coverage_findings(domain, found)
    harmful = [each for each in findings if each.harmful]
    all_of_it = found.all
    if not found.replayed:
        said = "nothing was answered up to that night" if not found.logged else "no answer was drawn"
        if found.removed_days:
            said += f"; {found.removed_answers:,} answers of {found.removed_days} days were removed by policy"
    elif findings:
        said = "; ".join(each.summary for each in findings)
    else:
        promised = all_of_it.replayed - all_of_it.removed
        said = f"{promised:,} of {found.logged:,} answers were given again: {all_of_it.exact:,} to the bit, "
        said += f"{all_of_it.within_tolerance:,} within tolerance"
    return dg.AssetCheckResult(
        passed=not harmful,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{found.night}: {said}",
        metadata={"findings": len(findings), "replayed": all_of_it.replayed},
    )


def coverage_metadata(domain: Domain, found: Coverage, past: pl.DataFrame, until: Until) -> Mapping[str, Any]:
    """Counts and shares, which the UI plots over the nights; tables by manifest and age, of causes and of faults.

    Parameters
    ----------
    past : figures of the last nights, this one included
    """
    each = found.all
    shown: dict[str, Any] = {
        "replayed": each.replayed,
        "kinds": found.kinds,
        "logged": found.logged,
        "removed_by_policy": each.removed,
        "removed_days": found.removed_days,
        "removed_answers": found.removed_answers,
    }
    promised = each.replayed - each.removed
    if promised:
        shown["replayable_share"] = each.share
        for outcome in ("exact", "within_tolerance", "diverged", "impossible"):
            shown[f"{outcome}_share"] = getattr(each, outcome) / promised
    if found.replayed:
        shown["by_manifest_and_age"] = dg.MetadataValue.md(coverage_lines(found))
    if each.cause is not None:
        shown["causes"] = dg.MetadataValue.md(cause_lines(found))
        shown["faults"] = dg.MetadataValue.md(fault_lines(found))
    if until:
        shown["reproducible_until"] = dg.MetadataValue.md(until_lines(until))
    if past.height:
        wanted = domain.reproducibility.min_replayed.value
        shown["nights"] = dg.MetadataValue.md(as_markdown(coverage_plot(past, wanted), "replay coverage"))
    return shown
