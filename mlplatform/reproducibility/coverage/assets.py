"""The nightly replays of a domain as a Dagster asset, partitioned by night."""

from collections.abc import Iterator

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.assets import judging, log_key
from mlplatform.monitoring.daily import judged_version
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.reproducibility.coverage.checks import coverage_check, coverage_metadata, coverage_result
from mlplatform.reproducibility.coverage.coverage import (
    MONITOR,
    coverage_findings,
    coverage_of_night,
    keep_coverage,
    versions_until,
)
from mlplatform.reproducibility.coverage.plots import nights_shown
from mlplatform.reproducibility.coverage.tables import coverage_rows, coverage_table, past_nights, table_schema


def coverage_asset(domain: Domain) -> dg.AssetsDefinition:
    """Whether the answers that a domain has given can be given again."""

    @judging(
        domain,
        MONITOR,
        coverage_of_night,
        table_schema,
        description=(
            f"Whether what was answered can be answered again: each night {domain.reproducibility.nightly_replays:,} "
            "logged answers of all ages and versions, shadows and fallbacks too, are replayed with the bundles, the "
            "revisions and the plan of then, others each night. One row per manifest and age; what was not the same "
            "to the bit is kept in `replay_findings`, with its cause. What was removed by policy is counted apart.\n\n"
            "Every kind of answer has the same part of the sample, so its shares are not those of all answers."
        ),
        # Answers of all days up to the night.
        deps=[dg.AssetDep(log_key(domain), partition_mapping=dg.AllPartitionMapping())],
        check_specs=[coverage_check(domain)],
    )
    def replay_coverage(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        night, run_id = context.partition_key, context.run.run_id
        made_from = str(rows_by_day(platform, domain).get(night, 0))
        found = coverage_of_night(platform, domain, night)
        revision = keep_coverage(platform, domain, found, run_id=run_id)
        keep_findings(platform, domain, MONITOR, night, coverage_findings(domain, found), run_id)
        past = past_nights(platform, domain, until=night, at_most=nights_shown)
        yield dg.MaterializeResult(
            metadata={
                **coverage_metadata(domain, found, past, versions_until(platform, domain, found)),
                "table": dg.MetadataValue.path(coverage_table(platform, domain).uri),
                "kept_in": dg.MetadataValue.path(coverage_rows(platform, domain).uri),
            },
            check_results=[coverage_result(domain, found)],
            data_version=dg.DataVersion(judged_version(made_from, revision.content_hash)),
        )

    return replay_coverage
