"""The contract as Great Expectations knows it: the suite, its official result, and the columns as a page.

Great Expectations has no Polars engine, and on pandas it costs 4 to 8 s per million rows where the Polars rules cost
0.2 s. So it is handed what those rules found, not the rows: one row per partition, one column per rule, holding how
many rows broke it, and one expectation per rule, that the sum of its column is 0. The result is an official one, with
true counts and no samples; the rows themselves are in quarantine, each with the rules that refused it. A run over 181
partitions and 40 rules takes 0.13 s, its page half a second more.

It refuses to call a contract kept when it was not looked at: no partition, an uncounted rule or an expectation that
raised inside is an error, never a success. It shows no progress bar and sends nothing: the pinned
release has no telemetry code left, and analytics are switched off on the context besides, which outranks
`GX_ANALYTICS_ENABLED`.

Great Expectations takes 4 to 17 s to import and is imported in this module only, inside the functions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.domain.column import Column, Contract, Severity
from mlplatform.errors import ExpectationRaised
from mlplatform.features.rules import Checked, rules
from mlplatform.provenance.files import write_whole

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

# Great Expectations' own three words, by what a broken rule does here.
_SEVERITIES: dict[Severity, str] = {
    "blocking": "critical",
    "quarantine": "warning",
    "warning": "info",
}

pages_kept = 400
"""Pages of Great Expectations kept per source, some 60 kB each: a year of days, and the ranges of some backfills."""

# What would be fetched or needs what would be, links to nowhere, and headings that repeat a rule's name, unescaped.
_LEFT_OUT = re.compile(r"<(script|style|nav|h5)\b.*?</\1>|<(?:link|img)\b[^>]*>|</?a\b[^>]*>", re.DOTALL)
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;max-width:75rem}"
    "table{border-collapse:collapse;table-layout:fixed;width:100%;margin-top:-1px}"
    "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    ".ge-section th:first-child,.ge-section td:first-child{width:16%}"
    ".ge-section th:last-child,.ge-section td:last-child{width:12%}"
    "h1+p+table{table-layout:auto}"
    ".ge-section:nth-of-type(n+2) thead,.col-lg-2,.collapse,p:has(+.collapse),.modal,footer{display:none}"
    ".fa-check-circle::before{content:'kept'}.fa-times::before{content:'broken';color:#b00;font-weight:bold}"
)


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """What Great Expectations says of a contract over some partitions."""

    success: bool
    """Whether every expectation is met, of any severity: Great Expectations' own `success`."""

    result: dict[str, Any]
    """The suite's validation result as Great Expectations writes it in JSON."""


def suite(contract: Contract, name: str) -> "ExpectationSuite":
    """The Great Expectations suite of a contract: one expectation per rule, over counts of rows that break it.

    Parameters
    ----------
    contract : the rules
    name : of the suite, `<domain>/<source>`
    """
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.core.expect_column_sum_to_be_between import ExpectColumnSumToBeBetween
    from great_expectations.expectations.metadata_types import FailureSeverity

    return ExpectationSuite(
        name=name,
        expectations=[
            ExpectColumnSumToBeBetween(
                column=rule.name,
                min_value=0,
                max_value=0,
                severity=FailureSeverity(_SEVERITIES[rule.severity]),
                # Their pages take it for HTML.
                description=escape(f"no row breaks {rule.name!r}: {rule.meaning}", quote=False),
                meta={"rule": rule.name, "severity": rule.severity},
            )
            for rule in rules(contract)
        ],
    )


def validate(
    checked: Mapping[str, Checked], contract: Contract, name: str, *, page: Path | None = None
) -> ValidationResult:
    """Have Great Expectations judge the counts of some partitions, all of them in one run.

    Parameters
    ----------
    checked : partition -> what `rules.check` found there
    contract : the contract they were checked against
    name : of the suite, `<domain>/<source>`
    page : where to write Great Expectations' own page of the result, its Data Docs; None: nowhere. In its folder the
        newest `pages_kept` stay

    Raises
    ------
    ExpectationRaised
        An expectation could not be evaluated: there is no partition, or a rule was not counted in each of them.
    """
    import great_expectations
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = great_expectations.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # A rule that was not counted in every partition gets no column, so that its expectation raises: filled up with
    # nulls, its sum would be 0 and the contract would look kept.
    counts = {
        rule.name: [found.counts[rule.name] for found in checked.values()]
        for rule in rules(contract)
        if checked and all(rule.name in found.counts for found in checked.values())
    }
    batch = (
        context.data_sources.add_pandas("counts")
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe("partitions")
        .get_batch({"dataframe": pd.DataFrame(counts, index=list(checked), dtype="int64")})
    )
    judged = batch.validate(suite(contract, name))
    raised = {
        str(each.expectation_config.kwargs["column"]): message
        for each in judged.results
        if each.expectation_config is not None and (message := _exception_message(each.exception_info))
    }
    if raised:
        raise ExpectationRaised(name, raised)
    if page is not None:
        write_whole(page, _data_docs(judged, _broken_rules(name, checked, contract)))
        _prune(page.parent)
    return ValidationResult(
        success=bool(judged.success),
        result=dict(judged.to_json_dict()),  # type: ignore[no-untyped-call]  # theirs
    )


