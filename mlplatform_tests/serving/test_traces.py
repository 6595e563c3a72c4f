"""Traces: what a collector is sent of real requests, and what it costs them when it takes nothing."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mlplatform.registry.api_keys import ApiKeys
from mlplatform.registry.bundle import Bundle
from mlplatform.settings import settings
from mlplatform_tests.fakes.bento_server import serving
from mlplatform_tests.fakes.collector import Collector, attributes, collecting
from mlplatform_tests.fakes.model_workers import ModelWorkerProcesses
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from mlplatform_tests.fakes.waiting import until
from serving.access import Access
from serving.gateway import Gateway
from serving.metrics import Metrics
from serving.roster import Roster, Version, write_roster
from serving.traces import CLOSE_SECONDS, open_traces

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"berth": "north", "length": 251.7, "flag": "NO"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PHASES = ["queue", "features", "hop", "score"]

Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform home with a published view."""
    home = tmp_path_factory.mktemp("home")
    publish(home)
    return home


@pytest.fixture(scope="module")
def bundle(home: Path) -> Bundle:
    """A small bundle, whose answers are given again for a minute."""
    package = write_package(home / "package")
    declared = (package / "__init__.py").read_text()
    kept = declared.replace("Serving(deadline=", "Serving(cache_for=timedelta(minutes=1), deadline=")
    assert kept != declared
    (package / "__init__.py").write_text(kept)
    return bundle_of(home / "bundles", package)


@pytest.fixture(scope="module")
def roster(home: Path, bundle: Bundle) -> Iterator[Path]:
    """The folder of a roster whose live version has a worker."""
    folder = home / "run"
    folder.mkdir()
    workers = ModelWorkerProcesses(bundle.folder, folder, 1)
    workers.start()
    sockets = tuple(str(path) for path in workers.sockets)
    write_roster(folder, Roster(live=Version(bundle.digest, str(bundle.folder), sockets, "2024-05-01T12:00:00Z")))
    yield folder
    workers.stop()


