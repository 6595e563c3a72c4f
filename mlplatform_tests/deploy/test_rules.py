"""The alert rules: what Prometheus itself makes of them, over series in which the fault is there, and is not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import generate
from deploy.expressions import series
from deploy.rules import rules
from mlplatform_tests.fakes.promtool import promtool

RULES = generate.FOLDER / "prometheus" / "mlplatform.rules.yml"
SERVICE = {"job": "mlplatform", "instance": "a:3001"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series over twenty minutes, one value every half minute, and what they must and must not fire."""

    faulty: Sequence[str]
    healthy: Sequence[str]
    labels: dict[str, str]
    value: str = ""
    """As the annotations show it."""


def counted(name: str, labels: str, a_minute: int) -> str:
    """A counter that grows; in the notation of promtool."""
    return f"{name}{{{', '.join(filter(None, [labels, LABELS]))}}} 0+{a_minute // 2}x40"


def shown(name: str, labels: str, value: float) -> str:
    """A gauge that stands still."""
    return f"{name}{{{', '.join(filter(None, [labels, LABELS]))}}} {value}x40"


LABELS = 'job="mlplatform", instance="a:3001"'
MODEL = 'model="shop/late"'
REQUESTS = counted("mlplatform_request_seconds_count", "", 600)
PREDICTIONS = "mlplatform_predictions_total"
REFUSED, FIELDS = "mlplatform_refused_total", "mlplatform_refused_fields_total"
BUCKETS = "mlplatform_request_seconds_bucket"
MISSING = 'field="tail", rule="missing"'


def sources(model: int, rules_: int) -> list[str]:
    """Answers a minute by their source."""
    arm = 'arm="champion"'
    return [
        counted(PREDICTIONS, f'{MODEL}, {arm}, source="model"', model),
        counted(PREDICTIONS, f'{MODEL}, {arm}, source="rules"', rules_),
    ]


def latencies(slow: int, requests: int) -> list[str]:
    """Requests a minute, so many of them slower than the objective of 10 ms."""
    return [
        counted(BUCKETS, 'le="0.01"', requests - slow),
        counted(BUCKETS, 'le="0.05"', requests),
        counted(BUCKETS, 'le="+Inf"', requests),
        counted("mlplatform_request_seconds_count", "", requests),
        shown("mlplatform_objective_p99_seconds", MODEL, 0.01),
    ]


UP = shown("up", "", 1)
CASES = {
    "MlplatformDown": Case(faulty=[shown("up", "", 0)], healthy=[UP], labels=SERVICE),
    "MlplatformGone": Case(faulty=[], healthy=[UP], labels={}),
    "MlplatformNoWorkers": Case(
        faulty=[UP, shown("mlplatform_workers_connected", MODEL, 0)],
        healthy=[UP, shown("mlplatform_workers_connected", MODEL, 1)],
        labels={**SERVICE, "model": "shop/late"},
    ),
    "MlplatformBreakerOpen": Case(
        faulty=[UP, shown("mlplatform_breaker_state", 'breaker="shop/late", state="open"', 2)],
        healthy=[
            UP,
            shown("mlplatform_breaker_state", 'breaker="shop/late", state="open"', 0),
            shown("mlplatform_breaker_state", 'breaker="shop/late", state="closed"', 2),
        ],
        labels={**SERVICE, "breaker": "shop/late"},
        value="2",
    ),
    "MlplatformFallbackShare": Case(
        faulty=[UP, *sources(480, 120)],
        healthy=[UP, *sources(590, 10), *(each.replace("a:3001", "b:3001") for each in sources(2, 2))],
        labels={**SERVICE, "model": "shop/late"},
        value="20%",
    ),
    "MlplatformLatency": Case(
        faulty=[UP, *latencies(60, 600)],
        healthy=[UP, *latencies(0, 600), *(each.replace("a:3001", "b:3001") for each in latencies(4, 8))],
        labels=SERVICE,
        value="46ms",
    ),
    "MlplatformOverloaded": Case(
        faulty=[UP, REQUESTS, counted(REFUSED, 'status="429"', 200)],
        healthy=[UP, REQUESTS, counted(REFUSED, 'status="429"', 2), counted(REFUSED, 'status="401"', 200)],
        labels=SERVICE,
        value="25%",
    ),
    "MlplatformRefusedShare": Case(
        faulty=[UP, REQUESTS, counted(REFUSED, 'status="422"', 200)],
        healthy=[UP, REQUESTS, counted(REFUSED, 'status="422"', 20), counted(REFUSED, 'status="401"', 200)],
        labels=SERVICE,
        value="25%",
    ),
    "MlplatformFieldRefused": Case(
        faulty=[UP, REQUESTS, counted(FIELDS, MISSING, 150)],
        healthy=[UP, REQUESTS, counted(FIELDS, MISSING, 20)],
        labels={**SERVICE, "field": "tail", "rule": "missing"},
        value="25%",
    ),
    "MlplatformLogDropped": Case(
        faulty=[UP, counted("mlplatform_prediction_log_dropped_total", "", 2)],
        healthy=[UP, counted("mlplatform_prediction_log_dropped_total", "", 0)],
        labels=SERVICE,
        value="10",
    ),
    "MlplatformLogBacklog": Case(
        faulty=[UP, shown("mlplatform_prediction_log_backlog_bytes", "", 512 << 20)],
        healthy=[UP, shown("mlplatform_prediction_log_backlog_bytes", "", 64 << 20)],
        labels=SERVICE,
        value="512Mi",
    ),
    "MlplatformMonitorSilent": Case(
        faulty=[UP, shown("mlplatform_monitor_look_age_seconds", "", 600)],
        healthy=[UP, shown("mlplatform_monitor_look_age_seconds", "", 40)],
        labels=SERVICE,
        value="10m 0s",
    ),
}


