"""A gateway worker's connections to the model workers of one model version: one batch in, its scores out.

A batch goes to the worker with the least to do. Where its connection breaks it goes to another at once; where no
answer comes for half of the time it has, it goes to another as well, and the first answer counts. Scoring changes
nothing, so a batch may be scored twice; a batch goes to each worker once at most, so one that kills its worker cannot
be handed on for ever.

Invariants: `score` ends with the scores of its own matrix or with an error, at its deadline at the latest, whatever
workers do; an answer nobody waits for any more is dropped; a worker that is late is asked last until it says something
again, and is given no more than a few batches that it leaves unanswered. Not for several threads or event loops.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from mlplatform.errors import MalformedFrame, WorkerLost, WorkerRefused
from mlplatform.scoring.booster import Matrix, Scores
from serving.frames import REFUSED, SCORED, Frame, FrameReader, score_frame

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
"""Seconds before a second attempt to connect; doubled by each attempt that fails."""

LONGEST_PAUSE = 1.0
"""Seconds between attempts at most: a worker that is up again is noticed within them."""

LEAVE_SECONDS = 4.0
"""For which a worker that is to go is still asked where there is no other; the supervisor ends it a second later."""

LOOK_SECONDS = 0.02

MOST_UNANSWERED = 8
"""Batches that a late worker may hold. More would pile up, in memory, before one that hangs."""


class Scored(NamedTuple):
    """A batch's scores, and how long the worker itself took for them."""

    scores: Scores
    """(rows,) float64, or (rows, outputs)."""

    seconds: float


class ModelWorkers:
    """The model workers of one version, as one thing that scores.

    Parameters
    ----------
    sockets : paths of the workers' unix sockets; they need not be there yet
    outputs : scores per row
    clock : seconds; deadlines are told in its time
    hedge_after : seconds after which a batch is sent to another worker too; by default half of the time it has left
    """

    def __init__(
        self,
        sockets: Sequence[Path],
        *,
        outputs: int,
        clock: Callable[[], float] = time.monotonic,
        hedge_after: float | None = None,
    ) -> None:
        self._workers = [_Worker(path) for path in sockets]
        self._outputs = outputs
        self._clock = clock
        self._hedge_after = hedge_after
        self._numbers = count()
        self._leaving: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect to every worker that is there; from now on those that are not are tried again by themselves."""
        await asyncio.gather(*(worker.connect() for worker in self._workers))
        for worker in self._workers:
            worker.keep_connected()

    def follow(self, sockets: Sequence[Path]) -> None:
        """Go on with these workers; those that are gone are asked until one that stays can be."""
        staying = [worker for worker in self._workers if worker not in self._leaving]
        gone = [worker for worker in staying if worker.path not in sockets]
        known = {worker.path for worker in staying}
        for worker in (fresh := [_Worker(path) for path in sockets if path not in known]):
            worker.keep_connected()
        self._workers += fresh
        if gone:
            self._leaving |= {*gone}
            task = asyncio.get_running_loop().create_task(self._let_go(gone))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let every connection go; who still waits gets `WorkerLost`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(worker.close() for worker in {*self._workers, *self._leaving}))

    async def _let_go(self, gone: list["_Worker"]) -> None:
        """Whoever ends them gives them some seconds for what they hold, which is as long as they are good for."""
        until = self._clock() + LEAVE_SECONDS
        while self._clock() < until and not any(
            worker.connection for worker in self._workers if worker not in self._leaving
        ):
            await asyncio.sleep(LOOK_SECONDS)
        self._workers = [worker for worker in self._workers if worker not in gone]
        while self._clock() < until and any(worker.connection and worker.connection.unanswered for worker in gone):
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.gather(*(worker.close() for worker in gone))
        self._leaving -= {*gone}

    @property
    def connected(self) -> int:
        """Workers there are."""
        return sum(worker.connection is not None for worker in self._workers)

    async def score(self, matrix: Matrix, *, deadline: float) -> Scores:
        """Calibrated scores of a batch.

        Parameters
        ----------
        matrix : (rows, columns) float32, in the order of the model's features; NaN is missing
        deadline : in the time of the clock

        Returns
        -------
        (rows,) float64 where the model has one output, else (rows, outputs). They may be NaN.

        Raises
        ------
        WorkerLost
            No worker is connected, or the batch's connection broke with each of them.
        WorkerRefused
            A worker says why it does not score this batch.
        MalformedFrame
            The batch is larger than a frame.
        TimeoutError
            The deadline is over.
        """
        return (await self.score_timed(matrix, deadline=deadline)).scores

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As `score`, with the time that the worker took, so that the way there and back can be told apart."""
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError("the deadline was over before the batch was sent")
        if not len(matrix):
            return Scored(np.empty((0,) if self._outputs == 1 else (0, self._outputs), dtype=np.float64), 0.0)
        number = next(self._numbers) & 0xFFFFFFFF
        waiting = _Batch(self, number, score_frame(number, matrix), len(matrix), self._outputs)
        hedge = left / 2 if self._hedge_after is None else min(self._hedge_after, left)
        if not waiting.send():
            raise WorkerLost("no model worker is connected" if not self.connected else "every model worker hangs")
        loop = asyncio.get_running_loop()
        waiting.timer = loop.call_later(hedge, waiting.late, left - hedge)
        try:
            return await waiting.answer
        finally:
            waiting.timer.cancel()
            # A worker that hangs keeps what it was asked in its list; not the features too.
            waiting.frame = b""

    def _next(self, tried: "set[_Worker]") -> "_Worker | None":
        """The worker to ask now: one that answers before one that is late, then the one with the least to do."""
        best, lowest = None, (True, MOST_UNANSWERED)
        for worker in self._workers:
            connection = worker.connection
            if connection is None or worker in tried:
                continue
            load = (connection.is_late, len(connection.unanswered))
            if load < lowest:
                best, lowest = worker, load
        return best


