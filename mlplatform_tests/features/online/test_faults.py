"""What goes wrong around an online store: publishers killed or at once, no room, damage, a server that is away."""

import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.errors import Unavailable
from mlplatform.features.online import lmdb_environment, lmdb_store, redis_store
from mlplatform.features.online.record import Layout
from mlplatform.features.online.redis_store import RedisStore, read_seconds
from mlplatform.features.online.store import OnlineStore, ViewRecord, open_online_store
from mlplatform_tests.fakes.redis_server import RedisServer, redis_server
from mlplatform_tests.fakes.waiting import until

INSTANT = pl.Datetime("us", "UTC")
MIDNIGHT = datetime(2024, 1, 25, tzinfo=UTC)
NOW = MIDNIGHT + timedelta(hours=2)
VIEW = ViewRecord(
    name="shop/courier",
    version="v1",
    keys={"courier": pl.Int64()},
    features={"late": pl.Float64()},
    ttl=timedelta(days=1),
)
SECONDS = 60.0
processes = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run on this machine: only where slowness is the matter does the time of a request count."""
    monkeypatch.setattr(redis_store, "read_seconds", 10.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the tests that do it no harm."""
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one's own."""
    with redis_server(tmp_path / "redis") as started:
        yield started


@pytest.fixture(params=["lmdb", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store."""
    if request.param == "lmdb":
        return str(tmp_path / "online")
    server: RedisServer = request.getfixturevalue("shared")
    server.client().flushall()
    return server.address


def rows(late: float, count: int, revision: int = 1) -> pl.DataFrame:
    """The same value for so many couriers."""
    return pl.DataFrame({"courier": range(count)}).with_columns(
        pl.lit(late).alias("late"),
        pl.lit(MIDNIGHT, INSTANT).alias("event_time"),
        pl.lit(MIDNIGHT, INSTANT).alias("available_at"),
        pl.lit(revision).alias("_revision"),
    )


def values(store: OnlineStore, count: int) -> set[float | None]:
    """What so many couriers are answered."""
    keys = pl.DataFrame({"courier": range(count)})
    return set(store.lookup(VIEW.name, keys, pl.Series([NOW], dtype=INSTANT).new_from_index(0, count)).values["late"])


def answers(store: OnlineStore) -> bool:
    """Whether it answers in the time of a request."""
    try:
        return values(store, 10) == {0.5}
    except Unavailable:
        return False


def elsewhere(work: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start some work in a process of its own."""
    child = processes.Process(target=work, args=arguments)
    child.start()
    return child


def ended(child: multiprocessing.process.BaseProcess) -> int | None:
    """How it ended."""
    child.join(SECONDS)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


def put_in_any_order(address: str, seed: int) -> None:
    """Bring the revisions 1 to 6 of 700 couriers in, shuffled."""
    store = open_online_store(address)
    for revision in pl.Series(range(1, 7)).shuffle(seed=seed):
        store.put(VIEW, rows(float(revision), 700, revision), content=f"{seed}", now=NOW)


def test_of_two_publishers_at_once_the_newest_value_wins(address: str) -> None:
    """Whoever is last to write: of each courier the highest revision stays."""
    children = [elsewhere(put_in_any_order, address, seed) for seed in (1, 2)]
    assert [ended(child) for child in children] == [0, 0]
    store = open_online_store(address)
    assert values(store, 700) == {6.0}
    statistics = store.statistics(VIEW.name)
    assert statistics is not None and statistics.keys == 700


def test_a_value_that_came_between_reading_and_writing_stays(
    shared: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher that was slower reads again: neither the newer value nor the count of the keys is lost."""
    shared.client().flushall()
    store, other = open_online_store(shared.address), open_online_store(shared.address)
    store.put(VIEW, rows(0.0, 10), content="old", now=NOW)
    merged = Layout.merged

    def overtaken(self: Layout, *arguments: Any) -> list[bytes]:
        monkeypatch.setattr(Layout, "merged", merged)
        other.put(VIEW, rows(3.0, 12, revision=3), content="newer", now=NOW)
        return merged(self, *arguments)

    monkeypatch.setattr(Layout, "merged", overtaken)
    store.put(VIEW, rows(2.0, 14, revision=2), content="late", now=NOW)
    assert values(store, 12) == {3.0} and values(store, 14) == {3.0, 2.0}
    statistics = store.statistics(VIEW.name)
    assert statistics is not None and statistics.keys == 14


def rebuild_again_and_again(address: str) -> None:
    """Rebuild ten times, each time with another value, in chunks."""
    store = open_online_store(address)
    for late in range(1, 11):
        chunks = [rows(float(late), 600).slice(start, 200) for start in (0, 200, 400)]
        store.replace(VIEW, chunks, content=f"{late}", now=NOW)


def test_a_reader_during_a_rebuild_sees_the_old_or_the_new(address: str) -> None:
    """Never some of both, from another process that rebuilds all the time."""
    store = open_online_store(address)
    store.put(VIEW, rows(0.0, 600), content="0", now=NOW)
    child, seen = elsewhere(rebuild_again_and_again, address), set()
    while child.is_alive():
        now_there = values(store, 600)
        assert len(now_there) == 1
        seen |= now_there
    assert ended(child) == 0 and values(store, 600) == {10.0}
    assert len(seen) > 1


def die_while_merging(address: str, act: str, part: int) -> None:
    """Kill this process when it is about to merge the n-th part of a publication."""
    lmdb_store._KEYS_AT_ONCE = 100
    merged, count = Layout.merged, 0

    def dying(self: Layout, *arguments: Any) -> list[bytes]:
        nonlocal count
        count += 1
        if count == part:
            os.kill(os.getpid(), signal.SIGKILL)
        return merged(self, *arguments)

    Layout.merged = dying  # type: ignore[method-assign, assignment]
    store = open_online_store(address)
    if act == "put":
        store.put(VIEW, rows(1.0, 1000, revision=2), content="new", now=NOW)
    else:
        store.replace(VIEW, [rows(1.0, 500, revision=2), rows(2.0, 500)], content="new", now=NOW)


@pytest.mark.parametrize("act", ["put", "replace"])
def test_a_killed_publisher_leaves_a_consistent_store(address: str, act: str) -> None:
    """The content is the old one, each value whole, and the next publication brings in the rest."""
    store = open_online_store(address)
    store.put(VIEW, rows(0.0, 1000), content="old", now=NOW)
    assert ended(elsewhere(die_while_merging, address, act, 2)) == -signal.SIGKILL
    assert store.content(VIEW.name) == "old"
    left = values(store, 1000)
    assert left == {0.0} or (act == "put" and isinstance(store, RedisStore) and left == {0.0, 1.0})
    if act == "put":
        store.put(VIEW, rows(1.0, 1000, revision=2), content="new", now=NOW)
    else:
        store.replace(VIEW, [rows(1.0, 1000)], content="new", now=NOW)
    assert values(store, 1000) == {1.0}
    statistics = store.statistics(VIEW.name)
    assert statistics is not None and statistics.keys == 1000


def test_what_a_killed_rebuild_left_is_swept_away(tmp_path: Path) -> None:
    """By the next publication of the view: the folder holds the values once."""
    store = open_online_store(str(tmp_path))
    store.put(VIEW, rows(0.0, 1000), content="old", now=NOW)
    for _ in range(3):
        assert ended(elsewhere(die_while_merging, str(tmp_path), "replace", 6)) == -signal.SIGKILL
    store.put(VIEW, rows(1.0, 1, revision=2), content="new", now=NOW)
    shared = lmdb_environment.environment_of(tmp_path)
    assert shared.read(lambda held: sum(key.startswith(b"x") for key, _ in held.cursor())) == 1000


def test_a_reader_follows_a_map_that_grows(tmp_path: Path) -> None:
    """It has mapped less than there is now, and reads all of it."""
    lmdb_environment.first_map_bytes, before = 1 << 18, lmdb_environment.first_map_bytes
    try:
        store = open_online_store(str(tmp_path))
        store.put(VIEW, rows(0.0, 10), content="small", now=NOW)
        # Opened to read, as a gateway does, with the small map.
        lmdb_environment.environment_of(tmp_path)._close()
        assert values(store, 10) == {0.0}
        assert ended(elsewhere(put_many, str(tmp_path))) == 0
        assert values(store, 50_000) == {1.0}
        # And the publisher of this process goes on with a map that is too small for it.
        store.put(VIEW, rows(2.0, 200_000, revision=3), content="larger", now=NOW)
        assert values(store, 200_000) == {2.0}
    finally:
        lmdb_environment.first_map_bytes = before


def put_many(address: str) -> None:
    """More than fits into the map of the test."""
    open_online_store(address).put(VIEW, rows(1.0, 50_000, revision=2), content="large", now=NOW)


def put_without_room(address: str, act: str) -> None:
    """Publish where no file may grow by more than some pages."""
    size = (Path(address) / "data.mdb").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20 * 4096, resource.RLIM_INFINITY))
    store = open_online_store(address)
    publish: dict[str, Callable[[], object]] = {
        "put": lambda: store.put(VIEW, rows(1.0, 50_000, revision=2), content="new", now=NOW),
        "replace": lambda: store.replace(VIEW, [rows(1.0, 50_000)], content="new", now=NOW),
    }
    with pytest.raises(Unavailable, match="Make room on the disk"):
        publish[act]()
    # What was there is still served, by this process too, and what fits can be published.
    assert values(store, 100) == {0.0}
    store.put(VIEW, rows(3.0, 1, revision=3), content="fits", now=NOW)


@pytest.mark.parametrize("act", ["put", "replace"])
def test_a_full_disk_leaves_what_was_published(tmp_path: Path, act: str) -> None:
    """The publisher says what to do, readers go on, and with room again the publication is made."""
    store = open_online_store(str(tmp_path))
    store.put(VIEW, rows(0.0, 100), content="old", now=NOW)
    assert ended(elsewhere(put_without_room, str(tmp_path), act)) == 0
    assert values(store, 100) == {0.0, 3.0} and store.content(VIEW.name) == "fits"
    store.put(VIEW, rows(1.0, 50_000, revision=4), content="new", now=NOW)
    assert values(store, 50_000) == {1.0}


@pytest.mark.parametrize("damage", ["no data", "half", "empty", "garbage", "no lock"])
def test_damaged_files_are_unavailable_until_the_next_rebuild(tmp_path: Path, damage: str) -> None:
    """Whatever is missing or torn, the answer is `Unavailable`, never another error; a rebuild begins anew."""
    made, damaged = tmp_path / "made", tmp_path / "damaged"
    open_online_store(str(made)).put(VIEW, rows(0.0, 2000), content="old", now=NOW)
    damaged.mkdir()
    whole = (made / "data.mdb").read_bytes()
    data = {"half": whole[: len(whole) // 2], "empty": b"", "garbage": b"no LMDB " * 10_000}.get(damage, whole)
    if damage != "no data":
        (damaged / "data.mdb").write_bytes(data)
    store = open_online_store(str(damaged))
    if damage == "no lock":
        assert values(store, 2000) == {0.0}
    else:
        with pytest.raises(Unavailable):
            values(store, 2000)
    store.replace(VIEW, [rows(1.0, 2000)], content="new", now=NOW)
    assert values(store, 2000) == {1.0}


def test_a_store_that_was_removed_and_made_again_is_read(tmp_path: Path) -> None:
    """A reader that was open asks the new files, and says so while there are none."""
    folder = tmp_path / "online"
    store = open_online_store(str(folder))
    store.put(VIEW, rows(0.0, 10), content="old", now=NOW)
    assert values(store, 10) == {0.0}
    shutil.rmtree(folder)
    with pytest.raises(Unavailable, match="there is no online store"):
        values(store, 10)
    assert store.version(VIEW.name) is None and not folder.exists()
    store.put(VIEW, rows(1.0, 10), content="new", now=NOW)
    assert values(store, 10) == {1.0}


def test_a_forked_process_reads_with_a_handle_of_its_own(tmp_path: Path) -> None:
    """And its parent goes on reading and writing."""
    store = open_online_store(str(tmp_path))
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    at = int(NOW.timestamp() * 1e6)
    child = os.fork()
    if child == 0:
        os._exit(0 if store.find(VIEW.name, (3,), at).values == (0.5,) else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.put(VIEW, rows(1.5, 10, revision=2), content="new", now=NOW)
    assert store.find(VIEW.name, (3,), at).values == (1.5,)


def test_a_process_forked_while_others_read_goes_on_reading(tmp_path: Path) -> None:
    """Two threads look up all the time; no child waits for a lock whose holder it does not have."""
    store = open_online_store(str(tmp_path))
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    at, done = int(NOW.timestamp() * 1e6), threading.Event()

    def read() -> None:
        while not done.is_set():
            store.find(VIEW.name, (3,), at)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs is killed, and seen below
                os._exit(0 if store.find(VIEW.name, (3,), at).values == (0.5,) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert store.find(VIEW.name, (3,), at).values == (0.5,)


def test_a_slow_redis_is_unavailable_in_time(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is waiting; once Redis answers again nothing has to be done."""
    monkeypatch.setattr(redis_store, "read_seconds", read_seconds)
    store = open_online_store(server.address)
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    until(lambda: answers(store), seconds=SECONDS, what="an answer in time")
    with server.paused():
        began = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer in time"):
            values(store, 10)
        with pytest.raises(Unavailable, match="does not answer in time"):
            open_online_store(server.address).version(VIEW.name)
        assert time.monotonic() - began < 20 * read_seconds
    until(lambda: answers(store), seconds=SECONDS, what="an answer in time")


def test_a_redis_that_was_restarted_is_used_again(server: RedisServer) -> None:
    """While it is away that is said; it has lost everything, and the next publication brings it back."""
    store = open_online_store(server.address)
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    server.stop()
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be reached"):
            values(store, 10)
    with pytest.raises(Unavailable, match="cannot be reached"):
        store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    server.start()
    assert store.content(VIEW.name) is None
    with pytest.raises(Unavailable, match="Materialise `online_store`"):
        values(store, 10)
    store.replace(VIEW, [rows(0.75, 10)], content="new", now=NOW)
    assert values(store, 10) == {0.75}


def test_a_full_redis_keeps_what_was_published(server: RedisServer) -> None:
    """A publication says so, readers go on, and with room again it is made."""
    store, client = open_online_store(server.address), server.client()
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 200_000)
    for publish in (
        lambda: store.put(VIEW, rows(1.0, 20_000, revision=2).slice(10), content="new", now=NOW),
        lambda: store.replace(VIEW, [rows(1.0, 20_000)], content="new", now=NOW),
    ):
        with pytest.raises(Unavailable, match="is full"):
            publish()
        assert values(store, 10) == {0.5} and store.content(VIEW.name) == "old"
    client.config_set("maxmemory", 0)
    store.replace(VIEW, [rows(1.0, 20_000)], content="new", now=NOW)
    assert values(store, 20_000) == {1.0}


def test_values_that_redis_has_evicted_are_not_called_unknown(server: RedisServer) -> None:
    """Nobody would notice that every entity is new; the next publication builds them anew."""
    store, client = open_online_store(server.address), server.client()
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    for key in client.scan_iter("mlplatform:{shop/courier}:[0-9]*"):
        client.delete(key)
    with pytest.raises(Unavailable, match="maxmemory-policy must be noeviction"):
        values(store, 10)
    assert store.content(VIEW.name) is None
    store.replace(VIEW, [rows(0.75, 10)], content="new", now=NOW)
    assert values(store, 10) == {0.75}


def test_a_killed_rebuild_is_forgotten_by_redis(server: RedisServer) -> None:
    """Its values expire, those that are served do not."""
    store, client = open_online_store(server.address), server.client()
    store.put(VIEW, rows(0.0, 1000), content="old", now=NOW)
    assert ended(elsewhere(die_while_merging, server.address, "replace", 2)) == -signal.SIGKILL
    expiring = [client.ttl(key) > 0 for key in client.scan_iter("mlplatform:{shop/courier}:[0-9]*")]
    assert sorted(expiring) == [False, True]
    store.replace(VIEW, [rows(1.0, 1000)], content="new", now=NOW)
    assert values(store, 1000) == {1.0}


def test_a_lookup_of_many_keys_has_a_time_of_its_own(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer comes in time, all of them together do not."""
    seconds = iter(range(1000))
    monkeypatch.setattr(redis_store, "read_seconds", 0.5)
    store = RedisStore(server.address, clock=lambda: float(next(seconds)))
    store.put(VIEW, rows(0.5, 3000), content="old", now=NOW)
    assert values(store, 1000) == {0.5}
    with pytest.raises(Unavailable, match="too slow: 1000 of 3000 keys"):
        values(store, 3000)


def test_what_redis_refuses_is_unavailable_and_tells_no_password(server: RedisServer) -> None:
    """A wrong password, a replica, a key of somebody else's: each says what to do."""
    client = server.client()
    client.set("mlplatform:{shop/courier}", "[1, 2")
    with pytest.raises(Unavailable, match="cannot be understood"):
        open_online_store(server.address).version(VIEW.name)
    client.delete("mlplatform:{shop/courier}")
    client.rpush("mlplatform:{shop/courier}", "x")
    with pytest.raises(Unavailable, match="refuses"):
        open_online_store(server.address).version(VIEW.name)
    client.flushall()
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(Unavailable, match="it is a replica"):
        open_online_store(server.address).put(VIEW, rows(0.5, 10), content="old", now=NOW)
    client.config_set("requirepass", "right")
    other = open_online_store(server.address.replace("//", "//:secret@"))
    with pytest.raises(Unavailable, match="Correct the password") as refused:
        other.version(VIEW.name)
    assert "secret" not in f"{refused.value} {other!r}"
    with pytest.raises(Unavailable, match="no address of a Redis") as refused:
        open_online_store("redis://:secret@host:port")
    assert "secret" not in str(refused.value)


def test_a_view_of_another_schema_is_not_mixed_with_what_is_there(address: str) -> None:
    """Though it calls itself the same version: what is there is begun anew."""
    store = open_online_store(address)
    store.put(VIEW, rows(0.5, 10), content="old", now=NOW)
    other = replace(VIEW, features={"late": pl.Float32()})
    store.put(other, rows(1.0, 5).cast({"late": pl.Float32()}), content=None, now=NOW)
    assert values(store, 5) == {1.0} and values(store, 10) == {1.0, None}
    assert store.content(VIEW.name) is None
