"""The service while parts of it die, hang, and are replaced: every caller has an answer, and the log every answer."""

import json
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from mlplatform.monitoring import breaker_log
from mlplatform.monitoring.prediction_log import decode, log_folder
from mlplatform.provenance.segments import Contents, finished, read
from mlplatform.registry.bento import build_bento
from mlplatform.registry.bundle import Bundle
from mlplatform.rollout.plan import Plan
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform_tests.fakes.bento_server import Server, serving
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from mlplatform_tests.fakes.waiting import until
from serving.child_process import BEHIND, SILENT_SECONDS
from serving.roster import Roster, read_roster

pytestmark = pytest.mark.end_to_end

MODEL = "harbour/waits"
REQUEST = {"berth": "north", "length": 250.0, "flag": "NO"}
RECOVERY = 10.0
"""Seconds within which what has died is up again."""

PATIENCE = 60.0
"""The same on a machine where other tests run."""


@dataclass
class Service:
    """A running Bento and its processes."""

    home: Path
    server: Server
    bundle: Bundle
    pid: int
    plans: int = 0

    def processes(self, module: str) -> list[psutil.Process]:
        """Its processes that run a module of `serving`."""
        found = []
        served = psutil.Process(self.pid)
        for each in (served, *served.children(recursive=True)):
            try:
                if f"serving.{module}" in each.cmdline():
                    found.append(each)
            except psutil.NoSuchProcess:
                continue
        return found

    def plan(self, champion: str, **rollout: Any) -> None:
        """Let it follow a plan."""
        self.plans += 1
        write_plan(self.home, Plan(model=MODEL, champion=champion, number=self.plans, **rollout))

    def roster(self) -> Roster:
        """Which versions have workers."""
        told = self.processes("gateway_worker")[0].cmdline()
        return read_roster(Path(told[told.index("--folder") + 1]))

    def metrics(self) -> list[str]:
        """The lines of `/metrics`."""
        return self.server.ask("/metrics").text.splitlines()

    def wait_until_settled(self) -> None:
        """Wait until every gateway worker reaches both model workers, and no breaker is open."""

        def settled() -> bool:
            self.server.ask("/predict", REQUEST)  # a breaker closes by what comes through it
            told = self.server.ask("/metrics").text
            closed = f'mlplatform_breaker_state{{breaker="{MODEL}",state="closed"}} 2.0'
            return closed in told and f'mlplatform_workers_connected{{model="{MODEL}"}} 2.0' in told

        until(settled, seconds=PATIENCE, what="both gateway workers with both model workers")


@pytest.fixture
def service(running: Service) -> Service:
    """The same one for all tests, in good health."""
    running.wait_until_settled()
    return running


