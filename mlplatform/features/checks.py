"""The contract as a Dagster check: one result per day, in a run over a range too, with the rules that were broken."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features import contract
from mlplatform.features.partitions import daily
from mlplatform.features.pipeline import Outcome
from mlplatform.features.rules import Checked
from mlplatform.provenance.platform import Platform


def contract_check(domain: Domain) -> dg.AssetCheckSpec:
    """The check `contract` on `validated`, partitioned by day as the asset is."""
    return dg.AssetCheckSpec(
        "contract",
        asset=dg.AssetKey([domain.name, "validated"]),
        blocking=True,
        partitions_def=daily(domain),
        description="Every source keeps its contract, as Great Expectations judges the rows that break each rule. "
        "Rows in quarantine make it a warning; a broken blocking rule stops the day.",
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
    days = sorted({day for found in outcome.found.values() for day in found})
    for day in days:
        of_day = {source: found[day] for source, found in outcome.found.items() if day in found}
        broken = {source: rules for source, checked in of_day.items() if (rules := _broken(checked))}
        blocked = [f"{source}: {', '.join(checked.blocking)}" for source, checked in of_day.items() if checked.blocking]
        metadata: dict[str, Any] = {"broken_rules": dg.MetadataValue.md(_table(broken))} if broken else {}
        if blocked:
            metadata["blocked"] = dg.MetadataValue.text("; ".join(blocked))
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey([domain.name, "validated"]),
            check_name="contract",
            passed=not broken,
            severity=dg.AssetCheckSeverity.ERROR if blocked else dg.AssetCheckSeverity.WARN,
            description=f"{day}: {'; '.join(blocked)}" if blocked else None,
            metadata={**metadata, **data_docs(pages)},
            blocking=True,
            partition=day,
        )


def data_docs(pages: Mapping[str, Path]) -> dict[str, Any]:
    """Great Expectations' page of each source, as metadata."""
    return {f"data_docs/{source}": dg.MetadataValue.path(page) for source, page in pages.items()}


def _broken(checked: Checked) -> dict[str, int]:
    return {rule: count for rule, count in checked.counts.items() if count}


def _table(broken: Mapping[str, Mapping[str, int]]) -> str:
    lines = [f"| {source} | {rule} | {count:,} |" for source, rules in broken.items() for rule, count in rules.items()]
    return "\n".join(["| source | broken rule | rows (1 for the whole day) |", "|---|---|---|", *lines])
