"""Traffic: each request with its own time and id, and an account of what was not answered."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import polars as pl
import pytest

from mlplatform.errors import DataError, Unavailable
from mlplatform.simulation.traffic import Service, request_ids

REQUESTS = pl.DataFrame(
    {"order_id": range(100), "at": [datetime(2024, 1, 25, 7, 30, tzinfo=UTC)] * 100},
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)


@contextmanager
def server(document: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A service that refuses every tenth request and breaks off every other tenth one; its address, and what it saw."""
    seen: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.headers["X-Request-ID"], body))
            if body["order_id"] % 10 == 7:
                self.close_connection = True
                return
            self._say(422 if body["order_id"] % 10 == 3 else 200, b"{}")

        def do_GET(self) -> None:
            self._say(200, json.dumps({"/docs.json": document, "/model": {"digest": "d1"}}[self.path]).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    class Listening(ThreadingHTTPServer):
        request_queue_size = 64
        daemon_threads = True

    listening = Listening(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", seen
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def test_each_request_is_asked_once_with_its_own_time_and_id() -> None:
    """Whatever becomes of the others; what is refused and what is not answered is counted."""
    ids = request_ids("2024-01-25", 100)
    with server({"request": {"at": {}}}) as (url, seen), Service(url) as service:
        assert service.ask(REQUESTS, ids) == Counter({200: 80, 422: 10, 0: 10})
        assert service.ask(REQUESTS.clear(), []) == Counter()
        service.require_own_time()
        assert service.manifest() == "d1"
    assert {name: body["order_id"] for name, body in seen} == dict(zip(ids, range(100), strict=True))
    assert {body["at"] for _, body in seen} == {"2024-01-25T07:30:00+00:00"}


def test_a_service_that_answers_as_of_now_is_refused() -> None:
    """It would take the requests of the past for requests of now."""
    refused = pytest.raises(Unavailable, match="MLPLATFORM_CLOCK=request")
    with server({"request": {}}) as (url, _), Service(url) as service, refused:
        service.require_own_time()


def test_no_service_is_told_apart_from_no_address() -> None:
    """Nobody listens there, or it is no address at all."""
    with Service("http://127.0.0.1:9") as service, pytest.raises(Unavailable, match="does not answer"):
        service.manifest()
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:3001"):
        Service("127.0.0.1:3001")
