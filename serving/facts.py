"""Facts that are sent as they happen: `POST /facts/<source>`, kept before it is answered.

202 says that the facts are on the disk, in the fact log of their source; `mlplatform stream` publishes what
they change, and when the day is over they are the day's raw rows. It is sent again with the same `X-Request-ID` when no
answer came: twice the same is one event. A row that breaks the contract is refused alone, by its place and the rule.

It computes no feature, and opens no table.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
from starlette.types import Scope, Send

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source
from mlplatform.errors import DeclarationError, MalformedBody, Unavailable
from mlplatform.features.streaming.fact_log import FactWriter, fact_folder
from mlplatform.features.streaming.fact_rows import Understood, rows_at_once, streamed_source, understand
from serving.api_page import ARROW
from serving.arrow_stream import examine
from serving.metrics import Metrics
from serving.problem import send_problem

PATH = "/facts/"

FACT_BYTES = 4 * 1024 * 1024
"""Of one body: ten thousand rows of some hundred bytes. More at once is a day, and a day lands as a file."""

REMEMBERED = 10_000
"""Events of this worker by which one that is sent again is counted as repeated: whoever did not hear the answer asks
within seconds. It is a figure only; who reads the log takes each event once, however long ago it came."""

SHOWN = 100
"""Refused rows that are named in an answer; whoever sends thousands of them has one mistake, not thousands."""

Refuse = Callable[..., Awaitable[None]]


class FactIntake:
    """Takes in the facts of one gateway worker.

    Parameters
    ----------
    home : under which the logs lie
    now : aware UTC
    metrics : counts what came, by source
    """

    def __init__(self, home: Path, now: Callable[[], datetime], metrics: Metrics) -> None:
        self._home, self._now, self._metrics = home, now, metrics
        self._writers: dict[tuple[str, str], FactWriter] = {}
        self._seen: dict[str, None] = {}

    async def answer(
        self, domain: Domain, scope: Scope, body: bytes, name: str, caller: str, send: Send, refuse: Refuse
    ) -> None:
        """Take in a body and answer.

        Parameters
        ----------
        name : the request's id, which names the event
        caller : id of the API key: two senders may choose the same id
        refuse : of the gateway: (send, status, detail, headers=…)
        """
        told, counted = {"X-Request-ID": name}, ""
        kind = next((value for header, value in scope["headers"] if header == b"content-type"), b"").split(b";")[0]
        try:
            source = streamed_source(domain.sources, scope["path"].removeprefix(PATH))
            counted = f"{domain.name}/{source.name}"
            understood, identity = await asyncio.to_thread(
                self._take_in, domain, source, body, kind.decode("latin-1"), f"{caller}:{name}" if caller else name
            )
        except DeclarationError as error:
            await refuse(send, 404, str(error), headers=told)
        except MalformedBody as error:
            self._metrics.facts(counted, rows=0, refused=0)
            await refuse(send, 400, str(error), headers=told)
        except Unavailable as error:
            self._metrics.facts(counted, rows=0, refused=0)
            await refuse(send, 503, str(error), headers={**told, "Retry-After": "1"})
        else:
            rows, refused = understood.rows.height, len(understood.refused)
            self._metrics.facts(counted, rows=rows, refused=refused, repeated=rows > 0 and self._repeated(identity))
            if not rows:
                self._metrics.refused(422)
            await _send(send, source, understood, name)

    def _repeated(self, identity: str) -> bool:
        """Whether this worker has taken in that event before, as far as it remembers."""
        known = identity in self._seen
        self._seen[identity] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return known

    def _take_in(self, domain: Domain, source: Source, body: bytes, kind: str, event: str) -> tuple[Understood, str]:
        """What the body holds, and the identity of the event; empty where nothing of it was kept."""
        if kind == ARROW:
            examine(body, max_rows=rows_at_once, max_columns=2 * len(source.contract.columns) + 20)
        elif body.count(b"{") > rows_at_once:
            raise MalformedBody(f"it has more than {rows_at_once} rows", instead="Send several bodies")
        understood = understand(body, kind, source)
        if understood.rows.height:
            # Nothing is opened before the first append: of two threads the one that is late has made nothing.
            folder = fact_folder(self._home, domain.name, source.name)
            writer = self._writers.setdefault((domain.name, source.name), FactWriter(folder, self._now))
            return understood, writer.append(event, understood.rows)
        return understood, ""


async def _send(send: Send, source: Source, understood: Understood, name: str) -> None:
    refused = [{"row": row, "reason": reason} for row, reason in list(understood.refused.items())[:SHOWN]]
    counts = {"event": name, "accepted": understood.rows.height, "refused": len(understood.refused)}
    if not understood.rows.height:
        detail = f"no row keeps the contract of {source.name}; each is named with what it breaks"
        await send_problem(send, 422, detail, headers={"X-Request-ID": name}, errors=refused, **counts)
        return
    content = msgspec.json.encode({**counts, "source": source.name, "errors": refused})
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"x-request-id", name.encode()),
    ]
    await send({"type": "http.response.start", "status": 202, "headers": lines})
    await send({"type": "http.response.body", "body": content})
