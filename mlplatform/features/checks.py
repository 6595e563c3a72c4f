"""The contract as a Dagster check: one result per day, in a run over a range too, with the rules that were broken.

Dagster plans the check for every day of a run, and shows a day's result only while it names the newest materialisation
of that day. So results are logged after the materialisations (`naming_materialisations`), and a day that the run left
as it was gets its last result again (`last_evaluations`); otherwise it would be shown as skipped. A day costs some 12
ms, most of it Dagster's own for an event.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # not exported
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster_shared.record import replace

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive
from mlplatform.errors import ContractBroken, DataError, DeclarationError
from mlplatform.features import contract
from mlplatform.features.failures import open_failures
from mlplatform.features.materialization import Fault, Outcome
from mlplatform.features.partitions import daily
from mlplatform.features.pipeline import steps
from mlplatform.features.rules import Checked, check
from mlplatform.features.streaming.check import compare_streamed, instants_at_most
from mlplatform.features.tables import Tables, is_of
from mlplatform.provenance.platform import Platform

differences_shown = 20
"""Of a day; all of them have one cause more often than not."""


def contract_key(domain: Domain) -> dg.AssetCheckKey:
    """Key of the check: `contract` on `domain/validated`."""
    return dg.AssetCheckKey(dg.AssetKey([domain.name, "validated"]), "contract")


def contract_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `contract` on `validated`, partitioned by day as the asset is.

    Raises
    ------
    DeclarationError
        A rule of a contract cannot be computed on its columns: better known now than on the first day.
    """
    for source in domain.sources:
        check(pl.DataFrame(schema=source.contract.schema), source.contract)
    with warnings.catch_warnings():
        # Each command would say that Dagster calls partitioned checks a preview; the release is pinned and tested.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            contract_key(domain).name,
            asset=contract_key(domain).asset_key,
            blocking=True,
            partitions_def=daily(domain),
            description="Every source keeps its contract, as Great Expectations judges the rows that break each rule. "
            "Rows in quarantine make it a warning; a broken blocking rule stops the day.",
        )


def streamed_key(domain: Domain) -> dg.AssetCheckKey:
    """Key of the check: `streamed_equals_batch` on `domain/feature_store`."""
    return dg.AssetCheckKey(dg.AssetKey([domain.name, "feature_store"]), "streamed_equals_batch")


def streamed_check(domain: Domain) -> list[dg.AssetCheckSpec]:
    """The check `streamed_equals_batch`, partitioned by day; none where no view is published as facts arrive."""
    if not any(isinstance(view.schedule, AsFactsArrive) for view in domain.views):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                streamed_key(domain).name,
                asset=streamed_key(domain).asset_key,
                partitions_def=daily(domain),
                description="What was streamed within the day, computed again from the tables, is equal to the bit: "
                f"{instants_at_most} instants of each view, chosen by hash, or all where there are no more. Names "
                "feature, entity and instant of what is not.",
            )
        ]


def streamed_evaluations(platform: Platform, domain: Domain, days: Iterable[str]) -> Iterator[dg.AssetCheckEvaluation]:
    """The result of each day; nothing where no view is published as facts arrive."""
    for day in days if streamed_check(domain) else ():
        metadata: dict[str, Any] = {}
        try:
            compared = compare_streamed(platform, domain, day)
        except (DataError, DeclarationError) as error:
            told, passed = str(error), False
        else:
            shown = [str(each) for each in compared.differences[:differences_shown]]
            told, passed = "; ".join(shown[:3]), not compared.differences
            metadata = {"instants": compared.instants, "values": compared.values}
            if shown:
                metadata["differences"] = len(compared.differences)
                metadata["shown"] = dg.MetadataValue.md("\n".join(f"* {each}" for each in shown))
        yield dg.AssetCheckEvaluation(
            asset_key=streamed_key(domain).asset_key,
            check_name=streamed_key(domain).name,
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{day}: {told}" if told else None,
            metadata=metadata,
            partition=day,
        )


def judge(platform: Platform, domain: Domain, outcome: Outcome) -> dict[str, Path]:
    """Have Great Expectations judge every source over the days of a run; its page (Data Docs) by source.

    A page is named by the first and the last of its days: a run that is repeated writes the same one again.
    """
    pages = {}
    for source in domain.sources:
        if found := outcome.found.get(source.name):
            first, last = min(found), max(found)
            name = first if first == last else f"{first}_{last}"
            page = platform.home / "data_docs" / domain.name / source.name / f"{name}.html"
            contract.validate(found, source.contract, f"{domain.name}/{source.name}", page=page)
            pages[source.name] = page
    return pages


