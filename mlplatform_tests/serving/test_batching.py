"""The batcher: its invariants over random interleavings on simulated time, and each of them alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import BatchLost, QueueFull, Unavailable
from mlplatform.scoring.booster import raw_scores
from mlplatform_tests.fakes.simulated_loop import simulate
from serving.batching import TICK, Batcher

MOMENTS = 1_000
"""Of a second: times are few, so that many things fall on the same one."""


@dataclass(frozen=True)
class Caller:
    """One caller: when it comes, with how much, how long it waits, when it goes away."""

    number: int
    at: float
    rows: int
    patience: float
    leaves_after: float | None
    bad: bool

    @property
    def deadline(self) -> float:
        return round(self.at + self.patience, 9)


@dataclass(frozen=True)
class Work:
    """What the processing of one batch does."""

    seconds: float
    does: str


@dataclass
class Batch:
    callers: list[Caller]
    began: float
    does: str
    ended: float = -1.0


class BadRow(Exception):
    """A row that fails alone."""


class Broken(Exception):
    """A batch that fails whole."""


@dataclass
class World:
    """What happened."""

    batches: list[Batch] = field(default_factory=list)
    outcomes: dict[int, list[tuple[float, Any]]] = field(default_factory=dict)
    running: list[tuple[float, int]] = field(default_factory=lambda: [(-1.0, 0)])


milliseconds = st.integers(0, 12).map(lambda count: count / MOMENTS)
callers = st.lists(
    st.tuples(
        milliseconds,
        st.integers(1, 5),
        st.integers(0, 20).map(lambda count: count / MOMENTS),
        st.one_of(st.none(), milliseconds),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
).map(lambda drawn: [Caller(number, *each) for number, each in enumerate(drawn)])
works = st.lists(
    st.builds(
        Work,
        st.integers(0, 8).map(lambda count: count / MOMENTS),
        st.sampled_from(["answers", "answers", "raises", "too few", "cancelled", "nothing", "stops"]),
    ),
    min_size=1,
    max_size=8,
)


async def play(callers: list[Caller], works: list[Work], *, lanes: int, max_rows: int, max_queued_rows: int) -> World:
    """Let all callers come and go."""
    loop = asyncio.get_running_loop()
    world = World()

    async def process(batch: list[Caller]) -> Sequence[Any]:
        work = works[len(world.batches) % len(works)]
        this = Batch(list(batch), loop.time(), work.does)
        world.batches.append(this)
        world.running.append((loop.time(), world.running[-1][1] + 1))
        try:
            await asyncio.sleep(work.seconds)
        finally:
            this.ended = loop.time()
            world.running.append((loop.time(), world.running[-1][1] - 1))
        if work.does == "raises":
            raise Broken(this)
        if work.does == "cancelled":
            raise asyncio.CancelledError
        if work.does == "nothing":
            return None  # type: ignore[return-value]  # what a careless function gives
        answers = [BadRow(each.number) if each.bad else ("answer", each.number) for each in batch]
        if work.does == "stops":
            return [StopIteration() for _ in batch]
        return answers[1:] if work.does == "too few" else answers

    batcher: Batcher[Caller, Any] = Batcher(
        process,
        lanes=lanes,
        max_rows=max_rows,
        max_queued_rows=max_queued_rows,
        clock=loop.time,
        rows_of=lambda caller: caller.rows,
    )

    def refuse_only_when_full(error: QueueFull, waiting: int, caller: Caller) -> None:
        assert error.queued_rows == waiting > 0
        assert waiting + caller.rows > max_queued_rows
        assert error.retry_after > 0

    async def call(caller: Caller) -> None:
        told = world.outcomes.setdefault(caller.number, [])
        await asyncio.sleep(caller.at)
        waiting = batcher.queued_rows
        try:
            answer = await batcher.submit(caller, deadline=caller.deadline)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever comes is judged below
            told.append((loop.time(), error))
            if isinstance(error, QueueFull):
                refuse_only_when_full(error, waiting, caller)
        else:
            told.append((loop.time(), answer))
        assert batcher.queued_rows <= max(max_queued_rows, max(each.rows for each in callers))

    tasks = []
    for caller in callers:
        task = loop.create_task(call(caller))
        tasks.append(task)
        if caller.leaves_after is not None:
            loop.call_later(caller.at + caller.leaves_after, task.cancel)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError), result
    await batcher.close()
    assert (batcher.queued_rows, batcher.running) == (0, 0)
    return world


@settings(max_examples=400)
@given(
    callers=callers,
    works=works,
    lanes=st.integers(1, 3),
    max_rows=st.integers(1, 8),
    max_queued_rows=st.integers(1, 25),
)
def test_everybody_gets_exactly_one_answer_their_own(
    callers: list[Caller], works: list[Work], lanes: int, max_rows: int, max_queued_rows: int
) -> None:
    """Whatever arrives, leaves, comes too late, fails or breaks, in whatever order."""
    world = simulate(play(callers, works, lanes=lanes, max_rows=max_rows, max_queued_rows=max_queued_rows))
    batch_of = {each.number: batch for batch in world.batches for each in batch.callers}
    assert len(batch_of) == sum(len(batch.callers) for batch in world.batches), "a row is in one batch only"
    for caller in callers:
        ((at, outcome),) = world.outcomes[caller.number] or [(0.0, "never came")]
        judge(caller, at, outcome, batch_of.get(caller.number))
    for batch in world.batches:
        rows = sum(each.rows for each in batch.callers)
        assert rows <= max_rows or len(batch.callers) == 1
    assert max(count for _, count in world.running) <= lanes
    no_lane_idles(world, lanes)
    first_come_first_served(world, callers)


def judge(caller: Caller, at: float, outcome: Any, batch: Batch | None) -> None:
    """One outcome, against what happened to its batch."""
    if outcome == "never came":
        assert caller.leaves_after is not None and batch is None
        return
    if isinstance(outcome, asyncio.CancelledError):
        assert caller.leaves_after is not None
        assert at == pytest.approx(caller.at + caller.leaves_after)
        assert batch is None or batch.began <= at
        return
    if batch is None:
        if isinstance(outcome, TimeoutError):
            assert caller.deadline <= at <= caller.deadline + TICK + 1e-9, (
                "told when it is late, not when a lane is free"
            )
        else:
            assert isinstance(outcome, QueueFull)
            assert at == caller.at
        return
    assert batch.began < caller.deadline, "nobody who is late is in a batch"
    assert at == batch.ended, "an answer is handed over at once"
    if batch.does == "raises":
        assert isinstance(outcome, Broken) and outcome.args[0] is batch
    elif batch.does == "nothing":
        assert isinstance(outcome, TypeError)
    elif batch.does in ("too few", "cancelled", "stops"):
        assert isinstance(outcome, BatchLost)
    elif caller.bad:
        assert isinstance(outcome, BadRow) and outcome.args == (caller.number,)
    else:
        assert outcome == ("answer", caller.number)


def no_lane_idles(world: World, lanes: int) -> None:
    """Who is dispatched later than they came, waited while all lanes were busy."""
    for batch in world.batches:
        for caller in batch.callers:
            before = [(at, count) for at, count in world.running if at <= caller.at][-1:]
            between = [(at, count) for at, count in world.running if caller.at < at < batch.began]
            for at, _ in [*before, *between] if caller.at < batch.began else []:
                # Several changes fall on one instant; the last of them holds from then on.
                count = [each for when, each in world.running if when <= at][-1]
                assert count == lanes, f"{caller} waited until {batch.began} beside an idle lane"


def first_come_first_served(world: World, callers: list[Caller]) -> None:
    """Batches take callers in the order in which they came."""
    order = [each.at for batch in world.batches for each in batch.callers]
    assert order == sorted(order)


@pytest.fixture(scope="module")
def booster() -> xgb.Booster:
    """A small real booster."""
    random = np.random.default_rng(7)
    inputs = random.normal(size=(400, 4)).astype(np.float32)
    labels = (inputs[:, 0] + inputs[:, 1] * inputs[:, 2] > 0).astype(np.float32)
    settings = {"objective": "binary:logistic", "seed": 1, "nthread": 1}
    return xgb.train(settings, xgb.DMatrix(inputs, label=labels), num_boost_round=20)


@settings(max_examples=40)
@given(
    arrivals=st.lists(st.integers(0, 5).map(lambda count: count / MOMENTS), min_size=1, max_size=30),
    max_rows=st.integers(1, 8),
)
def test_a_score_does_not_depend_on_who_waits_beside_it(
    booster: xgb.Booster, arrivals: list[float], max_rows: int
) -> None:
    """Whatever batches come about, each row gets the bits that it gets alone."""
    rows = np.random.default_rng(len(arrivals)).normal(size=(len(arrivals), 4)).astype(np.float32)

    async def process(batch: list[int]) -> list[float]:
        await asyncio.sleep(2 / MOMENTS)
        return list(map(float, raw_scores(booster, np.ascontiguousarray(rows[batch]))))

    async def main() -> list[float]:
        clock = asyncio.get_running_loop().time
        batcher: Batcher[int, float] = Batcher(process, lanes=2, max_rows=max_rows, max_queued_rows=99, clock=clock)

        async def call(row: int) -> float:
            await asyncio.sleep(arrivals[row])
            return await batcher.submit(row, deadline=9.0)

        return await asyncio.gather(*map(call, range(len(arrivals))))

    alone = [raw_scores(booster, rows[[row]])[0] for row in range(len(arrivals))]
    assert simulate(main()) == alone


def answered(rows: list[int]) -> list[int | Exception]:
    """Ten times each row."""
    return [row * 10 for row in rows]


class Gate:
    """Processing that waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def process(self, rows: list[int]) -> list[int | Exception]:
        self.batches.append(rows)
        await self.open.wait()
        return answered(rows)


