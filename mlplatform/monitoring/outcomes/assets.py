"""Outcomes as Dagster assets: of each day, and of each week."""

from collections.abc import Iterator

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features.assets import stage_key
from mlplatform.monitoring.assets import judging, log_key
from mlplatform.monitoring.daily import judged_version
from mlplatform.monitoring.outcomes.checks import outcomes_check, outcomes_metadata, outcomes_result, week_metadata
from mlplatform.monitoring.outcomes.latest import latest_outcomes
from mlplatform.monitoring.outcomes.outcomes import MONITOR, keep, outcomes_of_day
from mlplatform.monitoring.outcomes.tables import (
    figures_schema,
    figures_table,
    labels_table,
    monday_of,
    weeks_table,
    window_schema,
)
from mlplatform.monitoring.outcomes.weekly import MONITOR as WEEKLY
from mlplatform.monitoring.outcomes.weekly import keep_week, outcomes_of_week
from mlplatform.monitoring.partitions import monitor_key
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run


def weeks_of_answers(domain: Domain) -> dg.WeeklyPartitionsDefinition:
    """One partition per week, named by its Monday; the one that the domain begins in and the current one too."""
    return dg.WeeklyPartitionsDefinition(
        start_date=monday_of(domain.start.isoformat()), timezone="UTC", day_offset=1, end_offset=1
    )


def outcomes_asset(domain: Domain) -> dg.AssetsDefinition:
    """What became of what was answered on a day."""
    delay = max(model.label.delay for model in domain.models)

    @judging(
        domain,
        MONITOR,
        outcomes_of_day,
        figures_schema,
        description=(
            "What became of the answers of a day: their labels, joined by the case that each request names, and the "
            "metrics of every model, arm and segment with intervals, calibration and business figures; beside them "
            "the last 7 and 28 days. Labels are kept in `outcome_labels`.\n\nA day is shown when it is over, judged "
            f"when its labels can be in ({delay} after the last request, and published), and judged again whenever "
            "labels come or are corrected, however late. The bounds are made of the days on which each model was "
            "evaluated."
        ),
        deps=[
            dg.AssetDep(log_key(domain)),
            dg.AssetDep(
                stage_key(domain, "derived"),
                partition_mapping=dg.TimeWindowPartitionMapping(
                    end_offset=delay.days + 1, allow_nonexistent_upstream_partitions=True
                ),
            ),
        ],
        check_specs=[outcomes_check(domain)],
    )
    def outcomes(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        day, run_id = context.partition_key, context.run.run_id
        found = outcomes_of_day(platform, domain, day, run_id=run_id)
        revision = keep(platform, domain, found, run_id=run_id)
        yield dg.MaterializeResult(
            metadata={
                **outcomes_metadata(domain, found, latest_outcomes(platform, domain, until=day)),
                "table": dg.MetadataValue.path(figures_table(platform, domain).uri),
                "kept_labels": dg.MetadataValue.path(labels_table(platform, domain).uri),
            },
            check_results=[outcomes_result(found)],
            data_version=dg.DataVersion(judged_version(found.made_from, revision.content_hash)),
        )

    return outcomes


def outcomes_weekly_asset(domain: Domain) -> dg.AssetsDefinition:
    """What became of what was answered in a week."""

    @judging(
        domain,
        WEEKLY,
        outcomes_of_week,
        window_schema,
        partitions=weeks_of_answers(domain),
        description=(
            "The mature days of a week together, Monday to Sunday: every metric of every model, arm and segment with "
            "an interval from a bootstrap over its days, beside the week before.\n\nIt is made when the week is over "
            "and a day of it was judged, and again when one is judged again."
        ),
        deps=[
            dg.AssetDep(
                monitor_key(domain, MONITOR),
                partition_mapping=dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True),
            )
        ],
    )
    def outcomes_weekly(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        found = outcomes_of_week(platform, domain, context.partition_key)
        revision = keep_week(platform, domain, found, run_id=context.run.run_id)
        return dg.MaterializeResult(
            metadata={
                **week_metadata(domain, found),
                "table": dg.MetadataValue.path(weeks_table(platform, domain).uri),
            },
            data_version=dg.DataVersion(judged_version(found.made_from, revision.content_hash)),
        )

    return outcomes_weekly
