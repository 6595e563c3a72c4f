"""The plan: every key gets the arm that flagd gives it, and a file that is not understood is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from mlplatform.errors import PlanInvalid
from mlplatform.rollout.plan import WHOLE, Mode, Plan, from_file, to_file

MODEL = "harbour/delay"
KEYS = [f"user {number}" for number in range(2000)]


def canary(weight: int, *, salt: str = "r1", mode: Mode = "canary") -> Plan:
    """A plan with a challenger."""
    return Plan(model=MODEL, champion="a" * 64, challenger="b" * 64, mode=mode, weight=weight, salt=salt, number=3)


def by_flagd(content: bytes) -> Any:
    """What flagd's own evaluation makes of a file: key -> variant."""
    core = FlagdCore()
    core.set_flags(content.decode())
    return lambda key: core.resolve_string_value(MODEL, "none", EvaluationContext(targeting_key=key)).variant


@given(
    st.integers(0, WHOLE),
    st.text(max_size=20),
    st.lists(st.one_of(st.text(min_size=1, max_size=300), st.integers().map(str)), min_size=1, max_size=20),
)
def test_every_key_gets_the_arm_that_flagd_gives_it(weight: int, salt: str, keys: list[str]) -> None:
    """Whatever is in the key: any text, of any length."""
    plan = canary(weight, salt=salt)
    asked = by_flagd(to_file(plan))
    assert [plan.arm(key) for key in keys] == [asked(key) for key in keys]


def test_weights_written_by_hand_are_gone_by_too() -> None:
    """Sums of another size than ours, as flagd takes them."""
    flag = json.loads(to_file(canary(1)))
    for weights in ([1, 2], [0, 1], [7, 0], [2**30, 2**30 - 1]):
        rule = flag["flags"][MODEL]["targeting"]["fractional"]
        rule[1:] = [["challenger", weights[0]], ["champion", weights[1]]]
        content = json.dumps(flag).encode()
        asked, plan = by_flagd(content), from_file(content, MODEL)
        assert [plan.arm(key) for key in KEYS[:300]] == [asked(key) for key in KEYS[:300]]


@pytest.mark.parametrize("weight", [0, 1, 500, WHOLE])
def test_a_share_is_what_it_says(weight: int) -> None:
    """Weight 0 sends exactly nobody, the whole weight everybody, and the smallest is one in ten thousand."""
    plan = canary(weight)
    share = sum(plan.arm(f"{number}") == "challenger" for number in range(50_000)) / 50_000
    if weight in (0, WHOLE):
        assert share == weight / WHOLE
    assert abs(share - weight / WHOLE) < 4 * (weight / WHOLE * (1 - weight / WHOLE) / 50_000) ** 0.5 + 1e-12
    assert plan.share == weight / WHOLE


@given(st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_a_growing_weight_only_adds_keys(one: int, other: int) -> None:
    """Who was answered by the challenger still is."""
    low, high = (canary(weight) for weight in sorted((one, other)))
    assert all(high.arm(key) == "challenger" for key in KEYS[:200] if low.arm(key) == "challenger")


def test_another_rollout_draws_others() -> None:
    """The same people would be tried on each time."""
    first, second = ({key for key in KEYS if canary(1000, salt=salt).arm(key) == "challenger"} for salt in ("r1", "r2"))
    assert len(first & second) < len(first) / 3


@pytest.mark.parametrize("mode", ["full", "shadow"])
def test_the_champion_answers_all_where_nothing_is_rolled_out(mode: Mode) -> None:
    """Whatever the weight says; flagd says the same."""
    plan = canary(WHOLE, mode=mode)
    asked = by_flagd(to_file(plan))
    assert {plan.arm(key) for key in KEYS} == {"champion"} == {asked(key) for key in KEYS[:100]}
    assert canary(WHOLE).arm(None) == "champion"


@given(st.integers(0, WHOLE), st.sampled_from(["full", "shadow", "canary", "a/b"]), st.text(max_size=9))
def test_a_plan_is_read_as_it_was_written(weight: int, mode: Mode, salt: str) -> None:
    """And has the version that it had."""
    plan = canary(weight, mode=mode, salt=salt)
    again = from_file(to_file(plan), MODEL)
    assert (again.version, again.mode, again.champion, again.challenger) == (
        plan.version,
        plan.mode,
        plan.champion,
        plan.challenger,
    )
    assert again.version != canary(weight, mode=mode, salt=salt + "x").version


def test_flags_of_others_in_the_same_file_are_not_looked_at() -> None:
    """Whatever they hold: flagd serves those of a whole house."""
    plan, file = canary(500), json.loads(to_file(canary(500)))
    file["flags"]["banner"] = {"state": "DISABLED", "variants": {"on": True}, "defaultVariant": None}
    assert from_file(json.dumps(file).encode(), MODEL).version == plan.version


GOOD = json.loads(to_file(canary(500)))["flags"][MODEL]


def broken(**changes: Any) -> bytes:
    """A file whose flag has other fields."""
    return json.dumps({"flags": {MODEL: {**GOOD, **changes}}}).encode()


def rule(*weights: Any) -> dict[str, Any]:
    """A rule with these arms."""
    return {"fractional": [{"cat": ["s", {"var": "targetingKey"}]}, *weights]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no flag"),
        (b"{", "no flag"),
        (b"[]", "no flag"),
        (b'{"flags": {}}', "no flag"),
        (broken(variants=None), "no flag"),
        (broken(variants={"challenger": "b"}), "no champion"),
        (broken(variants={"champion": "b" * 64, "challenger": "b" * 64}), "the same manifest"),
        (broken(variants={"champion": "a" * 64}), "needs a challenger"),
        (broken(variants={"champion": "../../etc", "challenger": "b"}), "no digest"),
        (broken(variants={"champion": "a", "challenger": "b\0"}), "no digest"),
        (broken(state="DISABLED"), "ENABLED"),
        (broken(defaultVariant="challenger"), "default variant"),
        (broken(metadata={"mode": "blue"}), "Invalid enum value 'blue'"),
        (broken(metadata={"mode": "canary", "exploration": 2}), "exploration"),
        (broken(targeting={"if": []}), "not understood"),
        (b'{"flags": {"%s": {"targeting": {"if": %s' % (MODEL.encode(), b"[" * 100_000), "RecursionError"),
        (broken(targeting={"fractional": []}), "not understood"),
        (broken(targeting=rule()), "each once"),
        (broken(targeting=rule(["champion", 1], ["challenger", 1])), "each once"),
        (broken(targeting=rule(["challenger", 1])), "each once"),
        (broken(targeting=rule(["challenger", -1], ["champion", 2])), "whole weight"),
        (broken(targeting=rule(["challenger", True], ["champion", 2])), "whole weight"),
        (broken(targeting=rule(["challenger", 0.5], ["champion", 2])), "whole weight"),
        (broken(targeting=rule(["other", 1], ["champion", 2])), "whole weight"),
        (broken(targeting=rule(["challenger", 0], ["champion", 0])), "sum"),
        (broken(targeting=rule(["challenger", 2**31], ["champion", 1])), "sum"),
    ],
)
def test_nonsense_is_refused_in_words(content: bytes, reason: str) -> None:
    """And the message says which plan is in force."""
    with pytest.raises(PlanInvalid, match=reason) as told:
        from_file(content, MODEL)
    assert "last good one is in force" in str(told.value)
