"""Evaluating: figures of every model on the same rows, segments, baselines, latency, and JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from mlplatform.errors import DataError
from mlplatform.training.evaluate import evaluate, measure_latency, naive_scores, parity, roc_points
from mlplatform.training.evaluation import Evaluation, Immaturity, Latency
from mlplatform.training.metrics import METRICS, value
from mlplatform_tests.fakes.declared_models import model_of

ROWS = 2400
generator = np.random.default_rng(9)
truth = generator.random(ROWS)
labels = (generator.random(ROWS) < truth).astype(np.float64)
blurred = np.clip(truth + generator.normal(0, 0.2, ROWS), 0.01, 0.99)
at = pl.Series([datetime(2013, 6, 1, tzinfo=UTC) + timedelta(minutes=12 * each) for each in range(ROWS)])
requests = pl.DataFrame({"place": np.where(np.arange(ROWS) % 100 == 0, "rare", np.where(truth > 0.5, "high", "low"))})


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """The truth as the candidate, a blurred copy as champion and simple model."""
    return evaluate(
        model_of("binary"),
        labels=labels,
        at=at,
        candidate=truth,
        champion=blurred,
        simple=blurred,
        training_labels=np.array([0.0, 1.0, 1.0, 1.0]),
        requests=requests,
        importance={"a": 0.7, "b": 0.3},
        exported=truth.copy(),
        latency=Latency(p50_ms=0.2, p99_ms=0.4, rows_per_second=2e5, calls=300),
        immaturity=Immaturity(requests=1000, pending=30, mean_early=0.2, mean_all=0.25),
    )


def test_every_metric_of_every_model_has_an_interval(evaluation: Evaluation) -> None:
    """The point is the plain metric, and lies between the bounds."""
    assert set(evaluation.metrics) == {"candidate", "champion", "naive", "simple"}
    for figures in evaluation.metrics.values():
        assert tuple(figures) == METRICS["binary"]
    found = evaluation.metrics["candidate"]["log_loss"]
    assert found.point == pytest.approx(value("log_loss", labels, truth))
    assert found.low is not None
    assert found.high is not None
    assert found.point is not None
    assert found.low < found.point < found.high


def test_differences_are_candidate_minus_other(evaluation: Evaluation) -> None:
    """The truth has a lower log loss than a blurred copy, for certain; a constant has a higher one still."""
    champion, naive = evaluation.differences["champion"]["log_loss"], evaluation.differences["naive"]["log_loss"]
    assert champion.point == pytest.approx(value("log_loss", labels, truth) - value("log_loss", labels, blurred))
    assert champion.high is not None
    assert champion.high < 0
    assert naive.point is not None
    assert champion.point is not None
    assert naive.point < champion.point


def test_segments_are_judged_from_their_own_rows(evaluation: Evaluation) -> None:
    """Each value has its own figures; one with too few rows has none and says so."""
    by_value = {each.value: each for each in evaluation.segments}
    assert set(by_value) == {"high", "low", "rare"}
    rows = np.flatnonzero((requests["place"] == "high").to_numpy())
    assert by_value["high"].metrics["candidate"]["brier"].point == pytest.approx(
        value("brier", labels[rows], truth[rows])
    )
    assert not by_value["rare"].judged
    assert by_value["rare"].rows == 24
    assert by_value["rare"].differences == {}


def test_curve_roc_and_the_rest_are_kept(evaluation: Evaluation) -> None:
    """Ten bins of equally many rows near the diagonal, a rising ROC curve, and what was handed in."""
    assert [each.rows for each in evaluation.calibration_curve] == [240] * 10
    assert all(abs(each.mean_score - each.observed) < 0.12 for each in evaluation.calibration_curve)
    assert evaluation.roc[0] == (0.0, 0.0)
    assert evaluation.roc[-1] == (1.0, 1.0)
    assert len(evaluation.roc) <= 201
    false, true = np.array(evaluation.roc).T
    area = np.trapezoid(true, false)
    assert area == pytest.approx(value("auc", labels, truth), abs=0.01)
    assert evaluation.parity == 0
    assert evaluation.immaturity is not None
    assert evaluation.immaturity.share == 0.03


def test_json_gives_the_same_evaluation(evaluation: Evaluation) -> None:
    """Every figure comes back to the bit, and the text is strict JSON."""
    text = evaluation.to_json()
    assert Evaluation.from_json(text) == evaluation
    json.loads(text, parse_constant=lambda constant: pytest.fail(constant))


def test_a_nan_is_none_in_json(evaluation: Evaluation) -> None:
    """What is no number is no figure, never 0."""
    assert Evaluation.from_json(replace(evaluation, parity=float("nan")).to_json()).parity is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": 3}'])
def test_other_text_is_refused(text: str) -> None:
    """A damaged record says so."""
    with pytest.raises(DataError):
        Evaluation.from_json(text)


def test_the_same_arguments_give_the_same_bytes() -> None:
    """An evaluation can be repeated."""
    texts = {
        evaluate(
            model_of("binary", segments=()),
            labels=labels,
            at=at,
            candidate=truth,
            simple=blurred,
            training_labels=labels,
        ).to_json()
        for _ in range(2)
    }
    assert len(texts) == 1


def test_naive_baselines() -> None:
    """Share of label 1, class shares, and the median or, for squared errors, the mean."""
    assert naive_scores(model_of("binary"), np.array([0.0, 0.0, 0.0, 1.0]), 2).tolist() == [0.25, 0.25]
    assert naive_scores(model_of("multiclass"), np.array([0.0, 2.0]), 1).tolist() == [[0.5, 0.0, 0.5]]
    regression = model_of("regression")
    assert naive_scores(regression, np.array([1.0, 2.0, 9.0]), 1).tolist() == [2.0]
    squared = replace(regression, gate=replace(regression.gate, metric="rmse"))
    assert naive_scores(squared, np.array([1.0, 2.0, 9.0]), 1).tolist() == [4.0]
    with pytest.raises(DataError):
        naive_scores(regression, np.array([]), 1)


def test_multiclass_and_regression_are_evaluated() -> None:
    """The figures of their task, a curve for classes, no ROC."""
    shares = generator.dirichlet([1, 1, 1], size=ROWS)
    drawn = (shares.cumsum(axis=1) < generator.random((ROWS, 1))).sum(axis=1).astype(np.float64)
    several = evaluate(
        model_of("multiclass", segments=()), labels=drawn, at=at, candidate=shares, simple=shares, training_labels=drawn
    )
    assert tuple(several.metrics["candidate"]) == METRICS["multiclass"]
    assert several.calibration_curve
    assert several.roc == ()
    one = evaluate(
        model_of("regression", segments=()), labels=truth, at=at, candidate=blurred, simple=truth, training_labels=truth
    )
    assert one.differences["simple"]["mae"].point == pytest.approx(np.abs(blurred - truth).mean())
    assert one.calibration_curve == ()


def test_unequal_rows_are_refused() -> None:
    """A champion scored on other rows is no comparison."""
    with pytest.raises(DataError, match="champion"):
        evaluate(
            model_of("binary", segments=()),
            labels=labels,
            at=at,
            candidate=truth,
            champion=truth[:-1],
            simple=truth,
            training_labels=labels,
        )


def test_a_segment_without_its_column_is_refused() -> None:
    """A declared segment is never left out in silence."""
    with pytest.raises(DataError, match="place"):
        evaluate(model_of("binary"), labels=labels, at=at, candidate=truth, simple=truth, training_labels=labels)


def test_parity_sees_a_single_bit() -> None:
    """One score off by one unit in the last place is a difference; a NaN or another shape is no figure."""
    moved = truth.copy()
    moved[5] = np.nextafter(moved[5], 1)
    assert parity(truth, truth) == 0
    assert (parity(truth, moved) or 0) > 0
    assert parity(truth, np.where(truth > 0.9, np.nan, truth)) is None
    assert parity(truth, truth[1:]) is None


def test_latency_by_a_clock_of_our_own() -> None:
    """Each call lasts one tick of 2 ms; single rows and batches are what is scored."""
    ticks = count()
    asked: list[int] = []
    measured = measure_latency(
        lambda rows: asked.append(len(rows)),
        np.zeros((3, 2), dtype=np.float32),
        clock=lambda: next(ticks) * 0.002,
        calls=100,
    )
    assert measured.p50_ms == pytest.approx(2)
    assert measured.p99_ms == pytest.approx(2)
    assert measured.rows_per_second == pytest.approx(1024 / 0.002)
    assert set(asked) == {1, 1024}


def test_what_the_neighbours_take_is_not_the_models() -> None:
    """Of each row the fastest call counts: a hiccup now and then does not, a row that is always slow does."""
    now = [0.0]
    calls = count()

    def score(rows: npt.NDArray[np.float32]) -> None:
        hiccup = next(calls) % 37 == 0
        now[0] += 0.04 if hiccup or rows[0, 0] == 1 else 0.002

    def p99(slow_rows: int) -> float | None:
        matrix = np.zeros((100, 1), dtype=np.float32)
        matrix[:slow_rows] = 1
        return measure_latency(score, matrix, clock=lambda: now[0], calls=100).p99_ms

    assert p99(0) == pytest.approx(2)
    assert p99(5) == pytest.approx(40)


def test_roc_of_one_class_is_empty() -> None:
    """Without both classes there is no curve."""
    assert roc_points(np.ones(5), truth[:5]) == ()
