"""Connections to model workers: what happens to a batch when workers die, hang, talk nonsense or come back."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import uvloop

from mlplatform.errors import WorkerLost, WorkerRefused
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from mlplatform_tests.fakes.model_workers import ModelWorkerProcesses
from mlplatform_tests.fakes.tiny_domain import bundle_of, write_package
from serving.frames import SCORE, Frame, FrameReader, refused_frame, score_frame, scored_frame
from serving.worker_connections import MOST_UNANSWERED, ModelWorkers

Result = TypeVar("Result")
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
SUMS = ROWS.sum(axis=1).astype(np.float64)

Says = Callable[[Frame], bytes | None]
"""What a scripted worker says to a frame; nothing where it is empty, and it breaks off where it is None."""


def right(frame: Frame) -> bytes:
    """The sum of each row."""
    return scored_frame(frame.batch, frame.features().sum(axis=1).astype(np.float64), 2_000_000)


class Scripted:
    """A worker inside the test, and the batches it got."""

    def __init__(self, path: Path, says: Says) -> None:
        self.path = path
        self.says = says
        self.got: list[int] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader({SCORE})
        try:
            while piece := await reader.read(2**16):
                for frame in frames.feed(piece):
                    self.got.append(frame.batch)
                    answer = self.says(frame)
                    if answer is None:
                        return
                    writer.write(answer)
        finally:
            writer.close()


@asynccontextmanager
async def scripted(
    folder: Path, *says: Says, hedge_after: float | None = None
) -> AsyncIterator[tuple[ModelWorkers, list[Scripted]]]:
    """Connections to so many scripted workers."""
    made = [Scripted(folder / f"scripted-{number}", each) for number, each in enumerate(says)]
    async with AsyncExitStack() as stack:
        for each in made:
            each.path.unlink(missing_ok=True)
            await stack.enter_async_context(await asyncio.start_unix_server(each.answer, str(each.path)))
        workers = ModelWorkers([each.path for each in made], outputs=1, hedge_after=hedge_after)
        await workers.start()
        stack.push_async_callback(workers.close)
        yield workers, made


def run(folder: Path, what: Callable[[], Awaitable[Result]]) -> Result:
    """Run on the loop that the gateway uses."""

    async def main() -> Result:
        async with asyncio.timeout(30):
            return await what()

    return uvloop.run(main())


def soon() -> float:
    """A deadline that no test should meet."""
    return time.monotonic() + 10


def test_scores_and_tells_the_time(tmp_path: Path) -> None:
    """A batch comes back with its own scores and the worker's own time; a batch of no rows asks nobody."""

    async def what() -> None:
        async with scripted(tmp_path, right) as (workers, (worker,)):
            assert workers.connected == 1
            scored = await workers.score_timed(ROWS, deadline=soon())
            assert (scored.scores.tolist(), scored.seconds) == (SUMS.tolist(), 0.002)
            assert (await workers.score(ROWS[:0], deadline=soon())).shape == (0,)
            assert len(worker.got) == 1

    run(tmp_path, what)


def test_an_idle_worker_first(tmp_path: Path) -> None:
    """While one works, batches go to the other, so that both are used and neither queues without need."""

    async def what() -> None:
        async with scripted(tmp_path, lambda frame: b"", right) as (workers, (silent, quick)):
            hanging = asyncio.ensure_future(workers.score(ROWS, deadline=soon()))
            await asyncio.sleep(0)
            for _ in range(5):
                await workers.score(ROWS, deadline=soon())
            assert (len(silent.got), len(quick.got)) == (1, 5)
            hanging.cancel()

    run(tmp_path, what)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda frame: b"HTTP/1.1 200 OK\r\n\r\n       ",
        lambda frame: scored_frame(frame.batch, SUMS[:2], 0),
        lambda frame: scored_frame(frame.batch, np.zeros((3, 2)), 0),
        lambda frame: score_frame(frame.batch, ROWS),
        lambda frame: None,
    ],
    ids=["bytes", "rows", "outputs", "kind", "break"],
)
def test_nonsense_and_a_break_send_the_batch_on(tmp_path: Path, nonsense: Says) -> None:
    """A worker that answers wrongly, or breaks off, is left, and the other one's scores come in its place."""

    async def what() -> None:
        async with scripted(tmp_path, nonsense, right) as (workers, (bad, good)):
            assert (await workers.score(ROWS, deadline=soon())).tolist() == SUMS.tolist()
            assert bad.got == good.got

    run(tmp_path, what)


def test_a_batch_that_kills_is_not_handed_on_for_ever(tmp_path: Path) -> None:
    """Each worker gets a batch once; when all have broken off with it, it is lost, at once and not at its deadline."""

    async def what() -> None:
        async with scripted(tmp_path, lambda frame: None, lambda frame: None) as (workers, made):
            begun = time.monotonic()
            with pytest.raises(WorkerLost):
                await workers.score(ROWS, deadline=soon())
            assert time.monotonic() - begun < 2
            assert [len(each.got) for each in made] == [1, 1]

    run(tmp_path, what)


