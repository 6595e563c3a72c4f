"""A model version as one gateway worker serves it: its bundle, its workers, its breaker, its batches."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from mlplatform.errors import InvalidRequest, Unavailable
from mlplatform.features.online.store import OnlineStore
from mlplatform.registry.bundle import Bundle, load_bundle
from mlplatform.scoring.fallback import Answer
from mlplatform.settings import Settings
from serving.batch import Ask, Asks, Batch
from serving.batching import Batcher
from serving.cache import PredictionCache
from serving.circuit_breaker import CircuitBreaker, Transition
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.roster import Version
from serving.worker_connections import ModelWorkers

logger = logging.getLogger(__name__)

WARM_UP_SECONDS = 30.0

CONNECT_SECONDS = 5.0
"""A gateway worker that starts does not take requests before it has reached the model, or has waited so long."""


class LiveModel:
    """One version, open.

    Parameters
    ----------
    predictor : answers
    quiet : scores for the log alone: no breaker and no cache of an answer knows of it
    log : is given each batch that has its answers, before anybody gets them
    """

    def __init__(
        self,
        version: Version,
        predictor: Predictor,
        *,
        quiet: Predictor,
        cache: PredictionCache[Answer],
        metrics: Metrics,
        log: Callable[["LiveModel", Batch], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = version
        self.predictor = predictor
        self.quiet = quiet
        self.shadow: Callable[[Batch], None] | None = None
        """Takes each batch that has its answers, so that the other arm scores it too; None: it does not."""
        self.cache = cache
        self.metrics = metrics
        self.name = predictor.bundle.manifest.model
        self._closed = False
        self._answering: set[asyncio.Future[list[Batch]]] = set()
        """Many rows each, that did not wait in the queue."""
        self._log = log
        self._clock = clock
        self._serving = predictor.bundle.model.serving
        self._batcher: Batcher[Ask, bytes] = Batcher(
            self._process,
            lanes=max(1, len(version.sockets)),
            max_rows=self._serving.max_batch_rows,
            max_queued_rows=self._serving.max_queued_rows,
            clock=clock,
        )

    @property
    def busy(self) -> bool:
        """Whether a batch that came now would have to wait."""
        return self._batcher.queued_rows > 0 or self._batcher.running >= self._batcher.lanes

    def follow(self, version: Version) -> None:
        """Go on with the workers that the version has now."""
        if version.sockets != self.version.sockets:
            self.predictor.workers.follow([Path(socket) for socket in version.sockets])
            self._batcher.open_lanes(max(1, len(version.sockets)))
        self.version = version

    async def answer(self, ask: Ask) -> bytes:
        """The answer to one request, encoded.

        Raises
        ------
        InvalidRequest, QueueFull, Unavailable
            As `Batcher.submit`; whatever else goes wrong is answered by the fallback chain.
        """
        age = self._serving.cache_for.total_seconds()
        if age <= 0:
            return await self._computed(ask)
        digest, revision = self.predictor.bundle.digest, await self.predictor.reader.revision()
        while True:
            known = self.cache.fresh(digest, ask.canonical, revision, age)
            if known is not None:
                return self.tell([self.predictor.repeated(ask, known)])[0]
            seat = self.cache.flight(digest, ask.canonical, revision)
            if seat is None:
                try:
                    return await self._computed(ask)
                finally:
                    self.cache.leave(digest, ask.canonical, revision)
            if await seat is None:
                return await self._computed(ask)

    async def answer_rows(self, asks: Asks, rows: pl.DataFrame) -> list[Batch]:
        """The answers to many rows, logged and counted.

        Raises
        ------
        Unavailable
            The version is not served any more.
        """
        if self._closed:
            raise Unavailable("this version is not served any more. Ask again")
        answering = asyncio.ensure_future(self.predictor.predict_rows(asks, rows))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        batches = await answering
        for batch in batches:
            self.record(batch)
        return batches

    async def _computed(self, ask: Ask) -> bytes:
        # Past four fifths of its time a request is in no batch any more: the rest is for the fallback chain.
        try:
            return await self._batcher.submit(ask, deadline=ask.deadline - self.predictor.budget / 5)
        except TimeoutError:
            return self.tell([self.predictor.without_model(ask, "the request waited too long for the model")])[0]

    async def _process(self, asks: list[Ask]) -> Sequence[bytes | Exception]:
        batches, refused = await self.predictor.predict(asks)
        if not refused and len(batches) == 1:
            return self.tell(batches)
        told = iter(self.tell(batches))
        return [refused[position] if position in refused else next(told) for position in range(len(asks))]

    def tell(self, batches: list[Batch]) -> list[bytes]:
        """The answers, encoded; remembered, logged and counted before anybody has them."""
        encoded: list[bytes] = []
        for batch in batches:
            encoded += self.predictor.encoded(batch)
            self._remember(batch)
            self.record(batch)
        return encoded

    def record(self, batch: Batch) -> None:
        """Log and count the answers of a batch."""
        now = self._clock()
        batch.seconds = [now - received for received in batch.asks.received]
        self._log(self, batch)
        if self.shadow is not None:
            self.shadow(batch)
        self.metrics.answered(self.name, _by_arm(batch), batch.seconds)
        self.metrics.batch(
            len(batch.asks), queue=batch.queue, features=batch.computing, hop=batch.hop, score=batch.scoring
        )

    def _remember(self, batch: Batch) -> None:
        if self._serving.cached_entries == 0 or not batch.complete:
            return
        digest, revision = self.predictor.bundle.digest, batch.revision
        for request, answer in zip(batch.asks.canonical, batch.answers.rows(), strict=True):
            if answer.source == "model":
                self.cache.put(digest, request, revision, answer)

    def show(self) -> None:
        """Set the figures that are states and not events."""
        self.metrics.queued(self._batcher.queued_rows)
        self.metrics.connected(self.name, self.predictor.workers.connected)
        self.metrics.objective(self.name, self.predictor.bundle.model.objectives.p99_ms.value / 1000)
        for breaker in (self.predictor.breaker, self.predictor.reader.breaker):
            self.metrics.breaker(breaker.name, breaker.state)

    async def close(self) -> None:
        """Answer what waits, then leave the workers."""
        self._closed = True
        await self._batcher.close()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self.predictor.reader.close()
        self.quiet.reader.close()
        await self.predictor.workers.close()


async def open_model(
    version: Version,
    store: OnlineStore,
    settings: Settings,
    *,
    metrics: Metrics,
    log: Callable[[LiveModel, Batch], None],
    now: Callable[[], datetime],
    changed: Callable[[Bundle, Transition], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LiveModel:
    """Load a version beside what serves, and reach its workers.

    Raises
    ------
    BundleError
        The bundle must not be served.
    """
    bundle: Bundle = await asyncio.to_thread(load_bundle, Path(version.bundle))
    serving = bundle.model.serving
    workers = ModelWorkers([Path(socket) for socket in version.sockets], outputs=bundle.model.outputs)
    cache: PredictionCache[Answer] = PredictionCache(serving.cached_entries, clock=clock)
    oldest = serving.cached_fallback_for.total_seconds()

    def tell(transition: Transition) -> None:
        logger.warning("breaker of %s: %s", transition.name, transition)
        if changed is not None:
            changed(bundle, transition)

    def untold(name: str) -> CircuitBreaker:
        breaker = CircuitBreaker(name, serving.breaker, clock=clock, random=random.random, on_transition=lambda _: None)
        breaker.disable()
        return breaker

    predictor = Predictor(
        bundle,
        store,
        workers,
        breaker=CircuitBreaker(
            bundle.manifest.model, serving.breaker, clock=clock, random=random.random, on_transition=tell
        ),
        store_breaker=CircuitBreaker(
            "online store", serving.store_breaker, clock=clock, random=random.random, on_transition=tell
        ),
        cached=lambda request: cache.stale(bundle.digest, request, oldest),
        now=now,
        request_time=settings.clock == "request",
        clock=clock,
    )
    quiet = Predictor(
        bundle,
        store,
        workers,
        breaker=untold("shadow"),
        store_breaker=untold("shadow's online store"),
        cached=lambda _: None,
        now=now,
        request_time=settings.clock == "request",
        apart=True,
        clock=clock,
    )
    await workers.start()
    until = clock() + CONNECT_SECONDS
    while workers.connected == 0 and clock() < until:
        await asyncio.sleep(0.02)
    await _warm_up(predictor, clock)
    return LiveModel(version, predictor, quiet=quiet, cache=cache, metrics=metrics, log=log, clock=clock)


def _by_arm(batch: Batch) -> Counter[tuple[str, str]]:
    """(source, arm) -> answers."""
    routes, sources = batch.asks.route, batch.answers.source
    if routes.count(routes[0]) == len(routes):
        return Counter({(source, routes[0].arm): answers for source, answers in Counter(sources).items()})
    return Counter((source, route.arm) for source, route in zip(sources, routes, strict=True))


async def _warm_up(predictor: Predictor, clock: Callable[[], float]) -> None:
    """Answer the example request a few times, for nobody: what is first is slow, and would miss its deadline."""
    try:
        asked = predictor.bundle.domain.requests
        names = [column.name for column in asked.columns]
        example = {name: value for name, value in asked.example.items() if name in names}
        values, at = predictor.understand(msgspec.json.encode(example))
    except InvalidRequest as error:
        predictor.tell(f"the domain's own example is no request: {error}")
        return
    for rows in (1, 1, 32):
        now = clock()
        ask = Ask(values, at, b"", "", "", b"", now, now + WARM_UP_SECONDS)
        predictor.encoded(
            (await predictor.predict_rows(Asks.of([ask] * rows), predictor.frame([values] * rows, [at] * rows)))[0]
        )
