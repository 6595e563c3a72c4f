"""Events sent to a gateway: kept before they are answered, one however often they are sent, nonsense refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlplatform.registry.api_keys import ApiKeys
from mlplatform.retraining.events import EVENT_BYTES, Event, event_folder, news
from mlplatform_tests.fakes.streamed_shop import SHOP, StreamedShop, streamed_shop
from mlplatform_tests.fakes.tiny_domain import bundle_of, write_package
from mlplatform_tests.serving.test_facts import Asked
from serving.api_page import openapi
from serving.webhook import PATH

SAID: dict[str, Any] = {"id": "a", "source": "orders", "partition": "2024-01-05", "rows_added": 30}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamedShop:
    """An empty shop, on its first evening."""
    monkeypatch.delenv("MLPLATFORM_HOME", raising=False)
    return streamed_shop(tmp_path / "home").at(1, 23)


def body(**changed: Any) -> bytes:
    """An event as it is sent."""
    return json.dumps({**SAID, **changed}).encode()


def kept(shop: StreamedShop) -> list[Event]:
    """What the pipeline finds."""
    return list(news(event_folder(shop.platform.home, SHOP.name), {}).events)


def test_an_event_is_kept_and_answered(shop: StreamedShop) -> None:
    """With all it says, also of a day that nobody has: whether there is such a partition is not asked here."""
    asked = Asked(shop)
    status, headers, told = asked.post(
        body(partition="2031-01-01", dataset_version="v7"), path=PATH, x_request_id="of-the-feed"
    )
    assert (status, headers["x-request-id"], told) == (202, "of-the-feed", {"event": "a", "domain": SHOP.name})
    (event,) = kept(shop)
    assert (event.id, event.said.partition, event.said.rows_added, event.said.dataset_version) == (
        "a",
        "2031-01-01",
        30,
        "v7",
    )
    assert event.received == int(shop.clock().timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (b"{", 400, "it is no JSON"),
        (b"[]", 400, "it is no JSON object"),
        (b"", 400, "it is no JSON"),
        (b"[" * 10_000, 400, "it is no JSON"),
        (b"x" * (EVENT_BYTES + 1), 413, "longer than"),
        (body(source="nobody"), 422, "each field at fault is named"),
        (body(partition="yesterday"), 422, "each field at fault is named"),
        (body(id="\n"), 422, "each field at fault is named"),
    ],
)
def test_nonsense_is_refused_as_a_problem(shop: StreamedShop, sent: bytes, status: int, told: str) -> None:
    """With what to do, and nothing is kept."""
    found, headers, problem = Asked(shop).post(sent, path=PATH)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    assert told in problem["detail"]
    assert not event_folder(shop.platform.home, SHOP.name).exists()


def test_only_posts_are_taken(shop: StreamedShop) -> None:
    """405 says what is."""
    status, headers, _ = Asked(shop).post(b"", path=PATH, method="GET")
    assert (status, headers["allow"]) == (405, "POST")


def test_a_key_is_asked_for_and_names_the_event(shop: StreamedShop, tmp_path: Path) -> None:
    """Without one nothing is kept; two senders may choose the same id."""
    assert Asked(shop, keys=ApiKeys(tmp_path / "keys")).post(body(), path=PATH)[0] == 401
    ids = []
    for name in ("one", "other"):
        key, token = ApiKeys(tmp_path / "keys").create(name, may=("facts",))
        for _ in range(2):
            # A new list of keys is looked at within a second.
            asked = Asked(shop, keys=ApiKeys(tmp_path / "keys"))
            assert asked.post(body(), path=PATH, x_api_key=token)[0] == 202
        ids.append(f"{key}:a")
    assert sorted(each.id for each in kept(shop)) == sorted(ids)


def test_a_full_disk_is_an_outage_and_no_202(shop: StreamedShop) -> None:
    """503, to be sent again."""
    shop.platform.home.mkdir(parents=True, exist_ok=True)
    (shop.platform.home / "events").write_text("a file where the folder should be")
    status, headers, told = Asked(shop).post(body(), path=PATH)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "send it again" in told["detail"]


def test_hammered_with_duplicates_and_nonsense_nothing_is_lost_or_doubled(shop: StreamedShop) -> None:
    """By many at once, over two gateways: each event is news once, and twins cost no disk."""
    gateways = [Asked(shop), Asked(shop)]
    bodies = [body(id=f"e{number % 20}") if number % 3 else b"nonsense" for number in range(1_200)]

    async def ask(asked: Asked, sent: bytes) -> int:
        scope = {"type": "http", "path": PATH, "method": "POST", "headers": []}
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await asked.gateway(scope, receive, send)
        (status,) = statuses
        return status

    async def hammer() -> list[int]:
        return await asyncio.gather(*(ask(gateways[place % 2], sent) for place, sent in enumerate(bodies)))

    found = asyncio.run(hammer())
    assert [status for status, sent in zip(found, bodies, strict=True) if sent == b"nonsense"] == [400] * 400
    assert [status for status, sent in zip(found, bodies, strict=True) if sent != b"nonsense"] == [202] * 800
    assert sorted(each.id for each in kept(shop)) == sorted(f"e{number}" for number in range(20))
    held = sum(path.stat().st_size for path in event_folder(shop.platform.home, SHOP.name).iterdir())
    # Some were on their way at once; 800 of them would take 50,000 bytes.
    assert held < 30_000


dies_after = """
import os, signal, sys
from pathlib import Path
from mlplatform.provenance.append_only import AppendOnlyFiles, _Open
from mlplatform_tests.fakes.streamed_shop import streamed_shop
from mlplatform_tests.serving.test_facts import Asked
from mlplatform_tests.serving.test_webhook import body
from serving.webhook import PATH

when, home = sys.argv[1], Path(sys.argv[2])
place = _Open if when in ("write", "force") else AppendOnlyFiles
real = getattr(place, when)

def die(self, *given):
    real(self, *given)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(place, when, die)
Asked(streamed_shop(home).at(1, 23)).post(body(), path=PATH)
"""


@pytest.mark.parametrize("when", ["append"])
def test_a_gateway_that_is_killed_before_it_answers_keeps_the_event_once(shop: StreamedShop, when: str) -> None:
    """The sender says it again, to another worker."""
    killed = subprocess.run(
        [sys.executable, "-c", dies_after, when, str(shop.platform.home)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    for _ in range(2):
        assert Asked(shop).post(body(), path=PATH)[0] == 202
    assert [each.id for each in kept(shop)] == ["a"]


def test_the_document_of_the_service_tells_of_it(tmp_path: Path) -> None:
    """With the sources that there are."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    told = openapi(bundle, request_time=False)["paths"][PATH]["post"]
    schema = told["requestBody"]["content"]["application/json"]["schema"]
    sources = [bundle.domain.name, *(each.name for each in bundle.domain.sources)]
    assert schema["properties"]["source"]["enum"] == sources
    assert set(schema["required"]) == set(SAID)