def test_a_refusal_is_told(tmp_path: Path) -> None:
    """A worker's reason is the caller's; the connection stays."""

    async def what() -> None:
        async with scripted(tmp_path, lambda frame: refused_frame(frame.batch, "no card")) as (workers, _):
            with pytest.raises(WorkerRefused, match="no card"):
                await workers.score(ROWS, deadline=soon())
            assert workers.connected == 1

    run(tmp_path, what)


def test_a_late_answer_is_nobodys(tmp_path: Path) -> None:
    """Answers to a batch that was given up, and to one never sent, come before the next one's and do not become it."""
    kept: list[bytes] = []

    def late(frame: Frame) -> bytes:
        kept.append(right(frame))
        stranger = scored_frame(frame.batch + 1, SUMS, 0)
        return b"" if len(kept) == 1 else b"".join([stranger, *kept])

    async def what() -> None:
        async with scripted(tmp_path, late) as (workers, _):
            with pytest.raises(TimeoutError):
                await workers.score(ROWS, deadline=time.monotonic() + 0.05)
            assert (await workers.score(ROWS * 2, deadline=soon())).tolist() == (SUMS * 2).tolist()

    run(tmp_path, what)


def test_a_worker_that_hangs_is_asked_last_and_not_for_ever(tmp_path: Path) -> None:
    """One late batch is answered by the other worker; the next ones do not go to the late one; alone, it fills up."""

    async def what() -> None:
        async with scripted(tmp_path, lambda frame: b"", right, hedge_after=0.05) as (workers, (hung, good)):
            assert (await workers.score(ROWS, deadline=soon())).tolist() == SUMS.tolist()
            await asyncio.gather(*(workers.score(ROWS, deadline=soon()) for _ in range(9)))
            assert (len(hung.got), len(good.got)) == (1, 10)
        async with scripted(tmp_path, lambda frame: b"") as (workers, (hung,)):
            for _ in range(MOST_UNANSWERED):
                with pytest.raises(TimeoutError):
                    await workers.score(ROWS, deadline=time.monotonic() + 0.01)
            with pytest.raises(WorkerLost, match="hangs"):
                await workers.score(ROWS, deadline=soon())
            assert len(hung.got) == MOST_UNANSWERED

    run(tmp_path, what)


def test_close_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Who waits when the connections are closed is told so; a deadline that is over asks nobody."""

    async def what() -> None:
        async with scripted(tmp_path, lambda frame: b"", lambda frame: b"") as (workers, made):
            with pytest.raises(TimeoutError):
                await workers.score(ROWS, deadline=time.monotonic())
            assert [each.got for each in made] == [[], []]
            waiting = asyncio.ensure_future(workers.score(ROWS, deadline=soon()))
            await asyncio.sleep(0.01)
            await workers.close()
            with pytest.raises(WorkerLost):
                await waiting
            assert workers.connected == 0
            with pytest.raises(WorkerLost, match="no model worker"):
                await workers.score(ROWS, deadline=soon())

    run(tmp_path, what)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a real booster and a calibration."""
    home = tmp_path_factory.mktemp("home")
    return bundle_of(home / "bundles", write_package(home))


@pytest.fixture(scope="module")
def started(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelWorkerProcesses]:
    """Two workers of it."""
    made = ModelWorkerProcesses(bundle.folder, tmp_path_factory.mktemp("run"), 2)
    yield made
    made.stop()


@pytest.fixture
def processes(started: ModelWorkerProcesses) -> ModelWorkerProcesses:
    """The two, both there, whatever the test before did to them."""
    started.start()
    return started