def test_a_lone_request_waits_for_nobody_and_a_crowd_is_one_batch() -> None:
    """Those of one instant go together; those who come while the lane is busy go together next."""

    async def main() -> list[list[int]]:
        gate = Gate()
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=9, clock=asyncio.get_running_loop().time)
        tasks = [asyncio.ensure_future(batcher.submit(row, deadline=9.0)) for row in (0, 1)]
        await asyncio.sleep(0.1)
        tasks += [asyncio.ensure_future(batcher.submit(row, deadline=9.0)) for row in (2, 3, 4, 5)]
        await asyncio.sleep(0.1)
        gate.open.set()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]
        return gate.batches

    assert simulate(main()) == [[0, 1], [2, 3, 4], [5]]


def test_who_is_late_is_told_while_the_lane_hangs() -> None:
    """At the deadline; and the batch that comes next does not hold the row."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        gate = Gate()
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=9, clock=clock)
        hung = asyncio.ensure_future(batcher.submit(1, deadline=99.0))
        await asyncio.sleep(0.5)
        patient = asyncio.ensure_future(batcher.submit(2, deadline=50.0))
        with pytest.raises(TimeoutError):
            await batcher.submit(3, deadline=1.0)
        assert clock() == pytest.approx(1.0, abs=2 * TICK)
        gate.open.set()
        assert [await hung, await patient] == [10, 20]
        assert gate.batches == [[1], [2]]

    simulate(main())


def test_those_who_leave_make_room() -> None:
    """A queue full of callers who have gone is empty, also while the lane hangs."""

    async def main() -> None:
        gate = Gate()
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=2, clock=asyncio.get_running_loop().time)
        hung = asyncio.ensure_future(batcher.submit(1, deadline=99.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for row in range(1_000):
            leaving = [asyncio.ensure_future(batcher.submit(row, deadline=99.0)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                await batcher.submit(row, deadline=99.0)
            for each in leaving:
                each.cancel()
            await asyncio.wait(leaving)
            assert batcher.queued_rows == 0
        gate.open.set()
        assert await hung == 10
        assert gate.batches == [[1]]

    simulate(main())


def test_who_leaves_in_the_round_of_the_dispatch_is_in_no_batch() -> None:
    """The future is cancelled already, the caller has not heard of it yet."""

    async def main() -> None:
        gate = Gate()
        gate.open.set()
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=9, clock=asyncio.get_running_loop().time)
        leaving = asyncio.ensure_future(batcher.submit(1, deadline=9.0))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await batcher.submit(2, deadline=9.0) == 20
        assert leaving.cancelled()
        assert (gate.batches, batcher.queued_rows) == ([[2]], 0)

    simulate(main())


def test_a_fault_of_the_batcher_is_told_and_it_goes_on() -> None:
    """A clock that breaks costs those who wait their answer, not their time; the next ones are served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        broken = False

        def clock() -> float:
            if broken:
                raise OSError("no time")
            return loop.time()

        gate = Gate()
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=9, clock=clock)
        first = asyncio.ensure_future(batcher.submit(1, deadline=99.0))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(batcher.submit(2, deadline=99.0))
        await asyncio.sleep(0.1)
        broken = True
        gate.open.set()
        done, _ = await asyncio.wait([first, second])
        assert [type(each.exception()) for each in done] == [OSError, OSError]
        broken = False
        assert await batcher.submit(3, deadline=99.0) == 30
        assert batcher.queued_rows == 0

    simulate(main())


