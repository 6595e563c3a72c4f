"""A gateway on simulated time: the real predictor, online store and log, without HTTP and without model processes."""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.online.store import open_online_store
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import pick_up
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from serving.batch import Ask
from serving.circuit_breaker import CircuitBreaker
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.worker_connections import Scored

BATCH = 25


class _Workers:
    """Scores in this process."""

    connected = 1

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As the model workers do it."""
        return Scored(self._bundle.calibration.apply(raw_scores(self._bundle.booster, matrix)), 0.001)


class Gateway:
    """Answers requests at the times at which they were made.

    Parameters
    ----------
    wrong_by : how far the gateway's clock, or its idea of UTC, is off
    request_time : whether requests bring their own time, as under `MLPLATFORM_CLOCK=request`
    """

    def __init__(
        self,
        platform: Platform,
        bundle: Bundle,
        *,
        online: str = "",
        wrong_by: timedelta = timedelta(),
        request_time: bool = False,
    ) -> None:
        self._platform, self._bundle, self._wrong_by, self._request_time = platform, bundle, wrong_by, request_time
        self._now: datetime
        workers: Any = _Workers(bundle)

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
            cached=lambda _: None,
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
    ) -> None:
        """Answer each at its `at`, write it to the log, and have it picked up.

        Parameters
        ----------
        received : when all of them come; None: each at its `at`
        ids : of requests that are in the order of `at`; None: by the number of the order
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
            asks.append(Ask(values, asked, body.encode(), name, "", body.encode(), came, time.monotonic() + 60))
        folder.mkdir(parents=True, exist_ok=True)
        log = LogWriter(self._platform.home, Metrics(folder))
        live: Any = SimpleNamespace(predictor=self._predictor)
        for start in range(0, len(asks), BATCH):
            batches, refused = asyncio.run(self._predictor.predict(asks[start : start + BATCH]))
            assert not refused
            for batch in batches:
                batch.seconds = [0.001] * len(batch.asks)
                log(live, batch)
        log.close()
        pick_up(self._platform, DOMAIN)


def asked_on(platform: Platform, day: str, *, hours: range = range(24)) -> pl.DataFrame:
    """The requests of a day, or of some of its hours."""
    facts = Tables(platform, DOMAIN).facts(DOMAIN.requests.facts).read()
    requests = DOMAIN.requests.of_facts(facts)
    wanted = (pl.col("at").dt.strftime("%Y-%m-%d") == day) & pl.col("at").dt.hour().is_in(list(hours))
    return requests.filter(wanted)
