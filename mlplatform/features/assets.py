"""The feature pipeline as Dagster assets: one per stage, partitioned by day.

One asset holds all tables of its stage. A finer graph would be nicer to look at, but Dagster on SQLite spends 17 ms on
each asset and partition: with one asset per table, half a year would take a minute of bookkeeping alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features import contract, pipeline
from mlplatform.features.partitions import daily, trailing
from mlplatform.features.publish import publish_snapshots
from mlplatform.features.tables import stages
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform

kinds = {"raw": {"parquet", "deltalake"}, "validated": {"greatexpectations", "deltalake"}}
upstream = {
    "raw": (),
    "validated": ("raw",),
    "quarantine": ("raw",),
    "base": ("validated",),
    "derived": ("base",),
    "feature_store": ("base", "derived"),
}

Result = dg.MaterializeResult[None] | dg.AssetCheckResult


def feature_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    """The six stages of one domain."""
    return [_stage(domain, stage) for stage in stages]


def _stage(domain: Domain, stage: str) -> dg.AssetsDefinition:
    checks = [_contract_check(domain)] if stage == "validated" else []

    @dg.asset(
        key=dg.AssetKey([domain.name, stage]),
        description=_describe(domain, stage),
        deps=[_dependency(domain, stage, each) for each in upstream[stage]],
        partitions_def=daily(domain),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=domain.name,
        owners=list(domain.owners),
        kinds=kinds.get(stage, {"deltalake", "polars"}),
        code_version=declaration_version(pipeline.table_versions(domain, stage)),
        metadata={"dagster/column_schema": _column_schema(domain, stage)},
        check_specs=checks,
        tags={"stage": stage},
    )
    def stage_asset(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Result]:
        partitions = list(context.partition_keys)
        outcome = pipeline.run(platform, domain, stage, partitions, run_id=context.run.run_id)
        if checks:
            yield _judge(domain, outcome)
        pipeline.raise_failures(outcome)
        for partition in partitions:
            metadata = _partition_metadata(stage, outcome.revisions.get(partition, {}))
            context.add_asset_metadata(asset_key=context.asset_key, partition_key=partition, metadata=metadata)
        about: dict[str, Any] = {"new_revisions": outcome.new}
        if stage == "feature_store":
            about["published_entities"] = publish_snapshots(platform, domain)
        yield dg.MaterializeResult(metadata=about, data_version=_data_version(outcome))

    return stage_asset


def _dependency(domain: Domain, stage: str, each: str) -> dg.AssetDep:
    if stage == "feature_store":
        return dg.AssetDep(dg.AssetKey([domain.name, each]), partition_mapping=trailing(domain.views))
    return dg.AssetDep(dg.AssetKey([domain.name, each]))


def _contract_check(domain: Domain) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        "contract",
        asset=dg.AssetKey([domain.name, "validated"]),
        blocking=True,
        description="Every source keeps its contract, as Great Expectations judges the rows that break each rule. "
        "Rows in quarantine make it a warning; a broken blocking rule stops the partition.",
    )


def _judge(domain: Domain, outcome: pipeline.Outcome) -> dg.AssetCheckResult:
    """The verdict of Great Expectations over all partitions of this run, with the table of rules by source."""
    blocked = [
        f"{day} {source}: {', '.join(checked.blocking)}"
        for source, found in outcome.found.items()
        for day, checked in found.items()
        if checked.blocking
    ]
    metadata: dict[str, Any] = {}
    met = True
    for source in domain.sources:
        found = outcome.found.get(source.name)
        if found:
            verdict = contract.validate(found, source.contract, f"{domain.name}/{source.name}")
            met = met and verdict.success
            metadata[source.name] = dg.MetadataValue.md(verdict.table)
    if blocked:
        metadata["blocked"] = dg.MetadataValue.text("; ".join(blocked))
    return dg.AssetCheckResult(
        check_name="contract",
        passed=met,
        severity=dg.AssetCheckSeverity.ERROR if blocked else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def _partition_metadata(stage: str, revisions: Mapping[str, Any]) -> dict[str, Any]:
    """Rows and revision of each table, for one partition."""
    lines = [
        f"| {table} | {each.number} | {each.rows:,} | `{each.content_hash[:12]}` | {each.known_at:%Y-%m-%d %H:%M} |"
        for table, each in revisions.items()
    ]
    table = "\n".join(["| table | revision | rows | content | known at (UTC) |", "|---|---|---|---|---|", *lines])
    return {
        "dagster/partition_row_count": sum(each.rows for each in revisions.values()),
        "revisions": dg.MetadataValue.md(table),
        "inputs": sorted({name for each in revisions.values() for name in each.inputs}),
        "refused_rows" if stage == "quarantine" else "rows": {table: each.rows for table, each in revisions.items()},
    }


def _data_version(outcome: pipeline.Outcome) -> dg.DataVersion:
    """Hash of the content of every partition of the run.

    A run over one partition gives that partition's own version. Dagster has one version per run: over a range it is
    the version of the range, and each partition's own content hash stands in its metadata and in the table.
    """
    digest = hashlib.blake2b(digest_size=16)
    for _, revisions in sorted(outcome.revisions.items()):
        for table, revision in sorted(revisions.items()):
            digest.update(f"{table}@{revision.content_hash};".encode())
    return dg.DataVersion(digest.hexdigest())


def _column_schema(domain: Domain, stage: str) -> dg.TableSchema:
    """Columns of all tables of the stage as `table.column`, with unit and meaning."""
    declared: dict[str, Sequence[Any]]
    match stage:
        case "feature_store":
            declared = {view.name: view.features for view in domain.views}
        case "derived":
            declared = {derived.name: derived.columns for derived in domain.derived}
        case "base":
            declared = {source.name: source.base_columns for source in domain.sources}
        case _:
            declared = {source.name: source.contract.columns for source in domain.sources}
    return dg.TableSchema(
        [
            dg.TableColumn(
                f"{table}.{each.name}",
                str(each.dtype),
                description=f"{each.meaning} [{each.unit}]" if each.unit else each.meaning,
            )
            for table, columns in declared.items()
            for each in columns
        ]
    )


_texts: dict[str, Callable[[Domain], str]] = {
    "raw": lambda domain: (
        "What the sources landed on a day, as it landed: nothing is mended here.\n\n"
        + _listed((source.name, source.meaning) for source in domain.sources)
        + "\n\nA partition is stale when a file of the day has changed. A file that cannot be read as declared fails "
        "the partition and names the column; nothing of it is taken in."
    ),
    "validated": lambda domain: (
        "The rows of a day that keep their contract. Rows that break it are in `quarantine`, never dropped; a broken "
        "blocking rule stops the partition.\n\n"
        + "\n\n".join(f"**{source.name}**\n\n{contract.documentation(source.contract)}" for source in domain.sources)
    ),
    "quarantine": lambda _domain: (
        "The rows of a day that break the contract of their source, each with the rules that refused it "
        "(`broken_rules`). To bring one back, correct the source and land the day again."
    ),
    "base": lambda domain: (
        "The facts of a day, typed and in UTC, with their clocks: when they became known (`event_time`) and when they "
        "could first be served (`available_at`).\n\n"
        + _listed((source.name, source.meaning) for source in domain.sources)
    ),
    "derived": lambda domain: (
        "Facts in the domain's own terms, from the base tables of the same day.\n\n"
        + _listed((derived.name, derived.meaning) for derived in domain.derived)
    ),
    "feature_store": lambda domain: (
        "The feature views as published after a day: one row per entity, computed from the facts of the trailing "
        f"window that ends with the day, available {domain.publishing_delay} after its end.\n\n"
        + _listed(
            (view.name, f"{view.meaning} ({len(view.features)} features of {', '.join(view.entity)})")
            for view in domain.views
        )
        + "\n\nA window asserts that every day it needs is there; one that is not fails the partition. The newest "
        "values also go to the online store, which requests are answered from."
    ),
}


def _describe(domain: Domain, stage: str) -> str:
    return _texts[stage](domain)


def _listed(named: Any) -> str:
    return "\n".join(f"* `{name}`: {meaning}" for name, meaning in named)
