"""Which arm answers a key, and how probable that was."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.rollout.plan import WHOLE, Mode, Plan
from serving.routing import UNPLANNED, Route, Routing

KEYS = [f"user {number}" for number in range(4_000)]


def plan(weight: int, *, mode: Mode = "canary", exploration: float = 0.0) -> Plan:
    """A plan with a challenger."""
    return Plan(
        model="d/m",
        champion="a",
        challenger="b",
        mode=mode,
        weight=weight,
        salt="salt",
        number=3,
        exploration=exploration,
    )


@pytest.mark.parametrize(
    "given_plan",
    [None, Plan(model="d/m", champion="a"), plan(5_000, mode="shadow", exploration=0.5), plan(0, exploration=0.5)],
    ids=["no plan", "full", "shadow", "weight 0"],
)
def test_without_a_weight_everybody_goes_to_the_champion_by_one_route(given_plan: Plan | None) -> None:
    """Nobody, whatever their key, also under exploration; and nothing is hashed."""
    routing = Routing(given_plan, chance=lambda: 0.0)
    assert routing.only is routing.champion
    assert {routing.of(key) for key in (*KEYS[:100], None)} == {routing.champion}
    assert routing.champion == Route("champion", given_plan.version if given_plan else "", 1.0)
    assert Routing(None).champion == UNPLANNED


@given(st.integers(1, WHOLE), st.integers(1, WHOLE))
def test_a_growing_weight_only_adds_keys(one: int, other: int) -> None:
    """Who was answered by the challenger at a smaller weight is so at a larger one."""
    small, large = sorted([one, other])
    before, after = Routing(plan(small)), Routing(plan(large))
    in_before = {key for key in KEYS[:300] if before.of(key).arm == "challenger"}
    assert in_before <= {key for key in KEYS[:300] if after.of(key).arm == "challenger"}


def test_routes_are_shared_and_name_the_plan() -> None:
    """Of a thousand requests two objects; a request without a key goes to the champion, for sure."""
    routing = Routing(plan(5_000))
    routes = [routing.of(key) for key in KEYS]
    assert len({id(route) for route in routes}) == 2
    assert {route.plan for route in routes} == {plan(5_000).version}
    assert {route.propensity for route in routes} == {1.0}
    assert [route.arm for route in routes] == [plan(5_000).arm(key) for key in KEYS]
    assert routing.of(None) is routing.champion


@given(st.integers(1, WHOLE), st.floats(0.01, 0.5))
def test_the_propensities_of_both_arms_make_one(weight: int, exploration: float) -> None:
    """Whatever the key, what is logged of the arm that was drawn and of the other sum to 1."""
    for key in KEYS[:20]:
        found: dict[str, float] = {}
        for explored, drawn in itertools.product((0.0, 0.999), (0.0, 0.999999)):
            chances = iter([explored, drawn])
            route = Routing(plan(weight, exploration=exploration), chance=lambda c=chances: next(c)).of(key)  # type: ignore[misc]
            assert found.setdefault(route.arm, route.propensity) == route.propensity
        if weight < WHOLE:
            assert sum(found.values()) == pytest.approx(1.0)
        else:
            assert found == {"challenger": pytest.approx(1.0)}


def test_arms_are_drawn_as_often_as_their_propensity_says() -> None:
    """Over many requests of one key, and weighted by 1 / propensity each arm stands for all keys."""
    routing = Routing(plan(2_000, exploration=0.3), chance=random.Random(7).random)
    for key in KEYS[:5]:
        drawn = Counter(routing.of(key) for _ in range(20_000))
        for route, times in drawn.items():
            assert times / 20_000 == pytest.approx(route.propensity, abs=0.012)
    routes = [routing.of(key) for key in KEYS * 5]
    for arm in ("champion", "challenger"):
        stands_for = sum(1 / route.propensity for route in routes if route.arm == arm)
        assert stands_for / len(routes) == pytest.approx(1.0, abs=0.06)
