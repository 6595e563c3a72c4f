"""The data quality of a domain's days as a Dagster asset, partitioned by day."""

from collections.abc import Iterator

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features.assets import stage_key
from mlplatform.monitoring.assets import judging, log_key
from mlplatform.monitoring.daily import judged_version
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.monitoring.quality.checks import MONITOR, quality_check, quality_metadata, quality_result
from mlplatform.monitoring.quality.quality import keep, made_from, quality_of_day
from mlplatform.monitoring.quality.reports import write_reports
from mlplatform.monitoring.quality.tables import quality_table, table_schema
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run


def quality_asset(domain: Domain) -> dg.AssetsDefinition:
    """What the models of a domain were served on a day, held to what each was trained on."""

    @judging(
        domain,
        MONITOR,
        quality_of_day,
        table_schema,
        description=(
            "Each feature of every answer of a day, held to the training set of the model that answered: missing, out "
            "of range and new values, spread, mean shift, PSI, KL and KS. What counts as unusual was learned from the "
            "days of that training set. One row per manifest and feature.\n\nWith it, what the sources gave for the "
            "day: rows, and the share in quarantine."
        ),
        deps=[
            dg.AssetDep(log_key(domain)),
            dg.AssetDep(
                stage_key(domain, "quarantine"),
                partition_mapping=dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True),
            ),
        ],
        check_specs=[quality_check(domain)],
    )
    def data_quality(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        # Before the day is looked at: what comes meanwhile has it judged again.
        day = context.partition_key
        version = made_from(platform, domain, {day: rows_by_day(platform, domain).get(day, 0)})[day]
        found = quality_of_day(platform, domain, day)
        revision = keep(platform, domain, found, run_id=context.run.run_id)
        keep_findings(platform, domain, MONITOR, found.day, found.findings, context.run.run_id)
        reports = write_reports(platform, domain, found)
        yield dg.MaterializeResult(
            metadata={
                **quality_metadata(found, reports),
                "table": dg.MetadataValue.path(quality_table(platform, domain).uri),
            },
            check_results=[quality_result(found)],
            data_version=dg.DataVersion(judged_version(version, revision.content_hash)),
        )

    return data_quality