def evaluations(domain: Domain, outcome: Outcome, pages: Mapping[str, Path]) -> Iterator[dg.AssetCheckEvaluation]:
    """The result of each day: passed, a warning (rows in quarantine, a warning rule), an error (the day is stopped)."""
    days = sorted({day for found in outcome.found.values() for day in found} | outcome.faults.keys())
    for day in days:
        of_day = {source: found[day] for source, found in outcome.found.items() if day in found}
        broken = {source: rules for source, checked in of_day.items() if (rules := _broken(checked))}
        blocked = [f"{source}: {', '.join(checked.blocking)}" for source, checked in of_day.items() if checked.blocking]
        blocked += [
            f"{fault.table}: {fault.error}"
            for fault in outcome.faults.get(day, ())
            if not isinstance(fault.error, ContractBroken)
        ]
        rows = {source: revision.rows for source, revision in outcome.revisions.get(day, {}).items()}
        metadata: dict[str, Any] = {"rows": rows}
        if broken:
            metadata["broken_rules"] = dg.MetadataValue.md(_table(broken))
        if blocked:
            metadata["blocked"] = dg.MetadataValue.text("; ".join(blocked))
        yield dg.AssetCheckEvaluation(
            asset_key=contract_key(domain).asset_key,
            check_name=contract_key(domain).name,
            passed=not broken and not blocked,
            severity=dg.AssetCheckSeverity.ERROR if blocked else dg.AssetCheckSeverity.WARN,
            description=f"{day}: {'; '.join(blocked)}" if blocked else None,
            metadata={**metadata, **data_docs(pages)},
            blocking=True,
            partition=day,
        )


def last_evaluations(
    instance: dg.DagsterInstance, domain: Domain, days: Iterable[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """The newest result of days that a run takes in but leaves as they were; nothing for a day that never had one."""
    for day in days:
        records = instance.event_log_storage.get_asset_check_execution_history(
            contract_key(domain),
            limit=1,
            status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
            partition_filter=PartitionKeyFilter(key=day),
        )
        for record in records:
            if record.evaluation is not None:
                yield record.evaluation


def without_evaluation(instance: dg.DagsterInstance, platform: Platform, domain: Domain) -> set[str]:
    """Days that were taken through their contract and for which Dagster shows no result: their run was killed."""
    open_ = open_failures(platform, domain)
    of_sources = [set(store.current()) for store in Tables(platform, domain).of("validated").values()]
    judged = set().union(*of_sources) | {each.day for each in open_ if each.stage == "validated"}
    shown = {
        info.partition_key
        for info in instance.event_log_storage.get_asset_check_partition_info([contract_key(domain)])
        if info.latest_execution_status
        in (AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED)
        and info.is_current
    }
    # A day whose new file cannot be read is red: what the contract said of the file before it is no answer.
    unread = {each.day for each in open_ if each.stage == "raw"}
    return {day for day in judged - shown - unread if is_of(domain, day)}


def look_again(platform: Platform, domain: Domain, days: Iterable[str]) -> Outcome:
    """What the contracts find in days as they lie in `raw`; nothing is written."""
    wanted = list(days)
    outcome = Outcome()
    for step in steps(platform, domain, "quarantine") if wanted else ():
        planned = step.plan(wanted)
        rows_of = step.read(planned)
        for day in planned.inputs:
            try:
                rows_of(day)
            except (DataError, DeclarationError) as error:
                outcome.faults.setdefault(day, []).append(Fault(step.table, error, ""))
        outcome.found[step.table] = step.found
    for source, store in Tables(platform, domain).of("validated").items() if wanted else ():
        for day, revision in store.current(wanted).items():
            outcome.revisions.setdefault(day, {})[source] = revision
    return outcome


def naming_materialisations(
    instance: dg.DagsterInstance, evaluations: Iterable[dg.AssetCheckEvaluation]
) -> Iterator[dg.AssetCheckEvaluation]:
    """The results of one check, each with the newest materialisation of its day; log them after those of the run."""
    by_day = {str(each.partition): each for each in evaluations}
    assets = {each.asset_key for each in by_day.values()}
    targets = _newest_materialisations(instance, assets.pop(), list(by_day)) if assets else {}
    for day, each in by_day.items():
        yield replace(each, target_materialization_data=targets.get(day))


def data_docs(pages: Mapping[str, Path]) -> dict[str, Any]:
    """Great Expectations' page of each source, as metadata."""
    return {f"data_docs/{source}": dg.MetadataValue.path(page) for source, page in pages.items()}


def _newest_materialisations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, days: list[str]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    found: dict[str, AssetCheckEvaluationTargetMaterializationData] = {}

    def look(partitions: list[str]) -> None:
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=partitions)
        for record in instance.fetch_materializations(wanted, limit=len(partitions)).records:
            target = AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
            found.setdefault(str(record.partition_key), target)

    # Newest first, so one look finds the days that the run has just made; the others are looked at one by one.
    if days:
        look(days)
    for day in days:
        if day not in found:
            look([day])
    return found


def _broken(checked: Checked) -> dict[str, int]:
    return {rule: count for rule, count in checked.counts.items() if count}


def _table(broken: Mapping[str, Mapping[str, int]]) -> str:
    lines = [f"| {source} | {rule} | {count:,} |" for source, rules in broken.items() for rule, count in rules.items()]
    return "\n".join(["| source | broken rule | rows (1 for the whole day) |", "|---|---|---|", *lines])
