"""The service through a rollout: who is answered by what, what is logged, and what goes wrong on the way."""

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl
import psutil
import pytest

from mlplatform.monitoring.prediction_log import decode, log_folder
from mlplatform.provenance.segments import finished, read
from mlplatform.registry.bento import build_bento
from mlplatform.registry.bundle import Bundle
from mlplatform.rollout.plan import Plan
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform_tests.fakes.bento_server import serving
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from mlplatform_tests.fakes.waiting import until
from mlplatform_tests.serving.test_serving_faults import MODEL, PATIENCE, REQUEST, Load, Service, bulk

pytestmark = pytest.mark.end_to_end

SALT = "5a17"


class Row(NamedTuple):
    """What the log says of a request."""

    arm: str
    manifest: str
    source: str
    plan: str
    propensity: float
    at: int
    received: int
    features: bytes


class Rolling(NamedTuple):
    """A service with a champion and a challenger."""

    service: Service
    champion: Bundle
    challenger: Bundle

    def planned(self, **told: Any) -> Plan:
        """Have every gateway worker follow this plan."""
        self.service.plans += 1
        plan = Plan(model=MODEL, champion=self.champion.digest, number=self.service.plans, **told)
        write_plan(self.service.home, plan)
        return plan

    def follows(self, plan: Plan, *, fault: bool = False) -> bool:
        """Whether each gateway worker does, with the challenger open where there is one."""
        for _ in range(16):
            told = self.service.server.ask("/model").json["plan"]
            if told["version"] != plan.version or bool(told["fault"]) != fault:
                return False
            if told["challenger_open"] != (plan.challenger is not None):
                return False
        return True

    def rolls(self, mode: Any, weight: int = 0) -> Plan:
        """A plan with the challenger, in force everywhere."""
        plan = self.planned(challenger=self.challenger.digest, mode=mode, weight=weight, salt=SALT)
        until(lambda: self.follows(plan), seconds=PATIENCE, what=f"mode {mode}")
        return plan

    def workers(self) -> list[psutil.Process]:
        """The challenger's model workers: those in the roster, and not what leaves."""
        version = self.service.roster().challenger
        sockets = version.sockets if version is not None else ()
        return [each for each in self.service.processes("model_worker") if {*sockets} & {*each.cmdline()}]

    def logged(self, load: Load) -> dict[str, list[Row]]:
        """What the log has of each request, as far as it is written."""
        folder = log_folder(self.service.home, "harbour")
        found: dict[str, list[Row]] = {}
        for path in [*finished(folder), *folder.glob("*.open")]:
            try:
                payloads = read(path).payloads
            except FileNotFoundError:
                continue
            for batch in map(decode, payloads):
                width = len(batch.features) // max(1, len(batch.request_id))
                for row, name in enumerate(batch.request_id):
                    if name.endswith(load.tag):
                        found.setdefault(name, []).append(
                            Row(
                                batch.arm[row],
                                batch.manifest,
                                batch.source[row],
                                batch.plan[row],
                                batch.propensity[row],
                                batch.at[row],
                                batch.received[row],
                                batch.features[row * width : (row + 1) * width],
                            )
                        )
        return found

    def shadowed(self, load: Load) -> int:
        """Rows of a load that were scored in the shadow."""
        return sum(row.arm == "shadow" for rows in self.logged(load).values() for row in rows)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    """One for all tests: the challenger computes the same features."""
    home = tmp_path_factory.mktemp("home")
    publish(home)
    package = write_package(home / "package")
    champion = bundle_of(home / "bundles", package)
    challenger = bundle_of(home / "bundles", package, model_version="2024-05-02-ab12cd34")
    environment = {
        "BENTOML_HOME": str(home / "bentoml"),
        "MLPLATFORM_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    before = {child.pid for child in psutil.Process().children()}
    with serving(build_bento(champion.folder, home=home), folder=home, environment=environment) as server:
        (pid,) = {child.pid for child in psutil.Process().children()} - before
        server.wait_until_ready()
        yield Rolling(Service(home, server, champion, pid), champion, challenger)


@pytest.fixture
def rolling(running: Rolling) -> Iterator[Rolling]:
    """In mode full again, and in good health."""
    plan = running.planned()
    until(lambda: running.follows(plan), seconds=PATIENCE, what="the champion alone")
    yield running
    running.service.wait_until_settled()


def test_in_the_shadow_every_request_has_two_rows_and_one_answer(rolling: Rolling) -> None:
    """The champion's; the other row has the same id, instants and vector, and the other manifest."""
    plan = rolling.rolls("shadow")
    load = Load(rolling.service.server.url)
    with load.running():
        load.goes_on(200)
    assert load.manifests.keys() == {rolling.champion.digest}
    until(lambda: rolling.shadowed(load) == len(load.answered), seconds=PATIENCE, what="the shadow's rows")
    for rows in rolling.logged(load).values():
        answer, shadow = sorted(rows)
        assert (answer.arm, answer.manifest, answer.propensity) == ("champion", rolling.champion.digest, 1.0)
        assert (shadow.arm, shadow.manifest, shadow.propensity) == ("shadow", rolling.challenger.digest, 0.0)
        assert answer.plan == shadow.plan == plan.version
        assert answer[5:] == shadow[5:]
        assert shadow.source == "model"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_challenger_that_dies_or_hangs_in_the_shadow_costs_nobody_anything(
    rolling: Rolling, how: signal.Signals
) -> None:
    """Every answer is the champion's own, in time; the shadow is back by itself."""
    rolling.rolls("shadow")
    load = Load(rolling.service.server.url)
    with load.running():
        until(lambda: len(rolling.workers()) == 1, seconds=PATIENCE, what="its worker")
        (victim,) = rolling.workers()
        victim.send_signal(how)
        load.goes_on(500)
        until(lambda: not victim.is_running(), seconds=PATIENCE, what="its end")
        until(lambda: len(rolling.workers()) == 1, seconds=PATIENCE, what="another one")
    assert load.statuses.keys() == {200}
    assert load.sources.keys() == {"model"}
    assert load.manifests.keys() == {rolling.champion.digest}
    assert load.slowest < rolling.champion.model.serving.deadline.total_seconds()
    after = Load(rolling.service.server.url)
    with after.running():
        until(lambda: rolling.shadowed(after) > 0, seconds=PATIENCE, what="the shadow")


def test_a_canary_answers_its_keys_and_a_rollback_takes_a_second(rolling: Rolling) -> None:
    """Each request goes where flagd would send it, the other arm scores it too, and no request fails on the way."""
    plan = rolling.rolls("canary", 3_000)
    load, last = Load(rolling.service.server.url), Load(rolling.service.server.url)
    with load.running():
        load.goes_on(300)
    for name, rows in rolling.logged(load).items():
        (answer,) = (row for row in rows if row.arm != "shadow")
        assert answer.arm == plan.arm(name)
        assert (answer.manifest == rolling.challenger.digest) == (answer.arm == "challenger")
    assert load.manifests.keys() == {rolling.champion.digest, rolling.challenger.digest}
    until(lambda: rolling.shadowed(load) > 0.9 * len(load.answered), seconds=PATIENCE, what="the shadow's rows")
    with last.running():
        began = time.monotonic()
        back = rolling.planned()
        threading.Event().wait(1.0 - (time.monotonic() - began))
        by_then = last.manifests[rolling.challenger.digest]
        last.goes_on(300)
        assert last.manifests[rolling.challenger.digest] - by_then <= last.connections  # told, and not yet counted
        after = last.manifests[rolling.challenger.digest]
        last.goes_on(300)
        assert last.manifests[rolling.challenger.digest] == after
    for each in (load, last):
        assert each.statuses.keys() == {200}
        assert each.sources.keys() == {"model"}
        assert each.broken == 0
    assert rolling.follows(back)


def test_rows_of_one_request_go_to_their_own_arms(rolling: Rolling) -> None:
    """As JSON and as Arrow, in order, each with the manifest that answered it; a refused row has none."""
    plan = rolling.rolls("a/b", 5_000)
    rows = [{**REQUEST, "length": 10.0 + 5 * number} for number in range(40)]
    answers = rolling.service.server.ask("/predict/batch", rows).json["answers"]
    digests = {"champion": rolling.champion.digest, "challenger": rolling.challenger.digest}
    assert [each["manifest"] for each in answers] == [digests[plan.arm(each["request_id"])] for each in answers]
    assert [each["request_id"].rpartition(":")[2] for each in answers] == [str(number) for number in range(40)]
    assert {each["manifest"] for each in answers} == set(digests.values())
    alone = [rolling.service.server.ask("/predict", row).json["probability"] for row in rows]
    assert [each["probability"] for each in answers] == alone
    sent = pl.DataFrame([*rows[:20], {**REQUEST, "length": 1e9}, *rows[20:]]).with_columns(
        pl.col("length").cast(pl.Float32)
    )
    kind = "application/vnd.apache.arrow.stream"
    told = pl.read_ipc_stream(bulk(rolling.service.server.url, sent.write_ipc_stream(None).getvalue(), kind))
    assert told["error"].is_null().to_list() == [number != 20 for number in range(41)]
    good = told.filter(pl.col("error").is_null())
    assert good["probability"].to_list() == alone
    assert good["manifest"].to_list() == [digests[plan.arm(name)] for name in good["request_id"]]


def test_a_plan_that_is_nonsense_is_not_followed(rolling: Rolling) -> None:
    """The last good one goes on, `/model` says what is wrong, and the next good one is taken."""
    plan = rolling.rolls("canary", 5_000)
    path = plan_path(rolling.service.home, MODEL)
    for content in ("{", path.read_text().replace("challenger", "chalenger"), ""):
        path.write_text(content)
        until(lambda: rolling.follows(plan, fault=True), seconds=PATIENCE, what="the fault")
        load = Load(rolling.service.server.url)
        with load.running():
            load.goes_on(50)
        assert load.statuses.keys() == {200}
        assert load.manifests.keys() == {rolling.champion.digest, rolling.challenger.digest}
    grown = rolling.rolls("canary", 6_000)
    assert replace(grown, number=plan.number, weight=plan.weight) == replace(plan, table=grown.table)
