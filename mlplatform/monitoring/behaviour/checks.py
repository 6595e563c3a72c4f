"""The check of a day of model behaviour, and what the asset shows of it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.behaviour.day import DayBehaviour
from mlplatform.monitoring.behaviour.plots import (
    behaviour_table,
    findings_table,
    latency_plot,
    rescored_table,
    scores_plot,
    traffic_plot,
)
from mlplatform.monitoring.partitions import monitor_check
from mlplatform.training.plots import as_markdown

MONITOR = "model_behaviour"


def behaviour_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `behaves_as_evaluated` on `model_behaviour`, partitioned by day as the asset is."""
    return monitor_check(
        domain,
        MONITOR,
        "behaves_as_evaluated",
        "The models answer: in time, themselves and not their fallbacks, all of it logged, with scores "
        "that are not expected to be worse than on the days of their evaluation.",
    )


def behaviour_result(found: DayBehaviour) -> dg.AssetCheckResult:
    """Passed; an error that says what is harmful; a warning where something is unusual or could not be compared."""
    harmful = [each.summary for each in found.findings if each.harmful]
    unusual = [each.summary for each in found.findings if not each.harmful]
    said = "; ".join([*harmful, *unusual, *found.not_compared])
    if not said:
        said = f"{found.answers:,} answers, as evaluated" if found.answers else "nothing was answered on that day"
    return dg.AssetCheckResult(
        passed=not (harmful or unusual or found.not_compared),
        severity=dg.AssetCheckSeverity.ERROR if harmful else dg.AssetCheckSeverity.WARN,
        description=f"{found.day}: {said}",
        metadata={"harmful_findings": len(harmful), "findings": len(found.findings)},
    )


def behaviour_metadata(found: DayBehaviour) -> Mapping[str, Any]:
    """Counts, what is wrong, a table of every model, manifest and arm, and plots."""
    shown: dict[str, Any] = {
        "answers": found.answers,
        "dropped": found.dropped,
        "findings": dg.MetadataValue.md(findings_table(found)) if found.findings else "none",
        "models": dg.MetadataValue.md(behaviour_table(found)),
    }
    if found.rescored:
        shown["scored_again"] = dg.MetadataValue.md(rescored_table(found))
    if found.breakers:
        lines = [
            f"| {each.breaker} | `{each.manifest[:12]}` | {each.times} | {each.still} |" for each in found.breakers
        ]
        head = ["| breaker | manifest | opened | still open |", "|---|---|---|---|"]
        shown["breakers"] = dg.MetadataValue.md("\n".join([*head, *lines]))
    if found.behaviours:
        plots = {"scores": scores_plot, "latency": latency_plot, "traffic": traffic_plot}
        shown["plots"] = dg.MetadataValue.md(
            "\n".join(as_markdown(plot(found.behaviours), title) for title, plot in plots.items())
        )
    return shown
