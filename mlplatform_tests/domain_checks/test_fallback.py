"""Fallback rules are asked with everything that a request may hold, and with what it never should."""

from collections.abc import Mapping
from typing import Any

import pytest

from mlplatform.domain_checks.battery import run
from mlplatform.domain_checks.verdict import Finding
from mlplatform_tests.domain_checks.test_battery import evidence_of
from mlplatform_tests.fakes.broken_twins import with_rules


def finding_of(rules: Any) -> Finding:
    """The verdict on rules of a binary model."""
    (finding,) = run(evidence_of(with_rules(rules)), ["fallback rules"])
    return finding


@pytest.mark.parametrize("answer", [None, 0, 1, 0.5])
def test_none_and_every_probability_are_answers(answer: float | None) -> None:
    """A rule may know nothing."""
    assert finding_of(lambda _request: answer).verdict == "passed"


@pytest.mark.parametrize("answer", [1.01, -0.1, float("nan"), float("inf"), True, "0.5"])
def test_what_is_no_probability_is_no_answer(answer: Any) -> None:
    """Neither beyond the range nor of another type."""
    (fault,) = finding_of(lambda _request: answer).faults
    assert fault.where == "the example"
    assert repr(answer) in fault.told


def test_only_what_can_be_asked_must_be_answered_in_range() -> None:
    """Parsing refuses NaN and what is out of bounds: there the rule need only not raise."""
    assert finding_of(lambda request: in_bounds(request)).verdict == "passed"


def in_bounds(request: Mapping[str, Any]) -> float | None:
    """Right for every distance that the column allows, 50 km at most."""
    distance = request.get("distance_km")
    return distance / 50 if isinstance(distance, float) else None


def test_a_rule_that_writes_into_the_request_is_caught() -> None:
    """The request goes on to the log after the rules."""

    def writes(request: Any) -> float | None:
        request["seen"] = True
        return None

    (fault,) = finding_of(writes).faults
    assert "changes the request" in fault.told
