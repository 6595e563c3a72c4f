"""What refused requests broke is counted by field and kind, and by no name that a caller chose."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Requests
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import InvalidRequest
from mlplatform.scoring.request import parse_requests
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.refusals import KINDS, faults

COLUMNS = (
    Column(name="carrier", dtype=pl.String(), meaning="airline", allowed=("UA", "B6")),
    Column(name="tail", dtype=pl.String(), meaning="tail number", pattern="N[0-9]+"),
    Column(name="seats", dtype=pl.Int16(), meaning="seats", minimum=1, maximum=900),
    Column(name="weight", dtype=pl.Float32(), meaning="weight", minimum=0),
    Column(name="leaves", dtype=pl.Datetime("us", "UTC"), meaning="when it leaves"),
    Column(name="on", dtype=pl.Date(), meaning="day"),
    Column(name="late", dtype=pl.Boolean(), meaning="whether it is late"),
)
GOOD: dict[str, Any] = {
    "carrier": "UA",
    "tail": "N12",
    "seats": 100,
    "weight": 1.5,
    "leaves": "2013-07-01T12:00:00Z",
    "on": "2013-07-01",
    "late": False,
}
REQUESTS = Requests(columns=COLUMNS, facts="flights", of_facts=lambda facts: facts, identity=("tail",), example=GOOD)


def counted(*rows: object) -> dict[tuple[str, str], int]:
    """What a request of these rows broke."""
    with pytest.raises(InvalidRequest) as refused:
        parse_requests(list(rows), COLUMNS)
    return dict(faults([refused.value.fields], REQUESTS))


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("carrier", 7, "type"),
        ("carrier", None, "null"),
        ("carrier", "XX", "value"),
        ("carrier", "7 is below the minimum of 9 does not match", "value"),
        ("carrier", "X" * 300, "form"),
        ("tail", "12", "pattern"),
        ("tail", "is no field of a request", "pattern"),
        ("seats", 0, "range"),
        ("seats", 901, "range"),
        ("seats", 10**6, "range"),
        ("seats", 1.5, "type"),
        ("weight", -1.0, "range"),
        ("weight", 1e300, "range"),
        ("weight", float("nan"), "range"),
        ("leaves", "noon", "form"),
        ("leaves", "2013-07-01T12:00:00", "form"),
        ("leaves", 7, "type"),
        ("on", "today", "form"),
        ("late", "yes", "type"),
    ],
)
def test_each_kind_of_fault_has_its_word(field: str, value: object, kind: str) -> None:
    """As the request's own reader tells it, so that a changed wording is found here."""
    assert counted(GOOD | {field: value}) == {(field, kind): 1}
    assert kind in KINDS


def test_missing_fields_rows_and_rules() -> None:
    """Rows of a batch count under their field; a rule over several columns under its name; the rest is the request."""
    gone = {name: value for name, value in GOOD.items() if name != "tail"}
    assert counted(gone, gone) == {("tail", "missing"): 2}
    assert counted(7) == {("request", "form"): 1}
    rule = DOMAIN.requests.rules[0].name if DOMAIN.requests.rules else ""
    if rule:
        assert dict(faults([{rule: "what it means"}], DOMAIN.requests)) == {(rule, "row_rule"): 1}
    assert dict(faults([{"at": "an instant needs an offset; write Z for UTC"}], REQUESTS)) == {("at", "form"): 1}


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_nobody_outside_chooses_a_name(fields: dict[str, str]) -> None:
    """Whatever is sent, labels are declared columns and our own words."""
    known = {column.name for column in COLUMNS} | {"at", "undeclared", "request"}
    told = faults([fields, dict.fromkeys(fields, "is no field of a request")], REQUESTS)
    assert {field for field, _ in told} <= known
    assert {kind for _, kind in told} <= set(KINDS)


def test_they_are_shown(tmp_path: Path) -> None:
    """In `/metrics`, beside the objective of the model."""
    metrics = Metrics(tmp_path)
    metrics.refused_fields(faults([{"tail": "is missing"}, {"tail": "is missing"}], REQUESTS))
    metrics.objective("shop/late", 0.02)
    shown = metrics.exposition().decode()
    assert 'mlplatform_refused_fields_total{field="tail",rule="missing"} 2.0' in shown
    assert 'mlplatform_objective_p99_seconds{model="shop/late"} 0.02' in shown
    metrics.close()


def test_the_age_of_the_last_look_is_shown_once_there_was_one(tmp_path: Path) -> None:
    """A loop that never looked on this disk has no age; one that has died grows old."""
    metrics = Metrics(tmp_path / "metrics")
    log = LogWriter(tmp_path, metrics)
    log._segments["shop"] = cast(Any, SimpleNamespace(close=lambda: None))
    log.show()
    assert not [each for each in metrics.exposition().splitlines() if each.startswith(b"mlplatform_monitor_look_age")]
    heartbeat = tmp_path / "alerts" / "shop" / "heartbeat"
    heartbeat.parent.mkdir(parents=True)
    heartbeat.write_text("")
    an_hour_ago = time.time() - 3600
    os.utime(heartbeat, (an_hour_ago, an_hour_ago))
    log.show()
    (line,) = [
        each for each in metrics.exposition().decode().splitlines() if each.startswith("mlplatform_monitor_look_age")
    ]
    assert 3600 <= float(line.split()[1]) < 3700
    log.close()
    metrics.close()
