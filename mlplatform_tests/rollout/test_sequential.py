"""Bounds that hold at every look: how often they are wrong, at any time at all, and how soon they tell harm."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlplatform.rollout.sequential import (
    Blocks,
    Values,
    bounds_at_each,
    mean_bounds,
    ratio_evidence,
)

RUNS = 400
ALPHA = 0.05
MOST_WRONG = 0.05 + 2.6 * (0.05 * 0.95 / RUNS) ** 0.5
"""Of so many runs, what a rate of `ALPHA` exceeds once in 200."""

MEAN_BY_DAY = 0.1 + 0.08 * np.sin(np.arange(4000) * 2 * np.pi / 500)

Draw = Callable[[np.random.Generator], Values]


def rare(draw: np.random.Generator) -> Values:
    """Errors of one in fifty."""
    return draw.binomial(1, 0.02, 4000).astype(np.float64)


def even(draw: np.random.Generator) -> Values:
    """A coin."""
    return draw.binomial(1, 0.5, 4000).astype(np.float64)


def skewed(draw: np.random.Generator) -> Values:
    """Something that is mostly small."""
    return draw.beta(0.5, 4.5, 4000)


def by_day(draw: np.random.Generator) -> Values:
    """A mean that goes up and down, 0.1 in all."""
    return (draw.random(4000) < MEAN_BY_DAY).astype(np.float64)


@pytest.mark.parametrize(("draw", "mean"), [(rare, 0.02), (even, 0.5), (skewed, 0.1), (by_day, None)])
def test_the_bounds_are_hardly_ever_wrong_at_any_look(draw: Draw, mean: float | None) -> None:
    """Looked at after each value: the lower one is passed by the mean so far in few runs, and so is the upper one."""
    random = np.random.default_rng(7)
    n = np.arange(1, 4001)
    # Where it changes in time, what is bounded is the average of the true means so far.
    truth = np.cumsum(MEAN_BY_DAY) / n if mean is None else mean
    found = [bounds_at_each(draw(random), low=0.0, high=1.0, alpha=ALPHA) for _ in range(RUNS)]
    assert np.mean([(lower > truth).any() for lower, _ in found]) <= MOST_WRONG
    assert np.mean([(upper < truth).any() for _, upper in found]) <= MOST_WRONG


def test_an_ordinary_interval_that_is_looked_at_often_is_wrong_far_more_often() -> None:
    """What this is for: the usual normal interval, looked at after each of 4,000 values, cries wolf."""
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(100):
        values = even(random)
        n = np.arange(1, values.size + 1)
        mean = np.cumsum(values) / n
        wrong += bool((mean - 1.645 * np.sqrt(0.25 / n) > 0.5)[50:].any())
    assert wrong > 3 * 100 * ALPHA


@pytest.mark.parametrize("harm", [0.02, 0.05])
def test_harm_that_is_there_is_found(harm: float) -> None:
    """A difference of paired losses that scatters ten times as wide as it is large, within a few ten thousand pairs."""
    random = np.random.default_rng(3)
    found = 0
    for _ in range(40):
        pairs = np.clip(random.normal(harm, 0.3, 30_000), -2, 2)
        found += mean_bounds(pairs, low=-2.0, high=2.0, alpha=0.01).lower > 0
    assert found >= 38


@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(-3, 5)), st.floats(0.001, 0.2))
def test_all_looks_at_once_are_the_looks_one_by_one(values: Values, alpha: float) -> None:
    """Computed together, the bounds of every beginning are those of it alone, and stay in the range."""
    lower, upper = bounds_at_each(values, low=-3.0, high=5.0, alpha=alpha)
    for n in {1, (values.size + 1) // 2, values.size}:
        alone = mean_bounds(values[:n], low=-3.0, high=5.0, alpha=alpha)
        assert (lower[n - 1], upper[n - 1]) == (pytest.approx(alone.lower), pytest.approx(alone.upper))
        assert -3.0 <= alone.lower <= alone.mean + 1e-9
        assert alone.mean - 1e-9 <= alone.upper <= 5.0


@given(
    arrays(np.float64, 60, elements=st.floats(-1, 1)),
    arrays(np.int64, 60, elements=st.integers(19_000, 19_009)),
    st.floats(0.001, 0.2),
)
def test_blocks_only_widen(values: Values, blocks: Blocks, alpha: float) -> None:
    """Whatever belongs together, the promise of the bounds without it still holds; one block alone tells nothing."""
    plain = mean_bounds(values, low=-1.0, high=1.0, alpha=alpha)
    wider = mean_bounds(values, low=-1.0, high=1.0, alpha=alpha, blocks=blocks)
    assert wider.lower <= plain.lower
    assert plain.upper <= wider.upper
    assert mean_bounds(values, low=-1.0, high=1.0, alpha=alpha, blocks=np.zeros_like(blocks)) == plain


def test_what_a_day_has_in_common_is_no_evidence_of_a_thousand_requests() -> None:
    """Days that are better and worse by chance, and are nought on average: looked at on each of three weeks' days."""
    random = np.random.default_rng(12)
    day = np.repeat(np.arange(21), 500)
    wrong = {"plain": 0, "blocks": 0}
    for _ in range(100):
        values = np.clip(random.normal(random.normal(0, 0.05, 21)[day], 0.2), -1, 1)
        for name in wrong:
            wrong[name] += any(
                mean_bounds(
                    values[:n], low=-1.0, high=1.0, alpha=0.002, blocks=day[:n] if name == "blocks" else None
                ).lower
                > 0
                for n in range(500, 10_501, 500)
            )
    assert wrong["blocks"] < wrong["plain"] / 2


