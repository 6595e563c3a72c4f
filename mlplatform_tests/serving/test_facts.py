"""Facts sent to a gateway: kept before they are answered, refused by name, once however often they are sent."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.registry.api_keys import ApiKeys
from mlplatform.settings import settings
from mlplatform_tests.fakes.streamed_shop import FIRST, SHOP, StreamedShop, orders, streamed_shop
from mlplatform_tests.fakes.tiny_domain import bundle_of, write_package
from mlplatform_tests.serving.test_metrics import figures
from serving.access import Access
from serving.api_page import ARROW, openapi
from serving.facts import FACT_BYTES
from serving.gateway import Gateway
from serving.metrics import Metrics


class Asked:
    """A gateway worker of the shop, asked without a network; its model is never looked at."""

    def __init__(self, shop: StreamedShop, *, keys: ApiKeys | None = None, domain: Domain = SHOP) -> None:
        home = shop.platform.home
        self.metrics = Metrics(home / "metrics")
        self.gateway = Gateway(
            home / "run",
            replace(settings(), home=home, online_store=str(home / "online")),
            access=Access(keys or ApiKeys(home / "keys"), required=keys is not None),
            metrics=self.metrics,
            log=lambda live, batch: None,
            now=shop.clock,
        )
        bundle = SimpleNamespace(domain=domain)
        self.gateway._arms.champion = SimpleNamespace(predictor=SimpleNamespace(bundle=bundle))  # type: ignore[assignment]

    def post(
        self, body: bytes, *, path: str = "/facts/orders", method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of the answer."""
        scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.gateway(scope, receive, send))
        start, content = sent
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], told, json.loads(content["body"])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamedShop:
    """An empty shop, on its first evening."""
    monkeypatch.delenv("MLPLATFORM_HOME", raising=False)
    return streamed_shop(tmp_path / "home").at(1, 23)


def as_json(rows: pl.DataFrame, **changed: Any) -> bytes:
    """Rows as a client writes them; the first one changed."""
    made = [json.loads(line) for line in rows.write_ndjson().splitlines()]
    made[0] |= changed
    return json.dumps(made).encode()


def landed(shop: StreamedShop) -> pl.DataFrame:
    """The first day, once it is over."""
    landing = shop.at(2, 1).landing
    days = landing.list()
    return landing.read(FIRST, days[FIRST]) if days else pl.DataFrame()


def test_facts_are_kept_and_land(shop: StreamedShop) -> None:
    """As JSON and as Arrow, of any writer's types that lose nothing; the answer counts them and names the event."""
    sent = orders(FIRST)
    asked = Asked(shop)
    status, headers, told = asked.post(as_json(sent[:10]), x_request_id="of-the-courier")
    assert (status, headers["x-request-id"]) == (202, "of-the-courier")
    assert told == {"event": "of-the-courier", "accepted": 10, "refused": 0, "source": "orders", "errors": []}
    written = io.BytesIO()
    sent[10:].with_columns(pl.col("items").cast(pl.Int64)).write_ipc_stream(written)
    assert asked.post(written.getvalue(), content_type=ARROW)[2]["accepted"] == 20
    assert landed(shop).sort("order_id").equals(sent.sort("order_id"))


def test_one_object_is_one_fact(shop: StreamedShop) -> None:
    """Whoever has one need not write a list."""
    asked = Asked(shop)
    assert asked.post(as_json(orders(FIRST)[:1])[1:-1])[2]["accepted"] == 1


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"items": 99}, "breaks items: at most 20"),
        ({"courier": None}, "breaks courier: not null"),
        ({"distance_km": "far"}, "column distance_km: row 1 holds 'far', which is no Float64"),
        ({"reported_at": "2024-01-01T10:00:00"}, "column reported_at: row 1 holds '2024-01-01T10:00:00'"),
        ({"items": {"a": 1}}, "column items: is Struct"),
        ({"delivered_at": "2023-12-31T10:00:00Z"}, "breaks delivered after ordered"),
    ],
)
def test_a_row_that_breaks_the_contract_is_refused_alone(
    shop: StreamedShop, changed: dict[str, Any], reason: str
) -> None:
    """By its place and what is wrong with it; alone in a body it is 422."""
    asked = Asked(shop)
    status, _, told = asked.post(as_json(orders(FIRST)[:3], **changed))
    assert (status, told["accepted"], told["refused"]) == (202, 2, 1)
    ((refused),) = told["errors"]
    assert refused["row"] == 0
    assert reason in refused["reason"]
    status, headers, told = asked.post(as_json(orders(FIRST)[:1], **changed))
    assert (status, headers["content-type"], told["status"]) == (422, "application/problem+json", 422)
    assert reason in told["errors"][0]["reason"]
    assert landed(shop).height == 2


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "it is no list of JSON objects"),
        (b"[]", 400, "it holds 0 rows"),
        (b"[1]", 400, "it is no list of JSON objects"),
        (b"[" + b"{}," * 20_001 + b"{}]", 400, "it has more than 20000 rows"),
        (b"x" * (FACT_BYTES + 1), 413, "longer than"),
    ],
)
def test_what_is_no_body_is_refused_as_a_problem(shop: StreamedShop, body: bytes, status: int, told: str) -> None:
    """With what to do, and nothing is kept."""
    found, headers, problem = Asked(shop).post(body)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    assert told in problem["detail"]
    assert not (shop.platform.home / "facts").exists()