class Load:
    """Callers that ask without a pause, each its own rows, and compare what they get to the bit."""

    def __init__(self, bundle: Bundle, workers: ModelWorkers) -> None:
        self.answers = 0
        self.slowest = 0.0
        self._workers = workers
        random = np.random.default_rng(3)
        self._asked: list[Matrix] = [
            random.normal(50, 50, (rows, len(bundle.manifest.features))).astype(np.float32) for rows in range(1, 17)
        ]
        self._expected = [bundle.calibration.apply(raw_scores(bundle.booster, each)) for each in self._asked]
        self._since = 0.0
        self._over = False

    def start(self, *, deadline: float) -> None:
        """Ask until `stop`."""
        self._calling = asyncio.gather(*(self._caller(number, deadline) for number in range(len(self._asked))))

    async def _caller(self, number: int, deadline: float) -> None:
        while not self._over:
            begun = time.monotonic()
            scores = await self._workers.score(self._asked[number], deadline=begun + deadline)
            if begun > self._since:
                self.slowest = max(self.slowest, time.monotonic() - begun)
            np.testing.assert_array_equal(scores, self._expected[number], strict=True)
            self.answers += 1

    async def answer(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answers + count
        await self.until(lambda: self.answers >= wanted)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, while no caller fails."""
        while not holds():
            if self._calling.done():
                self._calling.result()
            await asyncio.sleep(0.01)

    def forget(self) -> None:
        """Look only at what is asked from now on."""
        self._since = time.monotonic()
        self.slowest = 0.0

    async def stop(self) -> None:
        """Let every caller end with the answer it waits for."""
        self._over = True
        await self._calling


async def is_connected(workers: ModelWorkers, count: int) -> None:
    """Wait until so many are connected."""
    while workers.connected != count:
        await asyncio.sleep(0.01)


def test_a_kill_under_load_loses_nothing(bundle: Bundle, processes: ModelWorkerProcesses, tmp_path: Path) -> None:
    """One of two workers is killed while sixteen callers ask; each gets its own scores, then and when it is back."""

    async def what() -> None:
        workers = ModelWorkers(processes.sockets, outputs=1)
        await workers.start()
        load = Load(bundle, workers)
        load.start(deadline=10)
        for number in (0, 1):
            await load.until(lambda: workers.connected == 2)
            await load.answer(300)
            processes.signal(number, signal.SIGKILL)
            await load.until(lambda: workers.connected == 1)
            await load.answer(300)
            processes.process(number).wait()
            processes.spawn()
        await load.until(lambda: workers.connected == 2)
        await load.stop()
        assert load.slowest < 4, "a killed worker's batches go on at once, not at half of their deadline"
        await workers.close()

    run(tmp_path, what)


def test_a_stopped_worker_costs_its_batches_half_their_time(
    bundle: Bundle, processes: ModelWorkerProcesses, tmp_path: Path
) -> None:
    """What a stopped worker had is scored by the other within the deadline; then it is left alone until it wakes."""

    async def what() -> None:
        workers = ModelWorkers(processes.sockets, outputs=1)
        await workers.start()
        load = Load(bundle, workers)
        load.start(deadline=4)
        await load.answer(100)
        processes.signal(0, signal.SIGSTOP)
        try:
            await load.until(lambda: load.slowest >= 2)
            load.forget()
            await load.answer(300)
            assert load.slowest < 2
        finally:
            processes.signal(0, signal.SIGCONT)
        await load.answer(300)
        await load.stop()
        await workers.close()

    run(tmp_path, what)


def test_both_gone_is_told_at_once_and_mends_itself(
    bundle: Bundle, processes: ModelWorkerProcesses, tmp_path: Path
) -> None:
    """With no worker left a batch is lost at once; when they are started again it is scored, with nobody told."""

    async def what() -> None:
        workers = ModelWorkers(processes.sockets, outputs=1)
        await workers.start()
        rows = np.zeros((2, len(bundle.manifest.features)), dtype=np.float32)
        expected = await workers.score(rows, deadline=soon())
        for number in (0, 1):
            processes.signal(number, signal.SIGKILL)
            processes.process(number).wait()
        begun = time.monotonic()
        with pytest.raises(WorkerLost):
            await workers.score(rows, deadline=soon())
        assert time.monotonic() - begun < 1
        processes.spawn()
        await is_connected(workers, 2)
        np.testing.assert_array_equal(await workers.score(rows, deadline=soon()), expected)
        await workers.close()

    run(tmp_path, what)


def test_who_is_to_go_is_asked_until_another_is_there(tmp_path: Path) -> None:
    """No batch finds nobody while workers are exchanged; one that is held by who leaves is answered by the other."""

    async def what() -> None:
        later = Scripted(tmp_path / "later", right)
        held: list[bytes] = []

        def holds_the_second(frame: Frame) -> bytes:
            held.append(right(frame))
            return b"" if len(held) == 2 else held[-1]

        async with scripted(tmp_path, holds_the_second) as (workers, (old,)):
            workers.follow([later.path])
            assert (await workers.score(ROWS, deadline=soon())).tolist() == SUMS.tolist()
            assert (len(old.got), later.got) == (1, [])
            waiting = asyncio.ensure_future(workers.score(ROWS, deadline=time.monotonic() + 3.0))
            async with await asyncio.start_unix_server(later.answer, str(later.path)):
                while not later.got:
                    assert (await workers.score(ROWS, deadline=soon())).tolist() == SUMS.tolist()
                    await asyncio.sleep(0.01)
                seen = len(old.got)
                for _ in range(5):
                    assert (await workers.score(ROWS, deadline=soon())).tolist() == SUMS.tolist()
                assert len(old.got) == seen
                assert (await waiting).tolist() == SUMS.tolist()  # by the other, when the first kept silent
                while len(workers._leaving):
                    await asyncio.sleep(0.01)
                assert workers.connected == 1
                await workers.close()

    run(tmp_path, what)
