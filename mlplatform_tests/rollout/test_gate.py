"""The promotion gate: each rule's pass, fail and between, and that missing evidence never passes."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.model import ModelSpec, Segment
from mlplatform.domain.threshold import Threshold
from mlplatform.errors import DataError
from mlplatform.rollout.gate import Decision, Outcome, decide
from mlplatform.training.evaluation import CurveBin, Evaluation, Immaturity, Latency, SegmentResult
from mlplatform.training.metrics import DIRECTIONS, METRICS, Interval
from mlplatform_tests.fakes.declared_models import model_of

NOW = datetime(2013, 7, 1, tzinfo=UTC)


def around(point: float, width: float = 0.002) -> Interval:
    """A narrow interval."""
    return Interval(point=point, low=point - width, high=point + width)


def differences(harm: float) -> dict[str, Interval]:
    """Every metric worse by `harm`, whichever way it points."""
    return {metric: around(harm if DIRECTIONS[metric] == "lower" else -harm) for metric in METRICS["binary"]}


figures = {metric: around(0.05 if metric == "ece" else 0.6) for metric in METRICS["binary"]}
good = Evaluation(
    model="late",
    task="binary",
    rows=5000,
    days=14,
    seed=1,
    resamples=200,
    metrics=dict.fromkeys(("candidate", "champion", "naive", "simple"), figures),
    differences={"champion": differences(0.0), "naive": differences(-0.1), "simple": differences(-0.02)},
    segments=(
        SegmentResult(
            segment="place",
            value="north",
            rows=3000,
            judged=True,
            metrics={"candidate": figures},
            differences={name: differences(0.0) for name in ("champion", "naive", "simple")},
        ),
        SegmentResult(segment="place", value="tiny", rows=3, judged=False, metrics={}, differences={}),
    ),
    calibration_curve=(
        CurveBin(rows=2500, mean_score=0.2, observed=0.21),
        CurveBin(rows=2500, mean_score=0.7, observed=0.69),
    ),
    roc=((0.0, 0.0), (0.2, 0.7), (1.0, 1.0)),
    importance={"a": 0.6, "b": 0.4},
    immaturity=Immaturity(requests=1000, pending=10, mean_early=0.2, mean_all=0.21),
    latency=Latency(p50_ms=0.2, p99_ms=0.5, rows_per_second=100_000.0, calls=300),
    parity=0.0,
)
declared = model_of("binary")
spec = replace(
    declared,
    gate=replace(declared.gate, too_good={"auc": Threshold(value=0.95, reason="for tests")}),
)


def outcome(evaluation: Evaluation, *, model: ModelSpec = spec, champion: str | None = "b") -> Outcome:
    """What the gate says."""
    return decide(model, evaluation, candidate="a", champion=champion, decided_at=NOW).outcome


def against(name: str, difference: Interval) -> Evaluation:
    """The good evaluation with another difference in log loss."""
    return replace(good, differences=good.differences | {name: good.differences[name] | {"log_loss": difference}})


def in_segment(difference: Interval) -> Evaluation:
    """The good evaluation with another difference to the champion in the north."""
    north = good.segments[0]
    changed = north.differences["champion"] | {"log_loss": difference}
    return replace(
        good,
        segments=(replace(north, differences=north.differences | {"champion": changed}), good.segments[1]),
    )


def test_a_good_candidate_passes() -> None:
    """Every rule passes, each with a reason, and the decision names both sides."""
    decision = decide(spec, good, candidate="a", champion="b", decided_at=NOW)
    assert decision.outcome == "pass"
    assert decision.reasons == ()
    assert all(each.reason for each in decision.rules)
    assert [each.rule for each in decision.rules] == [
        "evidence",
        "rows",
        "better than naive",
        "not worse than simple",
        "not worse than champion",
        "segment place north",
        "calibration",
        "not too good in auc",
        "latency",
        "throughput",
        "parity",
    ]
    assert (decision.candidate, decision.champion, decision.decided_at) == ("a", "b", NOW)


def test_the_first_model_needs_no_champion() -> None:
    """It must still beat the constant and hold with the simple model."""
    alone = replace(
        good,
        metrics={name: each for name, each in good.metrics.items() if name != "champion"},
        differences={name: each for name, each in good.differences.items() if name != "champion"},
    )
    assert outcome(alone, champion=None) == "pass"
    assert outcome(alone, champion="b") == "inconclusive"
    assert outcome(good, champion=None) == "inconclusive"


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Interval(point=0.0, low=-0.01, high=0.01), "pass"),
        (Interval(point=0.0, low=0.0, high=0.0), "pass"),
        (Interval(point=0.005, low=-0.001, high=0.0101), "inconclusive"),
        (Interval(point=0.02, low=0.01, high=0.03), "inconclusive"),
        (Interval(point=0.02, low=0.0101, high=0.03), "fail"),
    ],
)
@pytest.mark.parametrize("name", ["champion", "simple"])
def test_harm_against_the_margin(name: str, difference: Interval, expected: Outcome) -> None:
    """Upper bound within the margin of 0.01 passes, lower bound above it fails, anything between is inconclusive."""
    assert outcome(against(name, difference)) == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Interval(point=-0.1, low=-0.2, high=-0.01), "pass"),
        (Interval(point=-0.1, low=-0.2, high=0.0), "inconclusive"),
        (Interval(point=0.1, low=0.0, high=0.2), "fail"),
    ],
)
def test_a_constant_must_be_beaten(difference: Interval, expected: Outcome) -> None:
    """For certain: no margin here."""
    assert outcome(against("naive", difference)) == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Interval(point=0.01, low=0.0, high=0.02), "pass"),
        (Interval(point=0.015, low=0.01, high=0.021), "inconclusive"),
        (Interval(point=0.03, low=0.021, high=0.04), "fail"),
    ],
)
def test_no_segment_is_sacrificed(difference: Interval, expected: Outcome) -> None:
    """A hurt group stops the candidate however good the average is."""
    assert outcome(in_segment(difference)) == expected


def test_a_metric_where_more_is_better_is_turned() -> None:
    """For AUC, harm is a fall: candidate − champion of −0.05 fails, +0.05 passes."""
    by_auc = replace(spec, gate=replace(spec.gate, metric="auc"))
    assert outcome(good, model=by_auc) == "pass"
    worse = replace(good, differences=good.differences | {"champion": differences(0.05)})
    assert outcome(worse, model=by_auc) == "fail"
    better = replace(good, differences=good.differences | {"champion": differences(-0.05)})
    assert outcome(better, model=by_auc) == "pass"


def with_figure(metric: str, figure: Interval) -> Evaluation:
    """The good evaluation with another figure of the candidate."""
    return replace(good, metrics=good.metrics | {"candidate": figures | {metric: figure}})


def with_latency(**changed: float) -> Evaluation:
    """The good evaluation with another latency."""
    assert good.latency is not None
    return replace(good, latency=replace(good.latency, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evaluation", "rule", "expected"),
    [
        (replace(good, rows=99), "rows", "inconclusive"),
        (replace(good, parity=1e-16), "parity", "fail"),
        (with_latency(p99_ms=50.1), "latency", "fail"),
        (with_latency(rows_per_second=9.0), "throughput", "fail"),
        (with_figure("auc", around(0.951)), "not too good in auc", "fail"),
        (with_figure("ece", Interval(point=0.2, low=0.15, high=0.25)), "calibration", "fail"),
        (with_figure("ece", Interval(point=0.11, low=0.08, high=0.15)), "calibration", "inconclusive"),
        (replace(good, model="other"), "evidence", "inconclusive"),
        (replace(good, segments=good.segments[1:]), "segment place", "inconclusive"),
    ],
)
def test_each_other_rule(evaluation: Evaluation, rule: str, expected: Outcome) -> None:
    """The rule says it alone, and the whole decision follows."""
    decision = decide(spec, evaluation, candidate="a", champion="b", decided_at=NOW)
    assert {each.rule: each.outcome for each in decision.rules if each.outcome != "pass"} == {rule: expected}
    assert decision.outcome == expected
    assert decision.reasons[0].startswith(rule)


def test_too_good_of_an_error_is_from_below() -> None:
    """A log loss of 0.05 is the leak, 0.6 is not."""
    wary = replace(spec, gate=replace(spec.gate, too_good={"log_loss": Threshold(value=0.05, reason="for tests")}))
    assert outcome(good, model=wary) == "pass"
    assert outcome(with_figure("log_loss", around(0.05, 0.001)), model=wary) == "fail"


def test_a_failure_outweighs_what_is_unclear() -> None:
    """Fail, then inconclusive, then pass."""
    assert outcome(replace(good, rows=1, parity=0.5)) == "fail"


def test_a_segment_that_hides_behind_too_few_rows_is_seen() -> None:
    """Enough rows, yet marked as not judged."""
    hidden = replace(good.segments[1], rows=50)
    assert outcome(replace(good, segments=(good.segments[0], hidden))) == "inconclusive"


def test_a_declared_segment_that_was_not_evaluated_is_seen() -> None:
    """Each declared segment needs at least one value that was judged."""
    more = replace(spec, segments=(*spec.segments, Segment(name="carrier", column="carrier")))
    assert outcome(good, model=more) == "inconclusive"


def numbers(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all figures below a node."""
    if isinstance(node, dict):
        return [each for key, below in node.items() for each in numbers(below, (*path, key))]
    if isinstance(node, list):
        return [each for key, below in enumerate(node) for each in numbers(below, (*path, key))]
    return [path] if isinstance(node, float) else []


