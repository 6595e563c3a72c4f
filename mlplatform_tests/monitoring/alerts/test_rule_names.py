"""The names of rules: every one that the code finds by is known."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

import mlplatform.monitoring
from mlplatform.domain.monitoring import BusinessMetric
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.alerts.rule_names import rules_of
from mlplatform.monitoring.quality.usual import rules


def names_in(tree: ast.AST) -> Iterator[str]:
    """Of `Finding(rule=…)`, `told.finding(…)`, and `rule, … = …`, where they are written out."""
    for each in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(each, ast.Call):
            found = [keyword.value for keyword in each.keywords if keyword.arg == "rule"]
            if isinstance(each.func, ast.Attribute) and each.func.attr == "finding":
                found += each.args[:1]
        elif (
            isinstance(each, ast.Assign)
            and isinstance(each.targets[0], ast.Tuple)
            and isinstance(each.value, ast.Tuple)
        ):
            named = [isinstance(one, ast.Name) and one.id == "rule" for one in each.targets[0].elts]
            found = [value for value, is_rule in zip(each.value.elts, named, strict=True) if is_rule]
        for value in found:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                yield value.value


def test_what_the_code_finds_by_is_known() -> None:
    """A rule that was forgotten in the list could not be hushed."""
    folder = Path(str(mlplatform.monitoring.__file__)).parent
    written = {name for path in folder.rglob("*.py") for name in names_in(ast.parse(path.read_text()))}
    assert {"scores_differ", "fallback_share", "segment_harm", "monitor_late", "discrimination"} <= written
    assert written - {"business"} <= rules_of(DOMAIN)
    assert set(rules) <= rules_of(DOMAIN)


def test_what_a_domain_declares_gives_names_too() -> None:
    """The metric of a gate, and what business is counted by; nothing that is empty."""
    worth = BusinessMetric(name="saved", meaning="for tests", unit="EUR", better="higher", value=lambda: pl.lit(1.0))
    model = DOMAIN.models[0]
    found = rules_of(replace(DOMAIN, models=(replace(model, monitoring=replace(model.monitoring, business=(worth,))),)))
    assert {"business_saved", model.gate.metric} <= found and "" not in found
