"""What serving costs: our gateway beside the usual ways to serve a tabular model from Python, in one go.

All servers are up at once and asked in turn, in interleaved rounds, so that a noisy neighbour of this machine meets
everybody: the servers on one core, the client on another. CPU time per request is the steadiest figure; the others mean
something on an idle machine only. Before any is measured, each must have given the same score for the same row.

`make bench-serving ARGS="--rounds 3 --seconds 5"`. The peers are installed below `var/bench/serving` by uv, each into
an environment of its own; what is there already is used again.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import xgboost as xgb

from bench import plain_domain
from bench.aims import aim
from bench.load import Load, generator, load, pinned
from bench.peers import PEERS, Peer, Row
from mlplatform.domains.flight_delay import DOMAIN as flight_delay
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.scoring.calibration import Calibration
from mlplatform.scoring.simple_model import SimpleModel
from serving.api_page import ARROW

HOME = Path("var/bench/serving").absolute()
ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CONNECTIONS = (1, 16, 64)
START_SECONDS = 90.0
WARM_UP_SECONDS = 1.0
SERVER_CORE, CLIENT_CORE = 0, 1

OURS, INSIDE, EMPTY = "ours", "ours, scoring inside", "empty ASGI app"
FLIGHTS = "ours, flight features"
PHASES = ("queue", "features", "hop", "score")
BULK_ROWS = 100_000
DOCUMENTED = "BentoML, batchable"


@dataclass
class Server:
    """A server that is up."""

    name: str
    url: str
    body: bytes
    process: "subprocess.Popen[bytes]"
    metrics: str | None
    """Address of its figures; None: it is not ours."""

    runs: dict[int, list["Run"]] = field(default_factory=dict)
    """Connections -> by round."""

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        parent = psutil.Process(self.process.pid)
        spent = 0.0
        for each in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                spent += times.user + times.system
        return spent

    def measure(self, connections: int, seconds: float) -> None:
        """One run."""
        phases, busy, spent = self.phases(), _busy_seconds(SERVER_CORE), self.cpu_seconds()
        met = load(self.url, self.body, connections=connections, seconds=seconds, core=CLIENT_CORE)
        spent, busy = self.cpu_seconds() - spent, _busy_seconds(SERVER_CORE) - busy
        after = self.phases()
        self.runs.setdefault(connections, []).append(
            Run(
                load=met,
                cpu=spent / max(1, met.requests),
                others=max(0.0, busy - spent) / met.seconds,
                phases={name: value - phases.get(name, 0.0) for name, value in after.items()},
            )
        )

    def phases(self) -> dict[str, float]:
        """Seconds by phase, and counts, of all batches so far; empty where it is not ours.

        Under `batches`, `rows` and `answers` stands how many there were, under `model` how many answers were its own.
        """
        if self.metrics is None:
            return {}
        with urllib.request.urlopen(self.metrics, timeout=20) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if line[:1] != "#"]
        told = {name: float(value) for name, _, value in lines}
        sums = {name: told[f'mlplatform_phase_seconds_sum{{phase="{name}"}}'] for name in PHASES}
        counted = {name: value for name, value in told.items() if name.startswith("mlplatform_predictions_total{")}
        sums["answers"] = sum(counted.values())
        sums["model"] = sum(value for name, value in counted.items() if 'source="model"' in name)
        return {**sums, "batches": told["mlplatform_batch_rows_count"], "rows": told["mlplatform_batch_rows_sum"]}

    def figure(self, connections: int, read: "Callable[[Run], float]") -> tuple[float, float, float]:
        """Least, median and largest over the rounds."""
        values = [read(run) for run in self.runs[connections]]
        return min(values), statistics.median(values), max(values)


@dataclass(frozen=True)
class Run:
    """One server in one round at one number of connections."""

    load: Load
    cpu: float
    """Seconds of CPU per request, of all processes of the server."""

    others: float
    """Share of the server's core that went to others: what the rate and the waits suffered from."""

    phases: dict[str, float]


def per_second(run: Run) -> float:
    """Answers a second."""
    return run.load.per_second


