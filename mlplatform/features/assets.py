"""The feature pipeline as Dagster assets: one per stage and the online store, by day, all made by one step.

One asset holds all tables of its stage. A finer graph would be nicer to look at, but Dagster on SQLite spends about
8 ms on each event of an asset and a partition: with one asset per table, half a year would take a minute of them.

One step makes them all, so that a day whose data is wrong does not hold back the others: steps of their own would stop
at the first failure, since a step that fails starts none after it. So the step reports each partition that it made with
a materialisation of its own, and its own data version; at the end it fails if any day has failed. Those days are then
red in the UI, and the run says why.

The tables come first and Dagster hears of them afterwards: a run that is killed in between has made days that the UI
does not know. What a run finds up to date and not told (`untold`), it tells.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG  # not exported

from mlplatform.domain.domain import Domain
from mlplatform.features import contract, materialization
from mlplatform.features.chain import run_chain
from mlplatform.features.checks import (
    contract_check,
    data_docs,
    evaluations,
    judge,
    last_evaluations,
    look_again,
    naming_materialisations,
    streamed_check,
    streamed_evaluations,
)
from mlplatform.features.failures import open_failures
from mlplatform.features.online.publish import published_days
from mlplatform.features.partitions import daily, trailing
from mlplatform.features.pipeline import table_versions
from mlplatform.features.stage import Revision
from mlplatform.features.tables import Tables, is_of, online_store, stages
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run

kinds = {
    "raw": {"parquet", "deltalake"},
    "validated": {"greatexpectations", "deltalake"},
    online_store: {"lmdb", "redis"},
}
upstream = {
    "raw": (),
    "validated": ("raw",),
    "quarantine": ("raw",),
    "base": ("validated",),
    "derived": ("base",),
    "feature_store": ("base", "derived"),
    online_store: ("feature_store",),
}

only_due_tag = "mlplatform/only_due"
"""Run tag of the sensor: of the range, compute what is due. A run without it computes everything."""


def stage_key(domain: Domain, stage: str) -> dg.AssetKey:
    """Key of a stage's asset: `domain/stage`."""
    return dg.AssetKey([domain.name, stage])