def expected(name: str, case: Case) -> dict[str, Any]:
    """The alert as it fires: labels and text."""
    (rule,) = [each for each in rules() if each.name == name]

    def filled(text: str) -> str:
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda met: case.labels[met[1]], text)
        return re.sub(r"\{\{ \$value( \| \w+)? \}\}", case.value, text)

    return {
        "exp_labels": {**case.labels, "severity": rule.severity, "layer": rule.layer},
        "exp_annotations": {"summary": filled(rule.summary), "description": filled(rule.description)},
    }


def run(folder: Path, given: Sequence[str], name: str, alerts: list[dict[str, Any]]) -> None:
    """Have promtool run one rule over some series."""
    inputs = [dict(zip(("series", "values"), each.rsplit(" ", 1), strict=True)) for each in given]
    test = {
        "interval": "30s",
        "input_series": inputs,
        "alert_rule_test": [{"eval_time": "18m", "alertname": name, "exp_alerts": alerts}],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}))
    promtool("test", "rules", file)


def test_what_is_committed_is_what_is_made() -> None:
    """To the byte; `python -m deploy.generate` makes it anew."""
    for path, content in generate.contents().items():
        assert (generate.FOLDER / path).read_text(encoding="utf-8") == content, path


def test_prometheus_takes_the_rules_and_the_example_configuration() -> None:
    """Syntax and templates."""
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", generate.FOLDER / "prometheus" / "prometheus.yml")


@pytest.mark.parametrize("name", [each.name for each in rules()])
def test_a_fault_fires(name: str, tmp_path: Path) -> None:
    """With labels that tell whom it concerns, and text that says how bad it is and what to look at."""
    case = CASES[name]
    run(tmp_path, case.faulty, name, [expected(name, case)])


@pytest.mark.parametrize("name", [each.name for each in rules()])
def test_what_is_usual_does_not_fire(name: str, tmp_path: Path) -> None:
    """Neither what is below the bound nor a share of a few requests."""
    run(tmp_path, CASES[name].healthy, name, [])


def test_a_quiet_service_fires_nothing(tmp_path: Path) -> None:
    """No requests at all, from the start: every rule holds its peace."""
    quiet = [UP, counted("mlplatform_request_seconds_count", "", 0), shown("mlplatform_queue_rows", "", 0)]
    for each in rules():
        run(tmp_path, quiet, each.name, [])


def test_a_name_that_the_code_does_not_have_is_refused() -> None:
    """A rule over it would never fire."""
    wrong: dict[str, dict[str, str]] = {
        "mlplatform_answers": {},
        "mlplatform_refused": {"code": '="429"'},
        "mlplatform_breaker_state": {"state": '=~"open|ajar"'},
    }
    for name, labels in wrong.items():
        with pytest.raises(ValueError):
            series(name, **labels)  # type: ignore[arg-type]  # labels only
