"""The gateway: HTTP in front of the models, as a raw ASGI application.

A request is let in (`access`), understood, and put into a batch with those that come at the same moment (`batching`);
the predictor answers the batch; the answers are logged and counted, and each goes to its caller. Everything that costs
time is done once for a batch. It knows nothing of BentoML, and decides nothing about predictions.

Which model version answers is told by its arms. Another one takes over between two requests; what was asked of the one
before is answered by it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mlplatform.errors import InvalidRequest, MalformedBody, QueueFull, Unavailable
from mlplatform.features.online.store import OnlineStore, open_online_store
from mlplatform.registry.api_keys import Right
from mlplatform.registry.bundle import Bundle
from mlplatform.retraining.events import EVENT_BYTES
from mlplatform.settings import Settings
from serving.access import Access, Refused, read_body, request_id
from serving.api_page import index_page, openapi
from serving.arms import Arms
from serving.batch import Ask
from serving.bulk import answer_bulk
from serving.cache import canonical
from serving.circuit_breaker import Transition
from serving.facts import FACT_BYTES, FactIntake
from serving.facts import PATH as FACTS
from serving.json_body import MAX_BYTES
from serving.live_model import LiveModel, open_model
from serving.metrics import CONTENT_TYPE, Metrics
from serving.problem import send_invalid_fields, send_problem
from serving.readiness import readiness
from serving.refusals import faults
from serving.webhook import PATH as DATA_UPDATED
from serving.webhook import EventIntake

logger = logging.getLogger(__name__)

BODY_SECONDS = 10.0
"""A body that is longer under way is a client that has stopped, or wants to."""

BULK_BYTES = 64 * 1024 * 1024
"""Of `POST /predict/batch`: a hundred thousand rows of a hundred features take about 40 MB as Arrow."""

WATCH_SECONDS = 0.2
"""Between two looks at the roster and the plan: a rollback is to be everywhere within a second."""

Route = Callable[[Scope, Receive, Send], Awaitable[None]]


def wall_clock() -> datetime:
    """Now, aware UTC."""
    return datetime.now(UTC)


class Gateway:
    """The ASGI application of one gateway worker.

    Parameters
    ----------
    folder : the supervisor's, with the roster
    access, metrics : as their modules say
    log : takes the record of a batch, its rows; never fails
    beside : runs beside the requests, from start to stop
    traced : wraps the route of single predictions, where traces are on
    changed : is told of each transition of a breaker; never fails
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        access: Access,
        metrics: Metrics,
        log: Callable[[LiveModel, Any], None],
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        traced: Callable[[Route], Route] | None = None,
        changed: Callable[[Bundle, Transition], None] | None = None,
        now: Callable[[], datetime] = wall_clock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._access = access
        self._metrics = metrics
        self._beside = beside
        self._clock = clock
        self._store: OnlineStore = open_online_store(settings.online_store)
        self._arms = Arms(
            folder,
            # What was named by hand is what is served, whatever a plan says.
            settings.home if settings.bundle is None else None,
            open_version=partial(
                open_model, store=self._store, settings=settings, metrics=metrics, log=log, changed=changed, now=now
            ),
            log=log,
            metrics=metrics,
            clock=clock,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[str, tuple[str, Route]] = {
            "/predict": ("POST", self._predict if traced is None else traced(self._predict)),
            "/predict/batch": ("POST", self._bulk),
            DATA_UPDATED: ("POST", self._data_updated),
            "/model": ("GET", self._model),
            "/metrics": ("GET", self._shown_metrics),
            "/docs.json": ("GET", self._document),
            "/livez": ("GET", self._alive),
            "/readyz": ("GET", self._ready),
            "/": ("GET", self._index),
        }
        self._intake = FactIntake(settings.home, now, metrics)
        self._events = EventIntake(settings.home, now, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the process."""
        if scope["type"] == "lifespan":
            await self._live_through(receive, send)
            return
        if scope["type"] != "http":
            return
        method, route = self._routes.get(scope["path"], ("", None))
        if scope["path"].startswith(FACTS):
            method, route = "POST", self._facts
        if route is None:
            await self._refuse(send, 404, "there is no such path; `/docs.json` lists those there are")
        elif scope["method"] != method and (scope["method"], method) != ("HEAD", "GET"):
            await self._refuse(send, 405, f"this path takes {method}", headers={"Allow": method})
        else:
            try:
                await route(scope, receive, send)
            except ClientDisconnect:
                return
            except RuntimeError as error:
                # uvloop's word for a client that was gone before it had its answer.
                if "the handler is closed" not in str(error):
                    raise

    async def start(self) -> None:
        """Load what is live, and go on watching."""
        if self._beside is not None:
            self._tasks.add(asyncio.get_running_loop().create_task(self._beside()))
        await self._arms.start()
        self._tasks.add(asyncio.get_running_loop().create_task(self._watch()))

    async def stop(self) -> None:
        """Answer what is there, then let go of the workers."""
        for task in self._tasks:
            task.cancel()
        await self._arms.close()

    async def _live_through(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                self._arms.look()
                self._arms.show()
            except Exception:
                # Whatever it is, what serves goes on, and the next look may succeed.
                logger.exception("the roster could not be followed")

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = self._clock()
        headers = scope["headers"]
        name = request_id(headers)
        told = {"X-Request-ID": name}
        entered = await self._enter(headers, receive, send, name, at_most=MAX_BYTES, within=BODY_SECONDS)
        if entered is None:
            return
        live, caller, body = entered
        try:
            answer = await self._answer(live, body, name, caller, received)
        except MalformedBody as error:
            await self._refuse(send, 400, str(error), headers=told)
        except InvalidRequest as error:
            self._metrics.refused(422)
            self._metrics.refused_fields(faults([error.fields], live.predictor.bundle.domain.requests))
            await send_invalid_fields(send, error.fields, headers=told)
        except QueueFull as error:
            await self._refuse(
                send, 429, str(error), headers={**told, "Retry-After": f"{math.ceil(error.retry_after)}"}
            )
        except Unavailable as error:
            await self._refuse(send, 503, str(error), headers={**told, "Retry-After": "1"})
        else:
            await _send(send, 200, answer, request_id=name)

    async def _answer(self, champion: LiveModel, body: bytes, name: str, caller: str, received: float) -> bytes:
        arms, refused = self._arms, ""
        while True:
            values, at = champion.predictor.understand(body)
            if refused:
                live, route = champion, arms.instead(champion, refused)
            else:
                live, route = arms.of(champion, values, name)
            if live is not champion:
                values = arms.fit.values(values)
            deadline = received + live.predictor.budget
            ask = Ask(values, at, body, name, caller, canonical(values), received, deadline, route)
            try:
                return await live.answer(ask)
            except Unavailable:
                # Replaced in this very moment: its successor answers.
                if arms.champion is None or arms.champion is live:
                    raise
            except (QueueFull, InvalidRequest) as error:
                # The champion may have room, or rules that the request keeps.
                if live is champion:
                    raise
                refused = "full" if isinstance(error, QueueFull) else "refused"
            except Exception as error:
                # Whatever it is, a caller of the challenger is to fare no worse than one of the champion.
                if live is champion:
                    raise
                live.predictor.tell(f"the challenger raised {type(error).__name__}: {error}")
                refused = "failed"
            champion = arms.champion or champion

    async def _enter(
        self,
        headers: Any,
        receive: Receive,
        send: Send,
        name: str,
        *,
        at_most: int,
        within: float,
        right: Right = "predictions",
    ) -> tuple[LiveModel, str, bytes] | None:
        """The model, the caller and the body; None where the request was refused."""
        told = {"X-Request-ID": name}
        caller = await self._access.admit(headers, right)
        if isinstance(caller, Refused):
            await self._refuse(send, caller.status, caller.detail, headers={**told, **caller.headers})
            return None
        body = await read_body(headers, receive, at_most=at_most, within=within)
        if isinstance(body, Refused):
            await self._refuse(send, body.status, body.detail, headers={**told, **body.headers})
            return None
        if self._arms.champion is None:
            await self._refuse(send, 503, self._arms.fault, headers=told)
            return None
        return self._arms.champion, caller, body

    async def _bulk(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, headers = self._clock(), scope["headers"]
        name = request_id(headers)
        entered = await self._enter(headers, receive, send, name, at_most=BULK_BYTES, within=6 * BODY_SECONDS)
        if entered is None:
            return
        live, caller, body = entered
        kind = next((value for name, value in headers if name == b"content-type"), b"").split(b";")[0]
        try:
            media_type, answer = await answer_bulk(
                self._arms, live, body, kind.decode("latin-1"), caller, name, received
            )
        except MalformedBody as error:
            await self._refuse(send, 400, str(error), headers={"X-Request-ID": name})
        except InvalidRequest as error:
            self._metrics.refused(422)
            self._metrics.refused_fields(faults([error.fields], live.predictor.bundle.domain.requests))
            await send_invalid_fields(send, error.fields, headers={"X-Request-ID": name})
        except Unavailable as error:
            await self._refuse(send, 503, str(error), headers={"X-Request-ID": name, "Retry-After": "1"})
        else:
            await _send(send, 200, answer, media_type, request_id=name)

    async def _facts(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        name = request_id(headers)
        entered = await self._enter(
            headers, receive, send, name, at_most=FACT_BYTES, within=BODY_SECONDS, right="facts"
        )
        if entered is not None:
            live, caller, body = entered
            await self._intake.answer(live.predictor.bundle.domain, scope, body, name, caller, send, self._refuse)

    async def _data_updated(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        name = request_id(headers)
        entered = await self._enter(
            headers, receive, send, name, at_most=EVENT_BYTES, within=BODY_SECONDS, right="facts"
        )
        if entered is not None:
            live, caller, body = entered
            await self._events.answer(live.predictor.bundle.domain, body, name, caller, send, self._refuse)

    async def _model(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = await self._served(send)
        if live is not None:
            bundle = live.predictor.bundle
            told = {
                "digest": bundle.digest,
                "meaning": bundle.model.meaning,
                "since": live.version.since,
                **self._arms.told(),
                **bundle.manifest.to_dict(),
            }
            await _send(send, 200, msgspec.json.encode(told))

    async def _shown_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, 200, self._metrics.exposition(), CONTENT_TYPE)

    async def _document(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = await self._served(send)
        if live is not None:
            document = openapi(live.predictor.bundle, request_time=self._settings.clock == "request")
            await _send(send, 200, msgspec.json.encode(document))

    async def _index(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = await self._served(send)
        if live is not None:
            await _send(send, 200, index_page(live.predictor.bundle).encode(), "text/html; charset=utf-8")

    async def _alive(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, 200, b"alive\n", "text/plain; charset=utf-8")

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = await self._served(send)
        if live is None:
            return
        checks = await readiness(live.predictor, self._store, self._arms.roster)
        told = [{"check": check.name, "holds": check.holds, "reason": check.reason} for check in checks]
        failed = [check for check in checks if not check.holds]
        if failed:
            detail = "; ".join(f"{check.name}: {check.reason}" for check in failed)
            await send_problem(send, 503, detail, checks=told)
        else:
            await _send(send, 200, msgspec.json.encode({"status": "ready", "checks": told}))

    async def _served(self, send: Send) -> LiveModel | None:
        if self._arms.champion is None:
            await self._refuse(send, 503, self._arms.fault)
        return self._arms.champion

    async def _refuse(self, send: Send, status: int, detail: str, *, headers: Any = None) -> None:
        self._metrics.refused(status)
        await send_problem(send, status, detail, headers=headers)


async def _send(
    send: Send, status: int, content: bytes, media_type: str = "application/json", *, request_id: str = ""
) -> None:
    lines = [(b"content-type", media_type.encode()), (b"content-length", str(len(content)).encode())]
    if request_id:
        lines.append((b"x-request-id", request_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content})