NOT_READ = {"roc", "immaturity", "p50_ms"}
"""Shown to people, read by no rule."""


def read_by_the_gate(path: tuple[Any, ...]) -> bool:
    """Whether a rule depends on the figure at that path."""
    if NOT_READ & set(path):
        return False
    if path[0] == "segments":
        return "champion" in path and "log_loss" in path
    return True


whole = json.loads(good.to_json())
paths = [path for path in numbers(whole) if read_by_the_gate(path)]


def without(path: tuple[Any, ...], replacement: float | None) -> Evaluation:
    """The good evaluation with one figure replaced, past every check of its types."""
    changed = json.loads(good.to_json())
    *way, last = path
    node = changed
    for step in way:
        node = node[step]
    node[last] = replacement
    return rebuilt(changed)


def rebuilt(told: dict[str, Any]) -> Evaluation:
    """An evaluation from its parts, whatever figures they hold."""

    def table(each: dict[str, Any]) -> dict[str, dict[str, Interval]]:
        return {name: {metric: Interval(**one) for metric, one in row.items()} for name, row in each.items()}

    def segment(each: dict[str, Any]) -> SegmentResult:
        return SegmentResult(**(each | {"metrics": table(each["metrics"]), "differences": table(each["differences"])}))

    return Evaluation(
        **told
        | {
            "metrics": table(told["metrics"]),
            "differences": table(told["differences"]),
            "segments": tuple(segment(each) for each in told["segments"]),
            "calibration_curve": tuple(CurveBin(**each) for each in told["calibration_curve"]),
            "roc": tuple((each[0], each[1]) for each in told["roc"]),
            "latency": Latency(**told["latency"]),
            "immaturity": Immaturity(**told["immaturity"]),
        }
    )


