"""The battery: every check over one domain, each with its verdict, told as a table or as JSON.

It runs in memory on days of the sample, or on what has landed where there is no sample, and writes nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date

import msgspec
import polars as pl
from rich.console import Console
from rich.markup import escape

from mlplatform.domain.domain import Domain
from mlplatform.domain_checks.chance import label_shuffle
from mlplatform.domain_checks.evidence import Evidence, days_of
from mlplatform.domain_checks.fallback import fallback_rules
from mlplatform.domain_checks.fitting import fitted_values
from mlplatform.domain_checks.later import nothing_later, windows
from mlplatform.domain_checks.leaks import label_among_features, written_after
from mlplatform.domain_checks.purity import batch_of_one, column_order, row_order, same_twice
from mlplatform.domain_checks.reasons import thresholds_have_reasons
from mlplatform.domain_checks.sample import duplicates, example_request, lands, requests_of_facts
from mlplatform.domain_checks.verdict import Finding, Looked, fault_of
from mlplatform.domain_checks.zones import time_zones
from mlplatform.errors import CannotJudge, MlplatformError
from mlplatform.features.landing.landing import days_landed_by_all, landed, read_landed
from mlplatform.provenance.platform import Platform

checks: dict[str, Callable[[Evidence], Looked]] = {
    "sample": lands,
    "example request": example_request,
    "requests of facts": requests_of_facts,
    "same twice": same_twice,
    "row order": row_order,
    "column order": column_order,
    "batch of one": batch_of_one,
    "nothing later": nothing_later,
    "windows": windows,
    "time zones": time_zones,
    "duplicates": duplicates,
    "fitted values": fitted_values,
    "label among features": label_among_features,
    "written after": written_after,
    "label shuffle": label_shuffle,
    "fallback rules": fallback_rules,
    "reasons": thresholds_have_reasons,
}
"""By the name under which each is reported, in the order in which it is made: what explains the others comes first."""


def evidence_of(platform: Platform, domain: Domain) -> Evidence:
    """The sample of a domain, or else what its sources have landed in the home."""
    if domain.sample is not None:
        sample = domain.sample
        return Evidence(
            domain, lambda source, day: sample.read(source, date.fromisoformat(day)), days_of(sample.start, sample.end)
        )
    versions = {source.name: landed(platform, domain, source).days for source in domain.sources}

    def read(source: str, day: str) -> pl.DataFrame:
        return read_landed(platform, domain, domain.source(source), day, versions[source][day])

    return Evidence(domain, read, days_landed_by_all(platform, domain))


def run(evidence: Evidence, names: Sequence[str] = tuple(checks)) -> Iterator[Finding]:
    """Make checks one after the other; each finding comes as soon as it is there, and none is left out.

    Parameters
    ----------
    names : which of `checks`; default all
    """
    for name in names:
        begun = time.perf_counter()
        yield replace(_made(name, evidence), seconds=round(time.perf_counter() - begun, 3))


def _made(name: str, evidence: Evidence) -> Finding:
    check = checks[name]
    meaning = (check.__doc__ or "").strip()
    try:
        looked = check(evidence)
    except CannotJudge as reason:
        return Finding(check=name, meaning=meaning, verdict="skipped", told=str(reason))
    except MlplatformError as refused:
        looked = Looked(at="", faults=(fault_of(refused),))
    except Exception as odd:  # noqa: BLE001 - a domain may give anything at all, and the other checks must be made
        looked = Looked(at="", faults=(fault_of(odd),))
    if not looked.faults:
        return Finding(check=name, meaning=meaning, verdict="passed", told=looked.at)
    count = len(looked.faults)
    told = f"{count} fault{'s' if count != 1 else ''}"
    return Finding(check=name, meaning=meaning, verdict="failed", told=told, faults=looked.faults)


def as_json(domain: Domain, findings: Iterable[Finding]) -> str:
    """For scripts."""
    told = list(findings)
    report = {"domain": domain.name, "failed": sum(each.verdict == "failed" for each in told), "checks": told}
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode()


def show(finding: Finding, console: Console) -> None:
    """For people: one line, and the offending rows and columns below it."""
    colour = {"passed": "green", "failed": "red", "skipped": "yellow"}[finding.verdict]
    head = f"[{colour}]{finding.verdict:8}[/{colour}] {finding.check:22} {escape(finding.told)}"
    console.print(head, highlight=False, soft_wrap=True)
    for fault in finding.faults:
        told = f"           {fault.what} · {fault.where}: {fault.told}"
        console.print(escape(told), highlight=False, soft_wrap=True)