def feature_assets(domain: Domain) -> dg.AssetsDefinition:
    """The six stages of one domain, and the online store after them."""

    @dg.multi_asset(
        name=f"{domain.name}_stages",
        specs=[_spec(domain, stage) for stage in (*stages, online_store)],
        check_specs=[contract_check(domain), *streamed_check(domain)],
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def stages_of_a_day(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        days = list(context.partition_keys)
        selected = [
            stage for stage in (*stages, online_store) if stage_key(domain, stage) in context.selected_asset_keys
        ]
        whole = materialization.Outcome()
        made: set[tuple[str, str]] = set()
        chain = run_chain(
            platform,
            domain,
            days,
            run_id=context.run.run_id,
            selected=selected,
            only_due=only_due_tag in context.run.tags,
        )
        judged: list[dg.AssetCheckEvaluation] = []
        unread: set[str] = set()
        for stage, outcome in chain:
            pages = {}
            if stage == "validated":
                pages = judge(platform, domain, outcome)
                judged += evaluations(domain, outcome, pages)
            for day, revisions in outcome.revisions.items():
                if day not in outcome.failed:
                    context.log_event(_materialisation(domain, stage, day, revisions, data_docs(pages)))
                    made.add((stage, day))
            if stage == "validated":
                for result in naming_materialisations(context.instance, judged):
                    context.log_event(result)
            if stage == "raw":
                unread |= outcome.failed.keys()
            for day, error in outcome.failed.items():
                whole.failed.setdefault(day, error)
        lost = untold(context.instance, platform, domain, days)
        # Dagster shows what a failed run has planned and not made as failed, also where it was up to date.
        stood = set(days) - whole.failed.keys() if whole.failed else set[str]()
        # A publication tells of the days that were asked for as the stages do, though it reads only what has changed.
        asked = set[str]() if only_due_tag in context.run.tags else set(days) - whole.failed.keys()
        for stage in selected:
            again = stood | set(lost[stage]) | (asked if stage == online_store else set())
            for day, revisions in _current(platform, domain, stage, sorted(again)).items():
                if (stage, day) not in made:
                    context.log_event(_materialisation(domain, stage, day, revisions, {}))
        if "validated" in selected:
            left = sorted(set(days) - {str(each.partition) for each in judged} - unread)
            kept = list(
                last_evaluations(context.instance, domain, [day for day in left if day not in lost["validated"]])
            )
            unjudged = look_again(platform, domain, sorted(set(left) - {str(each.partition) for each in kept}))
            kept += evaluations(domain, unjudged, judge(platform, domain, unjudged))
            for result in naming_materialisations(context.instance, kept):
                context.log_event(result)
        if "feature_store" in selected:
            streamed = streamed_evaluations(platform, domain, sorted(set(days) - whole.failed.keys()))
            for result in naming_materialisations(context.instance, streamed):
                context.log_event(result)
        materialization.raise_failures(whole)
        # What was made has been reported; a plain function would have to return an output for each stage.
        yield from ()

    return stages_of_a_day


def untold(
    instance: dg.DagsterInstance, platform: Platform, domain: Domain, days: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """By stage, the days of which Dagster does not know what the tables hold; without those that have failed there.

    Parameters
    ----------
    days : those to look at; None: all
    """
    failed = {(each.stage, each.day) for each in open_failures(platform, domain, days)}
    found = {}
    for stage in (*stages, online_store):
        told = instance.event_log_storage.get_latest_tags_by_partition(
            stage_key(domain, stage), dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        found[stage] = [
            day
            for day, revisions in _current(platform, domain, stage, days).items()
            if (stage, day) not in failed and told.get(day, {}).get(DATA_VERSION_TAG) != _data_version(revisions)
        ]
    return found


def _spec(domain: Domain, stage: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=stage_key(domain, stage),
        description=_describe(domain, stage),
        deps=[_dependency(domain, stage, each) for each in upstream[stage]],
        partitions_def=daily(domain),
        group_name=domain.name,
        owners=list(domain.owners),
        kinds=kinds.get(stage, {"deltalake", "polars"}),
        code_version=_code_version(domain, stage),
        metadata={"dagster/column_schema": _column_schema(domain, stage)},
        tags={"stage": stage},
        # The step reports partitions one by one; an output would report the whole range.
        skippable=True,
    )


def _code_version(domain: Domain, stage: str) -> str:
    # What is published is nothing but the rows of the views: their code is its code.
    return declaration_version(table_versions(domain, "feature_store" if stage == online_store else stage))


def _materialisation(
    domain: Domain, stage: str, day: str, revisions: Mapping[str, Revision], more: Mapping[str, Any]
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        stage_key(domain, stage),
        partition=day,
        metadata={**_partition_metadata(stage, revisions), **more},
        tags={DATA_VERSION_TAG: _data_version(revisions), CODE_VERSION_TAG: _code_version(domain, stage)},
    )


def _current(
    platform: Platform, domain: Domain, stage: str, days: Sequence[str] | None
) -> dict[str, dict[str, Revision]]:
    """By day, the current revision of each table of a stage; without days that lack one not declared absent.

    Of the online store, the revisions that it was made from.
    """
    if stage == online_store:
        published = published_days(platform, domain)
        current = _current(platform, domain, "feature_store", days)
        return {day: revisions for day, revisions in current.items() if day in published}
    tables = {name: store.current(days) for name, store in Tables(platform, domain).of(stage).items()}
    whole = {}
    for day in sorted(set().union(*tables.values())):
        lacking = [name for name, current in tables.items() if day not in current]
        if all(date.fromisoformat(day) in _absent(domain, stage, name) for name in lacking) and is_of(domain, day):
            whole[day] = {name: current[day] for name, current in tables.items() if day in current}
    return whole


def _absent(domain: Domain, stage: str, table: str) -> frozenset[date]:
    """Days that a table is not made for, since nothing of what it is made from was sent."""
    if stage == "feature_store":
        return frozenset()
    made_from = next((each.inputs for each in domain.derived if stage == "derived" and each.name == table), (table,))
    return frozenset.intersection(*(domain.source(name).absent for name in made_from))


def _dependency(domain: Domain, stage: str, each: str) -> dg.AssetDep:
    if stage == "feature_store":
        return dg.AssetDep(stage_key(domain, each), partition_mapping=trailing(domain.views))
    return dg.AssetDep(stage_key(domain, each))


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


def _data_version(revisions: Mapping[str, Revision]) -> str:
    """Hash of the content of one partition of every table of the stage."""
    digest = hashlib.blake2b(digest_size=16)
    for table, revision in sorted(revisions.items()):
        digest.update(f"{table}@{revision.content_hash};".encode())
    return digest.hexdigest()


def _column_schema(domain: Domain, stage: str) -> dg.TableSchema:
    """Columns of all tables of the stage as `table.column`, with unit and meaning."""
    declared: dict[str, Sequence[Any]]
    match stage:
        case "feature_store" | "online_store":
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
        + "\n\nA window asserts that every day it needs is there; one that is not fails the partition."
    ),
    online_store: lambda domain: (
        "What requests are answered from: of each entity the newest values by event time, then by revision, and those "
        "that are served until they are available (LMDB in the home folder, or Redis).\n\n"
        + _listed((view.name, f"{', '.join(view.entity)}, for {view.ttl}") for view in domain.views)
        + "\n\nA partition is stale when the features of its day have another revision than the one that was "
        "published. A correction that took a row away brings the value before it back. Empty the store to have it "
        "built anew from the tables: the next run does it, beside what is served."
    ),
}


def _describe(domain: Domain, stage: str) -> str:
    return _texts[stage](domain)


def _listed(named: Any) -> str:
    return "\n".join(f"* `{name}`: {meaning}" for name, meaning in named)
