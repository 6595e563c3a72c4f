"""The check of a day's outcomes, and what the assets show of a day and of a week."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.outcomes.latest import LatestOutcome
from mlplatform.monitoring.outcomes.outcomes import MONITOR, DayOutcomes
from mlplatform.monitoring.outcomes.plots import (
    counts_table,
    estimates_table,
    figures_table,
    segments_table,
    trend_plot,
)
from mlplatform.monitoring.outcomes.weekly import WeekOutcomes
from mlplatform.monitoring.partitions import monitor_check
from mlplatform.training.plots import as_markdown


def outcomes_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `predicts_as_evaluated` on `outcomes`, partitioned by day as the asset is."""
    return monitor_check(
        domain,
        MONITOR,
        "predicts_as_evaluated",
        "What was answered came true as in the evaluation: the deciding metric, the calibration, "
        "every segment and the business figures are within what chance explains, and the labels have come.",
    )


def outcomes_result(found: DayOutcomes) -> dg.AssetCheckResult:
    """Passed; an error that says what is wrong; a warning where a mature day could not be judged."""
    faults = [each.summary for each in found.findings]
    unjudged = [f"{manifest[:12]} is not judged: {why}" for manifest, why in found.unmeasured.items()]
    unjudged += [
        f"{answers:,} answers are of {name}, which the domain no longer declares"
        for name, answers in found.undeclared.items()
    ]
    if not found.answers:
        said = "nothing was answered on that day"
    elif faults or unjudged:
        said = "; ".join([*faults, *unjudged])
    elif not found.judged:
        said = "shown and not judged: the labels are not all due before " + ", ".join(
            f"{each.mature_at:%Y-%m-%d %H:%M} UTC ({each.model}, {each.coverage:.0%} are in)" for each in found.models
        )
    else:
        said = ", ".join(f"{each.labelled:,} of {each.answers:,} answers of {each.model}" for each in found.models)
        said += " have their label, and came true as in the evaluation"
    return dg.AssetCheckResult(
        passed=not faults and not unjudged,
        severity=dg.AssetCheckSeverity.ERROR if faults else dg.AssetCheckSeverity.WARN,
        description=f"{found.day}: {said}",
        metadata={"findings": len(found.findings), "labelled": sum(each.labelled for each in found.models)},
    )


def outcomes_metadata(domain: Domain, found: DayOutcomes, latest: Sequence[LatestOutcome]) -> Mapping[str, Any]:
    """Counts and figures of the day and of its windows, estimates beside the truth, and the last weeks as plots.

    Parameters
    ----------
    latest : of the last weeks, this day included
    """
    shown: dict[str, Any] = {
        "answers": found.answers,
        "labelled": sum(each.labelled for each in found.models),
        "mature": found.judged,
        "contradicting_labels": sum(each.contradicted for each in found.models),
        "labels": dg.MetadataValue.md(counts_table(found)),
        "day": dg.MetadataValue.md(figures_table(found.figures, domain.models)),
        "segments": dg.MetadataValue.md(segments_table(found.figures, domain.models)),
        "estimated_before_labels": dg.MetadataValue.md(estimates_table(found)),
        "findings": dg.MetadataValue.md("\n".join(f"- {each.summary}" for each in found.findings) or "none"),
    }
    for days, figures in found.windows.items():
        shown[f"last_{days}_days"] = dg.MetadataValue.md(figures_table(figures, domain.models))
    plots = []
    for model in domain.models:
        of = [each for each in latest if each.model == model.name and each.manifest]
        if of:
            plots.append(as_markdown(trend_plot(of), model.name))
    if plots:
        shown["trend"] = dg.MetadataValue.md("\n".join(plots))
    return shown


def week_metadata(domain: Domain, found: WeekOutcomes) -> Mapping[str, Any]:
    """Figures of the week, of its segments, and of the week before."""

    def of(figures: pl.DataFrame) -> dg.MarkdownMetadataValue:
        return dg.MetadataValue.md(figures_table(figures, domain.models))

    return {
        "answers": found.answers,
        "labelled": found.labelled,
        "days": int(found.figures["days"].max() or 0) if found.figures.height else 0,  # type: ignore[arg-type]
        "week": of(found.figures),
        "segments": dg.MetadataValue.md(segments_table(found.figures, domain.models)),
        "week_before": of(found.before),
    }