@pytest.fixture(autouse=True)
def _standard(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """OpenTelemetry is told nothing but what a test tells it."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLPLATFORM_HOME", str(home))


def answering(roster: Path, talk: Callable[[Ask], Awaitable[None]], *, batches: list[Any] | None = None) -> float:
    """Run a gateway with traces as the environment says, talk to it, stop; the seconds that closing the traces took."""
    traces = open_traces()
    noted = [] if batches is None else batches

    async def ask(body: object, headers: dict[str, str] | None = None, path: str = "/predict") -> tuple[int, Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
        await gateway(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    async def live() -> None:
        await gateway.start()
        await talk(ask)
        await gateway.stop()

    gateway = Gateway(
        roster,
        settings(),
        access=Access(ApiKeys(roster / "keys"), required=False),
        metrics=Metrics(roster / "metrics"),
        log=traces.noting(lambda live, batch: noted.append(batch)),
        traced=traces.around,
    )
    asyncio.run(live())
    began = time.monotonic()
    traces.close()
    return time.monotonic() - began


def requests(collector: Collector) -> dict[object, Span]:
    """By request id, the span of each request."""
    return {attributes(span)["mlplatform.request_id"]: span for span in collector.spans if span.name == "POST /predict"}


def phases(collector: Collector, parent: Span) -> list[Span]:
    """The spans below one, in their order."""
    below = [span for span in collector.spans if span.parent_span_id == parent.span_id]
    return sorted(below, key=lambda span: (span.start_time_unix_nano, PHASES.index(span.name)))


def test_a_request_goes_on_the_trace_of_its_caller(
    roster: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One span below the caller's, which says what was answered, with the phases of its batch inside it."""
    batches: list[Any] = []

    async def talk(ask: Ask) -> None:
        status, answer = await ask(REQUEST, {"X-Request-ID": "r1", "traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert (status, answer["request_id"], answer["source"]) == (200, "r1", "model")

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        before = time.time_ns()
        answering(roster, talk, batches=batches)
        after = time.time_ns()
    span = requests(collector)["r1"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "mlplatform.request_id": "r1",
        "mlplatform.model": "harbour/waits",
        "mlplatform.model_version": bundle.manifest.model_version,
        "mlplatform.manifest": bundle.digest,
        "mlplatform.source": "model",
        "mlplatform.degraded": False,
        "mlplatform.batch_rows": 1,
    }
    below = phases(collector, span)
    assert [each.name for each in below] == PHASES
    assert {each.trace_id.hex() for each in below} == {TRACE}
    edges = [span.start_time_unix_nano]
    for each in below:
        edges += [each.start_time_unix_nano, each.end_time_unix_nano]
    edges.append(span.end_time_unix_nano)
    assert edges == sorted(edges)
    assert before <= edges[0] and edges[-1] <= after
    (batch,) = batches
    took = [(each.end_time_unix_nano - each.start_time_unix_nano) / 1e9 for each in below]
    assert took == pytest.approx([batch.queue, batch.computing, batch.hop, batch.scoring], abs=1e-6)
    assert collector.services == {"mlplatform"}


def test_no_value_stands_in_a_span(roster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was asked nor what came of it, nor the names of fields that a caller made up."""

    async def talk(ask: Ask) -> None:
        assert (await ask(REQUEST))[0] == 200
        assert (await ask({**REQUEST, "length": "confidential"}))[0] == 422

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        answering(roster, talk)
    assert len(requests(collector)) == 2
    values = re.findall(rb"north|251\.7|berth|flag|confidential|probability", collector.bytes)
    assert values == []


def test_each_of_many_at_once_has_its_own_span(roster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that bear the same id, those that are answered together, from the cache, refused, or not sampled."""

    async def talk(ask: Ask) -> None:
        several = [ask({**REQUEST, "length": 100.0 + row}, {"X-Request-ID": f"r{row}"}) for row in range(20)]
        same = [ask({**REQUEST, "length": 200.0 + row}, {"X-Request-ID": "same"}) for row in range(3)]
        wrong = ask({"berth": 3}, {"X-Request-ID": "wrong"})
        unsampled = ask(REQUEST, {"X-Request-ID": "unsampled", "traceparent": f"00-{TRACE}-{PARENT}-00"})
        statuses = [status for status, _ in await asyncio.gather(*several, *same, wrong, unsampled)]
        assert statuses == [200] * 23 + [422, 200]
        assert (await ask({**REQUEST, "length": 100.0}, {"X-Request-ID": "again"}))[0] == 200
        assert (await ask([REQUEST] * 2, {"X-Request-ID": "bulk"}, "/predict/batch"))[0] == 200

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        answering(roster, talk)
    spans = requests(collector)
    assert spans.keys() == {*(f"r{row}" for row in range(20)), "same", "wrong", "again"}
    told = [attributes(span) for span in collector.spans if span.name == "POST /predict"]
    assert sorted(str(each["mlplatform.request_id"]) for each in told).count("same") == 3
    assert all(each["mlplatform.source"] for each in told if each["mlplatform.request_id"] != "wrong")
    for name, span in spans.items():
        below = [each.name for each in phases(collector, span)]
        assert below == ([] if name in ("wrong", "again") else PHASES), name
    assert attributes(spans["wrong"])["http.response.status_code"] == 422
    assert "mlplatform.source" not in attributes(spans["wrong"])
    assert {span.status.code for span in spans.values()} == {Status.STATUS_CODE_UNSET}


def test_what_is_sampled_is_told_by_the_standard_variable(roster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, here."""

    async def talk(ask: Ask) -> None:
        assert (await ask(REQUEST))[0] == 200

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        answering(roster, talk)
        assert not collector.asked.is_set()


@pytest.mark.parametrize("how", ["down", "hangs"])
def test_a_collector_that_takes_nothing_costs_spans_only(
    how: str, roster: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers go on, from the model and within their time, past the end of the queue; and the process ends in time."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    slowest = [0.0]

    async def talk(ask: Ask) -> None:
        # 5 spans each: some of them are being sent, the queue is full, and the rest is dropped.
        for row in range(100):
            began = time.monotonic()
            status, answer = await ask({**REQUEST, "length": 20.0 + row})
            assert (status, answer["source"]) == (200, "model")
            slowest[0] = max(slowest[0], time.monotonic() - began)

    with collecting(hangs=True) as collector:
        url = collector.url
        if how == "down":
            with socket.create_server(("127.0.0.1", 0)) as free:
                url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        closing = answering(roster, talk)
        assert collector.asked.is_set() == (how == "hangs")
    assert slowest[0] < bundle.model.serving.deadline.total_seconds() / 2
    assert closing < CLOSE_SECONDS + 1


STARTED = """
import socket, sys
import uvicorn
from serving import gateway_worker

uvicorn.Server.run = lambda server, sockets: None
with socket.create_server(("127.0.0.1", 0)) as listening:
    told = {"--listening": listening.detach(), "--folder": sys.argv[1], "--number": 1, "--of": 1}
sys.argv[1:] = [str(each) for pair in told.items() for each in pair]
gateway_worker.main()
print(*sorted({name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))}))
"""


@pytest.mark.parametrize(
    ("told", "loaded"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
    ],
    ids=["nothing", "empty", "disabled", "no exporter", "endpoint", "endpoint of traces"],
)
def test_without_an_endpoint_nothing_of_it_is_loaded(told: dict[str, str], loaded: bool, tmp_path: Path) -> None:
    """A gateway worker imports neither OpenTelemetry nor protobuf, unless it is told where to send spans."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(tmp_path)],
        env={**os.environ, "MLPLATFORM_HOME": str(tmp_path), **told},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    assert bool(modules) == loaded, modules
    assert ("opentelemetry.exporter.otlp.proto.http.trace_exporter" in modules) == loaded


@pytest.mark.end_to_end
def test_the_service_sends_what_its_environment_says(home: Path, bundle: Bundle, tmp_path: Path) -> None:
    """From the variable given to `bentoml serve`, through supervisor and gateway worker, to the collector."""
    with collecting() as collector:
        environment = {
            "BENTOML_HOME": str(tmp_path / "bentoml"),
            "MLPLATFORM_HOME": str(home),
            "MLPLATFORM_BUNDLE": str(bundle.folder),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_SERVICE_NAME": "harbour",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "PYTHONPATH": str(ROOT),
        }
        with serving("serving.service:service", folder=tmp_path, environment=environment) as server:
            server.wait_until_ready()
            told = {"X-Request-ID": "case-7", "traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert server.ask("/predict", REQUEST, told).status == 200
            span = until(lambda: requests(collector).get("case-7"), seconds=30, what="the span")
            until(lambda: len(phases(collector, span)) == len(PHASES), seconds=30, what="its phases")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert collector.services == {"harbour"}
