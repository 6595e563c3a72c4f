"""The predictor on a real bundle: the answer of the model where it can be had, else of the fallback chain, by row."""

import asyncio
import itertools
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.errors import DataError, InvalidRequest, WorkerLost
from mlplatform.features.online.store import open_online_store
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, Scores
from mlplatform.scoring.fallback import Answer
from mlplatform_tests.fakes.redis_server import redis_server
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from mlplatform_tests.fakes.waiting import until
from serving.batch import Ask, Batch
from serving.circuit_breaker import CircuitBreaker
from serving.predictor import Predictor
from serving.view_reader import ViewReader
from serving.worker_connections import Scored

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
NORTH = b'{"berth": "north", "length": 250.0, "flag": "NO"}'
SOUTH = b'{"berth": "south", "length": 90.0, "flag": "PA"}'


class Workers:
    """Scores in this process, or does what a test wants of it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.calls = 0
        self.instead: Callable[[Matrix], Scores] | None = None
        self.connected = 1

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """As the model workers do it."""
        self.calls += 1
        await asyncio.sleep(0)
        return Scored(self.instead(matrix) if self.instead else self.scores(matrix), 0.001)

    def scores(self, matrix: Matrix) -> Scores:
        """The model's own."""
        from mlplatform.scoring.booster import raw_scores

        return self.bundle.calibration.apply(raw_scores(self.bundle.booster, matrix))


class Served:
    """A predictor and what it stands on."""

    def __init__(self, home: Path, extra: str = "", address: str | None = None) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        publish(home, address=address)
        self.bundle = bundle_of(home / "bundles", write_package(home, extra=extra))
        self.workers = Workers(self.bundle)
        self.known: dict[bytes, Answer] = {}
        serving = self.bundle.model.serving

        def breaker(name: str) -> CircuitBreaker:
            return CircuitBreaker(
                name, serving.breaker, clock=time.monotonic, random=lambda: 0.5, on_transition=lambda _: None
            )

        self.breaker, self.store_breaker = breaker("model"), breaker("store")
        workers: Any = self.workers
        self.predictor = Predictor(
            self.bundle,
            open_online_store(address or str(home / "online")),
            workers,
            breaker=self.breaker,
            store_breaker=self.store_breaker,
            cached=self.known.get,
            now=lambda: AT,
            request_time=False,
        )

    def ask(self, body: bytes, name: str = "r", deadline: float = 10.0) -> Ask:
        """A request that is understood."""
        values, at = self.predictor.understand(body)
        now = time.monotonic()
        return Ask(values, at, body, name, "", body, now, now + deadline)

    def predict(self, *bodies: bytes) -> tuple[list[Batch], dict[int, InvalidRequest]]:
        """The batches of one call."""
        return asyncio.run(self.predictor.predict([self.ask(body, str(row)) for row, body in enumerate(bodies)]))

    def answers(self, *bodies: bytes) -> list[Answer]:
        """The answers of one call, in order."""
        return [answer for batch in self.predict(*bodies)[0] for answer in batch.answers.rows()]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """One of its own for each test."""
    return Served(tmp_path)


def test_a_row_is_answered_in_a_batch_as_alone(served: Served) -> None:
    """To the bit, whatever is beside it, and with the scores of the bundle itself."""
    bodies = [NORTH, SOUTH, *(b'{"berth": "north", "length": %d.5, "flag": null}' % length for length in range(50, 90))]
    together = served.answers(*bodies)
    assert together == [served.answers(body)[0] for body in bodies]
    assert {answer.source for answer in together} == {"model"}
    assert len({answer.probability for answer in together}) > 2
    assert served.workers.calls == 1 + len(bodies)


@pytest.mark.parametrize("failure", [WorkerLost("killed"), TimeoutError("too late")], ids=["killed", "slow"])
def test_without_an_answer_of_the_workers_the_simple_model_answers(served: Served, failure: Exception) -> None:
    """Labelled, degraded, with the features that were computed; and the breaker opens, after which nobody is asked."""

    def fail(_: Matrix) -> Scores:
        raise failure

    served.workers.instead = fail
    (batch,), _ = served.predict(NORTH)
    assert batch.answers.source == ["simple_model"]
    assert batch.features.shape == (1, 3)
    assert b'"degraded":true' in served.predictor.encoded(batch)[0]
    for _ in range(200):
        if served.breaker.state == "open":
            break
        served.predict(NORTH)
    calls = served.workers.calls
    assert served.breaker.state == "open"
    (batch,), _ = served.predict(NORTH)
    assert served.workers.calls == calls
    assert batch.reason == "the breaker is open: the model failed often"


def test_only_the_row_whose_score_is_none_falls_back(served: Served) -> None:
    """NaN for one row of three: the others have the model's answer; where it goes on, the breaker opens."""

    def one_nan(matrix: Matrix) -> Scores:
        scores = served.workers.scores(matrix)
        scores[1] = np.nan
        return scores

    expected = served.answers(NORTH, SOUTH, NORTH)
    served.workers.instead = one_nan
    found = served.answers(NORTH, SOUTH, NORTH)
    assert [answer.source for answer in found] == ["model", "simple_model", "model"]
    assert (found[0], found[2]) == (expected[0], expected[2])
    batches = takewhile(lambda _: served.breaker.state != "open", range(200))
    assert len([served.answers(NORTH, SOUTH, NORTH) for _ in batches]) < 200


