"""Two versions of a small model, open in this process: their workers take simulated time, hang, or raise."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.errors import WorkerLost
from mlplatform.features.online.store import open_online_store
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from mlplatform_tests.fakes.tiny_domain import AT, bundle_of, publish, write_package
from serving.batch import Ask, Batch
from serving.cache import PredictionCache
from serving.circuit_breaker import CircuitBreaker
from serving.live_model import LiveModel
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.roster import Version
from serving.routing import UNPLANNED, Route
from serving.worker_connections import Scored

NORTH = b'{"berth": "north", "length": 250.0, "flag": "NO"}'


@dataclass
class Bundles:
    """Made once: a champion, one that computes the same features, one that does not."""

    home: Path
    champion: Bundle
    alike: Bundle
    other: Bundle


def bundles(home: Path) -> Bundles:
    """Three versions, and a store with their view."""
    publish(home)
    package = write_package(home / "package")
    return Bundles(
        home,
        bundle_of(home / "bundles", package),
        bundle_of(home / "bundles", package, model_version="2024-05-02-ab12cd34"),
        bundle_of(home / "bundles", write_package(home / "other", factor="3.0")),
    )


@dataclass
class Asked:
    """A batch at a worker."""

    rows: int
    sent: float
    ahead: list["Asked"] = field(default_factory=list)
    """What the worker had to do first."""

    done: bool = False


class Workers:
    """Two workers of one version, each one batch after the other, on the loop's clock."""

    def __init__(self, bundle: Bundle, seconds: Callable[[], float | str]) -> None:
        self.bundle = bundle
        self.seconds = seconds
        """Of the next batch; `hangs` or `raises`."""
        self.connected = 2
        self.batches: list[Asked] = []
        self._at: tuple[list[Asked], list[Asked]] = ([], [])

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As the model workers do it."""
        loop = asyncio.get_running_loop()
        mine = min(self._at, key=len)
        this = Asked(len(matrix), loop.time(), [*mine])
        self.batches.append(this)
        takes = self.seconds()
        if takes == "raises":
            raise WorkerLost("killed")
        mine.append(this)
        try:
            async with asyncio.timeout(deadline - loop.time()):
                while mine[0] is not this:
                    await asyncio.sleep(0.0005)
                await asyncio.sleep(1e9 if isinstance(takes, str) else takes)
        finally:
            mine.remove(this)
            this.done = True
        return Scored(self.bundle.calibration.apply(raw_scores(self.bundle.booster, matrix)), 0.0)

    async def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class Logged:
    """A log that keeps what it is told."""

    rows: list[tuple[str, Route, str, float]] = field(default_factory=list)
    """(request id, route, manifest, the loop's time)."""

    batches: list[tuple[LiveModel, Batch]] = field(default_factory=list)

    def __call__(self, live: LiveModel, batch: Batch) -> None:
        """As `LogWriter`."""
        batch.came = batch.came or [round(1e9 * each) for each in batch.asks.received]
        self.batches.append((live, batch))
        now = asyncio.get_running_loop().time()
        digest = live.predictor.bundle.digest
        self.rows += [(*row, digest, now) for row in zip(batch.asks.request_id, batch.asks.route, strict=True)]


def opened(bundle: Bundle, home: Path, workers: Any, metrics: Metrics, log: Logged) -> LiveModel:
    """A version on the running loop's clock; nothing of it is in a thread."""
    clock = asyncio.get_running_loop().time
    store = open_online_store(str(home / "online"))
    cache: PredictionCache[Any] = PredictionCache(0, clock=clock)

    def predictor(*, counting: bool = True) -> Predictor:
        breakers = [
            CircuitBreaker(
                name, bundle.model.serving.breaker, clock=clock, random=lambda: 0.5, on_transition=lambda _: None
            )
            for name in ("model", "store")
        ]
        for breaker in breakers:
            if not counting:
                breaker.disable()
        return Predictor(
            bundle,
            store,
            workers,
            breaker=breakers[0],
            store_breaker=breakers[1],
            cached=lambda _: None,
            now=lambda: AT,
            request_time=False,
            clock=clock,
        )

    version = Version(digest=bundle.digest, bundle=str(bundle.folder), sockets=("one", "two"), since="")
    return LiveModel(
        version, predictor(), quiet=predictor(counting=False), cache=cache, metrics=metrics, log=log, clock=clock
    )


async def ask(live: LiveModel, name: str, route: Route = UNPLANNED, body: bytes = NORTH) -> Any:
    """The answer to one request."""
    now = asyncio.get_running_loop().time()
    values, at = live.predictor.understand(body)
    deadline = now + live.predictor.budget
    return json.loads(await live.answer(Ask(values, at, body, name, "", body, now, deadline, route)))
