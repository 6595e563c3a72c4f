"""The process of `mlplatform stream`: one for a domain, from its start until it is told to stop.

It does one step after the other. What is there when it begins (facts that came while nobody streamed) is published
first. Two of them for one domain and home would record everything twice, so the second one is refused.
"""

import fcntl
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlplatform.domain.domain import Domain
from mlplatform.errors import Unavailable
from mlplatform.features.online.store import open_online_store
from mlplatform.features.streaming.consumers import open_consumer
from mlplatform.features.streaming.progress import lock_file, write_progress
from mlplatform.features.streaming.streaming import Streaming
from mlplatform.provenance.platform import Platform

log = logging.getLogger(__name__)

wait_seconds = 1.0
"""At most between two steps; facts that arrive end the wait."""

pause_seconds = 1.0
"""After something was not there, such as the disk; what was not acknowledged is given again."""

progress_seconds = 10.0
"""After a step with nothing new: how often it is told that there was one."""

patience_seconds = 1.0
"""For the lock: whoever looks whether it is held (`progress`) holds it for a moment, and a process that was told to
stop finishes its step."""


def stream(platform: Platform, domain: Domain, *, address: str | None = None, once: bool = False) -> Streaming:
    """Publish as facts arrive, until SIGINT or SIGTERM.

    Parameters
    ----------
    address : `redis://…` to take facts from there too; None: those that gateways take in
    once : end when nothing is left to publish

    Raises
    ------
    DeclarationError
        Nothing of the domain is streamed.
    Unavailable
        Another process streams the domain.
    """
    with _alone(platform, domain), _told_to_stop() as stopped:
        consumer = open_consumer(address, domain, platform.home, platform.clock)
        streaming = Streaming(platform, domain, open_online_store(platform.online_store), consumer)
        log.info("streaming %s: %s", domain.name, ", ".join(streaming.views))
        tell_at = -float("inf")
        while not stopped:
            try:
                put = streaming.step(0.0 if once else wait_seconds)
                if put or time.monotonic() >= tell_at:
                    write_progress(platform, domain, streaming)
                    tell_at = time.monotonic() + progress_seconds
            except (Unavailable, OSError) as error:
                if once:
                    raise
                log.warning("%s", error)
                time.sleep(pause_seconds)
                continue
            if put:
                log.info("%d values, %d in all", put, streaming.published)
            if once and not put:
                break
    return streaming


@contextmanager
def _alone(platform: Platform, domain: Domain) -> Iterator[None]:
    lock, until = lock_file(platform.home, domain), time.monotonic() + patience_seconds
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    told = f"{domain.name} is streamed by another process already. Stop that one first"
                    raise Unavailable(told) from error
                time.sleep(0.05)
        yield


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Gathers the signals to stop, so that a step is always finished."""
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
