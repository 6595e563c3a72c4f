"""The HTTP face of the service: routes, bodies, headers and refusals, as a Starlette application.

It decides nothing about predictions (`predictor` does) and knows nothing of BentoML (`service` does). A bundle that
cannot be loaded does not end the process: it says why at `/readyz`, where somebody looks, instead of restarting over
and over.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlplatform.errors import BundleError, DeviceUnavailable, InvalidRequest, MalformedBody, MlplatformError
from mlplatform.features.online import OnlineStore, SnapshotStore
from mlplatform.registry.bundle import Bundle, load_bundle
from mlplatform.settings import Settings
from serving.api_page import index_page, openapi
from serving.json_body import MAX_BYTES, decode_object
from serving.predictor import Predictor
from serving.problem import invalid_fields, problem
from serving.readiness import Check, readiness

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""What an id may hold: it goes into logs and headers, so no spaces, quotes or line ends."""


@dataclass(frozen=True)
class Served:
    """What the application serves, once loaded."""

    bundle: Bundle
    store: OnlineStore
    predictor: Predictor
    page: str
    document: bytes


def serve_bundle(folder: Path, settings: Settings, *, now: Callable[[], datetime]) -> Served:
    """Load a bundle with the online snapshot of `settings.home`, and warm it up.

    Raises
    ------
    BundleError
        The bundle must not be served. A missing device is another case: the simple model answers, `/readyz` says so.
    """
    bundle = load_bundle(folder)
    try:
        bundle.booster  # noqa: B018  # loads it: the first request must not wait seconds for the import of XGBoost
    except DeviceUnavailable as error:
        logger.error("%s", error)
    store = SnapshotStore(settings.home / "online")
    request_time = settings.clock == "request"
    return Served(
        bundle=bundle,
        store=store,
        predictor=Predictor(bundle, store, score=bundle.scores, now=now, request_time=request_time),
        page=index_page(bundle),
        document=msgspec.json.encode(openapi(bundle, request_time=request_time)),
    )


def wall_clock() -> datetime:
    """Now, aware UTC."""
    return datetime.now(UTC)


def build_app(folder: Path, settings: Settings, *, now: Callable[[], datetime] = wall_clock) -> Starlette:
    """The application for one bundle; the bundle is loaded when the server starts, not here."""

    @asynccontextmanager
    async def loaded(app: Starlette) -> AsyncIterator[None]:
        try:
            app.state.served, app.state.fault = serve_bundle(folder, settings, now=now), ""
        except MlplatformError as error:
            logger.error("nothing is served: %s", error)
            app.state.served, app.state.fault = None, str(error)
        yield

    return Starlette(
        routes=[
            Route("/", _index),
            Route("/predict", _predict, methods=["POST"]),
            Route("/model", _model),
            Route("/docs.json", _document),
            Route("/livez", _alive),
            Route("/readyz", _ready),
        ],
        exception_handlers={HTTPException: _refused, BundleError: _not_served, Exception: _fault},
        lifespan=loaded,
    )


async def _predict(request: Request) -> Response:
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    if not REQUEST_ID.fullmatch(request_id):
        return problem(400, "X-Request-ID may hold 1 to 128 letters, digits and ._:- . Send another one, or none")
    headers = {"X-Request-ID": request_id}
    served = _served(request)
    try:
        answer = served.predictor.answer(decode_object(await _body(request)), request_id)
    except MalformedBody as error:
        return problem(400, str(error), headers=headers)
    except InvalidRequest as error:
        return invalid_fields(error.fields, headers=headers)
    return Response(msgspec.json.encode(answer), headers=headers, media_type="application/json")


async def _body(request: Request) -> bytes:
    """The whole body, unless it is too long to be a request."""
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > MAX_BYTES:
            raise HTTPException(413, f"the body is longer than {MAX_BYTES} bytes; one request takes far less")
        chunks.append(chunk)
    return b"".join(chunks)


async def _index(request: Request) -> Response:
    return HTMLResponse(_served(request).page)


async def _model(request: Request) -> Response:
    bundle = _served(request).bundle
    told: dict[str, Any] = {"digest": bundle.digest, "meaning": bundle.model.meaning, **bundle.manifest.to_dict()}
    return Response(msgspec.json.encode(told), media_type="application/json")


async def _document(request: Request) -> Response:
    return Response(_served(request).document, media_type="application/json")


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _ready(request: Request) -> Response:
    served: Served | None = request.app.state.served
    if served is None:
        checks = [Check("bundle", request.app.state.fault)]
    else:
        # Golden rows are read from disk and scored: not on the loop that answers requests.
        checks = await to_thread.run_sync(readiness, served.bundle, served.store)
    told = [{"check": check.name, "holds": check.holds, "reason": check.reason} for check in checks]
    failed = [check for check in checks if not check.holds]
    if failed:
        detail = "; ".join(f"{check.name}: {check.reason}" for check in failed)
        return problem(503, detail, checks=told)
    return Response(msgspec.json.encode({"status": "ready", "checks": told}), media_type="application/json")


def _served(request: Request) -> Served:
    served: Served | None = request.app.state.served
    if served is None:
        raise HTTPException(503, request.app.state.fault)
    return served


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, headers=error.headers)


async def _not_served(_request: Request, error: Exception) -> Response:
    return problem(503, str(error))


async def _fault(_request: Request, _error: Exception) -> Response:
    # Starlette raises it again after this answer, so the server's log has it; it is not written there twice.
    return problem(500, "a fault of the service; its log says which")