@pytest.fixture(scope="module", params=["", "true"], ids=["as installed", "in a container"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Bento that is served as such, and as its image would have it."""
    home = tmp_path_factory.mktemp("home")
    publish(home)
    bundle = bundle_of(home / "bundles", write_package(home / "package"))
    environment = {
        "BENTOML_HOME": str(home / "bentoml"),
        "MLPLATFORM_HOME": str(home),
        "MLPLATFORM_CLOCK": "request",
        "BENTOML_DO_NOT_TRACK": "True",
        **({"BENTOML_CONTAINERIZED": request.param} if request.param else {}),
    }
    before = {child.pid for child in psutil.Process().children()}
    with serving(build_bento(bundle.folder, home=home), folder=home, environment=environment) as server:
        (pid,) = {child.pid for child in psutil.Process().children()} - before
        server.wait_until_ready()
        yield Service(home, server, bundle, pid)


@dataclass
class Load:
    """Requests over some connections, one after the other on each, and what came of them."""

    url: str
    connections: int = 16
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    """In the id of each request, so that its rows in the log are told from those of other loads."""

    statuses: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    manifests: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    broken: int = 0
    """Requests whose connection broke."""

    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _ask(self, number: int) -> None:
        host = self.url.removeprefix("http://")
        connection, body, asked = HTTPConnection(host, timeout=30), json.dumps(REQUEST), 0
        while not self._stop.is_set():
            asked += 1
            name = f"{number}-{asked}-{self.tag}"
            began = time.monotonic()
            try:
                connection.request("POST", "/predict", body, {"X-Request-ID": name})
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, HTTPException):
                connection.close()
                with self._lock:
                    self.broken += 1
                continue
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    self.sources[told["source"]] += 1
                    self.manifests[told["manifest"]] += 1
                    self.answered.add(name)
        connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for as long as the block takes, and until it has begun well."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.connections)]
        for thread in threads:
            thread.start()
        try:
            self.goes_on()
            yield
            self.goes_on()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def goes_on(self, answers: int = 50) -> None:
        """Wait until so many more are answered."""
        enough = self.statuses.total() + answers
        until(lambda: self.statuses.total() >= enough, seconds=PATIENCE, what="answers")


def took(waited_for: Callable[[], bool], what: str) -> float:
    """Seconds until something holds."""
    began = time.monotonic()
    until(waited_for, seconds=PATIENCE, what=what)
    return time.monotonic() - began


killed_or_hung = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])


@killed_or_hung
def test_the_loss_of_a_model_worker_costs_nobody_an_answer(service: Service, how: signal.Signals) -> None:
    """Its batches are scored by the other one, in time; it has a twin again soon; no answer is logged twice."""
    load = Load(service.server.url)
    with load.running():
        victim = service.processes("model_worker")[0]
        victim.send_signal(how)

        def replaced() -> bool:
            return not victim.is_running() and len(service.processes("model_worker")) == 2

        assert took(replaced, "a second model worker") < RECOVERY
        load.goes_on(500)
    assert load.statuses.keys() == {200}
    assert load.sources.keys() == {"model"}, load.sources
    assert load.broken == 0
    assert load.slowest < service.bundle.model.serving.deadline.total_seconds()
    assert logged(service, load) == dict.fromkeys(load.answered, 1)


@killed_or_hung
def test_without_model_workers_the_fallback_answers(service: Service, how: signal.Signals) -> None:
    """Labelled, within the deadline, and the model is back by itself: what hangs is killed first."""
    deadline = service.bundle.model.serving.deadline.total_seconds()
    load = Load(service.server.url)
    with load.running():
        victims = service.processes("model_worker")
        assert len(victims) == 2
        for victim in victims:
            victim.send_signal(how)
        until(lambda: load.sources["simple_model"] + load.sources["cached"] > 20, seconds=PATIENCE, what="fallbacks")
        opened = f'mlplatform_breaker_state{{breaker="{MODEL}",state="open"}}'
        until(
            lambda: any(line.startswith(opened) and not line.endswith(" 0.0") for line in service.metrics()),
            seconds=PATIENCE,
            what="an open breaker",
        )
        until(lambda: not any(each.is_running() for each in victims), seconds=PATIENCE, what="their end")
        back = load.sources["model"] + 50
        until(lambda: load.sources["model"] > back, seconds=PATIENCE, what="the model")
    assert load.statuses.keys() == {200}
    assert load.sources.keys() <= {"model", "cached", "simple_model"}
    assert load.broken == 0
    assert load.slowest < deadline + 1.0
    assert logged(service, load) == dict.fromkeys(load.answered, 1)
    written = breaker_log.files(breaker_log.breaker_folder(service.home, service.bundle.domain.name))
    states = {line.transition.after for path in written for line in breaker_log.read(path) if line.transition}
    assert {"open", "closed"} <= states


def test_the_death_of_a_gateway_worker_breaks_its_connections_only(service: Service) -> None:
    """The others answer on; it is up again; every answer that somebody had is in the log."""
    load = Load(service.server.url)
    with load.running():
        victim = service.processes("gateway_worker")[0]
        victim.kill()
        assert took(lambda: len(service.processes("gateway_worker")) == 2, "a second gateway worker") < RECOVERY
        load.goes_on(300)
    assert load.statuses.keys() == {200}
    assert load.broken <= load.connections
    rows = logged(service, load)
    assert load.answered <= rows.keys()
    assert set(rows.values()) == {1}
    assert len(rows) - len(load.answered) <= load.broken  # answered, and the connection broke on the way


def logged(service: Service, load: Load) -> Counter[str]:
    """How often each request of a load is in the segments; those that are still open are read as they are."""
    folder = log_folder(service.home, "harbour")
    # One that is finished this moment is found under its other name.
    open_now = {path: held for path in folder.glob("*.open") if (held := _if_there(path)) is not None}
    closed = [path for path in finished(folder) if path.with_suffix(".open") not in open_now]
    read_now = [*open_now.values(), *(read(path) for path in closed)]
    assert sum(each.dropped for each in read_now) == 0
    names = (name for each in read_now for payload in each.payloads for name in decode(payload).request_id)
    return Counter(name for name in names if name.endswith(load.tag))


def _if_there(path: Path) -> Contents | None:
    try:
        return read(path)
    except FileNotFoundError:
        return None


def test_a_pause_of_the_whole_service_kills_nobody(service: Service) -> None:
    """A container that was paused goes on with the processes it had: nobody hung, and nobody asked it to end."""
    (supervisor,) = service.processes("supervisor")
    workers = [*service.processes("gateway_worker"), *service.processes("model_worker")]
    for each in (supervisor, *workers):
        each.suspend()
    # Longer than a process may be silent; nothing can be waited for, since nothing happens.
    threading.Event().wait(SILENT_SECONDS + 1.5)
    for each in (supervisor, *workers):
        each.resume()
    load = Load(service.server.url)
    with load.running():
        load.goes_on(500)
    assert [each for each in (supervisor, *workers) if not each.is_running() or each.status() == "zombie"] == []
    assert load.sources.keys() == {"model"}, load.sources


def test_without_an_online_store_the_request_alone_is_scored(service: Service) -> None:
    """Degraded, by the model; and as before when the store is there again."""
    online, away = service.home / "online", service.home / "away"
    online.rename(away)
    try:
        told = service.server.ask("/predict", REQUEST).json
        assert (told["source"], told["degraded"]) == ("model", True)
    finally:
        away.rename(online)
    until(lambda: not service.server.ask("/predict", REQUEST).json["degraded"], seconds=PATIENCE, what="the store")


def test_many_rows_are_answered_as_one_by_one(service: Service) -> None:
    """As JSON and as Arrow, to the bit; a row that breaks the contract is refused alone."""
    rows: list[dict[str, Any]] = [
        {"berth": berth, "length": length, "flag": flag}
        for berth, length, flag in [("north", 250.0, "NO"), ("south", 1e9, None), ("south", 90.5, None)]
    ]
    alone = [service.server.ask("/predict", row) for row in rows]
    assert [each.status for each in alone] == [200, 422, 200]
    together = service.server.ask("/predict/batch", rows).json["answers"]
    assert together[1]["errors"]["length"]
    sent = pl.DataFrame(rows, schema={"berth": pl.String, "length": pl.Float32, "flag": pl.String})
    kind = "application/vnd.apache.arrow.stream"
    stream = pl.read_ipc_stream(bulk(service.server.url, sent.write_ipc_stream(None).getvalue(), kind))
    assert stream["error"].is_null().to_list() == [True, False, True]
    for position in (0, 2):
        expected = alone[position].json["probability"]
        assert together[position]["probability"] == expected == stream["probability"][position]
        assert together[position]["source"] == stream["source"][position] == "model"


def bulk(url: str, body: bytes, kind: str) -> bytes:
    """The answer to `POST /predict/batch`."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/predict/batch", body, {"Content-Type": kind})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind), told
    return told


