"""The contract as Great Expectations knows it: the suite, its official result, and the columns as a page.

Great Expectations has no Polars engine, and on pandas it costs 4 to 8 s per million rows where the Polars rules cost
0.2 s. So it is handed what those rules found, not the rows: one row per partition, one column per rule, holding how
many rows broke it, and one expectation per rule, that the sum of its column is 0. The result is an official one, with
true counts and no samples; the rows themselves are in quarantine, each with the rules that refused it. A run over 181
partitions and 40 rules takes 0.13 s.

It refuses to call a contract kept when it was not looked at: no partition, an uncounted rule or an expectation that
raised inside is an error, never a success. It writes no file, shows no progress bar and sends nothing: the pinned
release has no telemetry code left, and analytics are switched off on the context besides, which outranks
`GX_ANALYTICS_ENABLED`.

Great Expectations takes 4 to 17 s to import and is imported in this module only, inside the functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlplatform.domain.column import Column, Contract, Severity
from mlplatform.errors import ExpectationRaised
from mlplatform.features.rules import Checked, rules

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

# Great Expectations' own three words, by what a broken rule does here.
_SEVERITIES: dict[Severity, str] = {
    "blocking": "critical",
    "quarantine": "warning",
    "warning": "info",
}


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """What Great Expectations says of a contract over some partitions."""

    success: bool
    """Whether every expectation is met, of any severity: Great Expectations' own `success`."""

    result: dict[str, Any]
    """The suite's validation result as Great Expectations writes it in JSON."""

    table: str
    """The same by rule, in Markdown: what breaking it does, rows that break it, partitions they are in."""


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
                description=f"no row breaks {rule.name!r}: {rule.meaning}",
                meta={"rule": rule.name, "severity": rule.severity},
            )
            for rule in rules(contract)
        ],
    )


def validate(checked: Mapping[str, Checked], contract: Contract, name: str) -> ValidationResult:
    """Have Great Expectations judge the counts of some partitions, all of them in one run.

    Parameters
    ----------
    checked : partition -> what `rules.check` found there
    contract : the contract they were checked against
    name : of the suite, `<domain>/<source>`

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
    return ValidationResult(
        success=bool(judged.success),
        result=dict(judged.to_json_dict()),  # type: ignore[no-untyped-call]  # theirs
        table=_table(checked, contract),
    )


def documentation(contract: Contract) -> str:
    """The columns of a contract as a Markdown table: name, type, unit, values, nullable, meaning."""
    lines = ["| column | type | unit | values | nullable | meaning |", "|---|---|---|---|---|---|"]
    lines += [
        _line(column.name, str(column.dtype), column.unit, _values(column), _nullable(column), column.meaning)
        for column in contract.columns
    ]
    return "\n".join(lines)


def _exception_message(info: Mapping[str, Any] | None) -> str:
    """What an expectation raised inside; empty when it was evaluated.

    `validate()` does not raise. A metric that failed is told under the metric's own identifier, a fault of the
    expectation itself directly.
    """
    for told in [info or {}, *(value for value in (info or {}).values() if isinstance(value, dict))]:
        if told.get("raised_exception"):
            return str(told.get("exception_message") or "no message")
    return ""


def _table(checked: Mapping[str, Checked], contract: Contract) -> str:
    lines = ["| rule | when broken | rows | partitions |", "|---|---|---|---|"]
    for rule in rules(contract):
        broken = {partition: found.counts[rule.name] for partition, found in checked.items() if found.counts[rule.name]}
        where = ", ".join(list(broken)[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
        lines.append(_line(rule.name, rule.severity, f"{sum(broken.values()):,}", where))
    return "\n".join(lines)


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
