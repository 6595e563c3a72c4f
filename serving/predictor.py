"""The predictor: from a batch of checked requests to one answer for each, which says where it comes from.

It looks the view values up as of each request's time, has the bundled code compute the features, and has the rows
scored by the model workers, behind a breaker. What it cannot do as declared it does visibly: without a readable store
with the features of the request alone, without the model by the fallback chain; both are `degraded`.

A row never suffers for its neighbours: one that breaks a rule, or on which the domain's code raises, is answered or
refused alone, and its answer is the one that it would get alone, to the bit. Values of another view version than the
pinned one are as good as none.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mlplatform.domain.column import Column
from mlplatform.errors import (
    InvalidRequest,
    ScoreOutOfRange,
    WorkerFailed,
)
from mlplatform.features.online.store import OnlineStore
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, matrix
from mlplatform.scoring.fallback import Answer, AnswerColumns, fall_back
from mlplatform.scoring.postprocess import Answers, plain_answers
from mlplatform.scoring.request import held_rules, read_request, request_frame
from mlplatform.scoring.request_decoder import RequestDecoder
from serving.batch import Ask, Asks, Batch, Scores
from serving.circuit_breaker import CircuitBreaker
from serving.json_body import decode_object
from serving.view_reader import ViewRead, ViewReader
from serving.worker_connections import ModelWorkers

logger = logging.getLogger(__name__)

instant = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Told(msgspec.Struct, frozen=True):
    """The answer as a caller reads it."""

    prediction: int | float | str | None
    probability: float | None
    confidence: float | None
    needs_review: bool
    source: str
    degraded: bool
    model_version: str
    manifest: str
    request_id: str
    views: dict[str, dict[str, Any]]
    """By view, the `status` of its values (`present`, `not_found`, `expired`, or `unavailable`: the store could not be
    read) and the `revision` of the partition that they come from, null where not present."""


class Predictor:
    """Answers requests with one bundle.

    Parameters
    ----------
    workers : of that bundle
    breaker, store_breaker : of the workers, of the online store
    cached : canonical request -> the model's answer to it from an earlier time, for the fallback chain
    now : the wall clock, aware UTC
    request_time : whether a request may bring its own `at` (`MLPLATFORM_CLOCK=request`)
    apart : whether features are computed in a thread: for rows that nobody waits for
    clock : seconds; deadlines are read on it
    """

    def __init__(
        self,
        bundle: Bundle,
        store: OnlineStore,
        workers: ModelWorkers,
        *,
        breaker: CircuitBreaker,
        store_breaker: CircuitBreaker,
        cached: Callable[[bytes], Answer | None],
        now: Callable[[], datetime],
        request_time: bool,
        apart: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bundle = bundle
        self.workers = workers
        self.breaker = breaker
        self._cached = cached
        self._now = now
        self.request_time = request_time
        """Whether requests tell their own time: then they count as received at it too."""
        self._apart = apart
        self._clock = clock
        self._columns: tuple[Column, ...] = bundle.domain.requests.columns
        self._decode = RequestDecoder(self._columns)
        self._rules = held_rules(bundle.domain.requests.rules)
        self._serving = bundle.model.serving
        self._budget = self._serving.deadline.total_seconds()
        self._encode = msgspec.json.Encoder().encode
        self._told: set[str] = set()
        seconds = self._budget * STORE_SHARE
        self.reader = ViewReader(bundle, store, store_breaker, seconds=seconds, tell=self.tell, clock=clock)

    @property
    def budget(self) -> float:
        """Seconds that a request may take, fallback included."""
        return self._budget

    def understand(self, body: bytes) -> tuple[tuple[Any, ...], int]:
        """The values of a request and its time.

        Raises
        ------
        MalformedBody
            The body is no JSON object.
        InvalidRequest
            Fields break the contract; each is named.
        """
        values = self._decode(body)
        if values is not None:
            return values, _micros(self._now())
        fields = decode_object(body)
        wrong: dict[str, str] = {}
        at = self._now()
        if self.request_time and "at" in fields:
            try:
                at = _instant(fields.pop("at"))
            except InvalidRequest as error:
                wrong |= error.fields
        try:
            values = read_request(fields, self._columns)
        except InvalidRequest as error:
            wrong |= error.fields
        if wrong or values is None:
            raise InvalidRequest(wrong)
        return values, _micros(at)

    async def predict(self, asks: list[Ask]) -> tuple[list[Batch], dict[int, InvalidRequest]]:
        """Answers to all requests, and by position those that are refused.

        Returns
        -------
        batches : whose asks together are those that were not refused, each once and in order
        refused : position in `asks` -> InvalidRequest
        """
        rows = self.frame([ask.values for ask in asks], [ask.at for ask in asks])
        refused = self.broken(rows)
        if not refused:
            return await self.predict_rows(Asks.of(asks), rows), refused
        kept = [position for position in range(len(asks)) if position not in refused]
        if not kept:
            return [], refused
        return await self.predict_rows(Asks.of([asks[position] for position in kept]), rows[kept]), refused

    async def predict_rows(self, asks: Asks, rows: pl.DataFrame) -> list[Batch]:
        """The same for requests that are a frame already, as `frame` gives it, and break no rule."""
        started = self._clock()
        try:
            found = await self.reader.read(rows)
            if self._apart:
                features = await asyncio.to_thread(self.bundle.features, rows, found.values)
            else:
                features = self.bundle.features(rows, found.values)
        except Exception as error:  # noqa: BLE001 - a domain's code may raise anything, and every row gets its answer
            if len(asks) == 1:
                self.tell(f"features: {type(error).__name__} at {_line(error)}")
                return [self._without_model(asks, rows, "the features could not be computed")]
            # By halves, until only the rows that it raises on go without the model.
            half, every = len(asks) // 2, len(asks)
            first = await self.predict_rows(asks.part(0, half), rows[:half])
            return [*first, *await self.predict_rows(asks.part(half, every), rows[half:])]
        computed = self._clock()
        judged = await self.judged(asks, rows, matrix(features), features)
        judged.views, judged.complete, judged.reason = found.views, found.complete, judged.reason or found.reason
        judged.queue, judged.computing = started - min(asks.received), computed - started
        return [judged]

    async def judged(
        self, asks: Asks, rows: pl.DataFrame, numbers: Matrix, features: pl.DataFrame | None = None
    ) -> Batch:
        """Answers to requests whose features are known; what these were made from is for the caller to add.

        Parameters
        ----------
        features : the same as `numbers`, for the simple model; None: it is left out of the fallback chain
        """
        began = self._clock()
        scored = await self._scores(numbers, min(asks.deadline))
        return Batch(
            asks=asks,
            rows=rows,
            answers=self._answers(asks, scored, rows, features),
            features=numbers,
            scores=scored.scores,
            views={},
            reason=scored.reason,
            complete=True,
            hop=max(0.0, self._clock() - began - scored.seconds),
            scoring=scored.seconds,
        )

    def repeated(self, ask: Ask, known: Answer) -> Batch:
        """A batch of one whose answer was known."""
        return Batch(
            asks=Asks.of([ask]),
            rows=self.frame([ask.values], [ask.at]),
            answers=AnswerColumns.of([known]),
            features=np.empty((0, len(self.bundle.manifest.features)), dtype=np.float32),
            scores=None,
            views={},
            reason="the same request was answered a moment ago",
            complete=True,
        )

    def without_model(self, ask: Ask, reason: str) -> Batch:
        """The answer of the fallback chain alone, to a request whose time is up."""
        return self._without_model(Asks.of([ask]), self.frame([ask.values], [ask.at]), reason)

    def _without_model(self, asks: Asks, rows: pl.DataFrame, reason: str) -> Batch:
        self.tell(reason)
        return Batch(
            asks=asks,
            rows=rows,
            answers=self._fall_back(rows, None, asks, range(len(asks))),
            features=np.empty((0, len(self.bundle.manifest.features)), dtype=np.float32),
            scores=None,
            views={},
            reason=reason,
            complete=False,
            queue=self._clock() - min(asks.received),
        )

    def encoded(self, batch: Batch) -> list[bytes]:
        """The answers of a batch as JSON."""
        version, digest = self.bundle.manifest.model_version, self.bundle.digest
        encode, incomplete = self._encode, not batch.complete
        views = _by_row(batch.views) if batch.views else [{}] * len(batch.asks)
        return [
            encode(
                Told(
                    said,
                    probability,
                    confidence,
                    review,
                    source,
                    incomplete or source != "model",
                    version,
                    digest,
                    name,
                    read,
                )
            )
            for name, read, said, probability, confidence, review, source in zip(
                batch.asks.request_id, views, *batch.answers, strict=True
            )
        ]

    def frame(self, values: list[tuple[Any, ...]], at: list[int]) -> pl.DataFrame:
        """Parsed requests and their times as the domain's code reads them."""
        return request_frame(values, self._columns).hstack([pl.Series("at", at, dtype=pl.Int64).cast(instant)])

    def time(self) -> int:
        """The time of a request that comes now, as `Ask.at`."""
        return _micros(self._now())

    def tell(self, reason: str) -> None:
        """Log each reason once: at a thousand requests a second the log would be the next outage."""
        if reason not in self._told and len(self._told) < 1000:
            self._told.add(reason)
            logger.warning("degraded: %s", reason)

    def broken(self, rows: pl.DataFrame) -> dict[int, InvalidRequest]:
        """By row, the refusal of requests that break a rule over several columns."""
        if not self._rules:
            return {}
        kept = rows.select(rule.holds().alias(rule.name) for rule in self._rules)
        if kept.select(pl.all_horizontal(pl.all().all(ignore_nulls=True))).item():
            return {}
        broken: dict[int, InvalidRequest] = {}
        for position, holds in enumerate(kept.iter_rows()):
            named = zip(self._rules, holds, strict=True)
            faults = {rule.name: f"broken: {rule.meaning}" for rule, held in named if held is False}
            if faults:
                broken[position] = InvalidRequest(faults)
        return broken

    async def _scores(self, numbers: Matrix, deadline: float) -> "_Scores":
        """Calibrated scores and what they say, or why there are none."""
        permit = self.breaker.permit()
        if permit is None:
            return _Scores(reason="the breaker is open: the model failed often")
        began = self._clock()
        # A fifth of the budget is kept for the fallback chain, which takes far less.
        until = deadline - self._budget / 5
        if began >= until:
            # The model was never asked: that it is late is no failure of its own.
            permit.cancelled()
            return _Scores(reason="the request waited too long for the model")
        try:
            scores, seconds = await self.workers.score_timed(numbers, deadline=until)
        except (WorkerFailed, TimeoutError) as error:
            permit.failed(self._clock() - began)
            self.tell(f"the model did not answer: {error}")
            slow = isinstance(error, TimeoutError)
            return _Scores(reason="the model was too slow" if slow else "the model did not answer")
        except BaseException:
            permit.cancelled()
            raise
        try:
            said = plain_answers(self.bundle.model, scores)
        except ScoreOutOfRange as error:
            permit.failed(self._clock() - began)
            self.tell(str(error))
            return _Scores(scores, seconds, None, error.rows, f"the model gave a score that is {error.reason}")
        permit.succeeded(self._clock() - began)
        return _Scores(scores, seconds, said)

    def _answers(
        self, asks: Asks, scored: "_Scores", rows: pl.DataFrame, features: pl.DataFrame | None
    ) -> AnswerColumns:
        if scored.said is not None:
            return AnswerColumns(*scored.said, ["model"] * len(asks))
        if scored.scores is None:
            return self._fall_back(rows, features, asks, range(len(asks)))
        wrong = sorted(set(scored.wrong))
        right = [position for position in range(len(asks)) if position not in set(wrong)]
        of_wrong = None if features is None else features[wrong]
        fallen = self._fall_back(rows[wrong], of_wrong, asks, wrong).rows()
        judged = AnswerColumns(*plain_answers(self.bundle.model, scored.scores[right]), ["model"] * len(right)).rows()
        found = dict(zip([*wrong, *right], [*fallen, *judged], strict=True))
        return AnswerColumns.of(found[position] for position in range(len(asks)))

    def _fall_back(
        self, rows: pl.DataFrame, features: pl.DataFrame | None, asks: Asks, positions: Sequence[int]
    ) -> AnswerColumns:
        """Answers to rows that stand at these positions of the batch."""
        found = fall_back(
            self.bundle,
            rows,
            features,
            lambda row: self._cached(asks.canonical[positions[row]]) if asks.canonical else None,
            deadline=max(min(asks.deadline), self._clock() + LEAST_SECONDS),
            clock=self._clock,
            tell=self.tell,
            tiers=self._serving.tiers,
        )
        return AnswerColumns.of(found)


