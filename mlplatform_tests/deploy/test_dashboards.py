"""The dashboards: every expression is one that Prometheus understands, over what a real `/metrics` shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy import generate
from deploy.rules import rules
from mlplatform_tests.fakes.promtool import promtool
from serving.metrics import BREAKER_STATES, FAMILIES, Metrics

BOARDS = sorted((generate.FOLDER / "grafana").glob("*.json"))
GIVEN_BY_PROMETHEUS = {"job", "instance", "alertname", "alertstate"}
SELECTOR = re.compile(r"\b(mlplatform_\w+|up|ALERTS)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")


def targets(board: Path) -> list[tuple[str, str, str]]:
    """Title, expression and legend of every line of a dashboard."""
    panels: list[dict[str, Any]] = json.loads(board.read_text(encoding="utf-8"))["panels"]
    return [(each["title"], line["expr"], line["legendFormat"]) for each in panels for line in each["targets"]]


EXPRESSIONS = [(each.name, each.expression) for each in rules()] + [
    (f"{board.stem}: {title}", expression) for board in BOARDS for title, expression, _ in targets(board)
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Every sample of a service in which everything has happened once: name -> labels."""
    metrics = Metrics(tmp_path_factory.mktemp("metrics"))
    metrics.answered("shop/late", {("model", "champion"): 2, ("rules", "champion"): 1}, [0.001, 0.002, 0.3])
    metrics.shadowed("shop/late", {"model": 3})
    metrics.shadow_dropped("shop/late", 1)
    metrics.rerouted("shop/late", "no_key")
    metrics.share("shop/late", 0.05)
    metrics.batch(3, queue=0.001, features=0.001, hop=0.0001, score=0.001)
    metrics.queued(1)
    for status in (400, 401, 422, 429, 503):
        metrics.refused(status)
    metrics.refused_fields({("tail", "missing"): 1})
    for state in BREAKER_STATES:
        metrics.breaker("shop/late", state)
    metrics.connected("shop/late", 2)
    metrics.objective("shop/late", 0.02)
    metrics.monitor_looked(3.0)
    metrics.log_backlog(10)
    metrics.facts("orders", rows=2, refused=1)
    metrics.log_dropped(1)
    samples: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    metrics.close()
    return samples


def test_everything_that_is_exported_has_happened(exported: dict[str, list[dict[str, str]]]) -> None:
    """So that the tests below look at every family."""
    for family in FAMILIES:
        assert any(name.startswith(family.name) for name in exported), family.name


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_it_asks_for_what_there_is(place: str, expression: str, exported: dict[str, list[dict[str, str]]]) -> None:
    """Names, labels and their values; what it groups by is a label of what it reads."""
    labels_read: set[str] = set(GIVEN_BY_PROMETHEUS)
    found = SELECTOR.findall(expression)
    assert found
    for name, matchers in found:
        if name in ("up", "ALERTS"):
            continue
        samples = exported[name]
        labels = set().union(*samples)
        labels_read |= labels
        for label, operator, value in MATCHER.findall(matchers):
            assert label in labels | GIVEN_BY_PROMETHEUS, f"{name} has no label {label}"
            values = {each.get(label, "") for each in samples}
            if label in GIVEN_BY_PROMETHEUS:
                continue
            if operator in ("=", "!="):
                assert value in values, f"{label} of {name} is never {value}"
            else:
                assert any(re.fullmatch(value, each) for each in values), f"{label} of {name} never matches {value}"
    for grouped in GROUPING.findall(expression):
        asked = {label.strip() for label in grouped.split(",") if label.strip()}
        assert asked <= labels_read, f"{asked - labels_read} is no label of what is read"


@pytest.mark.parametrize("board", BOARDS, ids=[each.stem for each in BOARDS])
def test_legends_name_labels_that_the_line_has(board: Path) -> None:
    """A label that was summed away would be shown as nothing."""
    for title, expression, legend in targets(board):
        named = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = {each.strip() for grouped in re.findall(r"by \(([^)]*)\)", expression) for each in grouped.split(",")}
        assert named <= kept, title


@pytest.mark.parametrize("board", BOARDS, ids=[each.stem for each in BOARDS])
def test_prometheus_understands_every_line(board: Path, tmp_path: Path) -> None:
    """With the variables filled in as Grafana does it."""
    made = []
    for number, (_, expression, _) in enumerate(targets(board)):
        filled = expression.replace("$__rate_interval", "5m").replace("$job", ".+").replace("$instance", ".+")
        made.append({"record": f"line:{number}", "expr": filled})
    file = tmp_path / "lines.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "lines", "rules": made}]}))
    promtool("check", "rules", file)


def test_every_metric_is_on_a_dashboard() -> None:
    """What is exported and shown nowhere is missed by nobody, and so should not be exported."""
    shown = " ".join(expression for board in BOARDS for _, expression, _ in targets(board))
    assert [family.name for family in FAMILIES if family.name not in shown] == []


@pytest.mark.parametrize("board", BOARDS, ids=[each.stem for each in BOARDS])
def test_panels_lie_side_by_side_and_name_no_place_outside(board: Path) -> None:
    """No two overlap, ids are their own, and nothing is fetched from elsewhere."""
    text = board.read_text(encoding="utf-8")
    assert "http" not in text
    panels = json.loads(text)["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for each in panels:
        place = each["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
