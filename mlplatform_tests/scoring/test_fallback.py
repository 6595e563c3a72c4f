"""The fallback chain: each tier by taking away what lies above it, one deadline, and a last tier that cannot fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.scoring.fallback import LOW_CONFIDENCE, TIERS, Answer, fall_back
from mlplatform.scoring.simple_model import Scores, SimpleModel
from mlplatform_tests.fakes.declared_models import model_of
from mlplatform_tests.fakes.tiny_domain import bundle_of, rows, write_package

SIMPLE = SimpleModel(task="binary", features=("a",), means=(0.0,), scales=(1.0,), weights=((1.0,),), intercepts=(0.0,))
EXAMPLE = {name: value for name, value in DOMAIN.requests.example.items() if name != "at"}
COLUMN = DOMAIN.requests.columns[0].name
OF_MODEL = Answer(1, 0.9, 0.9, needs_review=False, source="model")


class Raising(SimpleModel):
    """A simple model that is broken."""

    def predict(self, features: pl.DataFrame) -> Scores:
        raise ValueError("secret")


class Saying(SimpleModel):
    """A simple model that says what the feature `a` holds."""

    def predict(self, features: pl.DataFrame) -> Scores:
        return features["a"].to_numpy().astype(np.float64)


class Short(Saying):
    """One that says nothing of the first row."""

    def predict(self, features: pl.DataFrame) -> Scores:
        return super().predict(features)[1:]


class Panicking(SimpleModel):
    """A simple model in which Polars panics, which is no `Exception`."""

    def predict(self, features: pl.DataFrame) -> Scores:
        raise pl.exceptions.PanicException("secret")


@dataclass
class Parts:
    """The part of a bundle that the chain needs."""

    model: ModelSpec
    simple: SimpleModel
    domain: Domain = DOMAIN


class Clock:
    """Moves by a step with every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def parts(
    rules: Callable[[Mapping[str, Any]], Any] = lambda request: 0.8,
    simple: type[SimpleModel] = SimpleModel,
    task: Any = "binary",
    **changed: Any,
) -> Parts:
    """Parts that work, but for what is changed."""
    return Parts(model=model_of(task, rules=rules, **changed), simple=simple(**SIMPLE.__dict__))


def always(said: Any) -> Callable[[object], Any]:
    """Says the same to everybody."""
    return lambda _: said


def asked(count: int) -> pl.DataFrame:
    """Requests; the first column tells them apart."""
    return pl.DataFrame([EXAMPLE] * count).with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias(COLUMN), pl.lit("2024-05-01T12:00:00Z").alias("at")
    )


def features(*values: float | None) -> pl.DataFrame:
    """The only feature."""
    return pl.DataFrame({"a": values}, schema={"a": pl.Float64})


def chain(
    bundle: Parts,
    inputs: pl.DataFrame | None,
    *,
    rows: int = 1,
    cached: Callable[[int], Answer | None] = lambda row: None,
    clock: Clock | None = None,
    **more: Any,
) -> tuple[list[Answer], list[str]]:
    """The answers, and what was told."""
    told: list[str] = []
    clock = clock or Clock()
    found = fall_back(bundle, asked(rows), inputs, cached, deadline=1.0, clock=clock, tell=told.append, **more)
    assert len(found) == rows
    return found, told


def test_each_tier_answers_when_those_above_are_gone() -> None:
    """From the cached answer down to none; each answer says where it is from."""
    ((first,), told) = chain(parts(), features(0.0), cached=lambda row: OF_MODEL)
    assert (first, told) == (OF_MODEL._replace(source="cached"), [])
    ((second,), told) = chain(parts(), features(0.0))
    assert (second, told) == (Answer(1, 0.5, 0.5, needs_review=True, source="simple_model"), [])
    ((third,), told) = chain(parts(), None)
    assert (third, told) == (Answer(1, 0.8, 0.8, needs_review=False, source="rules"), [])
    ((last,), told) = chain(parts(rules=lambda request: None), None)
    assert (last, told) == (Answer(None, None, 0.0, needs_review=True, source="low_confidence"), [])


def test_a_broken_tier_is_told_and_passed_over() -> None:
    """All of them at once too; nothing of a request, and no message that may hold some of it, is told."""

    def raises(*_: object) -> Any:
        raise KeyError("secret")

    found, told = chain(parts(rules=raises, simple=Raising), features(0.0), cached=raises)
    assert found == [LOW_CONFIDENCE]
    assert [each.rpartition(":")[0] for each in told] == [
        "cached raised KeyError at test_fallback.py",
        "simple_model raised ValueError at test_fallback.py",
        "rules raised KeyError at test_fallback.py",
    ]
    assert "secret" not in str(told)


def test_a_panic_of_polars_is_passed_over() -> None:
    """It does not derive from Exception, and must not cost the answer either."""
    ((answer,), told) = chain(parts(simple=Panicking), features(0.0))
    assert answer.source == "rules"
    assert "PanicException" in told[0]