STORE_SHARE = 0.2
"""Of a request's budget, after which no further view is asked for."""

LEAST_SECONDS = 0.005
"""Time for the fallback chain of a row that waited past its deadline: it answers in well under a millisecond."""


class _Scores(NamedTuple):
    """What came of asking the model workers."""

    scores: Scores | None = None
    seconds: float = 0.0
    """That the worker took."""

    said: Answers | None = None
    """None where a score is none."""

    wrong: Sequence[int] = ()
    """Rows whose score is none."""

    reason: str = ""


def _by_row(views: Mapping[str, ViewRead]) -> list[dict[str, dict[str, Any]]]:
    """By row and view, what an answer says of it."""
    columns = [
        [
            {"status": status, "revision": revision}
            for status, revision in zip(read.statuses, read.revisions, strict=True)
        ]
        for read in views.values()
    ]
    return [dict(zip(views, row, strict=True)) for row in zip(*columns, strict=True)]


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _line(error: BaseException) -> str:
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return "?" if where is None else f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}"


def _instant(text: Any) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InvalidRequest({"at": "not an ISO 8601 instant such as 2013-07-01T12:00:00Z"}) from None
    if at.tzinfo is None:
        raise InvalidRequest({"at": "an instant needs an offset; write Z for UTC"})
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest({"at": "beyond the years that a calendar holds"}) from None
