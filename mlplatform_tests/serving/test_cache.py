"""The prediction cache: what it gives again, for how long, to whom, and what it forgets."""

import asyncio
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlplatform_tests.fakes.simulated_loop import simulate
from serving.cache import PredictionCache, canonical


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=5)
)


@given(first=st.lists(values, max_size=4), second=st.lists(values, max_size=4))
def test_only_equal_requests_have_equal_bytes(first: list[Any], second: list[Any]) -> None:
    """The types count too: 1, 1.0 and true are three requests."""
    same = list(map(typed, first)) == list(map(typed, second))
    assert (canonical(first) == canonical(tuple(second))) == same
    assert canonical(first) == canonical(tuple(first))


def typed(value: Any) -> tuple[type, str]:
    """Tells 1 from 1.0 and 0.0 from -0.0."""
    return type(value), repr(value)


def test_times_are_part_of_a_request() -> None:
    """An instant a microsecond later is another request."""
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert canonical((at,)) != canonical((at.replace(microsecond=1),))


def test_fresh_is_of_this_manifest_these_features_and_young() -> None:
    """Each of the three alone makes it another answer; the age is exclusive."""
    clock = Clock()
    cache: PredictionCache[str] = PredictionCache(9, clock=clock)
    cache.put("one", b"x", "r1", "answer")
    clock.now += 9.9
    assert cache.fresh("one", b"x", "r1", 10) == "answer"
    assert cache.fresh("two", b"x", "r1", 10) is None
    assert cache.fresh("one", b"y", "r1", 10) is None
    assert cache.fresh("one", b"x", "r2", 10) is None
    assert cache.stale("one", b"x", 10) == "answer"
    assert cache.stale("two", b"x", 10) is None
    clock.now += 0.1
    assert cache.fresh("one", b"x", "r1", 10) is None
    assert cache.stale("one", b"x", 10) is None
    assert cache.stale("one", b"x", 11) == "answer"


keys = st.integers(0, 3).map(lambda number: bytes([number]))


@given(
    bound=st.integers(0, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "fresh", "stale"]), keys, st.sampled_from(["r1", "r2"])), max_size=60
    ),
)
def test_the_longest_unasked_makes_room(bound: int, steps: list[tuple[str, bytes, str]]) -> None:
    """Against the obvious model: a list of what was used, newest last."""
    cache: PredictionCache[int] = PredictionCache(bound, clock=Clock())
    model: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
    for number, (does, key, revision) in enumerate(steps):
        if does == "put":
            cache.put("m", key, revision, number)
            model.pop(key, None)
            model[key] = (revision, number)
            while len(model) > bound:
                model.popitem(last=False)
            continue
        held = model.get(key)
        given = held[1] if held is not None and (does == "stale" or held[0] == revision) else None
        if given is not None:
            model.move_to_end(key)
        asked = cache.fresh("m", key, revision, 1) if does == "fresh" else cache.stale("m", key, 1)
        assert asked == given
        assert len(cache) == len(model)


def test_what_was_asked_for_or_put_again_stays() -> None:
    """Age in the cache does not count, use does."""
    cache: PredictionCache[int] = PredictionCache(2, clock=Clock())
    for key in (b"x", b"y"):
        cache.put("m", key, "r1", 1)
    cache.put("m", b"x", "r1", 2)
    cache.put("m", b"z", "r1", 1)
    assert [cache.stale("m", key, 9) for key in (b"x", b"y", b"z")] == [2, None, 1]
    assert cache.fresh("m", b"x", "r1", 9) == 2
    cache.put("m", b"y", "r1", 1)
    assert [cache.stale("m", key, 9) for key in (b"x", b"y", b"z")] == [2, 1, None]


def test_the_first_computes_and_the_others_wait() -> None:
    """A passenger who is cancelled takes nobody along; the pilot's answer goes to all that are left."""

    async def main() -> None:
        cache: PredictionCache[str] = PredictionCache(9, clock=Clock())
        assert cache.flight("m", b"x", "r1") is None
        seats = [cache.flight("m", b"x", "r1") for _ in range(3)]
        assert cache.flight("m", b"x", "r2") is None, "other features are another flight"
        assert cache.flight("n", b"x", "r1") is None
        left, *waiting = [asyncio.ensure_future(seat) for seat in seats if seat is not None]
        left.cancel()
        cache.put("m", b"x", "r1", "answer")
        assert await asyncio.gather(*waiting) == ["answer", "answer"]
        cache.leave("m", b"x", "r1")
        assert cache.flight("m", b"x", "r1") is None, "the flight has landed; the next one begins anew"

    simulate(main())


def test_a_pilot_without_an_answer_sends_its_passengers_on() -> None:
    """A fallback's answer never enters the cache, so they see for themselves; and nothing was kept."""

    async def main() -> None:
        cache: PredictionCache[str] = PredictionCache(9, clock=Clock())
        assert cache.flight("m", b"x", "r1") is None
        seat = cache.flight("m", b"x", "r1")
        assert seat is not None
        cache.leave("m", b"x", "r1")
        assert await seat is None
        assert cache.stale("m", b"x", 99) is None
        assert cache.flight("m", b"x", "r1") is None

    simulate(main())
