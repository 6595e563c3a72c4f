"""Requests of the past, asked of a running service, each with its own time and its own id.

Some connections that stay open, as clients in production have them: the service forms its batches, keeps its deadlines
and writes its log as it would. Who asks waits for no answer longer than `answer_seconds`, and counts what fails.
"""

import http.client
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit

import polars as pl

from mlplatform.errors import DataError, Unavailable

connections = 32
"""So many requests are under way at once: what comes together is answered as one batch, at half the cost of four."""

answer_seconds = 20.0


class Service:
    """A gateway that takes requests with their own time.

    Parameters
    ----------
    url : http://host:port
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise DataError(f"{url!r} is no address of a service. Write it as http://127.0.0.1:3001")
        self._host, self._port = parts.hostname, parts.port or 80
        self._pool = ThreadPoolExecutor(max_workers=connections)
        self._open = [self._connection() for _ in range(connections)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for connection in self._open:
            connection.close()

    def require_own_time(self) -> None:
        """Refuse a service that would take the requests of the past for requests of now.

        Raises
        ------
        Unavailable
            It does not answer, or its requests may not bring their time.
        """
        document = self._get("/docs.json")
        if '"at"' not in json.dumps(document):
            raise Unavailable(
                f"{self.url} answers as of now, and not as of a request's own time. Start it with "
                "MLPLATFORM_CLOCK=request, with this home, on this machine"
            )

    def manifest(self) -> str:
        """Digest of the model that answers now."""
        return str(self._get("/model")["digest"])

    def ask(self, requests: pl.DataFrame, ids: Sequence[str]) -> Counter[int]:
        """Ask each; gives how many had which HTTP status, 0 for none."""
        named = [(name, _as_json(row)) for name, row in zip(ids, requests.iter_rows(named=True), strict=True)]

        def part(number: int) -> Counter[int]:
            return Counter(_statuses(self._open[number], named[number::connections]))

        return sum(self._pool.map(part, range(connections)), Counter[int]())

    def _get(self, path: str) -> Any:
        try:
            with closing(self._connection()) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.url} does not answer ({error}). Start the service, or leave out --url") from error
        if response.status != 200:
            raise Unavailable(f"{self.url}{path} says {response.status}: {body[:300].decode(errors='replace')}")
        return json.loads(body)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=answer_seconds)


def request_ids(day: str, rows: int) -> list[str]:
    """What the requests of a replayed day are called: the same each time, so that none is asked twice."""
    return [f"replay-{day}-{number:06}" for number in range(rows)]


def _statuses(connection: http.client.HTTPConnection, named: Sequence[tuple[str, bytes]]) -> Iterator[int]:
    """Ask one after the other; the HTTP status of each, 0 for none."""
    for name, body in named:
        headers = {"Content-Type": "application/json", "X-Request-ID": name}
        # A connection that was idle while a model was trained has been closed by the service: the second one is new.
        for attempt in range(2):
            try:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if attempt or not isinstance(error, ConnectionError):
                    yield 0
                    break
            else:
                yield response.status
                break


def _as_json(row: dict[str, Any]) -> bytes:
    told = {name: each.isoformat() if isinstance(each, datetime) else each for name, each in row.items()}
    return json.dumps(told).encode()