def test_an_earlier_answer_comes_before_the_simple_model(served: Served) -> None:
    """The first tier: what the model said to the same request."""
    earlier = Answer(1, 0.75, 0.75, False, "model")
    served.known[NORTH] = earlier
    served.workers.instead = lambda matrix: np.full(len(matrix), 2.0)
    assert served.answers(NORTH) == [earlier._replace(source="cached")]


def test_without_a_store_the_request_alone_is_scored(served: Served) -> None:
    """The model still answers, degraded: the view's values are nulls, and the batch says why."""
    with_store = served.answers(NORTH)
    shutil.rmtree(served.home / "online")
    (batch,), _ = served.predict(NORTH)
    assert batch.answers.source == ["model"]
    assert batch.answers.rows() != with_store
    assert np.isnan(batch.features[0]).any()
    assert not batch.complete
    assert "online store" in batch.reason
    assert batch.views["harbour/berth_waits"].statuses == ["unavailable"]


BROKEN_ON = """

of_good_requests = of_request


def of_request(requests):
    if (requests["length"] == 13).any():
        raise RuntimeError("thirteen")
    return of_good_requests(requests)
"""


def test_a_store_that_hangs_costs_its_share_of_the_time(tmp_path: Path) -> None:
    """The model answers without its values, nobody else waits meanwhile, and they are back when it is."""

    async def asked(served: Served) -> tuple[Batch, float, float]:
        gaps, done = [0.0], False

        async def ticks() -> None:
            while not done:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                gaps.append(time.monotonic() - before)

        ticking = asyncio.ensure_future(ticks())
        began = time.monotonic()
        (batch,), _ = await served.predictor.predict([served.ask(NORTH)])
        took, done = time.monotonic() - began, True
        await ticking
        return batch, took, max(gaps)

    def statuses(batch: Batch) -> list[str]:
        return batch.views["harbour/berth_waits"].statuses

    with redis_server(tmp_path / "redis") as server:
        served = Served(tmp_path / "home", address=server.address)
        asyncio.run(asked(served))
        assert statuses(asyncio.run(asked(served))[0]) == ["present"]
        with server.paused():
            batch, took, longest = asyncio.run(asked(served))
        assert (batch.answers.source, statuses(batch), batch.complete) == (["model"], ["unavailable"], False)
        assert took < served.predictor.budget
        assert longest < took / 2
        assert until(lambda: statuses(asyncio.run(asked(served))[0]) == ["present"], seconds=10, what="its values")


def test_only_a_store_that_is_far_has_a_share_of_the_time(served: Served) -> None:
    """What a busy machine takes from a store in this process is no reason to answer without its values."""
    ticks = itertools.count()
    rows = served.predictor.frame([served.ask(NORTH).values], [served.ask(NORTH).at])

    def statuses(store: Any) -> list[str]:
        breaker = served.store_breaker
        reader = ViewReader(
            served.bundle, store, breaker, seconds=0.5, tell=lambda _: None, clock=lambda: float(next(ticks))
        )
        return asyncio.run(reader.read(rows)).views["harbour/berth_waits"].statuses

    store = open_online_store(str(served.home / "online"))
    assert statuses(store) == ["present"]
    store.remote = True
    assert statuses(store) == ["unavailable"]


def test_the_revision_is_that_which_the_features_were_made_from(served: Served) -> None:
    """Also when a newer one was published before the answer was remembered; and a batch without a store has none."""
    (batch,), _ = served.predict(NORTH)
    assert asyncio.run(served.predictor.reader.revision()) == batch.revision
    publish(served.home)
    newer = asyncio.run(served.predictor.reader.revision())
    assert newer != batch.revision
    assert served.predict(NORTH)[0][0].revision == newer
    shutil.rmtree(served.home / "online")
    assert asyncio.run(served.predictor.reader.revision()).endswith("@?")


def test_a_fault_of_the_request_is_none_of_the_store(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a look-up raises, its permit is given back, and the store's breaker stays closed."""

    def raises(*_: Any) -> Any:
        raise DataError("a key of another kind")

    monkeypatch.setattr(served.predictor.reader._store, "lookup", raises)
    for _ in range(50):
        assert served.answers(NORTH)[0].source != "model"
    assert served.store_breaker.state == "closed"
    monkeypatch.undo()
    assert served.answers(NORTH)[0].source == "model"


def test_a_view_that_is_not_there_does_not_close_the_store(served: Served) -> None:
    """What was never published, or is of another version, is no failure of the store."""
    shutil.rmtree(served.home / "online")
    publish(served.home, version="another")
    for _ in range(50):
        (batch,), _ = served.predict(NORTH)
        assert "another" in batch.reason
    assert served.store_breaker.state == "closed"


def test_a_row_on_which_the_domains_code_raises_falls_alone(tmp_path: Path) -> None:
    """The others of its batch keep the model's answer; its own comes from what is left: here, low confidence."""
    served = Served(tmp_path, extra=BROKEN_ON)
    odd = b'{"berth": "north", "length": 13, "flag": "NO"}'
    bodies = [NORTH, SOUTH, odd, NORTH, SOUTH]
    found = served.answers(*bodies)
    assert [answer.source for answer in found] == ["model", "model", "low_confidence", "model", "model"]
    assert found[0] == served.answers(NORTH)[0]
    assert (found[2].prediction, found[2].confidence, found[2].needs_review) == (None, 0.0, True)


def test_fields_at_fault_are_named(served: Served) -> None:
    """Before a request waits for its batch."""
    with pytest.raises(InvalidRequest) as refused:
        served.predictor.understand(b'{"berth": "west", "lenght": 3, "at": "2024-05-01T12:00:00Z"}')
    assert sorted(refused.value.fields) == ["at", "berth", "lenght", "length"]
