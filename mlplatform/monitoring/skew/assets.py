"""The skew of a domain's days as a Dagster asset, partitioned by day."""

from collections.abc import Iterator

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features.assets import stage_key
from mlplatform.monitoring.assets import judging, log_key
from mlplatform.monitoring.daily import judged_version
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.served import rows_at_most
from mlplatform.monitoring.skew.checks import MONITOR, skew_check, skew_metadata, skew_result
from mlplatform.monitoring.skew.comparison import keep, skew_of_day
from mlplatform.monitoring.skew.findings import skew_findings
from mlplatform.monitoring.skew.tables import skew_rows, skew_table, table_schema
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run


def the_day_before() -> dg.TimeWindowPartitionMapping:
    """Requests of a day are answered from what was published after the day before."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)


def skew_asset(domain: Domain) -> dg.AssetsDefinition:
    """What the models of a domain were served on a day, beside what they were trained on."""

    @judging(
        domain,
        MONITOR,
        skew_of_day,
        table_schema,
        description=(
            "Whether the models were served what they were trained on: each logged feature vector of a day against "
            "what is computed offline for the same request at its own time, to the bit. One row per manifest and "
            "feature; values that were served otherwise are kept in `skew_rows`, some of each feature.\n\nOf a "
            f"manifest with more than {rows_at_most:,} answers a part is compared, drawn by the request's id."
        ),
        deps=[
            dg.AssetDep(log_key(domain)),
            dg.AssetDep(stage_key(domain, "feature_store"), partition_mapping=the_day_before()),
        ],
        check_specs=[skew_check(domain)],
    )
    def skew(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        found = skew_of_day(platform, domain, context.partition_key)
        revision = keep(platform, domain, found, run_id=context.run.run_id)
        keep_findings(platform, domain, MONITOR, found.day, skew_findings(domain, found), context.run.run_id)
        yield dg.MaterializeResult(
            metadata={
                **skew_metadata(found),
                "table": dg.MetadataValue.path(skew_table(platform, domain).uri),
                "rows_kept": found.rows.height,
                "kept_in": dg.MetadataValue.path(skew_rows(platform, domain).uri),
            },
            check_results=[skew_result(found)],
            data_version=dg.DataVersion(judged_version(str(found.answers), revision.content_hash)),
        )

    return skew