def documentation(contract: Contract) -> str:
    """A contract in Markdown: its columns (name, type, unit, values, nullable, meaning), then its other rules."""
    lines = ["| column | type | unit | values | nullable | meaning |", "|---|---|---|---|---|---|"]
    lines += [
        _line(column.name, str(column.dtype), column.unit, _values(column), _nullable(column), column.meaning)
        for column in contract.columns
    ]
    of_columns = {f"{column.name}: " for column in contract.columns}
    lines += ["", "| rule | when broken | meaning |", "|---|---|---|"]
    lines += [
        _line(rule.name, rule.severity, rule.meaning)
        for rule in rules(contract)
        if rule.broken is None or not any(rule.name.startswith(name) for name in of_columns)
    ]
    return "\n".join(lines)


def _data_docs(judged: Any, broken_rules: str) -> str:
    """The result as Great Expectations renders it, below the broken rules; without what its page would fetch.

    That is jQuery, Bootstrap, charts and an advertisement; none of them carries a figure. Some style replaces them.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    document = ValidationResultsPageRenderer().render(judged)
    html: str = DefaultJinjaPageView().render(document)  # type: ignore[no-untyped-call]  # theirs
    html = "\n".join(line for each in _LEFT_OUT.sub("", html).splitlines() if (line := each.strip()))
    return html.replace("</head>", f"<style>{_STYLE}</style></head>", 1).replace("<body>", f"<body>{broken_rules}", 1)


def _prune(folder: Path) -> None:
    """Remove the oldest pages."""
    for page in sorted(folder.glob("*.html"), key=_written_at)[:-pages_kept]:
        page.unlink(missing_ok=True)


def _written_at(page: Path) -> float:
    try:
        return page.stat().st_mtime
    except FileNotFoundError:  # another run has removed it meanwhile
        return 0.0


def _exception_message(info: Mapping[str, Any] | None) -> str:
    """What an expectation raised inside; empty when it was evaluated.

    `validate()` does not raise. A metric that failed is told under the metric's own identifier, a fault of the
    expectation itself directly.
    """
    for told in [info or {}, *(value for value in (info or {}).values() if isinstance(value, dict))]:
        if told.get("raised_exception"):
            return str(told.get("exception_message") or "no message")
    return ""


def _broken_rules(name: str, checked: Mapping[str, Checked], contract: Contract) -> str:
    """The broken rules in HTML, with their days: Great Expectations knows a sum over all of them."""
    days = sorted(checked)
    told = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} days"
    every = rules(contract)
    lines = []
    for rule in every:
        broken = {day: checked[day].counts[rule.name] for day in days if checked[day].counts[rule.name]}
        if broken:
            where = ", ".join(list(broken)[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
            cells = (rule.name, rule.severity, f"{sum(broken.values()):,}", where)
            lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = f"<h1>{escape(name)}</h1><p>{told}: {len(lines)} of {len(every)} rules are broken.</p>"
    if not lines:
        return head
    columns = "<tr><th>rule</th><th>when broken</th><th>rows, or days</th><th>on</th></tr>"
    return f"{head}<table>{columns}{''.join(lines)}</table>"


def _values(column: Column) -> str:
    told = []
    if column.allowed is not None:
        told.append(", ".join(column.allowed))
    if column.pattern is not None:
        told.append(f"matches {column.pattern}")
    if column.minimum is not None and column.maximum is not None:
        told.append(f"{column.minimum:.15g} to {column.maximum:.15g}")
    elif column.minimum is not None:
        told.append(f"at least {column.minimum:.15g}")
    elif column.maximum is not None:
        told.append(f"at most {column.maximum:.15g}")
    return "; ".join(told)


def _nullable(column: Column) -> str:
    if not column.nullable:
        return "no"
    return "yes" if column.max_null_share is None else f"up to {column.max_null_share * 100:.6g} %"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