def test_a_new_champion_takes_over_without_a_failed_request(service: Service) -> None:
    """The old one stays warm and can come back; a bundle that is corrupt is refused, with the reason."""
    other = bundle_of(service.home / "bundles", write_package(service.home / "other", factor="3.0"))
    corrupt = bundle_of(service.home / "bundles", write_package(service.home / "corrupt", factor="4.0"))
    left = bundle_of(service.home / "bundles", write_package(service.home / "left", factor="5.0"))
    (corrupt.folder / "fitted.json").write_text("{}")
    load = Load(service.server.url)

    def serves(digest: str) -> bool:
        told = service.server.ask("/model").json
        return bool(told["aliases"]["champion"] == digest == told["digest"])

    def starting(digest: str) -> bool:
        return any(digest in " ".join(each.cmdline()) for each in service.processes("model_worker"))

    def refused() -> bool:
        told = service.server.ask("/model").json["refused"]
        assert told.keys() <= {corrupt.digest}, told
        return "fitted.json" in told.get(corrupt.digest, "")

    with load.running():
        service.plan(other.digest)
        until(lambda: serves(other.digest), seconds=PATIENCE, what="the new champion")
        until(lambda: service.server.ask("/model").json["aliases"].get("warm"), seconds=PATIENCE, what="the warm one")
        service.plan(corrupt.digest)
        until(refused, seconds=PATIENCE, what="the refusal")
        load.goes_on(100)
        # One that is left again before it is ready never serves, also when what is named instead is refused.
        service.plan(left.digest)
        until(lambda: starting(left.digest), seconds=PATIENCE, what="workers of the third bundle")
        service.plan(corrupt.digest)
        until(lambda: not starting(left.digest), seconds=PATIENCE, what="their end")
        service.plan(service.bundle.digest)
        until(lambda: serves(service.bundle.digest), seconds=PATIENCE, what="the old champion")
        load.goes_on(100)
    assert load.statuses.keys() == {200}
    assert load.sources.keys() == {"model"}, load.sources
    assert load.broken == 0
    assert load.manifests.keys() == {service.bundle.digest, other.digest}


