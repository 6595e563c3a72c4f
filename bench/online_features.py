"""Online reads of features beside Feast's SDK: one key and a hundred, over three views of five features.

Ours on LMDB and on Redis, Feast's SDK on SQLite and on Redis; the Redis is one, started here, on the loopback. Every
round runs each of them in a process of its own, over the same keys, of which one in ten is nobody's; everything that
is told, statuses and revisions too, is compared with the values that the views were made with.

Ours by the two entries of the store, `find` (one key, in Python's own types) and `lookup` (a frame of keys, as the
gateway asks), and by the one of a notebook, `FeatureStore.get_online_features(…, statuses=True)`. Feast by
`get_online_features(…).to_dict()`, its registry in memory. Each is given lists of keys, and makes of them what it needs
within the time that is taken. 111,000 entities, since Feast takes a second to write ten thousand.

Publishing is ours alone: a million entities of one day into an empty store, and the next day onto them.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from redis import Redis
from redis.exceptions import RedisError

from bench.feast_online import FEAST
from bench.made_features import FIRST, HOME, OURS_HOME, VIEWS, Made, aim, domain, make_views, python_with, spread
from mlplatform.errors import Unavailable
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.online.publish import publish_values
from mlplatform.features.online.store import Found, Lookup, open_online_store
from mlplatform.features.tables import partition_end
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

AT = datetime(FIRST.year + 1, 1, 1, tzinfo=UTC)
"""When is asked: every view has a partition that is younger than its time to live."""

MICROS = int(AT.timestamp()) * 1_000_000
ASKS = {1: 2000, 100: 200}
"""Keys at once -> how often."""

TURNS = 20
"""Of each in a round, one after the other: a neighbour's quarter of a minute falls on all of them."""

WIDE = (Made("wide", 1_000_000, 2),)
WIDE_HOME = HOME / "wide"
FEATURES = [name for made in VIEWS for name in made.features]

Keys = Mapping[str, Sequence[int]]
"""By key column."""


