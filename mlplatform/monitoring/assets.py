"""The prediction log as a Dagster asset, partitioned by day.

A run takes whatever waits, of whichever day: there is nothing to choose, and what waits is of today nearly always. It
reports each day that it has added rows to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.partitions import days_of_answers, monitor_key
from mlplatform.monitoring.pickup import Picked, gaps_table, log_table, pick_up
from mlplatform.monitoring.prediction_log import schema
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run


def log_key(domain: Domain) -> dg.AssetKey:
    """Key of the prediction log: `domain/prediction_log`."""
    return dg.AssetKey([domain.name, "prediction_log"])


def prediction_log_asset(domain: Domain) -> dg.AssetsDefinition:
    """What is kept of a domain's answers."""

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
                partitions_def=days_of_answers(domain),
                group_name=f"{domain.name}_monitoring",
                owners=list(domain.owners),
                kinds={"deltalake"},
                code_version=code_version(pick_up),
                metadata={"dagster/column_schema": column_schema(schema)},
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

    return prediction_log


def judging(
    domain: Domain,
    monitor: str,
    judge: Callable[..., Any],
    schema: Mapping[str, pl.DataType],
    *,
    description: str,
    deps: Sequence[dg.AssetDep],
    partitions: dg.TimeWindowPartitionsDefinition | None = None,
    check_specs: Sequence[dg.AssetCheckSpec] = (),
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` with what the assets of all monitors have in common.

    Parameters
    ----------
    judge : computes a partition; its code is the asset's version
    schema : of the table that it fills
    partitions : None: one per day of answers
    """
    return dg.asset(
        key=monitor_key(domain, monitor),
        description=description,
        deps=deps,
        partitions_def=partitions or days_of_answers(domain),
        group_name=f"{domain.name}_monitoring",
        owners=list(domain.owners),
        kinds={"deltalake", "polars"},
        code_version=code_version(judge),
        check_specs=check_specs,
        metadata={"dagster/column_schema": column_schema(schema)},
    )


def column_schema(columns: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """Columns of a table as the UI shows them."""
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
