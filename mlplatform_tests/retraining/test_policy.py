"""The retrain policy: what asks for a training, what holds it back, and what holds for any evidence at all."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.model import Retraining
from mlplatform.domain.threshold import Threshold
from mlplatform.retraining.policy import Evidence, Kind, Outcome, weigh

DECLARED = Retraining(new_rows=Threshold(value=10_000, reason="a test"))
QUIET = Evidence(
    new_rows=4_000,
    labels=3_500,
    newest="2024-01-01-ab",
    age_days=30.0,
    since_days=30.0,
    drift=0.0,
    true_rise=-0.02,
    estimated_rise=-0.02,
    recalibration_gain=0.0,
)


@pytest.mark.parametrize(
    ("changed", "outcome", "kind", "said"),
    [
        ({}, "wait", "nothing", "4,000 of 10,000 new rows since 2024-01-01-ab; nothing else asks for a training"),
        ({"new_rows": 10_000}, "train", "rows", "10,000 new rows since 2024-01-01-ab"),
        ({"new_rows": 10_000, "labels": 0}, "train", "rows", "10,000 new rows"),
        ({"drift": 0.06}, "train", "drift", "6.0% of its gain rests on values that have moved (5.0% allowed)"),
        ({"true_rise": 0.12}, "train", "loss", "12% worse than at its evaluation, on outcomes (10% allowed)"),
        ({"true_rise": None, "estimated_rise": 0.12}, "train", "loss", "as estimated before its outcomes"),
        # Cases that are harder, and a model that does well on them.
        ({"estimated_rise": 0.5}, "wait", "nothing", "nothing else"),
        ({"recalibration_gain": 0.02}, "train", "calibration", "outdated, which costs 2.0% of its loss (1.0% allowed)"),
        ({"age_days": 90.0}, "train", "age", "the model is 90 days of data old (90 allowed)"),
        ({"drift": 0.06, "age_days": 95.0}, "train", "drift", "moved (5.0% allowed); and the model is 95 days"),
        ({"drift": 0.06, "labels": 999}, "wait", "labels", "only 999 of the 1,000 outcomes"),
        ({"drift": 0.06, "age_days": 3.0, "since_days": 3.0}, "wait", "cooldown", "the last training is 3 days old"),
        # A correction of old days, trained on once the clock says so.
        ({"new_rows": 20_000, "age_days": 0.0, "since_days": 8.0}, "train", "rows", "20,000 new rows"),
        ({"new_rows": 20_000, "age_days": 0.0, "since_days": None}, "wait", "cooldown", "the last training is 0 days"),
        ({"new_rows": 20_000, "obstacle": "too few days"}, "wait", "data", "too few days"),
        ({"drift": math.nan, "true_rise": math.inf, "age_days": math.nan}, "wait", "nothing", "4,000 of 10,000"),
        ({"drift": None, "missing": {"drift": "nobody looked"}}, "wait", "nothing", "(drift: nobody looked)"),
        ({"newest": "", "age_days": None, "since_days": None}, "wait", "nothing", "since the beginning"),
        ({"newest": "", "age_days": None, "new_rows": 10_000}, "train", "first", "10,000 new rows since the beginning"),
    ],
)
def test_the_table_of_decisions(changed: dict[str, Any], outcome: Outcome, kind: Kind, said: str) -> None:
    """Each kind of evidence alone, two together, and what holds them back; in words that hold the figures."""
    verdict = weigh(replace(QUIET, **changed), DECLARED)
    assert (verdict.outcome, verdict.kind) == (outcome, kind)
    assert said in verdict.reason


share = st.none() | st.floats(-1.0, 1.0) | st.just(math.nan)
days = st.none() | st.floats(0.0, 200.0)
evidence = st.builds(
    Evidence,
    new_rows=st.integers(0, 30_000),
    labels=st.integers(0, 3_000),
    newest=st.sampled_from(["", "2024-01-01-ab"]),
    age_days=days,
    since_days=days,
    drift=share,
    true_rise=share,
    estimated_rise=share,
    recalibration_gain=share,
    obstacle=st.sampled_from(["", "too few days"]),
)
worse = ("new_rows", "labels", "drift", "true_rise", "estimated_rise", "recalibration_gain", "age_days")


@given(evidence, st.sampled_from(worse), st.floats(0.0, 1.0))
def test_more_of_what_asks_never_ends_a_training(known: Evidence, what: str, more: float) -> None:
    """Whatever else is known: the model only gets worse, the data only more."""
    before = getattr(known, what)
    if before is None:
        return
    amount = more * 10_000 if isinstance(before, int) else more * 100 if what == "age_days" else more
    after = replace(known, **{what: type(before)(before + amount)})
    if weigh(known, DECLARED).outcome == "train":
        assert weigh(after, DECLARED).outcome == "train"


@given(evidence)
def test_nothing_trains_within_the_cooldown(known: Evidence) -> None:
    """By the data's clock and by the platform's, however bad it is."""
    soon = replace(known, newest="2024-01-01-ab", age_days=6.9, since_days=6.9)
    assert weigh(soon, DECLARED).outcome == "wait"


@given(evidence)
def test_what_is_unknown_asks_for_nothing(known: Evidence) -> None:
    """Who looked at nothing trains by rows and age alone."""
    blind = replace(known, drift=None, true_rise=None, estimated_rise=None, recalibration_gain=None)
    verdict = weigh(blind, DECLARED)
    assert verdict.outcome == "wait" or verdict.kind in ("first", "rows", "age")


def test_every_input_is_told_beside_its_threshold() -> None:
    """What was weighed can be read afterwards."""
    told = QUIET.told(DECLARED)
    words = {"newest", "missing", "obstacle"}
    assert set(told) == {each.name for each in fields(Evidence)} - words
    assert told["new_rows"] == {"value": 4_000, "threshold": 10_000}
