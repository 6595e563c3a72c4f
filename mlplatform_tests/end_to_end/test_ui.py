"""The Dagster UI over a real home, in a real browser: what a person sees there, and what a click does.

With `--screenshots` the pictures of the docs are made anew, into docs/images.
"""

import io
import json
import socket
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from mlplatform.domains.registered import registered_domains
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import ContractBroken
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.operations import jobs, servers
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.chromium import HEIGHT, WIDTH, Page, chromium
from mlplatform_tests.fakes.synthetic_home import COMMITTED, land_orders
from mlplatform_tests.fakes.waiting import until

pytestmark = pytest.mark.end_to_end

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LARGEST = 200_000
"""Bytes of a picture that is kept in git."""

DAYS = day_range("2024-01-01", "2024-01-20")
NEW_DAY, BAD_DAY = "2024-01-21", "2024-01-22"
MODEL = DOMAIN.model("late_order")
RULE = "at most 10000"
"""A blocking rule of the orders' contract, as the pages name it."""

START_SECONDS, RUN_SECONDS, PAGE_SECONDS = 120.0, 120.0, 60.0
"""The code location is imported by four processes here, and by one more for a run."""

SENSORS = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__",
    repositoryLocationName: "mlplatform"}) { ... on Sensors { results { name id sensorState { status } } } } }"""
STOP = 'mutation { stopSensor(id: "%s") { __typename } }'
NODES = "[...document.querySelectorAll('foreignObject')].filter(each => each.getBoundingClientRect().width > 50)"
LINES = "document.querySelectorAll('svg path[marker-end]')"
SWITCHES = "[...document.querySelectorAll('[class*=formatSwitch] input, input[role=switch]')]"
PLOT = "[...document.querySelectorAll('img[src^=\"data:image/png\"]')].filter(each => each.complete).at(-1)"
GRAPH = "{ assetNodes { groupName assetKey { path } dependencyKeys { path } } }"
STEPS = {
    "training_set": "content_hash",
    "evaluation": "better than naive",
    "promotion": "ledger_entry",
    "rollout": "manifest",
    "bento": "mlplatform serve",
    "dossier": "dossier",
}
"""What comes before and after a model, and what is read on its page."""

TRAINED_BY = """{ assetNodeOrError(assetKey: {path: ["synthetic", "late_order", "model"]}) { ... on AssetNode {
    assetMaterializations(partitions: ["%s"]) { runId } } } }"""
UPSTREAM = {
    "raw": set(),
    "validated": {"raw"},
    "quarantine": {"raw"},
    "base": {"validated"},
    "derived": {"base"},
    "feature_store": {"base", "derived"},
    "online_store": {"feature_store"},
    "prediction_log": set(),
    "data_quality": {"prediction_log", "quarantine"},
    "model_behaviour": {"prediction_log"},
    "outcomes": {"prediction_log", "derived"},
    "outcomes_weekly": {"outcomes"},
    "skew": {"prediction_log", "feature_store"},
    "replay_coverage": {"prediction_log"},
    "retention": {"prediction_log"},
    "late_order/retrain_decision": {"derived"},
    "late_order/training_set": {"derived", "feature_store"},
    "late_order/model": {"late_order/training_set"},
    "late_order/evaluation": {"late_order/model"},
    "late_order/promotion": {"late_order/evaluation"},
    "late_order/rollout": {"late_order/promotion"},
    "late_order/dossier": {"late_order/promotion", "late_order/rollout"},
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

    def sensors(self) -> list[dict[str, Any]]:
        """Name, id and state of every sensor."""
        found: list[dict[str, Any]] = self.graphql(SENSORS)["sensorsOrError"]["results"]
        return found


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Webserver and daemon over a home with twenty days computed, one only landed, and one model judged.

    The sensors of the domain are stopped before the daemon starts: here a person clicks.
    """
    platform = Platform(home=tmp_path_factory.mktemp("ui"), checkout=lambda _folder: COMMITTED)
    with jobs.dagster_instance(platform):
        pass
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    log = platform.home / "logs" / "dagster.log"
    webserver, daemon = servers.ui_commands(port=port)
    environment = servers.ui_environment(platform)
    with servers.running([webserver], environment, log) as (child,):
        live(platform)  # while the webserver imports
        shown = Ui(platform, f"http://127.0.0.1:{port}")
        servers.wait_until_answering(f"{shown.url}/server_info", child, log, seconds=START_SECONDS)
        for sensor in shown.sensors():
            if sensor["name"].startswith(DOMAIN.name):
                shown.graphql(STOP % sensor["id"])
        with servers.running([daemon], environment, log):
            yield shown