def test_a_request_larger_than_the_queue_is_let_in_when_nobody_waits() -> None:
    """Asking again later would not make it smaller; it goes alone."""

    async def main() -> list[list[int]]:
        gate = Gate()
        gate.open.set()
        clock = asyncio.get_running_loop().time
        batcher = Batcher(gate.process, lanes=1, max_rows=3, max_queued_rows=9, clock=clock, rows_of=lambda row: row)
        assert await asyncio.gather(*(batcher.submit(row, deadline=9.0) for row in (100,))) == [1000]
        assert await asyncio.gather(*(batcher.submit(row, deadline=9.0) for row in (1, 2, 5, 1))) == [10, 20, 50, 10]
        return gate.batches

    assert simulate(main()) == [[100], [1, 2], [5], [1]]


def test_closing_drains_and_then_refuses() -> None:
    """Who was there is answered, who comes later is sent elsewhere."""

    async def main() -> None:
        gate = Gate()
        batcher = Batcher(gate.process, lanes=1, max_rows=1, max_queued_rows=9, clock=asyncio.get_running_loop().time)
        waiting = [asyncio.ensure_future(batcher.submit(row, deadline=9.0)) for row in (1, 2, 3)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable):
            await batcher.submit(4, deadline=9.0)
        assert not closing.done()
        gate.open.set()
        await closing
        assert [each.result() for each in waiting] == [10, 20, 30]

    simulate(main())
