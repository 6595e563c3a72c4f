"""Answers of a real service, given again by the command: at once, after the pick-up, and what was altered since."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import logged, pick_up
from mlplatform.operations.servers import champion_tag
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import bento_home
from mlplatform.registry.ledger import Ledger
from mlplatform_tests.fakes.bento_server import Server, serving
from mlplatform_tests.fakes.waiting import until

MODEL = DOMAIN.model("late_arrival")
DAY = date(2013, 4, 18)
PATIENCE = 60.0


@pytest.fixture
def environment(own_flight_home: Platform) -> dict[str, str]:
    """Of the service and of the command: requests tell their own time."""
    home = own_flight_home.home
    return {
        "BENTOML_HOME": str(bento_home(home)),
        "MLPLATFORM_HOME": str(home),
        "MLPLATFORM_CLOCK": "request",
        "BENTOML_DO_NOT_TRACK": "True",
    }


@pytest.fixture
def server(own_flight_home: Platform, environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """The champion, served with what was published on the day before."""
    publish_values(own_flight_home, DOMAIN, as_of=(DAY - timedelta(days=1)).isoformat())
    with serving(champion_tag(own_flight_home, DOMAIN, MODEL), folder=tmp_path, environment=environment) as running:
        running.wait_until_ready()
        yield running


def flights(platform: Platform) -> list[dict[str, Any]]:
    """Requests about flights of the day, after the night's publication, as a caller writes them."""
    facts = Tables(platform, DOMAIN).facts(DOMAIN.requests.facts).read([DAY.isoformat()])
    asked = DOMAIN.requests.of_facts(facts).sort("at", *DOMAIN.requests.identity)
    rows = [row for row in asked.iter_rows(named=True) if row["at"].date() == DAY and row["at"].hour >= 6]
    return [
        {name: each.isoformat() if isinstance(each, datetime) else each for name, each in row.items()} for row in rows
    ]


def answered(server: Server, flight: dict[str, Any]) -> dict[str, Any]:
    """What the service says of a flight."""
    said = server.ask("/predict", flight)
    assert said.status == 200, said.text
    return dict(said.json)


def replayed(environment: dict[str, str], request_id: str) -> tuple[int, dict[str, Any]]:
    """Exit code of `mlplatform replay ID --json`, and what it says of the answer."""
    command = [sys.executable, "-m", "mlplatform", "replay", request_id, "--domain", DOMAIN.name, "--json"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if not done.stdout:
        return done.returncode, {"said": done.stderr}
    (answer,) = json.loads(done.stdout)["answers"]
    return done.returncode, answer


def labels(node: dict[str, Any]) -> Iterator[str]:
    """What a trail names, from the answer down."""
    yield f"{node['label']} {node['detail']}"
    for child in node["children"]:
        yield from labels(child)


def kill_model_workers(home: Path) -> None:
    """Those that serve a bundle of this home."""
    for process in psutil.process_iter():
        try:
            told = process.cmdline()
            if "serving.model_worker" in told and any(each.startswith(str(home)) for each in told):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


@pytest.mark.end_to_end
def test_an_answer_of_a_service_is_given_again(
    own_flight_home: Platform, environment: dict[str, str], server: Server
) -> None:
    """At once and after the pick-up, with a trail to the landed file; a fallback by its tier. A flipped bit is met."""
    platform, asked = own_flight_home, flights(own_flight_home)

    def from_model() -> dict[str, Any] | None:
        # On a machine where other tests run a deadline may pass; it is not what is looked at here.
        said = answered(server, asked[0])
        return said if said["source"] == "model" else None

    by_model = until(from_model, seconds=PATIENCE, what="an answer of the model")

    def at_once() -> dict[str, Any] | None:
        code, answer = replayed(environment, by_model["request_id"])
        return answer if code == 0 else None

    # Its segment is not picked up: nobody runs a sensor here.
    answer = until(at_once, seconds=PATIENCE, what="the answer in a segment")
    assert answer["replayed"]["verdict"]["outcome"] == "exact"
    assert answer["probability"] == by_model["probability"]
    landed = f"landing/{DOMAIN.name}/flights/"
    assert any(landed in label for label in labels(answer["trail"])), "\n".join(labels(answer["trail"]))

    numbers = iter(range(1, len(asked)))

    def fallen_back() -> dict[str, Any] | None:
        kill_model_workers(platform.home)
        said = answered(server, asked[next(numbers)])
        return said if said["source"] != "model" else None

    fallback = until(fallen_back, seconds=PATIENCE, what="an answer of the fallback chain")

    def picked_up() -> bool:
        pick_up(platform, DOMAIN)
        log = logged(platform, DOMAIN, DAY.isoformat())
        ids = set() if log is None else set(log.select("request_id").collect().to_series())
        return {by_model["request_id"], fallback["request_id"]} <= ids

    until(picked_up, seconds=PATIENCE, what="both answers in the table")
    for told, source in ((by_model, "model"), (fallback, fallback["source"])):
        code, answer = replayed(environment, told["request_id"])
        assert (code, answer["replayed"]["source"]) == (0, source)
        assert answer["replayed"]["verdict"]["outcome"] == "exact", answer["replayed"]["verdict"]

    champion = Ledger(platform).champion(f"{DOMAIN.name}/{MODEL.name}")
    assert champion is not None
    booster = platform.bundles / champion / "model.ubj"
    held = bytearray(booster.read_bytes())
    held[len(held) // 2] ^= 1
    booster.write_bytes(held)
    code, answer = replayed(environment, by_model["request_id"])
    verdict = answer["replayed"]["verdict"]
    assert (code, verdict["outcome"], verdict["cause"]) == (1, "impossible", "bundle")
    assert "model.ubj" in verdict["reason"]
