"""Performance from scores alone: right where they are calibrated, wrong where they are not."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.monitoring.estimated import estimated, estimated_against_truth, truth_of
from mlplatform.training import metrics

Floats = npt.NDArray[np.float64]


def share_inside(metric: str, draw: Callable[[np.random.Generator], tuple[Floats, Floats]], days: int = 400) -> float:
    """Of so many days, those on which the truth lies within the interval."""
    random = np.random.default_rng(20240101)
    inside = 0
    for _ in range(days):
        scores, labels = draw(random)
        figure = estimated("multiclass" if scores.ndim == 2 else "binary", scores).figures[metric]
        truth = truth_of(metric, labels, scores)
        assert truth is not None and figure.low is not None and figure.high is not None
        inside += figure.low <= truth <= figure.high
    return inside / days


def calibrated(random: np.random.Generator, rows: int = 300) -> tuple[Floats, Floats]:
    """Scores, and labels that come true at just these rates."""
    scores = random.beta(1.5, 4.0, rows)
    return scores, (random.random(rows) < scores).astype(np.float64)


def overconfident(random: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores that say twice the log odds of what comes true."""
    chances, labels = calibrated(random)
    odds = (chances / (1.0 - chances)) ** 2
    return odds / (1.0 + odds), labels


def three_classes(random: np.random.Generator, rows: int = 300) -> tuple[Floats, Floats]:
    """Scores of three classes, and labels drawn from them."""
    scores = random.dirichlet([1.0, 2.0, 0.5], rows)
    labels = (random.random(rows)[:, None] > scores.cumsum(axis=1)).sum(axis=1) * 1.0
    return scores, np.minimum(labels, 2.0)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "auc", "positive_rate"])
def test_calibrated_scores_foretell_the_truth_at_the_stated_rate(metric: str) -> None:
    """Nineteen times in twenty, give or take what 400 draws leave open."""
    assert 0.92 <= share_inside(metric, calibrated) <= 0.98


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_several_classes_do_so_too(metric: str) -> None:
    """With the same rate."""
    assert 0.92 <= share_inside(metric, three_classes) <= 0.98


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "auc"])
def test_scores_that_are_not_calibrated_do_not(metric: str) -> None:
    """That is the limit of the method: overconfident scores promise what does not come."""
    assert share_inside(metric, overconfident) < 0.5


def test_what_a_score_cannot_see_changes_no_estimate() -> None:
    """Concept drift: other labels for the same requests leave the estimate where it was."""
    random = np.random.default_rng(1)
    scores, _ = calibrated(random, 5000)
    figure = estimated("binary", scores).figures["log_loss"]
    turned = truth_of("log_loss", (random.random(5000) > scores).astype(np.float64), scores)
    assert turned is not None and figure.high is not None and turned > 1.5 * figure.high


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=6),
    st.sampled_from([0.25, 0.5, 0.6]),
)
def test_the_estimate_is_the_mean_over_every_possible_truth(scores: list[float], threshold: float) -> None:
    """Summed over all labels, each with its chance; the area as pairs in order over pairs."""
    said = np.array(scores)
    figures = estimated("binary", said, threshold=threshold).figures
    sums = dict.fromkeys(("log_loss", "accuracy", "positive_rate", "ordered", "pairs"), 0.0)
    for drawn in range(2 ** len(said)):
        labels = np.array([(drawn >> place) & 1 for place in range(len(said))], dtype=np.float64)
        chance = float(np.prod(np.where(labels == 1.0, said, 1.0 - said)))
        for metric in ("log_loss", "accuracy", "positive_rate"):
            truth = truth_of(metric, labels, said, threshold=threshold)
            assert truth is not None
            sums[metric] += chance * truth
        pairs = labels.sum() * (1.0 - labels).sum()
        sums["pairs"] += chance * pairs
        sums["ordered"] += chance * pairs * (metrics.value("auc", labels, said) if pairs else 0.0)
    for metric in ("log_loss", "accuracy", "positive_rate"):
        assert figures[metric].point == pytest.approx(sums[metric], abs=1e-9)
    if sums["pairs"] > 1e-6:
        assert figures["auc"].point == pytest.approx(sums["ordered"] / sums["pairs"], abs=1e-9)


def test_scores_that_are_no_numbers_are_left_out() -> None:
    """They count as no rows, and spoil no figure; without any other there is no figure, and a reason."""
    scores = np.array([0.2, np.nan, 0.8, np.inf])
    assert estimated("binary", scores) == estimated("binary", np.array([0.2, 0.8]))
    nothing = estimated("binary", np.array([np.nan]))
    assert (nothing.rows, nothing.figures, nothing.reason) == (0, {}, "no answer has a score")


def test_one_certain_class_has_no_area() -> None:
    """Where all scores are 1 no pair can be formed, and nothing is uncertain."""
    figures = estimated("binary", np.ones(50)).figures
    assert figures["auc"].point is None
    assert (figures["accuracy"].point, figures["accuracy"].low, figures["accuracy"].high) == (1.0, 1.0, 1.0)


def test_a_regression_is_refused_in_words() -> None:
    """There is no figure, and it says why."""
    said = estimated("regression", np.array([12.0, 14.0]))
    assert not said.figures and "says nothing about its own spread" in said.reason


def test_each_day_stands_beside_its_truth() -> None:
    """One row per day and metric, by day, with the error; a row without a label yet is left out."""
    random = np.random.default_rng(2)
    scores, labels = calibrated(random, 2000)
    labels[:3] = np.nan
    days = pl.Series(["2024-01-02"] * 1000 + ["2024-01-01"] * 1000)
    told = estimated_against_truth("binary", days, labels, scores)
    assert told["day"].unique(maintain_order=True).to_list() == ["2024-01-01", "2024-01-02"]
    assert told.filter(metric="auc")["rows"].to_list() == [1000, 997]
    assert (told["error"] - (told["estimated"] - told["truth"])).abs().max() == 0.0
    assert told.filter(metric="positive_rate")["truth"][0] == labels[1000:].mean()
    assert estimated_against_truth("regression", days, labels, scores).is_empty()