def test_the_evaluation_survives_being_taken_apart() -> None:
    """The property below changes exactly one figure."""
    assert rebuilt(whole) == good
    assert len(paths) > 100


@given(path=st.sampled_from(paths), replacement=st.sampled_from([None, math.nan, math.inf, -math.inf]))
def test_a_missing_figure_never_passes(path: tuple[Any, ...], replacement: float | None) -> None:
    """Whichever figure the gate reads is None, NaN or infinite: no pass."""
    assert outcome(without(path, replacement)) != "pass"


@pytest.mark.parametrize("field", ["metrics", "differences", "segments", "latency", "parity"])
def test_missing_evidence_as_a_whole_never_passes(field: str) -> None:
    """A part of the evaluation that is not there at all is no pass either."""
    nothing: dict[str, Any] = {"metrics": {}, "differences": {}, "segments": (), "latency": None, "parity": None}
    assert outcome(replace(good, **{field: nothing[field]})) == "inconclusive"


def test_json_gives_the_same_decision() -> None:
    """The decision is data, and comes back."""
    decision = decide(spec, good, candidate="a", champion="b", decided_at=NOW)
    assert Decision.from_json(decision.to_json()) == decision


@pytest.mark.parametrize("text", ["", "{}", '{"outcome": "perhaps"}'])
def test_other_text_is_no_decision(text: str) -> None:
    """Nobody is promoted on a damaged record."""
    with pytest.raises(DataError):
        Decision.from_json(text)