def test_a_rollback_takes_a_second(service: Service) -> None:
    """A challenger gets a worker that goes behind the others, then more; the warm champion is live again at once.

    Nobody is refused or answered by a fallback meanwhile; a plan that is nonsense changes nothing.
    """
    other = bundle_of(service.home / "bundles", write_package(service.home / "rolled", factor="6.0"))
    champion = service.bundle.digest
    path = plan_path(service.home, MODEL)

    def workers(digest: str) -> list[int]:
        """How nice each of its model workers is, that the roster names and that is ready."""
        roster = service.roster()
        versions = [each for each in (roster.live, roster.warm, roster.challenger) if each and each.digest == digest]
        sockets = {socket for each in versions for socket in each.sockets if Path(socket).exists()}
        return sorted(each.nice() for each in service.processes("model_worker") if sockets & set(each.cmdline()))

    def seconds_until(look: Callable[[Roster], bool]) -> float:
        began = time.monotonic()
        until(lambda: look(service.roster()), seconds=PATIENCE, what="the roster")
        return time.monotonic() - began

    load = Load(service.server.url, connections=4)
    with load.running():
        service.plan(champion, challenger=other.digest, mode="shadow", salt="s")
        seconds_until(lambda roster: bool(roster.challenger and roster.challenger.digest == other.digest))
        assert (workers(other.digest), workers(champion)) == ([BEHIND], [0, 0])
        service.plan(champion, challenger=other.digest, mode="canary", weight=100, salt="s")
        until(lambda: workers(other.digest) == [0, 0], seconds=PATIENCE, what="two that answer")
        path.write_text("nonsense")
        load.goes_on(100)
        assert (told := service.roster().challenger) and told.digest == other.digest
        began = {each.pid for each in service.processes("model_worker")}
        service.plan(other.digest)
        assert seconds_until(lambda roster: roster.live.digest == other.digest) < 1.0
        assert {each.pid for each in service.processes("model_worker")} == began, "nothing is started"
        load.goes_on(100)
        service.plan(champion)
        assert seconds_until(lambda roster: roster.live.digest == champion) < 1.0
        until(lambda: workers(champion) == [0, 0], seconds=PATIENCE, what="its second worker")
        load.goes_on(100)
    assert load.statuses.keys() == {200}
    assert load.sources.keys() == {"model"}, load.sources
    assert load.broken == 0


ODD_BYTES = [
    b"\x00" * 100 + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n{",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
]


ODD_JSON = [
    b"[" * 60_000,
    b'{"length": 1e999}',
    b'{"length": NaN}',
    b'{"length": %s}' % (b"9" * 5_000),
    b"\xff\xfe",
]


def test_garbage_is_refused_and_leaves_nothing_behind(service: Service) -> None:
    """Half requests, wrong lengths, odd JSON, wrong methods, among a thousand idle connections: 4xx, memory flat."""
    host, _, port = service.server.url.removeprefix("http://").partition(":")
    gateways = service.processes("gateway_worker")

    def round_of_garbage() -> list[int]:
        idle = [socket.create_connection((host, int(port)), timeout=20) for _ in range(1_000)]
        for odd in ODD_BYTES * 3:
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                try:
                    connection.sendall(odd)
                    said = connection.recv(4096)
                except ConnectionError:
                    continue
            assert said == b"" or said.split()[1].startswith(b"4"), (odd[:60], said)
        for body in ODD_JSON:
            assert 400 <= service.server.ask("/predict", body).status < 500, body[:40]
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            asking = HTTPConnection(host, int(port), timeout=20)
            asking.request(method, "/predict")
            assert asking.getresponse().status == 405, method
            asking.close()
        assert service.server.ask("/predict", REQUEST).json["source"] == "model"
        for connection in idle:
            connection.close()
        return [each.memory_info().rss for each in gateways]

    round_of_garbage()  # what is taken once and kept
    # The highest of a few rounds: between them the allocator gives back some 9 MB, or does not.
    before, after = (max(max(round_of_garbage()) for _ in range(4)) for _ in range(2))
    assert after - before < 4_000_000
    assert service.server.ask("/readyz").status == 200