def test_only_streamed_sources_and_posts_are_taken(shop: StreamedShop) -> None:
    """A source that lands otherwise, one that is unknown, and another method are refused, each with what there is."""
    body = as_json(orders(FIRST)[:1])
    assert Asked(shop).post(body, path="/facts/nothing")[2]["detail"].endswith("there is orders")
    status, _, told = Asked(shop, domain=DOMAIN).post(body)
    assert (status, "declare `landing=Stream" in told["detail"] or "declares `landing=Stream" in told["detail"]) == (
        404,
        True,
    )
    assert Asked(shop).post(b"", method="GET")[0] == 405


def test_the_document_of_the_service_tells_where_facts_go(tmp_path: Path) -> None:
    """Where sources are streamed, and only there."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    paths = openapi(bundle, request_time=False)["paths"]
    assert not [path for path in paths if path.startswith("/facts")]
    bundle.domain = SHOP
    assert set(openapi(bundle, request_time=False)["paths"]) == {*paths, "/facts/orders"}


def test_a_key_that_may_only_ask_sends_no_facts(shop: StreamedShop, tmp_path: Path) -> None:
    """403 says which command makes one that may; nothing is kept. A key for facts alone asks for nothing."""
    keys = ApiKeys(tmp_path / "keys")
    _, asks = keys.create("shop front")
    _, sends = keys.create("courier app", may=["facts"])
    body, asked = as_json(orders(FIRST)[:2]), Asked(shop, keys=ApiKeys(tmp_path / "keys"))
    status, headers, told = asked.post(body, x_api_key=asks)
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    assert "`mlplatform keys create NAME --may facts`" in told["detail"]
    assert 'error="insufficient_scope"' in headers["www-authenticate"]
    assert not (shop.platform.home / "facts").exists()
    assert asked.post(body, x_api_key=sends)[0] == 202
    for path in ("/predict", "/predict/batch"):
        status, _, told = asked.post(body, x_api_key=sends, path=path)
        assert (status, "--may predictions" in told["detail"]) == (403, True)


def test_what_comes_is_counted_by_source(shop: StreamedShop) -> None:
    """Events and rows: taken in, sent again, refused; an unknown source is nobody's figure."""
    asked = Asked(shop)
    for _ in range(2):
        asked.post(as_json(orders(FIRST)[:3], items=99), x_request_id="twice")
    asked.post(as_json(orders(FIRST)[:1], items=99))
    asked.post(b"{")
    asked.post(b"[{}]", path="/facts/nothing")
    shown = figures(asked.metrics)
    counted = {name.removeprefix("mlplatform_fact_"): value for name, value in shown.items() if "_fact_" in name}
    assert counted == {
        "events_total outcome=accepted source=synthetic/orders": 1,
        "events_total outcome=repeated source=synthetic/orders": 1,
        "events_total outcome=refused source=synthetic/orders": 2,
        "rows_total outcome=accepted source=synthetic/orders": 2,
        "rows_total outcome=repeated source=synthetic/orders": 2,
        "rows_total outcome=refused source=synthetic/orders": 3,
    }
    assert {name: shown[f"mlplatform_refused_total status={name}"] for name in ("400", "404", "422")} == {
        "400": 1,
        "404": 1,
        "422": 1,
    }


def test_a_key_is_asked_for_and_names_the_event(shop: StreamedShop, tmp_path: Path) -> None:
    """Without one nothing is kept; two senders may use the same id."""
    keys = ApiKeys(tmp_path / "keys")
    asked = Asked(shop, keys=keys)
    body = as_json(orders(FIRST)[:2])
    assert asked.post(body)[0] == 401
    for name in ("one", "other"):
        _, token = keys.create(name, may=["facts"])
        for _ in range(2):
            # A new list of keys is looked at within a second.
            asked = Asked(shop, keys=ApiKeys(tmp_path / "keys"))
            assert asked.post(body, x_api_key=token, x_request_id="7")[0] == 202
    assert landed(shop).height == 4


def test_a_full_disk_is_an_outage_and_no_202(shop: StreamedShop) -> None:
    """503, to be sent again."""
    (shop.platform.home / "facts").parent.mkdir(parents=True, exist_ok=True)
    (shop.platform.home / "facts").write_text("a file where the folder should be")
    status, headers, told = Asked(shop).post(as_json(orders(FIRST)[:1]))
    assert (status, headers["retry-after"]) == (503, "1")
    assert "send it again" in told["detail"]


dies_after = """
import os, signal, sys
from pathlib import Path
from mlplatform.provenance.append_only import AppendOnlyFiles, _Open
from mlplatform_tests.fakes.streamed_shop import streamed_shop
from mlplatform_tests.serving.test_facts import Asked

when, home, body = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).read_bytes()
place = _Open if when in ("write", "force") else AppendOnlyFiles
real = getattr(place, when)

def die(self, *given):
    real(self, *given)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(place, when, die)
Asked(streamed_shop(home).at(1, 23)).post(body, x_request_id="again")
"""


@pytest.mark.parametrize("when", ["write", "force", "append"])
def test_a_gateway_that_is_killed_before_it_answers_keeps_each_fact_once(
    shop: StreamedShop, tmp_path: Path, when: str
) -> None:
    """The client sends the same again under the same id, to another worker."""
    body = tmp_path / "body"
    body.write_bytes(as_json(orders(FIRST)))
    killed = subprocess.run(
        [sys.executable, "-c", dies_after, when, str(shop.platform.home), str(body)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    for _ in range(2):
        assert Asked(shop).post(body.read_bytes(), x_request_id="again")[0] == 202
    assert landed(shop).height == 30
