"""The prediction log and the skew of its days as Dagster assets, partitioned by day.

A run of the log takes whatever waits, of whichever day: there is nothing to choose, and what waits is of today nearly
always. It reports each day that it has added rows to. Skew is looked for day by day, when a day is over.
"""

from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.assets import stage_key
from mlplatform.monitoring.checks import data_version, skew_check, skew_key, skew_metadata, skew_result
from mlplatform.monitoring.partitions import days_of_answers
from mlplatform.monitoring.pickup import Picked, gaps_table, log_table, pick_up
from mlplatform.monitoring.prediction_log import schema
from mlplatform.monitoring.served import rows_at_most
from mlplatform.monitoring.skew import keep, skew_of_day
from mlplatform.monitoring.skew_tables import skew_rows, skew_table, table_schema
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run


def the_day_before() -> dg.TimeWindowPartitionMapping:
    """Requests of a day are answered from what was published after the day before."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)


def log_key(domain: Domain) -> dg.AssetKey:
    """Key of the prediction log: `domain/prediction_log`."""
    return dg.AssetKey([domain.name, "prediction_log"])


def monitoring_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    """What is kept of a domain's answers."""
    partitions = days_of_answers(domain)

    @dg.multi_asset(
        name=f"{domain.name}_prediction_log_pickup",
        specs=[
            dg.AssetSpec(
                key=log_key(domain),
                description=(
                    "Every answer of a day, the degraded ones too: the request, the features and what they were read "
                    "from, the scores, versions, source and latencies; enough to replay it. A day is the UTC day on "
                    "which the request came.\n\nA run appends what the gateways of this machine have finished writing, "
                    "each answer exactly once, and never changes a row. Answers that could not be written are counted "
                    "in `prediction_log_gaps`."
                ),
                partitions_def=partitions,
                group_name=f"{domain.name}_monitoring",
                owners=list(domain.owners),
                kinds={"deltalake"},
                code_version=code_version(pick_up),
                metadata={"dagster/column_schema": _columns(schema)},
                # The step reports the days that it has added to; an output would report the partition of the run.
                skippable=True,
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def prediction_log(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        picked = pick_up(platform, domain)
        context.log.info("%d rows of %d segments picked up", picked.rows, picked.segments)
        if picked.dropped or picked.unreadable:
            context.log.error(
                "%d answers were not logged and %d segments cannot be read: look at the disk of the gateways",
                picked.dropped,
                picked.unreadable,
            )
        for day, rows in picked.days.items():
            context.log_event(
                dg.AssetMaterialization(
                    log_key(domain), partition=day, metadata=_metadata(platform, domain, picked, rows)
                )
            )
        # What was added has been reported; a plain function would have to return an output.
        yield from ()

    @dg.asset(
        key=skew_key(domain),
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
        partitions_def=partitions,
        group_name=f"{domain.name}_monitoring",
        owners=list(domain.owners),
        kinds={"deltalake", "polars"},
        code_version=code_version(skew_of_day),
        check_specs=[skew_check(domain)],
        metadata={"dagster/column_schema": _columns(table_schema)},
    )
    def skew(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        found = skew_of_day(platform, domain, context.partition_key)
        revision = keep(platform, domain, found, run_id=context.run.run_id)
        yield dg.MaterializeResult(
            metadata={
                **skew_metadata(found),
                "table": dg.MetadataValue.path(skew_table(platform, domain).uri),
                "rows_kept": found.rows.height,
                "kept_in": dg.MetadataValue.path(skew_rows(platform, domain).uri),
            },
            check_results=[skew_result(found)],
            data_version=dg.DataVersion(data_version(found.answers, revision.content_hash)),
        )

    return [prediction_log, skew]


def _columns(columns: Mapping[str, pl.DataType]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, str(dtype)) for name, dtype in columns.items()])


def _metadata(platform: Platform, domain: Domain, picked: Picked, rows: int) -> dict[str, dg.MetadataValue | int]:
    return {
        "rows_added": rows,
        "segments": picked.segments,
        "dropped_rows": picked.dropped,
        "unreadable_segments": picked.unreadable,
        "table": dg.MetadataValue.path(log_table(platform, domain)),
        "gaps": dg.MetadataValue.path(gaps_table(platform, domain)),
    }
