"""Where streamed facts come from: at least once from here, exactly once in the log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from mlplatform.errors import DeclarationError, Unavailable
from mlplatform.features.streaming.consumers import LogConsumer, RedisConsumer, open_consumer
from mlplatform_tests.fakes.redis_server import RedisServer, redis_server
from mlplatform_tests.fakes.streamed_shop import FIRST, SHOP, StreamedShop, orders, streamed_shop

STREAM = "mlplatform:facts:synthetic/orders"


@pytest.fixture
def shop(tmp_path: Path) -> StreamedShop:
    """An empty shop, on its first evening."""
    return streamed_shop(tmp_path / "home").at(1, 23)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real one."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Redis:
    """Of an empty server."""
    made = server.client()
    made.flushall()
    return made


def logs(shop: StreamedShop) -> LogConsumer:
    """A consumer of the shop's logs, as after a start."""
    return LogConsumer(shop.platform.home, SHOP, shop.platform.home / "positions.json")


def of_redis(shop: StreamedShop, client: Redis, name: str = "one", *, clock: float = 0.0) -> RedisConsumer:
    """A consumer of Redis, as after a start."""
    return RedisConsumer(client, SHOP, shop.platform.home, logs(shop), shop.clock, name=name, clock=lambda: clock)


def ids(polled: object) -> list[str]:
    """Ids of what was polled of the orders."""
    assert isinstance(polled, dict)
    return [event.id for event in polled.get("orders", [])]


def as_json(*rows: int) -> bytes:
    """Some orders of the first day as they are sent."""
    return b"[" + b",".join(orders(FIRST)[list(rows)].write_ndjson().encode().splitlines()) + b"]"


def landed(shop: StreamedShop) -> int:
    """Rows of the first day, once it is over."""
    landing = shop.at(2, 1).landing
    days = landing.list()
    return landing.read(FIRST, days[FIRST]).height if days else 0


def test_a_log_is_given_again_until_it_is_acknowledged(shop: StreamedShop) -> None:
    """Whoever starts anew gets what was not acknowledged, nothing else; a broken memory means all of it."""
    shop.send("a", orders(FIRST)[:1])
    consumer = logs(shop)
    assert ids(consumer.poll(0)) == ["a"]
    assert ids(consumer.poll(0)) == []
    assert ids(logs(shop).poll(0)) == ["a"]
    consumer.acknowledge()
    shop.send("b", orders(FIRST)[1:2])
    again = logs(shop)
    assert ids(again.poll(0)) == ["b"]
    (name,) = again.acknowledged()["orders"]
    assert name.startswith("2024-01-01-")
    (shop.platform.home / "positions.json").write_text("{")
    assert ids(logs(shop).poll(0)) == ["a", "b"]


def test_a_poll_waits_no_longer_than_it_is_told(shop: StreamedShop) -> None:
    """And no longer than until there is something."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 10:
            shop.send("late", orders(FIRST)[:1])

    consumer = LogConsumer(
        shop.platform.home, SHOP, shop.platform.home / "p.json", clock=lambda: sum(waited), sleep=sleep
    )
    assert ids(consumer.poll(0.1)) == []
    assert sum(waited) == pytest.approx(0.1)
    assert ids(consumer.poll(60)) == ["late"]
    assert sum(waited) < 1


def test_messages_count_once_however_often_they_are_delivered(shop: StreamedShop, client: Redis) -> None:
    """A consumer that dies before it acknowledges, and one that dies after half of it: the day has each row once."""
    for number in range(6):
        client.xadd(STREAM, {"rows": as_json(number)})
    first = of_redis(shop, client)
    assert len(ids(first.poll(0))) == 6
    # It dies here: the same name comes back, and is given all of it again.
    second = of_redis(shop, client)
    assert len(ids(second.poll(0))) == 12
    second.acknowledge()
    assert client.xpending(STREAM, "mlplatform")["pending"] == 0
    assert ids(of_redis(shop, client).poll(0)) == []
    assert landed(shop) == 6


def test_messages_of_a_dead_consumer_are_claimed(
    shop: StreamedShop, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host takes over what somebody took and never acknowledged, after a while."""
    monkeypatch.setattr("mlplatform.features.streaming.consumers.claim_after_seconds", 0.0)
    client.xadd(STREAM, {"rows": as_json(0, 1)})
    dead = of_redis(shop, client, "dead")
    assert len(ids(dead.poll(0))) == 1
    alive = of_redis(shop, client, "alive")
    alive.poll(0)
    alive.acknowledge()
    assert client.xpending(STREAM, "mlplatform")["pending"] == 0
    assert landed(shop) == 2


