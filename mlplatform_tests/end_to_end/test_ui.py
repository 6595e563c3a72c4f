"""The Dagster UI over a real home: the graph is there, and a day is materialised with the mouse."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tables import Tables, day_range
from mlplatform.operations import servers
from mlplatform.operations.jobs import dagster_instance
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.chromium import Page, chromium
from mlplatform_tests.fakes.synthetic_home import land_orders
from mlplatform_tests.fakes.waiting import until

pytestmark = pytest.mark.end_to_end

DAYS = day_range("2024-01-01", "2024-01-03")
START_SECONDS, RUN_SECONDS = 120.0, 120.0
"""The code location is imported by four processes here, and by one more for a run."""

GRAPH = "{ assetNodes { groupName assetKey { path } dependencyKeys { path } } }"
UPSTREAM = {
    "raw": set(),
    "validated": {"raw"},
    "quarantine": {"raw"},
    "base": {"validated"},
    "derived": {"base"},
    "feature_store": {"base", "derived"},
    "late_order/training_set": {"derived", "feature_store"},
    "late_order/model": {"late_order/training_set"},
    "late_order/evaluation": {"late_order/model"},
    "late_order/promotion": {"late_order/evaluation"},
    "late_order/bento": {"late_order/promotion"},
}


@dataclass(frozen=True)
class Ui:
    """A running UI and the platform that it shows."""

    platform: Platform
    url: str

    def graphql(self, query: str) -> Any:
        """Ask as the pages of the UI ask."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)
        assert "errors" not in told, told
        return told["data"]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Webserver and daemon over three landed days of which nothing is computed."""
    platform = Platform(home=tmp_path_factory.mktemp("ui"))
    land_orders(platform, DAYS)
    with dagster_instance(platform):
        pass
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    log = platform.home / "logs" / "dagster.log"
    with servers.running(servers.ui_commands(port=port), servers.ui_environment(platform), log) as children:
        url = f"http://127.0.0.1:{port}"
        servers.wait_until_answering(f"{url}/server_info", children[0], log, seconds=START_SECONDS)
        yield Ui(platform, url)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a real browser."""
    with chromium(tmp_path) as opened:
        yield opened


def test_the_asset_graph_is_the_declared_one(ui: Ui) -> None:
    """Every asset of the domain with its group and what it depends on, as the graph's page gets them."""
    nodes = [each for each in ui.graphql(GRAPH)["assetNodes"] if each["assetKey"]["path"][0] == DOMAIN.name]
    found = {
        "/".join(each["assetKey"]["path"][1:]): {"/".join(above["path"][1:]) for above in each["dependencyKeys"]}
        for each in nodes
    }
    assert {name: above for name, above in found.items() if "/" not in name or name in UPSTREAM} == UPSTREAM
    assert {each["groupName"] for each in nodes} == {
        "synthetic",
        *(f"synthetic_{model.name}" for model in DOMAIN.models),
    }


def test_a_day_is_materialised_by_clicking(ui: Ui, page: Page) -> None:
    """Opened in the browser, materialised, launched: the list of runs shows a success, the table has that day alone."""
    _, day, _ = DAYS
    page.show(f"{ui.url}/assets/synthetic/raw?view=partitions&partition={day}")
    page.click("Materialize", seconds=60)
    page.click("Launch", seconds=60)
    raw = Tables(ui.platform, DOMAIN).raw("orders")
    until(
        lambda: ui.graphql("{ runsOrError { ... on Runs { results { runId } } } }")["runsOrError"]["results"],
        seconds=30,
        what="a run",
    )
    page.show(f"{ui.url}/runs")
    seen = until(
        lambda: next((word for word in ("Success", "Failure") if word in page.text()), None),
        seconds=RUN_SECONDS,
        what="the end of the run on the page of runs",
    )
    assert seen == "Success", page.text()
    assert [(each.partition, each.number) for each in raw.revisions()] == [(day, 1)]
    assert raw.current()[day].rows == 30