def live(platform: Platform) -> None:
    """What has happened in the home before anybody looks."""
    land_orders(platform, [*DAYS, NEW_DAY], rows_per_day=200)
    # Dagster, Great Expectations, MLflow and SQLAlchemy in one process: their warnings are none of ours.
    with warnings.catch_warnings(action="ignore"):
        jobs.materialize_days(platform, DOMAIN, DAYS)
        made = jobs.add_recipe(platform, DOMAIN, MODEL)
        jobs.materialize_recipe(platform, DOMAIN, MODEL, made.key, stages=["training_set", "model", "evaluation"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a real browser."""
    with chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def keep(page: Page, tmp_path: Path, pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Keeps what is seen as a picture: for the docs when they are asked for, else to see that something is seen."""

    def picture(name: str) -> None:
        png = page.screenshot()
        folder = IMAGES if pytestconfig.getoption("--screenshots") else tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png)
        seen = matplotlib.image.imread(io.BytesIO(png))[..., :3]
        assert seen.shape == (HEIGHT, WIDTH, 3)
        painted = (np.abs(seen - seen[HEIGHT // 2, WIDTH - 1]) > 0.02).any(axis=2)
        assert painted.mean() > 0.01, "an empty page"
        assert len(png) < LARGEST

    return picture


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
        "synthetic_monitoring",
        "synthetic_retraining",
        *(f"synthetic_{model.name}" for model in DOMAIN.models),
    }


@pytest.mark.parametrize("name", registered_domains())
def test_the_graph_of_a_domain_is_drawn(name: str, ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """Every stage is a box on the page, and every dependency of one a line."""
    nodes = ui.graphql(GRAPH)["assetNodes"]
    inside = {tuple(each["assetKey"]["path"]) for each in nodes if each["groupName"] == name}
    edges = sum(
        tuple(above["path"]) in inside or tuple(each["assetKey"]["path"]) in inside
        for each in nodes
        for above in each["dependencyKeys"]
    )
    page.show(f"{ui.url}/locations/mlplatform/asset-groups/{name}/lineage")
    boxes = page.until(
        f"(found => found.length >= {len(inside)} && found.map(each => each.textContent))({NODES})",
        seconds=PAGE_SECONDS,
        what="boxes of the graph",
    )
    assert all(any(box.startswith(stage) for box in boxes) for stage in stages)
    page.until(f"{LINES}.length === {edges}", seconds=PAGE_SECONDS, what=f"{edges} lines of the graph")
    keep(f"graph-{name}")


def test_all_domains_stand_in_the_lineage(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """A box for each domain and each model."""
    page.show(f"{ui.url}/asset-groups")
    groups = {each["groupName"] for each in ui.graphql(GRAPH)["assetNodes"]}
    page.until(f"{NODES}.length >= {len(groups)}", seconds=PAGE_SECONDS, what="a box for each group")
    page.until("!document.body.innerText.includes('fetching')", seconds=PAGE_SECONDS, what="what is materialised")
    assert groups <= set(page.text().split())
    keep("lineage")


def test_the_plots_of_a_model_are_shown(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """Importance, ROC and calibration are pictures in the evaluation's metadata, and the gate's reasons are read."""
    page.show(f"{ui.url}/assets/{DOMAIN.name}/{MODEL.name}/evaluation")
    page.until("document.body.innerText.includes('better than naive')", seconds=PAGE_SECONDS, what="the gate's rules")
    keep("evaluation")
    for plot in ("importance", "roc", "calibration"):
        page.click("[Show Markdown]", row=plot, seconds=PAGE_SECONDS)
        width = page.until(f"{PLOT}?.naturalWidth", seconds=PAGE_SECONDS, what=f"the plot {plot}")
        assert width > 300
        if plot == "roc":
            keep("evaluation-roc")
        page.click("Close", seconds=PAGE_SECONDS)
        page.until(f"!({PLOT})", seconds=PAGE_SECONDS, what="the plot to close")


def test_sensors_run_by_default(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """Switched on on the page, but for those that were stopped; one that finds nothing to do says so."""
    on = [each["name"] for each in ui.sensors() if each["sensorState"]["status"] == "RUNNING"]
    assert sorted(on) == sorted(each["name"] for each in ui.sensors() if not each["name"].startswith(DOMAIN.name))
    page.resize(WIDTH, 3 * HEIGHT)  # rows that are out of sight are not on the page
    page.show(f"{ui.url}/automation")
    page.until(f"{SWITCHES}.length === {len(ui.sensors())}", seconds=PAGE_SECONDS, what="the switches")
    page.until(f"{SWITCHES}.filter(each => each.checked).length === {len(on)}", seconds=PAGE_SECONDS, what="those on")
    page.resize(WIDTH, HEIGHT)
    page.show(f"{ui.url}/locations/mlplatform/sensors/flight_delay_features")
    page.until("document.body.innerText.includes('is up to date')", seconds=PAGE_SECONDS, what="what a tick has found")
    keep("sensor")


def test_a_day_is_materialised_by_clicking(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """Opened in the browser, materialised, launched: the list of runs shows a success, the table has that day alone."""
    page.show(f"{ui.url}/assets/{DOMAIN.name}/raw?view=partitions&partition={NEW_DAY}")
    page.click("Materialize", seconds=PAGE_SECONDS)
    page.until("document.body.innerText.includes('Launch 1 run')", seconds=PAGE_SECONDS, what="the dialogue")
    keep("materialise")
    page.click("Launch 1 run", seconds=PAGE_SECONDS)
    raw = Tables(ui.platform, DOMAIN).raw("orders")
    until(lambda: set(raw.current()) - set(DAYS), seconds=RUN_SECONDS, what="a new partition of raw")
    assert {each.number for each in raw.revisions()} == {1} and set(raw.current()) == {*DAYS, NEW_DAY}
    page.show(f"{ui.url}/runs")
    page.until(
        f"/partition: {NEW_DAY}\\s[^]*?Manually launched\\s+Success/.test(document.body.innerText)",
        seconds=RUN_SECONDS,
        what="the success of the run on the page of runs",
    )
    keep("runs")


def test_a_failing_check_says_which_rule_was_broken(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """A day with too many orders stops before `validated`; the check's page names the rule and the day."""
    land_orders(ui.platform, [BAD_DAY], rows_per_day=10_001)
    with warnings.catch_warnings(action="ignore"), pytest.raises(ContractBroken, match=RULE):
        jobs.materialize_days(ui.platform, DOMAIN, [BAD_DAY])
    page.show(f"{ui.url}/assets/{DOMAIN.name}/validated?view=checks")
    page.until(f"document.body.innerText.includes('{RULE}')", seconds=PAGE_SECONDS, what="the broken rule")
    assert "Failed" in page.text() and BAD_DAY in page.text()
    keep("check")
    page.show(f"{ui.url}/assets/{DOMAIN.name}/validated?view=partitions&partition={BAD_DAY}")
    page.until("document.body.innerText.includes('did not materialize')", seconds=PAGE_SECONDS, what="the failed day")
    keep("failed-day")


def test_a_model_leads_to_all_that_made_it_and_came_of_it(ui: Ui, page: Page, keep: Callable[[str], None]) -> None:
    """From the model's page one click leads to its data, run, evaluation, Bento and rollout, each of its own recipe."""
    (recipe,) = (each.name for each in ui.platform.training(DOMAIN.name, MODEL.name, "").iterdir())
    with warnings.catch_warnings(action="ignore"):
        later = ["promotion", "rollout", "bento", "dossier"]
        jobs.materialize_recipe(ui.platform, DOMAIN, MODEL, recipe, stages=later)
    home = f"{ui.url}/assets/{DOMAIN.name}/{MODEL.name}/model?view=partitions&partition={recipe}"

    def follow(label: str, row: str, address: str, seen: str) -> None:
        page.show(home)
        page.click(label, row=row, seconds=PAGE_SECONDS)
        page.until(f"location.href.includes('{address}')", seconds=PAGE_SECONDS, what=f"the address {address}")
        page.until(f"document.body.innerText.includes({seen!r})", seconds=PAGE_SECONDS, what=f"{seen!r} on {address}")

    page.show(home)
    page.until("document.body.innerText.includes('mlplatform reproduce')", seconds=PAGE_SECONDS, what="the commands")
    assert f"mlplatform reproduce {DOMAIN.name}/{MODEL.name}@{recipe}" in page.text()
    keep("lineage-of-a-model")
    for step, seen in STEPS.items():
        place = f"/assets/{DOMAIN.name}/{MODEL.name}/{step}?view=partitions&partition={recipe}"
        follow(step.replace("_", " "), "lineage", place, seen)
    follow(f"{DOMAIN.name}/derived", "data", f"/assets/{DOMAIN.name}/derived", "derived")
    follow(f"{DOMAIN.name}/feature_store", "data", f"/assets/{DOMAIN.name}/feature_store", "feature_store")
    (run,) = ui.graphql(TRAINED_BY % recipe)["assetNodeOrError"]["assetMaterializations"]
    follow(run["runId"], "trained_by", f"/runs/{run['runId']}", "Success")
