"""Sketches: wherever it is cut, a day is the sum of its rows; odd values are counted for what they are."""

from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlplatform.domain.view import Feature
from mlplatform.monitoring.drift import Floats
from mlplatform.monitoring.quality.sketch import (
    Bins,
    Sketch,
    apart,
    bins_at_most,
    displaced,
    distances,
    learn_bins,
    sketch,
    stacked,
)
from mlplatform.scoring.booster import Matrix

FEATURES = (
    Feature(name="size", dtype=pl.Float32(), meaning="", minimum=0, maximum=100),
    Feature(name="weekday", dtype=pl.Int32(), meaning=""),
    Feature(name="code", dtype=pl.Int32(), meaning=""),
    Feature(name="same", dtype=pl.Float32(), meaning=""),
    Feature(name="nothing", dtype=pl.Float32(), meaning=""),
)
SIZE, WEEKDAY, CODE, SAME, NOTHING = range(5)


def rows(count: int, seed: int = 0) -> Matrix:
    """Some rows of a quiet day."""
    random = np.random.default_rng(seed)
    return np.column_stack(
        [
            random.gamma(3.0, 5.0, count),
            random.integers(1, 8, count),
            np.where(random.random(count) < 0.1, np.nan, random.integers(0, 40, count)),
            np.full(count, 4.0),
            np.full(count, np.nan),
        ]
    ).astype(np.float32)


@cache
def learned(count: int = 5_000) -> Bins:
    """Bins of the features above."""
    return learn_bins(rows(count), FEATURES, ["code"])


def figures(day: Sketch, others: Sketch, bins: Bins) -> dict[str, Floats]:
    """By name, as they are shown."""
    return dict(zip(distances, apart(day, others, bins).shown, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_slices_of_a_day_are_the_day(cuts: list[int]) -> None:
    """Wherever it is cut, down to slices without a row."""
    bins, day = learned(), rows(300, seed=1)
    parts = np.split(day, sorted(cuts))
    added = stacked([sketch(each, bins) for each in parts]).added_up()
    whole = sketch(day, bins)
    for name in Sketch.__dataclass_fields__:
        assert getattr(added, name) == pytest.approx(getattr(whole, name)), name
    assert (added - whole).counts.sum() == 0


def test_a_kept_sketch_is_the_sketch() -> None:
    """To the last bit."""
    made = sketch(rows(300), learned())
    again = Sketch.from_bytes([made.to_bytes(place) for place in range(len(FEATURES))])
    for name in Sketch.__dataclass_fields__:
        assert (getattr(again, name) == getattr(made, name)).all(), name


def test_ks_of_all_rows_is_found_to_within_a_bin() -> None:
    """Against the exact one of the values; where each value has its bin, it is exact."""
    bins, before, now = learned(), rows(5_000), rows(700, seed=2)
    now[:, SIZE] *= 1.2
    now[:, WEEKDAY] = np.minimum(now[:, WEEKDAY], 5)
    found = figures(sketch(now, bins), sketch(before, bins), bins)["ks"]
    for place, slack in ((SIZE, 1.5 / bins_at_most), (WEEKDAY, 1e-9)):
        exact = stats.ks_2samp(now[:, place], before[:, place]).statistic
        assert found[place] == pytest.approx(exact, abs=slack)


def test_mean_and_spread_are_in_standard_deviations_of_the_training_set() -> None:
    """A day twice as large is one mean higher, and varies twice as much."""
    bins, before = learned(), rows(5_000)
    found = figures(sketch(before * 2, bins), sketch(before, bins), bins)
    size = before[:, SIZE].astype(np.float64)
    assert found["mean_shift"][SIZE] == pytest.approx(size.mean() / size.std(), rel=1e-6)
    assert found["spread"][SIZE] == pytest.approx(2.0, rel=1e-6)


def test_infinite_values_are_out_of_range_and_spoil_no_mean() -> None:
    """They are counted in the outermost bins."""
    bins, day = learned(), rows(400)
    day[:40, SIZE] = np.inf
    day[40:80, SAME] = -np.inf
    found = figures(sketch(day, bins), sketch(rows(400), bins), bins)
    assert found["out_of_range"][SIZE] == found["out_of_range"][SAME] == pytest.approx(0.1)
    assert all(np.isfinite(each[[SIZE, SAME]]).all() for each in found.values())
    assert found["ks"][SIZE] == pytest.approx(0.1, abs=0.05)


def test_values_out_of_the_declared_range_are_counted() -> None:
    """Of the values that are there; a feature without a range has none."""
    bins, day = learned(), rows(400)
    day[:, WEEKDAY] = -5
    day[:100, SIZE] = np.nan
    day[100:120, SIZE] = -1
    found = figures(sketch(day, bins), sketch(day, bins), bins)
    assert found["out_of_range"][SIZE] == 0.05 and found["out_of_range"][WEEKDAY] == 0
    assert found["null_rate"][SIZE] == 0.25


def test_a_category_that_training_did_not_know_is_new() -> None:
    """A value of few that is none of them; of a fitted code, the null that stands for it. A number is no category."""
    bins, day = learned(), rows(400)
    day[:40, WEEKDAY] = 9
    day[:40, CODE], day[40:, CODE] = np.nan, 1
    day[:40, SIZE] = 50.125
    found = figures(sketch(day, bins), sketch(rows(400), bins), bins)["new_category"]
    assert found[[SIZE, WEEKDAY, CODE]].tolist() == pytest.approx([0, 0.1, 0.1])


def test_a_constant_feature_is_as_usual_while_it_is_the_same() -> None:
    """And far away when it is another one."""
    bins, before = learned(), sketch(rows(400), learned())
    same, other = rows(400, seed=4), rows(400, seed=4)
    other[:, SAME] = 5
    assert figures(sketch(same, bins), before, bins)["psi"][SAME] == pytest.approx(0)
    found = figures(sketch(other, bins), before, bins)
    assert found["ks"][SAME] == 1 and found["mean_shift"][SAME] == 1


def test_a_feature_without_values_has_no_distribution() -> None:
    """Neither on the day nor in training; its missing values are what can be told."""
    bins, day = learned(), rows(400)
    day[:, SIZE] = np.nan
    found = figures(sketch(day, bins), sketch(rows(400), bins), bins)
    assert found["null_rate"][[SIZE, NOTHING]].tolist() == [1, 1]
    assert all(np.isnan(found[name][[SIZE, NOTHING]]).all() for name in ("mean_shift", "psi", "kl", "ks"))


def test_displaced_rows_are_those_that_have_moved() -> None:
    """To other values, to none, or to values that training did not know."""
    bins = learned()
    before, day = sketch(rows(5_000), bins), rows(5_000)
    day[:1_000, SIZE] = np.nan
    day[:1_000, WEEKDAY] = 9
    found = displaced(sketch(day, bins), before, bins)
    assert found[[SIZE, WEEKDAY]].tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert found[SAME] == found[NOTHING] == 0
