"""Events: understood or refused by name, kept once, and given until somebody has decided on them."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError, InvalidRequest, MalformedBody
from mlplatform.retraining import events
from mlplatform.retraining.events import EventWriter, event_folder, kept_for, news, prune, understand
from mlplatform.retraining.redis_events import stream_key, take_from_redis
from mlplatform.settings import settings
from mlplatform_tests.fakes.redis_server import RedisServer, redis_server

SAID: dict[str, Any] = {"id": "a", "source": "orders", "partition": "2024-01-05", "rows_added": 30}
SOURCES = ["orders"]


def now() -> datetime:
    """Noon."""
    return datetime(2024, 1, 6, 12, tzinfo=UTC)


def body(**changed: Any) -> bytes:
    """An event as it is sent."""
    return json.dumps({**SAID, **changed}).encode()


def said(**changed: Any) -> Any:
    """An event, understood."""
    return understand(body(**changed), "synthetic", SOURCES)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"id": "a b"}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"source": "nobody"}, "source"),
        ({"partition": "20240105"}, "partition"),
        ({"partition": "2024-02-30"}, "partition"),
        ({"rows_added": -1}, "rows_added"),
        ({"rows_added": 1.5}, "rows_added"),
        ({"rows_added": True}, "rows_added"),
        ({"rows_added": 1 << 60}, "rows_added"),
        ({"dataset_version": 7}, "dataset_version"),
        ({"color": "red"}, "color"),
    ],
)
def test_a_field_without_sense_is_named(changed: dict[str, Any], field: str) -> None:
    """So that whoever sent it can mend it."""
    with pytest.raises(InvalidRequest) as refused:
        said(**changed)
    assert list(refused.value.fields) == [field]


@pytest.mark.parametrize("field", ["id", "source", "partition", "rows_added"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    """As one without sense is."""
    given = {name: each for name, each in SAID.items() if name != field}
    with pytest.raises(InvalidRequest) as refused:
        understand(json.dumps(given).encode(), "synthetic", SOURCES)
    assert list(refused.value.fields) == [field]


def test_all_faults_are_named_at_once() -> None:
    """Four round trips would be three too many."""
    with pytest.raises(InvalidRequest) as refused:
        understand(b'{"source": "ordres", "partition": "yesterday", "rows_added": -3, "foo": 1}', "synthetic", SOURCES)
    assert set(refused.value.fields) == {"id", "source", "partition", "rows_added", "foo"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"[" * 100_000, b"\xff\xfe", b'"a"'])
def test_what_is_no_object_is_malformed(text: bytes) -> None:
    """Whatever it is."""
    with pytest.raises(MalformedBody):
        understand(text, "synthetic", SOURCES)


def test_the_domain_stands_for_all_of_its_sources() -> None:
    """And a day that nobody has yet is understood: only the pipeline knows."""
    assert said(source="synthetic", partition="2031-01-01").source == "synthetic"


def test_an_event_is_news_once(tmp_path: Path) -> None:
    """Sent again to the same gateway, to another one, later, with other words: it is the same event."""
    writers = [EventWriter(tmp_path, now) for _ in range(2)]
    assert writers[0].append("a", said())
    assert not writers[0].append("a", said(rows_added=31))
    assert writers[1].append("a", said())
    writers[1].append("b", said(id="b"))
    first = news(tmp_path, {})
    assert [each.id for each in first.events] == ["a", "b"]
    assert news(tmp_path, first.reached) == type(first)(events=(), reached=first.reached)
    late = EventWriter(tmp_path, now)
    late.append("a", said())
    late.append("c", said(id="c"))
    second = news(tmp_path, first.reached)
    assert [each.id for each in second.events] == ["c"]
    assert not news(tmp_path, second.reached).events


MONTH_LATER = (now() + kept_for + timedelta(days=1)).date()


def test_what_is_decided_on_is_forgotten_after_a_month(tmp_path: Path) -> None:
    """Not a day before; what came since is known as ever."""
    writer = EventWriter(tmp_path, now)
    writer.append("a", said())
    writer.close()
    decided = news(tmp_path, {}).reached
    assert prune(tmp_path, [decided], MONTH_LATER - timedelta(days=1)) == 0
    since = EventWriter(tmp_path, lambda: now() + timedelta(days=20))
    since.append("b", said(id="b"))
    since.close()
    assert prune(tmp_path, [decided], MONTH_LATER) == 1
    assert [each.id for each in news(tmp_path, decided).events] == ["b"]
    assert set(news(tmp_path, decided).reached) == {path.name for path in tmp_path.glob("*.frames")}


def test_what_some_model_has_not_decided_on_stays(tmp_path: Path) -> None:
    """One that has not read it, one that has read less of it, and what a gateway still holds."""
    writer = EventWriter(tmp_path, now)
    writer.append("a", said())
    before = news(tmp_path, {}).reached
    writer.append("b", said(id="b"))
    after = news(tmp_path, before).reached
    assert prune(tmp_path, [after], MONTH_LATER) == 0
    writer.close()
    for reached in ([after, {}], [after, before], []):
        assert prune(tmp_path, reached, MONTH_LATER) == 0
    assert prune(tmp_path, [after, after], MONTH_LATER) == 1


def test_a_file_that_goes_while_it_is_looked_for_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model's sensor has pruned it between the listing and the look."""
    writer = EventWriter(tmp_path, now)
    writer.append("a", said())
    writer.close()
    gone = tmp_path / "2024-01-01-000000000000-0000-aa.frames"
    listed = [gone, *tmp_path.glob("*.frames")]
    monkeypatch.setattr(events, "files", lambda _: listed)
    told = news(tmp_path, {})
    assert [each.id for each in told.events] == ["a"]
    assert prune(tmp_path, [told.reached], MONTH_LATER) == 1