def test_each_row_falls_as_far_as_it_must() -> None:
    """A bad score, a rule that raises and a rule that knows nothing concern their own row."""

    def rules(request: Mapping[str, Any]) -> float | None:
        if request[COLUMN] == "3":
            raise ValueError
        return None if request[COLUMN] == "4" else 0.25

    inputs = features(0.1, 0.2, 1.5, float("nan"), float("inf"), 0.7, -0.1)
    cached = {0: OF_MODEL}.get
    found, told = chain(parts(rules=rules, simple=Saying), inputs, rows=7, cached=cached)
    assert [each.source for each in found] == [
        "cached", "simple_model", "rules", "low_confidence", "low_confidence", "simple_model", "rules"
    ]  # fmt: skip
    assert [each.probability for each in found] == [0.9, 0.2, 0.25, None, None, 0.7, 0.25]
    assert len(told) == 3


def test_scores_that_are_not_one_for_each_row_are_none() -> None:
    """They could be anybody's."""
    found, told = chain(parts(simple=Short), features(0.1, 0.2), rows=2)
    assert [each.source for each in found] == ["rules", "rules"]
    assert len(told) == 1


def test_a_bundle_has_the_parts(tmp_path: Path) -> None:
    """The chain of a real bundle, in the order of its manifest: the simple model says what it says in evaluation."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path / "package"))
    requests, view_values = rows()
    inputs = bundle.features(requests, view_values)
    found = fall_back(
        bundle,
        requests,
        inputs,
        lambda row: None,
        deadline=1.0,
        clock=Clock(),
        tell=pytest.fail,
        tiers=bundle.model.serving.tiers,
    )
    expected = bundle.answers(bundle.simple.predict(inputs))
    assert [each[:4] for each in found] == expected.rows()
    assert {each.source for each in found} == {"simple_model"}


@pytest.mark.parametrize("said", [True, "0.5", float("nan"), float("inf"), 1.5, -0.5, [0.5], object()])
def test_what_is_no_answer_of_the_rules_is_told(said: Any) -> None:
    """Neither another type nor a value beyond the range; without the value itself."""
    found, told = chain(parts(rules=lambda request: said), None)
    assert found == [LOW_CONFIDENCE]
    assert len(told) == 1
    assert "rules gave" in told[0]


def test_a_rule_names_a_class_and_no_probability() -> None:
    """How sure a rule of thumb is cannot be said, so a person looks where anybody ever does."""
    found, told = chain(parts(task="multiclass", rules=lambda request: 1), None)
    assert found == [Answer("green", None, None, needs_review=True, source="rules")]
    nobody = parts(task="multiclass", rules=lambda request: 1, review_below=None)
    assert chain(nobody, None)[0][0].needs_review is False
    assert not told
    for wrong in (3, -1, 0.5):
        found, told = chain(parts(task="multiclass", rules=always(wrong)), None)
        assert (found, len(told)) == ([LOW_CONFIDENCE], 1)


def test_a_rule_gives_a_value() -> None:
    """Of a regression: whatever is finite."""
    assert chain(parts(task="regression", rules=lambda request: -7), None)[0] == [
        Answer(-7.0, None, None, needs_review=False, source="rules")
    ]


def test_rules_get_the_declared_columns_and_cannot_change_them() -> None:
    """As they were tried; what one call writes, the next does not read."""
    seen: list[list[str]] = []

    def rules(request: Any) -> float:
        seen.append(list(request))
        request["written"] = True
        return 0.5

    chain(parts(rules=rules), None, rows=2)
    assert seen == [[column.name for column in DOMAIN.requests.columns]] * 2


def test_past_the_deadline_no_tier_begins() -> None:
    """Rows that were answered in time stay answered."""
    found, told = chain(parts(), features(0.0), clock=Clock(step=2.0))
    assert found == [LOW_CONFIDENCE]
    assert told == ["the fallback's time was up before cached"]
    # One look before the tier, then one before each row: the fourth look is the first that is too late.
    found, _ = chain(parts(), None, rows=4, clock=Clock(step=0.3), tiers=("rules",))
    assert [each.source for each in found] == ["rules", "rules", "low_confidence", "low_confidence"]


def test_only_the_tiers_of_the_manifest_are_asked() -> None:
    """In its order; an unknown one is nobody, and the last is always there."""
    found, _ = chain(parts(), features(0.0), tiers=("rules", "simple_model"))
    assert found[0].source == "rules"
    found, _ = chain(parts(), features(0.0), tiers=("astrology",))
    assert found == [LOW_CONFIDENCE]


@settings(max_examples=100)
@given(
    scores=st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=8),
    said=st.lists(st.one_of(st.none(), st.floats(), st.booleans(), st.text()), min_size=8, max_size=8),
    kept=st.sets(st.integers(0, 7)),
    step=st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]),
)
def test_there_is_always_an_answer(scores: list[float | None], said: list[Any], kept: set[int], step: float) -> None:
    """One per row, of a tier there is; the answer of a row is the one it gets alone, as long as there is time."""
    bundle = parts(rules=lambda request: said[int(request[COLUMN])], simple=Saying)

    def cached(row: int) -> Answer | None:
        return OF_MODEL if row in kept else None

    found, _ = chain(bundle, features(*scores), rows=len(scores), cached=cached, clock=Clock(step))
    for row, answer in enumerate(found):
        assert answer.source in TIERS
        assert answer == LOW_CONFIDENCE or answer.prediction in (0, 1)
        if step == 0.0:
            alone = parts(rules=always(said[row]), simple=Saying)
            ((single,), _) = chain(alone, features(scores[row]), cached=always(cached(row)))
            assert answer == single