def online(rounds: int) -> None:
    """Fill the stores, run the rounds, compare, and print the table and the aims."""
    make_views(WIDE, WIDE_HOME)
    asks = _asks()
    (HOME / "asks.json").write_text(json.dumps(asks))
    with _redis() as port:
        ours = {"ours, LMDB": str(HOME.absolute() / "lmdb"), "ours, Redis": f"redis://127.0.0.1:{port}"}
        feast = {
            "Feast, SQLite": (
                python_with("Feast", ("feast[duckdb]",)),
                {"type": "sqlite", "path": str(HOME.absolute() / "online.db")},
            ),
            "Feast, Redis": (
                python_with("Feast on Redis", ("feast[redis]",)),
                {"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            ),
        }
        for address in ours.values():
            publish_values(_platform(OURS_HOME, address), domain(), full=True)
        written = {name: _said(_feast_command("fill", *how), HOME) for name, how in feast.items()}
        print("; ".join(f"{name} writes {rows:,.0f} rows/s" for name, rows in written.items()), flush=True)
        commands = {name: _ours(f"read({address!r})") for name, address in ours.items()}
        commands |= {name: _feast_command("read", *how) for name, how in feast.items()}
        published = [_said(_ours("publish()"), None) for _ in range(rounds)]
        took, refused = _turns(commands, rounds)
        different = {name: _different(name, asks) for name in commands}
    print("what is told otherwise than it was made: " + ", ".join(f"{name} {rows}" for name, rows in different.items()))
    if refused:
        print(f"{refused} reads of ours found Redis later than their time budget; they count with what they took")
    _table(took, published, sum(different.values()))


def read(address: str) -> None:
    """Time every entry of ours, and write down what it told; runs in a process of its own."""
    store, names = open_online_store(address), [f"{domain().name}/{made.name}" for made in VIEWS]
    features = FeatureStore(_platform(OURS_HOME, address), domain(), online=store, now=lambda: AT)

    def find(keys: Keys) -> list[Found]:
        return [store.find(name, (keys[made.key][0],), MICROS) for name, made in zip(names, VIEWS, strict=True)]

    def lookup(keys: Keys) -> list[Lookup]:
        rows = pl.DataFrame(keys)
        at = pl.Series("at", [MICROS]).new_from_index(0, rows.height).cast(instant)
        return [store.lookup(name, rows, at) for name in names]

    def notebook(keys: Keys) -> pl.DataFrame:
        return features.get_online_features(pl.DataFrame(keys), [f"{made.name}:*" for made in VIEWS], statuses=True)

    ways: dict[str, Callable[[Keys], Any]] = {"find": find, "lookup": lookup, "get_online_features": notebook}
    answers: list[tuple[str, Keys, Any]] = []
    every = _asks()
    for turn in sys.stdin:
        took: dict[str, list[float]] = {}
        refused = 0
        for size, asks in every.items():
            for way, ask in ways.items():
                if way == "find" and size > 1:
                    continue
                micros = took[f"{way} {size}"] = []
                for keys in asks[int(turn) :: TURNS]:
                    started = time.perf_counter_ns()
                    try:
                        answer = ask(keys)
                    except Unavailable:
                        answer = None
                    micros.append((time.perf_counter_ns() - started) / 1000)
                    refused += answer is None
                    answers.append((way, keys, _patient(ask, keys) if answer is None else answer))
        print(json.dumps([took, refused]), flush=True)
    rows_of: dict[str, Callable[[Any], pl.DataFrame]] = {
        "find": _of_finds,
        "lookup": _of_lookups,
        "get_online_features": _of_notebook,
    }
    columns = [*FEATURES, *_statuses, *_revisions]
    told = [pl.DataFrame(keys).hstack(rows_of[way](answer).select(columns)) for way, keys, answer in answers]
    pl.concat(told).write_parquet(_result(f"ours, {'Redis' if store.remote else 'LMDB'}"))


def publish() -> None:
    """Publish a million entities into an empty store, and a day more; runs in a process of its own."""
    folder = HOME.absolute() / "published"
    shutil.rmtree(folder, ignore_errors=True)
    platform, wide = _platform(WIDE_HOME, str(folder)), domain(WIDE)
    rates = []
    for day in WIDE[0].days:
        started, worked = time.perf_counter(), time.process_time()
        publish_values(platform, wide, as_of=day.isoformat())
        rates += [WIDE[0].keys / (time.perf_counter() - started), WIDE[0].keys / (time.process_time() - worked)]
    print(json.dumps(rates))


_statuses = [f"{made.name}__status" for made in VIEWS]
_revisions = [f"{made.name}__revision" for made in VIEWS]


# Made of the answers when all is timed: in between it would leave the caches to itself.
def _of_finds(answer: Sequence[Found]) -> pl.DataFrame:
    told: dict[str, Any] = {}
    for made, found in zip(VIEWS, answer, strict=True):
        values = found.values or [None] * len(made.features)
        told |= dict(zip(made.features, values, strict=True))
        told |= {f"{made.name}__status": found.status, f"{made.name}__revision": found.revision}
    floats = dict.fromkeys(FEATURES, pl.Float64())
    return pl.DataFrame([told], schema_overrides={**floats, **dict.fromkeys(_revisions, pl.Int64())})


def _of_lookups(answer: Sequence[Lookup]) -> pl.DataFrame:
    return pl.concat(
        [
            found.values.with_columns(
                found.statuses.alias(f"{made.name}__status"), found.revisions.alias(f"{made.name}__revision")
            )
            for made, found in zip(VIEWS, answer, strict=True)
        ],
        how="horizontal",
    )


def _of_notebook(answer: pl.DataFrame) -> pl.DataFrame:
    # Those of a view's first feature stand for the view's.
    kinds = ("status", "revision")
    return answer.rename({f"{made.features[0]}__{kind}": f"{made.name}__{kind}" for made in VIEWS for kind in kinds})


def _patient(ask: Callable[[Keys], Any], keys: Keys) -> Any:
    """An answer, however late Redis is on a busy machine."""
    for _ in range(100):
        try:
            return ask(keys)
        except Unavailable as error:
            late = error
    raise late


def _asks() -> dict[int, list[Keys]]:
    """Keys at once -> what is asked, the same for all."""
    chance = np.random.default_rng(20240102)
    return {
        size: [{made.key: chance.integers(0, made.keys * 11 // 10, size).tolist() for made in VIEWS} for _ in range(of)]
        for size, of in ASKS.items()
    }


def _platform(home: Path, address: str) -> Platform:
    return Platform(home=home.absolute(), online_store=address)


def _turns(commands: Mapping[str, Sequence[str]], rounds: int) -> tuple[dict[str, list[list[float]]], int]:
    """Let all take turns, a fraction of a second each; microseconds by name and way, round by round, and refusals."""
    took: dict[str, list[list[float]]] = {}
    refused = 0
    with ExitStack() as stack:
        running = {name: stack.enter_context(_talking(name, command)) for name, command in commands.items()}
        for turn in range(-1, rounds * TURNS):
            # The first turn warms up; each begins with another one.
            start = turn % len(running)
            for name in [*running][start:] + [*running][:start]:
                micros, late = _told(running[name], max(turn, 0) % TURNS)
                refused += late
                for way, each in micros.items():
                    of = took.setdefault(f"{name}, {way}", [])
                    if turn >= 0 and turn % TURNS == 0:
                        of.append([])
                    if turn >= 0:
                        of[-1] += each
    return took, refused


@contextmanager
def _talking(name: str, command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that takes a turn for each line it is given, and writes down what it told when there are no more."""
    where = HOME if name.startswith("Feast") else None
    child = subprocess.Popen(
        command, cwd=where, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
        assert child.stdin is not None
        child.stdin.close()
        if child.wait():
            raise RuntimeError(f"{name} ended with {child.returncode}. What it says stands above")
    finally:
        child.kill()
        child.wait()


def _told(child: "subprocess.Popen[str]", turn: int) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{turn}\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())


def _ours(call: str) -> list[str]:
    return [sys.executable, "-c", f"from bench.online_features import publish, read; {call}"]


def _feast_command(act: str, python: Path, store: Mapping[str, str]) -> list[str]:
    name = {"sqlite": "Feast, SQLite", "redis": "Feast, Redis"}[store["type"]]
    asks = str((HOME / "asks.json").absolute())
    return [str(python), "-c", FEAST, act, json.dumps(store), asks, str(_result(name)), str(TURNS)]


def _said(command: Sequence[str], where: Path | None) -> Any:
    done = subprocess.run(command, cwd=where, env=_environment(), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore", "FEAST_USAGE": "False"}


def _result(name: str) -> Path:
    return HOME.absolute() / f"told online by {name}.parquet"


def _different(name: str, asks: Mapping[int, Sequence[Keys]]) -> int:
    """Rows that are told otherwise than the views were made, or not at all."""
    told = pl.read_parquet(_result(name))
    ways = 1 if name.startswith("Feast") else 3
    expected = sum(size * len(each) * (ways if size == 1 else min(ways, 2)) for size, each in asks.items())
    wrong = pl.lit(value=False)
    for made in VIEWS:
        values = (
            pl.scan_parquet(HOME / f"{made.name}.parquet")
            .filter(pl.col("event_time") == partition_end(made.days[-1].isoformat()))
            .collect()
        )
        true = told.select(made.key).join(values, on=made.key, how="left", maintain_order="left")
        for feature in made.features:
            wrong = wrong | pl.lit(told[feature].fill_nan(None).ne_missing(true[feature]))
        if ways > 1:
            there = true["event_time"].is_not_null()
            status = pl.select(pl.when(there).then(pl.lit("present")).otherwise(pl.lit("not_found"))).to_series()
            wrong = wrong | pl.lit(told[f"{made.name}__status"] != status)
            wrong = wrong | pl.lit(told[f"{made.name}__revision"].is_not_null() != there)
    return int(told.select(wrong.alias("wrong")).to_series().sum()) + max(expected - told.height, 0)


@contextmanager
def _redis() -> Iterator[int]:
    """A server on the loopback that keeps nothing; its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not _answers(port):
            if time.monotonic() > until or server.poll() is not None:
                raise RuntimeError("redis-server does not answer. Look whether it is installed")
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    try:
        return bool(Redis(port=port).ping())
    except RedisError:
        return False


def _table(took: Mapping[str, Sequence[Sequence[float]]], published: Sequence[Sequence[float]], different: int) -> None:
    p50, p99 = (
        {name: [float(np.percentile(each, q)) for each in runs] for name, runs in took.items()} for q in (50, 99)
    )
    peers = {"LMDB": "Feast, SQLite, SDK", "Redis": "Feast, Redis, SDK"}
    ratios: dict[str, list[float]] = {}
    print(f"\n{'microseconds, min - median - max':38} {'p50':>30} {'p99':>33} {'x faster than Feast at p50':>27}")
    for name in sorted(took, key=lambda name: (name.split()[-1], name)):
        words, size = name.rsplit(" ", 1)
        store = words.split(", ")[1]
        if words.startswith("ours"):
            peer = p50[f"{peers[store]} {size}"]
            ratios[f"{store} {words.split(', ')[2]} {size}"] = [
                theirs / ours for theirs, ours in zip(peer, p50[name], strict=True)
            ]
        faster = ratios.get(f"{store} {words.split(', ')[-1]} {size}")
        told = spread(faster) if faster else ""
        print(f"{f'{words}, {size} keys':38} {spread(p50[name]):>30} {spread(p99[name]):>33} {told:>27}")
    first, first_worked, next_day, next_day_worked = zip(*published, strict=True)
    print(f"{'rows/s published to LMDB':38} {'':>30} {'per second of processor time':>33}")
    print(f"{'a million entities':38} {_thousands(first):>30} {_thousands(first_worked):>33}")
    print(f"{'the next day of each':38} {_thousands(next_day):>30} {_thousands(next_day_worked):>33}")
    for store in peers:
        for way, word in (("find 1", "one_key"), ("lookup 100", "100_keys")):
            x = statistics.median(ratios[f"{store} {way}"])
            aim(f"features.online.{store.lower()}.x_feast.{word}", x, ">=", 20)
    aim("features.online.lmdb.p99_ms.one_key", statistics.median(p99["ours, LMDB, find 1"]) / 1000, "<=", 0.2)
    aim("features.online.published_rows_per_s.first_day", statistics.median(first), ">=", 300_000)
    aim("features.online.published_rows_per_s.next_day", statistics.median(next_day), ">=", 300_000)
    aim("features.online.rows_differing", different, "<=", 0)


def _thousands(values: Sequence[float]) -> str:
    return f"{min(values):,.0f} - {statistics.median(values):,.0f} - {max(values):,.0f}"
