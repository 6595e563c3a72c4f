"""The batcher: requests that wait together are processed together, and each caller gets its own answer.

A lane is one batch under way. An idle lane takes at once what waits; while all lanes are busy, requests gather up to
the row limit. So a lone request waits for nobody, and a crowd pays for one call.

Invariants, each held by a property test over random interleavings:

- every caller gets exactly one answer, its own, or exactly one exception;
- rows are counted, not requests: a batch holds at most `max_rows` rows (a larger request goes alone), and at most
  `max_queued_rows` rows wait (a larger request is let in when nobody waits, since later would be no better);
- first come, first served: nobody is overtaken;
- a caller that was cancelled, or whose deadline has passed, is in no batch; who is late is told so at the deadline, not
  when a lane becomes free;
- no lane is idle while somebody waits;
- nothing that goes wrong in a batch, or here, ends the batcher: it is told to those whom it concerns.

It refuses to cut a batch short: whoever processes it has the rows' deadlines, and keeps them. It knows nothing of HTTP,
of models or of fallbacks. One event loop only: there are no locks, because nothing here awaits between look and change.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from mlplatform.errors import BatchLost, QueueFull, Unavailable

logger = logging.getLogger(__name__)

Row = TypeVar("Row")
Answer = TypeVar("Answer")

TICK = 0.001
"""Seconds between two looks for late rows. A look goes through all that wait (50 ns each), so it is not done for each
of a thousand deadlines that lie microseconds apart; a caller is told a millisecond late at most."""

FIRST_GUESS = 0.02
"""Seconds that a batch is thought to take until one has ended; used for `retry_after` only."""

SMOOTHING = 0.1
"""Weight of the newest batch in the mean duration: the last ten or twenty batches decide."""


def one(_row: object) -> int:
    """A request of one row."""
    return 1


class Batcher(Generic[Row, Answer]):
    """Gathers requests into batches.

    Parameters
    ----------
    process : requests of one batch, in order -> for each its answer, or the exception that is its alone. What it raises
        is raised to each caller of the batch
    lanes : batches under way at the same time
    max_rows : rows of a batch
    max_queued_rows : rows that may wait
    clock : seconds; deadlines are read on it
    rows_of : rows of a request; 1 or more
    """

    def __init__(
        self,
        process: Callable[[list[Row]], Awaitable[Sequence[Answer | Exception]]],
        *,
        lanes: int,
        max_rows: int,
        max_queued_rows: int,
        clock: Callable[[], float] = time.monotonic,
        rows_of: Callable[[Row], int] = one,
    ) -> None:
        self._process = process
        self.lanes = lanes
        """Batches that may be under way."""
        self._max_rows = max_rows
        self._max_queued_rows = max_queued_rows
        self._clock = clock
        self._rows_of = rows_of
        # In order of arrival; ordered, so that a caller who leaves is gone at once, and the oldest is found at once.
        self._waiting: OrderedDict[asyncio.Future[Answer], tuple[Row, int, float]] = OrderedDict()
        self._queued_rows = 0
        self._running: set[asyncio.Task[list[Answer | Exception]]] = set()
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._seconds = FIRST_GUESS
        self._closed = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a lane."""
        return self._queued_rows

    @property
    def running(self) -> int:
        """Batches under way."""
        return len(self._running)

    async def submit(self, row: Row, *, deadline: float) -> Answer:
        """The answer to one request.

        Parameters
        ----------
        deadline : on the batcher's clock, finite; past it, the request is in no batch any more

        Raises
        ------
        QueueFull
            Too many rows wait; `retry_after` says when to come back.
        TimeoutError
            The deadline has passed before a lane was free.
        BatchLost
            The batch ended without an answer for each of its rows.
        Unavailable
            The batcher is closed.
        """
        if self._closed:
            raise Unavailable("this process is shutting down and takes no more requests. Ask another one")
        rows = self._rows_of(row)
        if self._waiting and self._queued_rows + rows > self._max_queued_rows:
            raise QueueFull(self._queued_rows, self.retry_after())
        loop = asyncio.get_running_loop()
        if self._timer is None or deadline < self._timer_at:
            self._look_at(deadline, self._clock())
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting[future] = (row, rows, deadline)
        self._queued_rows += rows
        if len(self._running) < self.lanes and not self._turn_is_due:
            # Not at once: those who arrive in the same round of the loop come along.
            self._turn_is_due = True
            loop.call_soon(self._turn)
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(future, None) is not None:
                self._queued_rows -= rows
            raise

    def retry_after(self) -> float:
        """Seconds until what waits now will have been taken, as far as the last batches tell."""
        rounds = self._queued_rows / self._max_rows / self.lanes
        return (rounds + 1.0) * self._seconds

    def open_lanes(self, lanes: int) -> None:
        """From now on so many batches may be under way."""
        self.lanes = lanes
        self._turn()

    async def close(self) -> None:
        """Take no more requests, and return when those there are have their answers."""
        self._closed = True
        while self._waiting or self._running:
            under_way: list[asyncio.Future[Any]] = [*self._waiting, *self._running]
            await asyncio.wait(under_way)
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        """Tell who is late, fill the idle lanes, and see to it that there is a next turn."""
        self._turn_is_due = False
        batch: list[tuple[asyncio.Future[Answer], Row]] = []
        try:
            if not self._waiting:
                return
            now = self._clock()
            if self._timer is None:
                self._tell_late(now)
            while self._waiting and len(self._running) < self.lanes:
                batch = []
                self._fill(batch, now)
                if batch:
                    self._start(batch)
            if self._waiting and self._timer is None:
                self._look_at(min(deadline for _, _, deadline in self._waiting.values()), now)
        except Exception as error:  # whatever it is, callers must hear of it rather than wait for ever
            logger.error("the batcher failed, and goes on: %s", error, exc_info=error)
            concerned = [*(future for future, _ in batch), *self._waiting]
            self._waiting.clear()
            self._queued_rows = 0
            for future in concerned:
                _fail(future, error)

    def _tell_late(self, now: float) -> None:
        late = [future for future, (_, _, deadline) in self._waiting.items() if deadline <= now]
        for future in late:
            _, rows, _ = self._waiting.pop(future)
            self._queued_rows -= rows
            _fail(future, TimeoutError("its deadline passed before a lane was free"))

    def _fill(self, batch: list[tuple[asyncio.Future[Answer], Row]], now: float) -> None:
        """Move the oldest that still want an answer into a batch, as many as fit."""
        free = self._max_rows
        while self._waiting and free > 0:
            future, told = self._waiting.popitem(last=False)
            row, rows, deadline = told
            if rows > free and batch:
                self._waiting[future] = told
                self._waiting.move_to_end(future, last=False)
                return
            self._queued_rows -= rows
            if deadline <= now:
                _fail(future, TimeoutError("its deadline passed before a lane was free"))
            elif not future.done():  # cancelled in this very round of the loop
                batch.append((future, row))
                free -= rows

    def _start(self, batch: list[tuple[asyncio.Future[Answer], Row]]) -> None:
        task = asyncio.get_running_loop().create_task(self._answers([row for _, row in batch]))
        self._running.add(task)
        task.add_done_callback(partial(self._finished, [future for future, _ in batch]))

    async def _answers(self, rows: list[Row]) -> list[Answer | Exception]:
        started = self._clock()
        answers = list(await self._process(rows))
        self._seconds += SMOOTHING * (self._clock() - started - self._seconds)
        if len(answers) != len(rows):
            raise BatchLost(f"{len(answers)} answers came for {len(rows)} requests")
        return answers

    def _finished(self, futures: list[asyncio.Future[Answer]], task: asyncio.Task[list[Answer | Exception]]) -> None:
        self._running.discard(task)
        error = BatchLost("the batch was cancelled") if task.cancelled() else task.exception()
        if error is not None:
            for future in futures:
                _fail(future, error)
        else:
            for future, answer in zip(futures, task.result(), strict=True):
                if isinstance(answer, Exception):
                    _fail(future, answer)
                elif not future.done():
                    future.set_result(answer)
        self._turn()

    def _look_at(self, instant: float, now: float) -> None:
        """Have a turn at that instant. The timer never stands later than the earliest deadline, or than a tick."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = instant
        self._timer = asyncio.get_running_loop().call_later(max(instant - now, TICK), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._turn()


def _fail(future: asyncio.Future[Answer], error: BaseException) -> None:
    if future.done():
        return
    # A future refuses StopIteration, which would end a generator instead of telling anybody.
    future.set_exception(BatchLost("StopIteration was raised") if isinstance(error, StopIteration) else error)
