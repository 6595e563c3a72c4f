"""Days of flights, answered by the serving predictor from an online store as it stood at each request.

For the benchmark of streaming: the same flights once from a store that is published daily, and once from one that the
real stream keeps up to date, stepped through the day on a moved clock at the cadence of the history. Everything a
gateway does between body and score is in it, but for HTTP and the model processes: the booster scores here.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Stream
from mlplatform.domain.view import AsFactsArrive
from mlplatform.features.materialization import raise_failures, run
from mlplatform.features.online.publish import publish_values
from mlplatform.features.online.store import open_online_store
from mlplatform.features.streaming.consumers import open_consumer
from mlplatform.features.streaming.fact_log import FactWriter, fact_folder
from mlplatform.features.streaming.streaming import Streaming
from mlplatform.features.tables import day_range, stages
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from serving.batch import Ask
from serving.circuit_breaker import CircuitBreaker
from serving.predictor import Predictor
from serving.worker_connections import Scored

BATCH = 32
DAY = timedelta(days=1)

Floats = npt.NDArray[np.float64]


class _Clock:
    """Time that moves when it is told to."""

    now = datetime(1970, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class _Workers:
    """Scores in this process."""

    connected = 1

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As the model workers do it."""
        return Scored(self._bundle.calibration.apply(raw_scores(self._bundle.booster, matrix)), 0.0)


@dataclass(frozen=True)
class Gateway:
    """Answers requests from one online store."""

    bundle: Bundle
    online_store: str

    def scores(self, requests: pl.DataFrame) -> Floats:
        """(n,) of requests in their order, each as of its `at`."""
        predictor = self._predictor()
        names = [*(column.name for column in self.bundle.domain.requests.columns), "at"]
        asks = []
        for number, row in enumerate(requests.select(names).iter_rows(named=True)):
            told = {name: each.isoformat() if isinstance(each, datetime) else each for name, each in row.items()}
            body = json.dumps(told).encode()
            values, at = predictor.understand(body)
            now = time.monotonic()
            asks.append(Ask(values, at, body, str(number), "", body, now, now + 60))
        found: list[Floats] = [np.empty(0)]
        for start in range(0, len(asks), BATCH):
            batches, refused = asyncio.run(predictor.predict(asks[start : start + BATCH]))
            for batch in batches:
                if refused or batch.reason or batch.scores is None:
                    raise AssertionError(f"{len(refused)} requests were refused; {batch.reason or 'no reason'}")
                found.append(batch.scores)
        return np.concatenate(found)

    def _predictor(self) -> Predictor:
        workers: Any = _Workers(self.bundle)
        store, model = (
            CircuitBreaker(
                name,
                self.bundle.model.serving.breaker,
                clock=time.monotonic,
                random=lambda: 0.5,
                on_transition=lambda _: None,
            )
            for name in ("store", "model")
        )
        return Predictor(
            self.bundle,
            open_online_store(self.online_store),
            workers,
            breaker=model,
            store_breaker=store,
            cached=lambda _: None,
            now=lambda: datetime.now(UTC),
            request_time=True,
        )


def served_daily(
    platform: Platform, domain: Domain, bundle: Bundle, requests: pl.DataFrame, days: Sequence[date]
) -> Floats:
    """Scores of the requests of some days, each day from what was published of the day before it."""
    found = []
    for day in days:
        publish_values(platform, domain, as_of=str(day - DAY))
        found.append(Gateway(bundle, platform.online_store).scores(_asked(requests, day, day + DAY)))
    return np.concatenate(found)


def served_as_facts_arrive(
    platform: Platform, home: Path, domain: Domain, bundle: Bundle, requests: pl.DataFrame, days: Sequence[date]
) -> Floats:
    """The same from a store that the stream keeps up to date, from the day before on.

    Parameters
    ----------
    platform : with the whole history; what is published daily comes from there
    home : of the stream: landed days, and tables that end before the first of `days`
    domain : its streamed source `flights` has the facts
    """
    published = replace(platform, online_store=str(home / "online"))
    return np.concatenate([_served_day(published, home, domain, bundle, requests, day) for day in sorted(days)])


def _served_day(
    published: Platform, home: Path, domain: Domain, bundle: Bundle, requests: pl.DataFrame, day: date
) -> Floats:
    _compute(home, domain, day - 2 * DAY)
    publish_values(published, domain, as_of=str(day - 2 * DAY))
    for of_another_day in ("facts", "streamed"):
        shutil.rmtree(home / of_another_day, ignore_errors=True)
    clock = _Clock()
    clock.now = at = datetime.combine(day - DAY, datetime.min.time(), UTC)
    live = Platform(home=home, clock=clock)
    source = domain.source("flights")
    assert isinstance(source.landing, Stream)
    time_column = pl.col(source.landing.time)
    facts = pl.concat([_sample(domain, each) for each in (day - DAY, day)])
    writer = FactWriter(fact_folder(home, domain.name, source.name), clock)
    streaming = Streaming(live, domain, open_online_store(live.online_store), open_consumer(None, domain, home, clock))
    gateway, found = Gateway(bundle, live.online_store), []
    every = min(view.schedule.every for view in domain.views if isinstance(view.schedule, AsFactsArrive))
    while at < datetime.combine(day + DAY, datetime.min.time(), UTC):
        clock.now = at
        arrived = facts.filter(time_column.is_between(at - every, at, closed="left"))
        if arrived.height:
            writer.append(at.isoformat(), arrived)
            streaming.step(0.0)
        if at == datetime.combine(day, datetime.min.time(), UTC):
            publish_values(published, domain, as_of=str(day - DAY))
        if at.date() == day:
            found.append(gateway.scores(_asked(requests, at, at + every)))
        at += every
    return np.concatenate(found)


def _compute(home: Path, domain: Domain, last: date) -> None:
    """Bring the tables of facts up to a day, from landed files; what is there is left alone."""
    done = home / "computed_to"
    first = date.fromisoformat(done.read_text()) + DAY if done.exists() else domain.start
    landed = replace(domain, sources=tuple(replace(each, landing=None) for each in domain.sources))
    for stage in stages[:-1]:
        raise_failures(run(Platform(home=home), landed, stage, day_range(str(first), str(last)), run_id="bench"))
    done.write_text(str(last))


def _sample(domain: Domain, day: date) -> pl.DataFrame:
    assert domain.sample is not None
    return domain.sample.read("flights", day)


def _asked(requests: pl.DataFrame, start: date | datetime, end: date | datetime) -> pl.DataFrame:
    """Requests from an instant up to another, or from a day's begin up to another's."""
    first, behind = (pl.lit(each).cast(requests.schema["at"]) for each in (start, end))
    return requests.filter(pl.col("at").is_between(first, behind, closed="left"))