class _Batch:
    """A batch that is waited for."""

    __slots__ = ("answer", "asked", "frame", "number", "outputs", "rows", "timer", "tried", "workers")

    def __init__(self, workers: ModelWorkers, number: int, frame: bytes, rows: int, outputs: int) -> None:
        self.workers = workers
        self.number = number
        self.frame = frame
        self.rows = rows
        self.outputs = outputs
        self.tried: set[_Worker] = set()
        self.asked: set[_Connection] = set()
        self.answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def send(self) -> bool:
        """Send it to a worker that has not had it; whether there was one."""
        worker = self.workers._next(self.tried)
        if worker is None or worker.connection is None:
            return False
        self.tried.add(worker)
        self.asked.add(worker.connection)
        worker.connection.ask(self)
        return True

    def late(self, left: float) -> None:
        """No answer came in time: ask another, and wait for the rest of the time."""
        if self.answer.done():
            return
        for connection in self.asked:
            connection.is_late = True
        if left > 0:
            self.send()
        self.timer = asyncio.get_running_loop().call_later(left, self.over)

    def over(self) -> None:
        """The deadline has come."""
        if not self.answer.done():
            for connection in self.asked:
                connection.is_late = True
            self.answer.set_exception(TimeoutError("no model worker answered before the deadline"))

    def broke(self, connection: "_Connection") -> None:
        """A connection is gone: ask another, unless one asked before may still answer."""
        self.asked.discard(connection)
        if not self.answer.done() and not self.send() and not self.asked:
            self.answer.set_exception(WorkerLost("the connection to each model worker that had the batch broke"))

    def answered(self, frame: Frame) -> None:
        """What a worker says; the first that does is believed."""
        if frame.kind == SCORED and (frame.rows, frame.width) != (self.rows, self.outputs):
            raise MalformedFrame(
                f"scores of {frame.rows} × {frame.width} came for a batch of {self.rows} × {self.outputs}"
            )
        if self.answer.done():
            return
        if frame.kind == SCORED:
            self.answer.set_result(Scored(frame.scores(), frame.took * 1e-9))
        else:
            self.answer.set_exception(WorkerRefused(frame.reason()))


class _Connection(asyncio.Protocol):
    """One connection to a model worker, from made to lost."""

    def __init__(self, worker: "_Worker") -> None:
        self.worker = worker
        self.unanswered: dict[int, _Batch] = {}
        self.is_late = False
        self.has_answered = False
        self.lost = asyncio.Event()
        self._reader = FrameReader({SCORED, REFUSED})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        # uvloop's transports answer to the protocol without being of the class.
        self.transport = cast(asyncio.WriteTransport, transport)
        self.worker.connection = self

    def ask(self, batch: _Batch) -> None:
        """Send a batch."""
        self.unanswered[batch.number] = batch
        self.transport.write(batch.frame)

    def data_received(self, data: bytes) -> None:
        """Give each answer to who waits for it; what is no answer ends the connection."""
        try:
            for frame in self._reader.feed(data):
                self.is_late = False
                self.has_answered = True
                batch = self.unanswered.get(frame.batch)
                if batch is not None:
                    batch.answered(frame)
                    del self.unanswered[frame.batch]
        except MalformedFrame as error:
            logger.error("%s: %s", self.worker.path, error)
            self.gone()
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The worker has died, or let us go."""
        self.gone()
        self.lost.set()

    def gone(self) -> None:
        """Ask nothing here any more, and what was not answered elsewhere."""
        if self.worker.connection is self:
            self.worker.connection = None
        unanswered, self.unanswered = self.unanswered, {}
        for batch in unanswered.values():
            batch.broke(self)


class _Worker:
    """A model worker's place: its socket, and the connection where there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> _Connection | None:
        """One attempt."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LONGEST_PAUSE):
                _, connection = await loop.create_unix_connection(lambda: _Connection(self), str(self.path))
        except OSError:
            # Among them TimeoutError. A worker that is starting or dead is no news: its supervisor tells of it.
            return None
        return connection

    def keep_connected(self) -> None:
        """Connect again whenever the connection is lost, until `close`."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"connection to {self.path}")

    async def close(self) -> None:
        """Let the connection go, for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.connection is not None:
            lost, transport = self.connection.lost, self.connection.transport
            self.connection.gone()
            transport.abort()
            await lost.wait()

    async def _keep(self) -> None:
        connection, pause = self.connection, FIRST_PAUSE
        while True:
            if connection is not None:
                await connection.lost.wait()
                # Only one that has worked is a sign that the next attempt will do.
                pause = FIRST_PAUSE if connection.has_answered else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            connection = await self.connect()