def test_a_sender_may_send_twice_under_its_own_id(shop: StreamedShop, client: Redis) -> None:
    """Two messages of one id are one event; gateways' facts are given beside them."""
    for _ in range(2):
        client.xadd(STREAM, {"rows": as_json(0, 1), "id": "order-7"})
    shop.send("of a gateway", orders(FIRST)[5:6])
    consumer = of_redis(shop, client)
    assert sorted(ids(consumer.poll(0))) == ["of a gateway", "order-7", "order-7"]
    assert landed(shop) == 3


def test_what_breaks_the_contract_is_set_aside_with_the_reason(
    shop: StreamedShop, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The good rows of a message count, a message that is none is told, and neither comes again."""
    bad = json.loads(as_json(0, 1))
    bad[1]["items"] = 99
    client.xadd(STREAM, {"rows": json.dumps(bad)})
    client.xadd(STREAM, {"rows": b"no json"})
    client.xadd(STREAM, {"something": b"else"})
    consumer = of_redis(shop, client)
    with caplog.at_level(logging.WARNING):
        assert len(ids(consumer.poll(0))) == 1
    consumer.acknowledge()
    refused: Any = client.xrange(f"{STREAM}:refused")
    reasons = [fields[b"reason"].decode() for _, fields in refused]
    assert [reason[:40] for reason in reasons] == [
        "row 1: breaks items: at most 20",
        "the body is not what is expected: it is ",
        "the body is not what is expected: it has",
    ]
    assert len(caplog.records) == 3
    assert ids(of_redis(shop, client).poll(0)) == []
    assert landed(shop) == 1


def test_a_redis_that_is_away_or_forgets_stops_nobody(
    shop: StreamedShop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gateways' facts go on; when it is back, without its memory, what is sent then is taken in."""
    with redis_server(tmp_path / "redis") as server:
        client = Redis(port=server.port, socket_timeout=0.5, socket_connect_timeout=0.5)
        time = [0.0]
        consumer = RedisConsumer(client, SHOP, shop.platform.home, logs(shop), shop.clock, clock=lambda: time[0])
        client.xadd(STREAM, {"rows": as_json(0)})
        assert len(ids(consumer.poll(0))) == 1
        server.stop()
        shop.send("of a gateway", orders(FIRST)[1:2])
        with caplog.at_level(logging.WARNING):
            assert ids(consumer.poll(0)) == ["of a gateway"]
            consumer.poll(0)
            consumer.acknowledge()
        assert "Redis cannot be read" in caplog.text
        server.start()
        client.xadd(STREAM, {"rows": as_json(2)})
        polled = [*ids(consumer.poll(0)), *ids(consumer.poll(0))]
        assert len(polled) == 1
        consumer.acknowledge()
        assert landed(shop) == 3


def test_only_redis_can_be_named(shop: StreamedShop) -> None:
    """Any other address is a mistake that is told."""
    with pytest.raises(DeclarationError, match="facts are streamed from redis://host:port"):
        open_consumer("kafka://here", SHOP, shop.platform.home, shop.clock)
    assert isinstance(open_consumer(None, SHOP, shop.platform.home, shop.clock), LogConsumer)
    assert isinstance(open_consumer("redis://127.0.0.1:1", SHOP, shop.platform.home, shop.clock), RedisConsumer)


def test_a_log_that_cannot_be_written_is_an_outage(shop: StreamedShop, client: Redis) -> None:
    """The message stays with Redis, and is taken in when there is room."""
    client.xadd(STREAM, {"rows": as_json(0)})
    place = shop.platform.home / "facts" / "synthetic" / "orders"
    place.parent.mkdir(parents=True)
    place.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        of_redis(shop, client)._take_in(0)
    place.unlink()
    assert len(ids(of_redis(shop, client).poll(0))) == 1