def test_two_levels_are_two_looks_in_one() -> None:
    """The upper bound may have a level of its own."""
    values = np.random.default_rng(2).random(500)
    both = mean_bounds(values, low=0.0, high=1.0, alpha=0.001, alpha_above=0.1)
    assert both.lower == mean_bounds(values, low=0.0, high=1.0, alpha=0.001).lower
    assert both.upper == mean_bounds(values, low=0.0, high=1.0, alpha=0.1).upper


@given(arrays(np.float64, 50, elements=st.floats(0, 1)))
def test_the_scale_does_not_matter(values: Values) -> None:
    """The same values in another unit have the same bounds in that unit."""
    of_one = mean_bounds(values, low=0.0, high=1.0, alpha=0.05)
    of_seven = mean_bounds(7 * values - 2, low=-2.0, high=5.0, alpha=0.05)
    assert of_seven.lower == pytest.approx(7 * of_one.lower - 2, abs=1e-9)
    assert of_seven.upper == pytest.approx(7 * of_one.upper - 2, abs=1e-9)


def test_nothing_seen_says_nothing() -> None:
    """Without values the whole range is left; a value outside it is an error, and no number too."""
    nothing = mean_bounds(np.array([]), low=-1.0, high=1.0, alpha=0.05)
    assert (nothing.n, nothing.lower, nothing.upper) == (0, -1.0, 1.0)
    for wrong in (1.5, -1.5, float("nan")):
        with pytest.raises(ValueError, match="outside"):
            mean_bounds(np.array([0.0, wrong]), low=-1.0, high=1.0, alpha=0.05)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_a_split_as_planned_is_hardly_ever_called_wrong(share: float) -> None:
    """Looked at after each of 5,000 keys."""
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        seen = np.cumsum(random.random(5000) < share)
        wrong += any(ratio_evidence(int(seen[n]), n + 1, share) >= 1 / ALPHA for n in range(0, 5000, 7))
    assert wrong / 200 <= ALPHA


def test_a_split_that_is_not_as_planned_is_called_wrong() -> None:
    """A tenth of the arm is lost; an arm that should have nothing has something."""
    random = np.random.default_rng(11)
    seen = int((random.random(60_000) < 0.45).sum())
    assert ratio_evidence(seen, 60_000, 0.5) > 1e6
    assert ratio_evidence(1, 1000, 0.0) == float("inf")
    assert ratio_evidence(0, 1000, 0.0) == 1.0
