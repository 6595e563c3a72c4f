"""A gateway worker: the process that answers HTTP, on the socket that it shares with its siblings.

Started by the supervisor as `python -m serving.gateway_worker`. It shows a sign of life every second from its event
loop, so that a loop that hangs is noticed. SIGTERM ends it when it has answered what it holds.
"""

import argparse
import asyncio
import logging
import signal
import socket
from functools import partial
from pathlib import Path

import uvicorn

from mlplatform.registry.api_keys import ApiKeys, keys_folder
from mlplatform.settings import settings, silence_telemetry
from serving.access import Access, keys_required
from serving.breaker_writer import BreakerWriter
from serving.gateway import Gateway
from serving.http_protocol import HttpProtocol
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.parent_death import end_with_parent
from serving.rate_limit import rate_limits

SIGN_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 75
"""A load balancer closes its side first: AWS's after 60 s."""

DRAIN_SECONDS = 20

REPLAY_ROLL_SECONDS = 0.3
"""Where requests tell their own time, a day passes in seconds, and its answers are wanted when it is over."""


def main() -> None:
    """Run as `python -m serving.gateway_worker`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listening", type=int, required=True)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--number", type=int, required=True)
    arguments.add_argument("--of", type=int, required=True)
    given = arguments.parse_args()
    end_with_parent(signal.SIGTERM)
    silence_telemetry()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    told = settings()
    listening = socket.socket(fileno=given.listening)
    host = str(listening.getsockname()[0])
    metrics = Metrics(given.folder / "metrics")
    replay = {"roll_after": REPLAY_ROLL_SECONDS} if told.clock == "request" else {}
    log = LogWriter(told.home, metrics, **replay)
    transitions = BreakerWriter(told.home)
    traces = None
    if told.traces:
        from serving.traces import open_traces

        traces = open_traces()
    gateway = Gateway(
        given.folder,
        told,
        access=Access(
            ApiKeys(keys_folder(told.home)),
            required=keys_required(told.keys, host),
            limits=rate_limits(told.rate_limits, workers=given.of),
        ),
        metrics=metrics,
        log=log if traces is None else traces.noting(log),
        beside=partial(_show, given.folder / f"gateway-{given.number}", log),
        traced=None if traces is None else traces.around,
        changed=transitions,
    )
    config = uvicorn.Config(
        gateway,
        loop="uvloop",
        http=HttpProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here asks who the client is; a proxy's headers would be read for each request.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        log.close()
        transitions.close()
        if traces is not None:
            traces.close()


async def _show(sign: Path, log: LogWriter) -> None:
    """A sign of life, for as long as the event loop turns."""
    while True:
        sign.touch()
        log.show()
        await asyncio.sleep(SIGN_SECONDS)


if __name__ == "__main__":
    main()