def test_nobody_told_anything(tmp_path: Path) -> None:
    """No folder, no news."""
    assert news(tmp_path / "none", {}).events == ()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


def test_redis_is_a_second_source_of_the_same_events(server: RedisServer, tmp_path: Path) -> None:
    """What is in its stream comes into the log once; nonsense is set aside with its reason."""
    client = server.client()
    key = stream_key(DOMAIN.name)
    for text in (body(), body(), b"nonsense", body(id="b"), b"x" * 20_000):
        client.xadd(key, {"event": text})
    client.xadd(key, {"other": b"1"})
    assert take_from_redis(server.address, DOMAIN, tmp_path, now) == 6
    folder = event_folder(tmp_path, DOMAIN.name)
    found = news(folder, {})
    assert [each.id for each in found.events] == ["redis:a", "redis:b"]
    assert client.xlen(f"{key}:refused") == 3
    assert take_from_redis(server.address, DOMAIN, tmp_path, now) == 0
    assert client.xpending(key, "mlplatform")["pending"] == 0
    # Given to a sensor that died before it said so.
    client.xadd(key, {"event": body(id="c")})
    client.xreadgroup("mlplatform", "mlplatform", {key: ">"})
    assert take_from_redis(server.address, DOMAIN, tmp_path, now) == 1
    assert [each.id for each in news(folder, found.reached).events] == ["redis:c"]


def test_a_redis_that_is_away_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the sensor goes on with what the gateways have taken in."""
    with caplog.at_level(logging.WARNING):
        assert take_from_redis("redis://127.0.0.1:1", DOMAIN, tmp_path, now) == 0
    assert "cannot be read from Redis" in caplog.text
    assert take_from_redis(None, DOMAIN, tmp_path, now) == 0


def test_an_address_that_is_no_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the settings are read; the value, which may hold a password, is not shown."""
    monkeypatch.setenv("MLPLATFORM_EVENTS", "kafka://secret@host")
    with pytest.raises(DeclarationError, match="MLPLATFORM_EVENTS") as refused:
        settings()
    assert "secret" not in str(refused.value)
