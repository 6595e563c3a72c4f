"""The shadow: it scores what was answered, and nobody who is answered notices."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.registry.bundle import Bundle
from mlplatform_tests.fakes.simulated_loop import simulate
from mlplatform_tests.fakes.two_arms import Bundles, Logged, Workers, ask, bundles, opened
from serving.live_model import LiveModel
from serving.metrics import Metrics
from serving.request_fit import RequestFit
from serving.routing import Route
from serving.shadow import PART_ROWS, QUEUED_ROWS, SECONDS, Shadow, computed_alike

ANSWERED = Route("champion", "7-ab", 0.75)
milliseconds = st.integers(0, 30).map(lambda count: count / 1000)
works = st.lists(
    st.one_of(st.integers(1, 40).map(lambda count: count / 1000), st.sampled_from(["hangs", "raises"])),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """For reading only."""
    return bundles(tmp_path_factory.mktemp("arms"))


@contextmanager
def metrics() -> Iterator[Metrics]:
    """Counters of their own."""
    with TemporaryDirectory() as folder:
        counting = Metrics(Path(folder))
        yield counting
        counting.close()


def shadow_of(scoring: LiveModel, answering: LiveModel, log: Logged) -> Shadow:
    """One that takes what the other answers."""
    columns = answering.predictor.bundle.domain.requests.columns
    wanted = scoring.predictor.bundle.domain.requests.columns
    shadow = Shadow(scoring, answering, fit=RequestFit(columns, wanted), log=log, clock=asyncio.get_running_loop().time)
    answering.shadow = shadow.take
    return shadow


def taking(seconds: float | str) -> Callable[[], float | str]:
    """Always so long."""
    return lambda: seconds


def play(
    made: Bundles, came: list[float], live: list[float], shadow: list[float | str] | None
) -> tuple[list[float], Logged]:
    """When each request had its answer, with a shadow or without."""
    log = Logged()

    async def main() -> list[float]:
        champion = opened(made.champion, made.home, Workers(made.champion, cycle(live).__next__), counting, log)
        beside = None
        if shadow is not None:
            workers = Workers(made.alike, cycle(shadow).__next__)
            beside = shadow_of(opened(made.alike, made.home, workers, counting, log), champion, log)
        loop = asyncio.get_running_loop()

        async def asked(number: int, at: float) -> float:
            await asyncio.sleep(at)
            assert (await ask(champion, str(number), ANSWERED))["manifest"] == made.champion.digest
            return loop.time()

        answered = await asyncio.gather(*(asked(number, at) for number, at in enumerate(came)))
        await asyncio.sleep(3 * SECONDS)
        if beside is not None:
            beside.close()
        return answered

    with metrics() as counting:
        return simulate(main()), log


@settings(max_examples=40)
@given(
    st.lists(milliseconds, min_size=1, max_size=12),
    st.lists(st.integers(1, 20).map(lambda count: count / 1000), min_size=1, max_size=4),
    works,
)
def test_a_live_batch_never_waits_behind_a_shadow_one(
    made: Bundles, came: list[float], live: list[float], shadow: list[float | str]
) -> None:
    """Each answer comes at the very instant at which it comes without a shadow, which may work, hang, or raise."""
    alone, _ = play(made, came, live, None)
    beside, log = play(made, came, live, shadow)
    assert beside == alone
    scored = [name for name, route, _, _ in log.rows if route.arm == "shadow"]
    assert len(scored) == len(set(scored))  # never twice, whatever it did


@settings(max_examples=25)
@given(st.lists(st.tuples(milliseconds, st.booleans()), min_size=4, max_size=25), works)
def test_where_both_arms_answer_a_live_batch_meets_one_small_part_at_most(
    made: Bundles, came: list[tuple[float, bool]], takes: list[float | str]
) -> None:
    """Only if it finds no free worker; and a part is a few rows."""
    log = Logged()

    async def main() -> list[Workers]:
        pools = [Workers(bundle, cycle(takes).__next__) for bundle in (made.champion, made.alike)]
        arms = [opened(pool.bundle, made.home, pool, counting, log) for pool in pools]
        shadows = [shadow_of(one, other, log) for one, other in (arms, reversed(arms))]
        live: set[int] = set()
        for arm, pool in zip(arms, pools, strict=True):
            _note_live(arm, pool, live)

        async def asked(number: int, at: float, challenger: bool) -> None:
            await asyncio.sleep(at)
            await ask(arms[challenger], str(number), Route("challenger" if challenger else "champion", "7-ab", 1.0))

        await asyncio.gather(*(asked(number, *each) for number, each in enumerate(came)))
        await asyncio.sleep(3 * SECONDS)
        for shadow in shadows:
            shadow.close()
        for pool in pools:
            for batch in pool.batches:
                shadowing = [each for each in batch.ahead if id(each) not in live]
                assert len(shadowing) <= 1
                assert all(each.rows <= PART_ROWS for each in shadowing)
                if id(batch) not in live:
                    assert batch.ahead == []  # it is only sent to a worker that has nothing to do
        return pools

    with metrics() as counting:
        simulate(main())


def _note_live(arm: LiveModel, pool: Workers, live: set[int]) -> None:
    """Have the batches that are answered from told from those of the shadow."""
    own = pool.score_timed

    class Noting:
        connected = 2

        async def score_timed(self, matrix: Any, *, deadline: float) -> Any:
            scoring = asyncio.ensure_future(own(matrix, deadline=deadline))
            before = len(pool.batches)
            await asyncio.sleep(0)
            live.update(id(each) for each in pool.batches[before : before + 1])
            return await scoring

    noting: Any = Noting()
    arm.predictor.workers = noting


def test_a_shadow_row_is_the_same_request_with_the_same_vector(made: Bundles) -> None:
    """Its id, instants and features are those of the answer; its manifest, score and propensity are its own."""
    _, log = play(made, [0.0, 0.001, 0.002], [0.005], [0.001])
    answers = {name: (batch, row) for batch, row, name in _rows(log, made.champion)}
    shadows = {name: (batch, row) for batch, row, name in _rows(log, made.alike)}
    assert answers.keys() == shadows.keys() == {"0", "1", "2"}
    for name, (batch, row) in shadows.items():
        answered, there = answers[name]
        assert batch.came[row] == answered.came[there]
        assert batch.asks.at[row] == answered.asks.at[there]
        assert batch.features[row].tobytes() == answered.features[there].tobytes()
        assert batch.views["harbour/berth_waits"].statuses[row] == "present"
        assert batch.answers.source[row] == "model"
        assert batch.asks.route[row] == Route("shadow", "7-ab", 0.25)
        assert batch.computing == answered.computing


def _rows(log: Logged, bundle: Bundle) -> Iterator[tuple[Any, int, str]]:
    for live, batch in log.batches:
        if live.predictor.bundle.digest == bundle.digest:
            yield from ((batch, row, name) for row, name in enumerate(batch.asks.request_id))


def test_other_feature_code_computes_its_own(made: Bundles) -> None:
    """From the same rows at the same instants; whether it is another is told by code, fitted values and views."""
    assert computed_alike(made.champion.manifest, made.alike.manifest)
    assert not computed_alike(made.champion.manifest, made.other.manifest)
    log = Logged()

    async def main() -> None:
        arms = [
            opened(bundle, made.home, Workers(bundle, taking(0.001)), counting, log)
            for bundle in (made.champion, made.other)
        ]
        shadow_of(arms[1], arms[0], log)
        await asyncio.gather(*(ask(arms[0], str(number), ANSWERED) for number in range(3)))
        await asyncio.sleep(1.0)

    with metrics() as counting:
        simulate(main())
    ((_, answered), (_, shadowed)) = log.batches
    assert shadowed.asks.request_id == list(answered.asks.request_id)
    assert shadowed.asks.at == list(answered.asks.at)
    assert list(shadowed.came) == list(answered.came)
    names = made.champion.manifest.features
    scaled = names.index("scaled_length")
    assert shadowed.features[:, scaled] == pytest.approx(1.5 * answered.features[:, scaled])
    assert np.delete(shadowed.features, scaled, 1).tobytes() == np.delete(answered.features, scaled, 1).tobytes()


def test_a_shadow_that_hangs_takes_no_more_than_its_queue(made: Bundles) -> None:
    """What does not fit is dropped and counted, and so is what waits when it is closed."""
    log = Logged()

    async def main() -> int:
        champion = opened(made.champion, made.home, Workers(made.champion, taking(0.001)), counting, log)
        challenger = opened(made.alike, made.home, Workers(made.alike, taking("hangs")), counting, log)
        shadow = shadow_of(challenger, champion, log)
        await ask(champion, "first", ANSWERED)
        ((_, batch),) = log.batches
        for _ in range(QUEUED_ROWS + 500):
            shadow.take(batch)
        assert shadow.queued_rows == QUEUED_ROWS
        await asyncio.sleep(0.5)
        under_way = QUEUED_ROWS - shadow.queued_rows
        assert 0 < under_way <= PART_ROWS
        shadow.close()
        await asyncio.sleep(0)
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in counting.exposition().decode().splitlines()
            if line.startswith("mlplatform_shadow_dropped_total{")
        )

    with metrics() as counting:
        assert simulate(main()) == QUEUED_ROWS + 501


def test_what_a_shadow_fails_at_is_told_and_counts_nowhere(made: Bundles) -> None:
    """Its row says that the model gave none, its own breaker stays closed, and no answer is counted."""
    log = Logged()

    async def main() -> bytes:
        champion = opened(made.champion, made.home, Workers(made.champion, taking(0.001)), counting, log)
        challenger = opened(made.alike, made.home, Workers(made.alike, taking("raises")), counting, log)
        shadow_of(challenger, champion, log)
        for number in range(150):
            await ask(champion, str(number), ANSWERED)
            await asyncio.sleep(0.05)
        assert challenger.predictor.breaker.state == champion.predictor.breaker.state == "closed"
        return counting.exposition()

    with metrics() as counting:
        told = simulate(main()).decode()
    failed = [batch for live, batch in log.batches if live.predictor.bundle.digest == made.alike.digest]
    assert sum(len(batch.asks) for batch in failed) == 150
    assert all(source != "model" for batch in failed for source in batch.answers.source)
    assert all(batch.scores is None and batch.reason for batch in failed)
    assert 'mlplatform_predictions_total{arm="champion",model="harbour/waits",source="model"} 150.0' in told
    assert "shadow" not in "".join(line for line in told.splitlines() if line.startswith("mlplatform_predictions"))


def test_a_version_without_a_worker_fails_at_nothing(made: Bundles) -> None:
    """What it was never asked is dropped and counted; what comes once it is there again is scored."""
    log = Logged()

    async def main() -> None:
        workers = Workers(made.alike, taking(0.001))
        champion = opened(made.champion, made.home, Workers(made.champion, taking(0.001)), counting, log)
        shadow_of(opened(made.alike, made.home, workers, counting, log), champion, log)
        workers.connected = 0
        await ask(champion, "before", ANSWERED)
        await asyncio.sleep(2.0)
        workers.connected = 1
        await ask(champion, "after", ANSWERED)
        await asyncio.sleep(2.0)

    with metrics() as counting:
        simulate(main())
        assert 'mlplatform_shadow_dropped_total{model="harbour/waits"} 1.0' in counting.exposition().decode()
    shadowed = [(name, route.arm) for name, route, _, _ in log.rows if route.arm == "shadow"]
    assert shadowed == [("after", "shadow")]


def test_a_record_that_cannot_be_written_ends_no_shadow(made: Bundles) -> None:
    """It is dropped and counted, and what comes after it is scored."""

    class Full(Logged):
        refused = 0

        def __call__(self, live: LiveModel, batch: Any) -> None:
            if live.predictor.bundle.digest == made.alike.digest and not self.refused:
                self.refused = 1
                raise OSError("the disk is full")
            super().__call__(live, batch)

    log = Full()

    async def main() -> None:
        champion = opened(made.champion, made.home, Workers(made.champion, taking(0.001)), counting, log)
        shadow_of(opened(made.alike, made.home, Workers(made.alike, taking(0.001)), counting, log), champion, log)
        for number in range(3):
            await ask(champion, str(number), ANSWERED)
            await asyncio.sleep(0.2)

    with metrics() as counting:
        simulate(main())
        assert 'mlplatform_shadow_dropped_total{model="harbour/waits"} 1.0' in counting.exposition().decode()
    assert [name for name, route, _, _ in log.rows if route.arm == "shadow"] == ["1", "2"]


def test_rows_that_wait_for_a_worker_when_it_is_closed_are_counted(made: Bundles) -> None:
    """They are in no queue any more, and in no log."""
    log = Logged()

    async def main() -> None:
        workers = Workers(made.alike, taking(0.001))
        workers.connected = 0
        champion = opened(made.champion, made.home, Workers(made.champion, taking(0.001)), counting, log)
        shadow = shadow_of(opened(made.alike, made.home, workers, counting, log), champion, log)
        await ask(champion, "r", ANSWERED)
        await asyncio.sleep(0.1)
        assert shadow.queued_rows == 0
        shadow.close()
        await asyncio.sleep(0)

    with metrics() as counting:
        simulate(main())
        assert 'mlplatform_shadow_dropped_total{model="harbour/waits"} 1.0' in counting.exposition().decode()
