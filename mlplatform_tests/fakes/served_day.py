"""A gateway on simulated time: the real predictor, online store and log, without HTTP and without model processes."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import WorkerLost
from mlplatform.features.online.store import open_online_store
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import pick_up
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from mlplatform.scoring.fallback import Answer
from serving.batch import Ask, Batch, Scores
from serving.cache import PredictionCache, canonical
from serving.circuit_breaker import CircuitBreaker
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.routing import UNPLANNED, Route
from serving.worker_connections import Scored

BATCH = 25


class _Workers:
    """Scores in this process."""

    connected = 1

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.said: Callable[[Scores], Scores] | None = lambda scores: scores

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As the model workers do it."""
        if self.said is None:
            raise WorkerLost("killed")
        return Scored(self.said(self._bundle.calibration.apply(raw_scores(self._bundle.booster, matrix))), 0.001)


class Gateway:
    """Answers requests at the times at which they were made.

    Parameters
    ----------
    wrong_by : how far the gateway's clock, or its idea of UTC, is off
    request_time : whether requests bring their own time, as under `MLPLATFORM_CLOCK=request`
    said : what the model workers make of the right scores; None: they are gone
    remembers : answers that it keeps, for when they are
    """

    def __init__(
        self,
        platform: Platform,
        bundle: Bundle,
        *,
        online: str = "",
        wrong_by: timedelta = timedelta(),
        request_time: bool = False,
        said: Callable[[Scores], Scores] | None = lambda scores: scores,
        remembers: int = 0,
    ) -> None:
        self._platform, self._bundle, self._wrong_by, self._request_time = platform, bundle, wrong_by, request_time
        self._now: datetime
        workers: Any = _Workers(bundle)
        self.workers: Any = workers
        self.workers.said = said
        oldest = bundle.model.serving.cached_fallback_for.total_seconds()
        self._cache: PredictionCache[Answer] = PredictionCache(remembers, clock=lambda: self._now.timestamp())
        self._remembers = remembers

        def breaker(name: str) -> CircuitBreaker:
            settings = bundle.model.serving.breaker
            return CircuitBreaker(
                name, settings, clock=time.monotonic, random=lambda: 0.5, on_transition=lambda _: None
            )

        self._predictor = Predictor(
            bundle,
            open_online_store(online or platform.online_store),
            workers,
            breaker=breaker("model"),
            store_breaker=breaker("store"),
            cached=lambda request: self._cache.stale(bundle.digest, request, oldest),
            now=lambda: self._now + self._wrong_by,
            request_time=request_time,
        )

    def serve(
        self,
        requests: pl.DataFrame,
        folder: Path,
        *,
        received: datetime | None = None,
        ids: Sequence[str] | None = None,
        routes: Sequence[Route] | None = None,
        repeating: bool = False,
        late: bool = False,
        as_table: bool = False,
    ) -> None:
        """Answer each at its `at`, write it to the log, and have it picked up.

        Parameters
        ----------
        received : when all of them come; None: each at its `at`
        ids : of requests that are in the order of `at`; None: by the number of the order
        routes : of the same
        repeating : whether what is remembered is given again
        late : whether their time is up before the model is asked
        as_table : whether they come as one
        """
        # A monotonic clock stamps requests; the log turns its stamps into times of the wall's.
        started = time.time() - time.monotonic()
        asks = []
        for place, row in enumerate(requests.sort("at", maintain_order=True).iter_rows(named=True)):
            at = row.pop("at")
            self._now = received or at
            if self._request_time:
                row["at"] = at
            body = json.dumps(
                {name: each.isoformat() if isinstance(each, datetime) else each for name, each in row.items()}
            )
            values, asked = self._predictor.understand(body.encode())
            name = ids[place] if ids else f"o{row['order_id']}"
            came = self._now.timestamp() - started
            route = routes[place] if routes else UNPLANNED
            asks.append(
                Ask(values, asked, body.encode(), name, "", canonical(values), came, time.monotonic() + 60, route)
            )
        folder.mkdir(parents=True, exist_ok=True)
        log = LogWriter(self._platform.home, Metrics(folder))
        live: Any = SimpleNamespace(predictor=self._predictor)
        for start in range(0, len(asks), BATCH):
            part = asks[start : start + BATCH]
            for batch in self._late(part) if late else self._answered(part, repeating=repeating):
                batch.seconds = [0.001] * len(batch.asks)
                batch.asks = replace(batch.asks, body=[]) if as_table else batch.asks
                log(live, batch)
        log.close()
        pick_up(self._platform, DOMAIN)

    def _answered(self, asks: list[Ask], *, repeating: bool) -> list[Batch]:
        digest = self._bundle.digest
        known = {ask: self._cache.stale(digest, ask.canonical, 1e9) if repeating else None for ask in asks}
        batches = [self._predictor.repeated(ask, answer) for ask, answer in known.items() if answer is not None]
        new = [ask for ask, answer in known.items() if answer is None]
        if new:
            computed, refused = asyncio.run(self._predictor.predict(new))
            assert not refused
            batches += computed
        for batch in batches if self._remembers else ():
            for request, answer in zip(batch.asks.canonical, batch.answers.rows(), strict=True):
                if batch.complete and answer.source == "model":
                    self._cache.put(digest, request, batch.revision, answer)
        return batches

    def _late(self, asks: list[Ask]) -> list[Batch]:
        return [self._predictor.without_model(ask, "the request waited too long for the model") for ask in asks]


def asked_on(platform: Platform, day: str, *, hours: range = range(24)) -> pl.DataFrame:
    """The requests of a day, or of some of its hours."""
    facts = Tables(platform, DOMAIN).facts(DOMAIN.requests.facts).read()
    requests = DOMAIN.requests.of_facts(facts)
    wanted = (pl.col("at").dt.strftime("%Y-%m-%d") == day) & pl.col("at").dt.hour().is_in(list(hours))
    return requests.filter(wanted)
