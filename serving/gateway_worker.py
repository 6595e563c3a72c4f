"""A gateway worker: the process that answers HTTP, on the socket that it shares with its siblings.

Started by the supervisor as `python -m serving.gateway_worker`. It shows a sign of life every second from its event
loop, so that a loop that hangs is noticed. SIGTERM ends it when it has answered what it holds.
"""

import argparse
import asyncio
import logging
import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from mlplatform.registry.api_keys import ApiKeys, keys_folder
from mlplatform.settings import settings, silence_telemetry
from serving.access import Access, keys_required
from serving.gateway import Gateway
from serving.http_protocol import HttpProtocol
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.rate_limit import rate_limits

SIGN_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 75
"""A load balancer closes its side first: AWS's after 60 s."""

DRAIN_SECONDS = 20


def main() -> None:
    """Run as `python -m serving.gateway_worker`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listening", type=int, required=True)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--number", type=int, required=True)
    arguments.add_argument("--of", type=int, required=True)
    given = arguments.parse_args()
    silence_telemetry()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    told = settings()
    listening = socket.socket(fileno=given.listening)
    host = str(listening.getsockname()[0])
    metrics = Metrics(given.folder / "metrics")
    log = LogWriter(told.home, metrics)
    gateway = Gateway(
        given.folder,
        told,
        access=Access(
            ApiKeys(keys_folder(told.home)),
            required=keys_required(told.keys, host),
            limits=rate_limits(told.rate_limits, workers=given.of),
        ),
        metrics=metrics,
        log=log,
    )
    config = uvicorn.Config(
        _alive(gateway, log, given.folder / f"gateway-{given.number}"),
        loop="uvloop",
        http=HttpProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        log.close()


def _alive(app: Gateway, log: LogWriter, sign: Path) -> ASGIApp:
    """The application, with a sign of life from its start to its end."""
    tasks: list[asyncio.Task[None]] = []

    async def show() -> None:
        while True:
            sign.touch()
            log.show()
            await asyncio.sleep(SIGN_SECONDS)

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            tasks.append(asyncio.get_running_loop().create_task(show()))
        await app(scope, receive, send)

    return run


if __name__ == "__main__":
    main()