def cpu_micros(run: Run) -> float:
    """Microseconds of CPU per request."""
    return run.cpu * 1e6


def p50_ms(run: Run) -> float:
    """Median time to an answer, milliseconds."""
    return run.load.p50 * 1e3


def p99_ms(run: Run) -> float:
    """99th percentile of it."""
    return run.load.p99 * 1e3


def others_percent(run: Run) -> float:
    """Share of the core that others had."""
    return run.others * 100


def _busy_seconds(core: int) -> float:
    times = psutil.cpu_times(percpu=True)[core]
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def plain_bundle(version: str = "2024-01-01-ab12cd34", *, code: str = "") -> Bundle:
    """The plain model, trained on made-up rows; the same one each time but for its version, and code added to its."""
    package = HOME / f"package{len(code) or ''}" / "plain"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(Path(plain_domain.__file__).read_text() + code)
    random = np.random.default_rng(20240101)
    inputs = random.normal(size=(20_000, plain_domain.COLUMNS)).astype(np.float32)
    tendency = inputs[:, 0] * inputs[:, 1] + np.sin(3 * inputs[:, 2]) + inputs[:, 3:12].sum(axis=1) / 3
    labels = (tendency + random.normal(size=len(inputs)) > 0).astype(np.float32)
    settings = plain_domain.DOMAIN.model("model").settings
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": settings.max_depth, "nthread": 1, "seed": settings.seed},
        xgb.DMatrix(inputs, label=labels),
        num_boost_round=settings.rounds,
    )
    requests = pl.DataFrame(inputs[:8].astype(np.float64), schema=plain_domain.NAMES).with_columns(
        at=pl.lit(0, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    )
    scores = raw_scores(booster, matrix(plain_domain.of_request(requests)))
    return write_bundle(
        HOME / "bundles",
        domain=plain_domain.DOMAIN,
        model=plain_domain.DOMAIN.model("model"),
        booster=booster,
        calibration=Calibration(),
        simple=SimpleModel(
            task="binary", features=("x00",), means=(0.0,), scales=(1.0,), weights=((0.1,),), intercepts=(0.0,)
        ),
        fitted={},
        view_versions={},
        record=_record(),
        model_version=version,
        rollback_target=None,
        golden=(requests, scores),
        code=package,
    )


def _record() -> Record:
    return Record(
        inputs={},
        training_set="made up",
        code={},
        commit=None,
        dirty=None,
        lock="",
        python=sys.version.split()[0],
        versions={},
        configuration="",
        seeds={"booster": 20240101},
        threads=1,
        device="cpu",
    )


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    url: str,
    body: Any,
    folder: Path,
    *,
    metrics: str | None = None,
    core: int | None = SERVER_CORE,
    told: Mapping[str, str],
) -> Iterator[Server]:
    """A server on its core, until it has answered once; ended with all its processes."""
    ours = ("MLPLATFORM_", "BENTOML_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", **told}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(list(command), core),
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(name, url, json.dumps(body).encode(), process, metrics)
    try:
        _wait(server, log)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait(server: Server, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < until:
        try:
            ask(server)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"{server.name} does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def ask(server: Server) -> Any:
    """One answer, decoded."""
    request = urllib.request.Request(server.url, data=server.body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def peer_running(peer: Peer, row: Row, model: Path) -> Iterator[Server]:
    """A peer, in its own environment and folder."""
    folder = HOME / "peers" / "".join(letter if letter.isalnum() else "-" for letter in peer.name.lower())
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    for name, text in peer.files(port).items():
        (folder / name).write_text(text)
    shutil.copyfile(model, folder / "model.ubj")
    binaries = environment(peer.packages) if peer.packages else BIN
    program, *arguments = peer.command(port)
    command = [str(binaries / program), *arguments]
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    told = {"PATH": path, "BENTOML_HOME": str(folder / "bentoml"), **peer.environment}
    address = f"http://127.0.0.1:{port}{peer.path}"
    with running(peer.name, command, address, peer.body(row), folder, told=told) as server:
        score = peer.score(ask(server))
        if score is not None:
            _compare(peer.name, score, row, model)
        yield server


def environment(packages: Sequence[str]) -> Path:
    """The programs of an environment with some packages, installed when they were not."""
    folder = HOME / "environments" / packages[0].partition("=")[0]
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        print(f"installing {packages[0]} and what it needs")
        uv = str(BIN / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages]
        subprocess.run(install, check=True)
        stamp.write_text("\n".join(packages))
    return folder / "bin"


@contextlib.contextmanager
def ours_running(name: str, bundle: Path, home: Path, body: Any, gateways: int) -> Iterator[Server]:
    """Our service as `bentoml serve` starts it, with everything on that it has."""
    folder = HOME / name.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(BIN / "bentoml"), "serve", "serving.service:service", "--host", "127.0.0.1", "--port", str(port)]
    told = {
        "PYTHONPATH": str(ROOT),
        "MLPLATFORM_HOME": str(home),
        "MLPLATFORM_BUNDLE": str(bundle),
        "MLPLATFORM_GATEWAY_WORKERS": str(gateways),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    url = f"{address}/predict"
    with running(name, command, url, body, folder, metrics=f"{address}/metrics", told=told) as server:
        wait_for_model(server)
        yield server


@contextlib.contextmanager
def plain_running(bundle: Bundle, row: Row, gateways: int) -> Iterator[Server]:
    """Our service with the plain model."""
    with ours_running(OURS, bundle.folder, HOME / "home", named(row), gateways) as server:
        _compare(OURS, ask(server)["probability"], row, bundle.folder / "model.ubj")
        yield server


@contextlib.contextmanager
def flights_running(bundle: Path, gateways: int) -> Iterator[Server]:
    """Our service with the flight model and a copy of its online store."""
    home = HOME / "flights-home"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(bundle.parents[1] / "online", home / "online")
    # Without `at`: the store is asked as of now, as it is in production; past values are found, and found expired.
    body = {name: value for name, value in flight_delay.requests.example.items() if name != "at"}
    with ours_running(FLIGHTS, bundle, home, body, gateways) as server:
        yield server


def flight_bundle(home: Path) -> Path | None:
    """The newest bundle of the flight model in a platform home that has an online store."""
    if not (home / "online").is_dir():
        return None
    manifests = sorted(home.glob("bundles/*/manifest.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [path.parent for path in manifests if "model: flight_delay/late_arrival\n" in path.read_text()]
    return found[0] if found else None


@contextlib.contextmanager
def inside_running(bundle: Bundle, row: Row) -> Iterator[Server]:
    """The same gateway worker with the scoring in its own process."""
    folder = HOME / "inside"
    folder.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "bench.scoring_inside", "--bundle", str(bundle.folder)]
    command += ["--folder", str(folder / "run"), "--port", str(port)]
    told = {"PYTHONPATH": str(ROOT), "MLPLATFORM_HOME": str(HOME / "home"), "POLARS_MAX_THREADS": "1"}
    url = f"{address}/predict"
    with running(INSIDE, command, url, named(row), folder, metrics=f"{address}/metrics", told=told) as server:
        wait_for_model(server)
        _compare(INSIDE, ask(server)["probability"], row, bundle.folder / "model.ubj")
        yield server


def named(row: Row) -> dict[str, float]:
    """A row as a request."""
    return dict(zip(plain_domain.NAMES, row.tolist(), strict=True))


def wait_for_model(server: Server) -> None:
    """A gateway that is up before its workers answers from the fallback, and says so."""
    until = time.monotonic() + 20
    while (answer := ask(server))["source"] != "model":
        if time.monotonic() > until:
            raise SystemExit(f"{server.name} does not answer with the model: {answer}")
        time.sleep(0.2)


def _compare(name: str, score: float, row: Row, model: Path) -> None:
    booster = xgb.Booster(model_file=str(model))
    booster.set_param({"nthread": 1})
    expected = float(booster.inplace_predict(row.reshape(1, -1))[0])
    if abs(score - expected) > 1e-6:
        raise SystemExit(f"{name} answers {score}, the model says {expected}: nothing is comparable")


def free_port() -> int:
    """A port that is free now; two more above it are taken by none of ours."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


COLUMNS = (cpu_micros, per_second, p50_ms, p99_ms, others_percent)


def report(servers: Sequence[Server]) -> None:
    """A table for each number of connections, then the aims."""
    for connections in CONNECTIONS:
        print(f"\n{connections} connection{'s' if connections > 1 else ''}: min – median – max of the rounds\n")
        print("| server | CPU µs / request | requests / s | p50 ms | p99 ms | % of the core for others | errors |")
        print("|---|---|---|---|---|---|---|")
        for server in sorted(servers, key=lambda each: each.figure(connections, cpu_micros)[1]):
            cells = [server.figure(connections, read) for read in COLUMNS]
            digits = (0, 0, 2, 1, 0)
            shown = [" – ".join(f"{value:,.{n}f}" for value in cell) for cell, n in zip(cells, digits, strict=True)]
            errors = sum(run.load.errors for run in server.runs[connections])
            print(f"| {server.name} | {' | '.join(shown)} | {errors or ''} |")
    by_name = {server.name: server for server in servers}
    if OURS not in by_name:
        return
    _print_phases(servers)
    print(f"\nratios, round by round: min – median – max; load by {generator()}\n")
    ours = by_name[OURS]
    for name, server in by_name.items():
        if name != OURS:
            for connections in CONNECTIONS:
                print(f"{name}, {connections:>2}: {_shown(_ratios(ours, server, connections, per_second))} × its rate")
    _aims(ours, by_name)


def _print_phases(servers: Sequence[Server]) -> None:
    """Where the time of a batch goes, and of a request."""
    print("\nmicroseconds of a batch by phase, medians of the rounds; then the CPU of a request\n")
    names = [
        "server",
        "connections",
        "rows / batch",
        *PHASES,
        "by the model",
        "CPU / request",
        "its features and score",
        "its rest",
    ]
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for server in servers:
        for connections in CONNECTIONS if server.metrics else ():
            runs = [run for run in server.runs[connections] if run.phases["batches"]]
            rows = statistics.median(run.phases["rows"] / run.phases["batches"] for run in runs)
            spent = [
                statistics.median(run.phases[name] / run.phases["batches"] * 1e6 for run in runs) for name in PHASES
            ]
            cpu = statistics.median(cpu_micros(run) for run in runs)
            worked = (spent[1] + spent[3]) / rows
            # An answer of the fallback costs less: a server that gives many of them is not to be compared.
            share = statistics.median(run.phases["model"] / run.phases["answers"] for run in runs)
            told = [*(f"{each:,.0f}" for each in spent), f"{share:.1%}"]
            cells = [f"{rows:.1f}", *told, *(f"{each:,.0f}" for each in (cpu, worked, cpu - worked))]
            print(f"| {server.name} | {connections} | {' | '.join(cells)} |")


def measure_bulk(server: Server, bundle: Bundle, rounds: int) -> None:
    """Many rows in one request, beside the booster alone on the same rows and the same core."""
    inputs = np.random.default_rng(8).normal(size=(BULK_ROWS, plain_domain.COLUMNS)).astype(np.float32)
    stream = io.BytesIO()
    pl.DataFrame(inputs, schema=plain_domain.NAMES).write_ipc_stream(stream, compression="uncompressed")
    url = f"{server.url}/batch"
    booster = xgb.Booster(model_file=str(bundle.folder / "model.ubj"))
    booster.set_param({"nthread": 1})
    everywhere = os.sched_getaffinity(0)
    shares = []
    for _ in range(rounds):
        request = urllib.request.Request(url, data=stream.getvalue(), headers={"Content-Type": ARROW})
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            answered = pl.read_ipc_stream(answer.read())
        served = time.perf_counter() - began
        os.sched_setaffinity(0, {SERVER_CORE})
        began = time.perf_counter()
        scores = booster.inplace_predict(inputs)
        alone = time.perf_counter() - began
        os.sched_setaffinity(0, everywhere)
        if not np.allclose(answered["probability"].to_numpy(), scores, rtol=0, atol=1e-6):
            raise SystemExit("the bulk answers are not the booster's")
        print(f"bulk: {BULK_ROWS / served:,.0f} rows/s over HTTP, {BULK_ROWS / alone:,.0f} of the booster alone")
        shares.append(alone / served)
    _aim("bulk_share_of_booster", statistics.median(shares), ">=", 0.8)


def _aims(ours: Server, by_name: dict[str, Server]) -> None:
    print()
    peers = [server for name, server in by_name.items() if server.metrics is None and name != EMPTY]
    if peers:
        best = max(peers, key=lambda each: each.figure(64, per_second)[1])
        _aim("rate_of_best_peer", statistics.median(_ratios(ours, best, 64, per_second)), ">=", 12)
        quickest = min(each.figure(1, p50_ms)[1] for each in peers)
        _aim("p50_ms.one_connection", ours.figure(1, p50_ms)[1], "<=", quickest)
    if DOCUMENTED in by_name:
        _aim(
            "rate_of_documented_bento", statistics.median(_ratios(ours, by_name[DOCUMENTED], 64, per_second)), ">=", 40
        )
    if EMPTY in by_name:
        _aim("cpu_of_empty_app", statistics.median(_ratios(ours, by_name[EMPTY], 64, cpu_micros)), "<=", 2.5)
    if FLIGHTS in by_name:
        ratios = _ratios(by_name[FLIGHTS], ours, 64, per_second)
        _aim("flights_share_of_plain", statistics.median(ratios), ">=", 0.6)
    _aim("p99_ms", ours.figure(64, p99_ms)[1], "<=", 10)
    if INSIDE in by_name:
        hop = ours.figure(64, cpu_micros)[1] - by_name[INSIDE].figure(64, cpu_micros)[1]
        print(f"the hop to a model worker: {hop:.0f} µs of CPU per request at 64 connections")


def _ratios(ours: Server, other: Server, connections: int, read: Callable[[Run], float]) -> list[float]:
    rounds = zip(ours.runs[connections], other.runs[connections], strict=True)
    return [read(left) / max(1e-9, read(right)) for left, right in rounds]


def _shown(values: Sequence[float]) -> str:
    return f"{min(values):.2f} – {statistics.median(values):.2f} – {max(values):.2f}"


def _aim(name: str, value: float, sign: str, bound: float) -> None:
    aim(f"serving.{name}", value, sign, bound, form=".2f", limit_form=".2f")


def main() -> None:
    """Start everything, measure in rounds, print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--gateways", type=int, default=1, help="gateway workers of ours; the peers have one")
    arguments.add_argument("--only", help="names of servers, separated by semicolons; default: all")
    arguments.add_argument("--home", type=Path, default=Path("var"), help="platform home with a flight model, if any")
    given = arguments.parse_args()
    bundle = plain_bundle()
    row = np.random.default_rng(7).normal(size=plain_domain.COLUMNS).astype(np.float32)
    starts: dict[str, contextlib.AbstractContextManager[Server]] = {
        OURS: plain_running(bundle, row, given.gateways),
        INSIDE: inside_running(bundle, row),
        **{peer.name: peer_running(peer, row, bundle.folder / "model.ubj") for peer in PEERS},
    }
    flights = flight_bundle(given.home.absolute())
    if flights is None:
        print(f"no flight model in {given.home}: `make demo` makes one; its features are not measured")
    else:
        starts[FLIGHTS] = flights_running(flights, given.gateways)
    chosen = given.only.split(";") if given.only else list(starts)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(starts[name]) for name in chosen]
        print(f"{len(servers)} servers up; {', '.join(chosen)}", flush=True)
        for server in servers:
            for connections in CONNECTIONS:
                load(server.url, server.body, connections=connections, seconds=WARM_UP_SECONDS, core=CLIENT_CORE)
        for number in range(given.rounds):
            for connections in CONNECTIONS:
                for server in servers:
                    server.measure(connections, given.seconds)
            print(f"round {number + 1} of {given.rounds}", flush=True)
        report(servers)
        for server in servers:
            if server.name == OURS:
                measure_bulk(server, bundle, given.rounds)


if __name__ == "__main__":
    main()
