"""The shadow: the other arm scores what was answered, for the log alone.

Invariants:

- nobody waits for it: it is handed a batch when that has its answers, and gives nothing back;
- what waits for it is bounded; beyond that rows are dropped and counted, and so are those for which a version has no
  worker, or no time since it answers itself: only what a worker was asked can fail. A shadow that hangs, dies or
  raises changes no answer and fills no memory;
- one part of a few rows is under way at a time. In a worker that also answers, a live batch may meet one such part, if
  it finds both workers busy, and never a second one;
- it leaves no trace but the log and its own figures: no cache, no breaker and no fallback of a live answer knows of it.

Both arms are asked the same: the features themselves where both compute them alike, else the same rows at the same
instants. Rows are gathered for a moment first, since fifty together cost little more than one.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import polars as pl

from mlplatform.registry.manifest import Manifest
from serving.batch import Asks, Batch
from serving.live_model import LiveModel
from serving.request_fit import RequestFit
from serving.routing import Route

logger = logging.getLogger(__name__)

QUEUED_ROWS = 8192
"""Rows that wait at most: some 2 kB each, and seconds of traffic, or two parts of a bulk request."""

PART_ROWS = 64
"""Rows of one part: half a millisecond of a worker, which a live batch may meet."""

GATHER_SECONDS = 0.02
"""For which rows are gathered before they are scored."""

SECONDS = 2.0
"""Until a part is given up. Longer than a caller would wait: that a version is slow is for the log to tell."""

PATIENCE = 1.0
"""Seconds that a part waits for a version that answers others, or whose workers are being started."""


class Shadow:
    """What one version has to score of what the other answers.

    Parameters
    ----------
    live : the version that scores
    other : the version that answers
    fit : from its requests to those of `live`
    log : as that of `LiveModel`
    """

    def __init__(
        self,
        live: LiveModel,
        other: LiveModel,
        *,
        fit: RequestFit,
        log: Callable[[LiveModel, Batch], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._predictor = live.quiet
        self._fit = fit
        self._log = log
        self._clock = clock
        self._same = computed_alike(live.predictor.bundle.manifest, other.predictor.bundle.manifest)
        self._waiting: deque[Batch] = deque()
        self._queued_rows = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def queued_rows(self) -> int:
        """Rows that wait to be scored."""
        return self._queued_rows

    def take(self, batch: Batch) -> None:
        """A batch that has its answers. Takes some of its rows, or none, where there is no room for all."""
        room = QUEUED_ROWS - self._queued_rows
        for start in range(0, min(len(batch.asks), room), PART_ROWS):
            part = batch.part(start, min(start + PART_ROWS, room))
            self._waiting.append(part)
            self._queued_rows += len(part.asks)
        self._drop(len(batch.asks) - room)
        if self._task is None and self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Score no more; what waits is dropped."""
        if self._task is not None:
            self._task.cancel()
        self._drop(self._queued_rows)
        self._waiting.clear()
        self._queued_rows = 0

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_SECONDS)
                left = self._queued_rows
                while left > 0 and self._waiting:
                    part = self._next()
                    left -= sum(len(batch.asks) for batch in part)
                    await self._tried(part)
        finally:
            # However it ended: the next batch starts another, unless one stands there already.
            if self._task is asyncio.current_task():
                self._task = None

    def _next(self) -> list[Batch]:
        """The oldest that wait, as many as make a part."""
        part = [self._waiting.popleft()]
        rows, as_table = len(part[0].asks), not part[0].asks.body
        while (
            self._waiting
            and rows + len(self._waiting[0].asks) <= PART_ROWS
            and (not self._waiting[0].asks.body) == as_table  # requests are logged as they came
        ):
            part.append(self._waiting.popleft())
            rows += len(part[-1].asks)
        self._queued_rows -= rows
        return part

    async def _tried(self, part: list[Batch]) -> None:
        left = sum(len(batch.asks) for batch in part)
        until = self._clock() + PATIENCE
        try:
            while self._live.busy or not self._live.predictor.workers.connected:
                if self._clock() >= until:
                    return
                await asyncio.sleep(0.001)
            for batch in await self._scored(part):
                batch.seconds = [batch.computing + batch.hop + batch.scoring] * len(batch.asks)
                self._log(self._live, batch)
                self._live.metrics.shadowed(self._live.name, Counter(batch.answers.source))
                left -= len(batch.asks)
        except Exception:
            # Whatever it is, it is no caller's matter, and the next part may fare better.
            logger.exception("the shadow could not score %d rows", left)
        finally:
            # A cancel too drops what it interrupts.
            self._drop(left)
        # Rows are written as quickly as they can be; whoever came meanwhile goes first.
        await asyncio.sleep(0)

    async def _scored(self, part: list[Batch]) -> list[Batch]:
        deadline = self._clock() + max(SECONDS, self._predictor.budget)
        asks = Asks.joined([batch.asks for batch in part])
        routes = [_shadowing(route) for route in asks.route]
        asks = replace(asks, deadline=[deadline] * len(asks), canonical=(), route=routes)
        rows = self._fit.rows(pl.concat([batch.rows for batch in part]))
        came = [stamp for batch in part for stamp in batch.came]
        if not self._same or any(len(batch.features) != len(batch.asks) for batch in part):
            scored, start = await self._predictor.predict_rows(asks, rows), 0
            for batch in scored:
                batch.came, start = came[start : start + len(batch.asks)], start + len(batch.asks)
            return scored
        judged = await self._predictor.judged(asks, rows, np.concatenate([batch.features for batch in part]))
        return _split(judged, part, came)

    def _drop(self, rows: int) -> None:
        if rows > 0:
            self._live.metrics.shadow_dropped(self._live.name, rows)


def computed_alike(one: Manifest, other: Manifest) -> bool:
    """Whether two versions make the same features of the same request: same code, fitted values and view versions."""

    def made_by(manifest: Manifest) -> object:
        code = {path: digest for path, digest in manifest.files.items() if path.startswith("code/")}
        return code, manifest.files[manifest.fitted], manifest.views, manifest.features, manifest.package

    return made_by(one) == made_by(other)


def _split(judged: Batch, part: Sequence[Batch], came: Sequence[int]) -> list[Batch]:
    """What was scored together, by whom it was answered with: what was read for it is what was read there."""
    found, start = [], 0
    for batch in part:
        each = judged.part(start, start + len(batch.asks))
        each.came = came[start : start + len(batch.asks)]
        each.views, each.complete, each.computing = batch.views, batch.complete, batch.computing
        if not batch.complete:
            each.reason = each.reason or batch.reason
        found.append(each)
        start += len(batch.asks)
    return found


@lru_cache(maxsize=64)
def _shadowing(route: Route) -> Route:
    """Of the arm that did not answer: how probable it was that it would."""
    return Route("shadow", route.plan, 1.0 - route.propensity)
