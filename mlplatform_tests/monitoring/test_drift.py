"""Drift statistics: each against SciPy or a slow definition, on whatever counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlplatform.monitoring.drift import (
    benjamini_hochberg,
    effective_days,
    half_a_row,
    kolmogorov_smirnov,
    kullback_leibler,
    population_stability_index,
    share_distance,
    tail,
    total_variation,
)

counts = st.lists(st.integers(0, 50), min_size=2, max_size=12)


def both(drawn: st.DataObject) -> tuple[list[int], list[int]]:
    """Counts of two sides in the same bins, each with a row at least."""
    day = drawn.draw(counts.filter(any))
    return day, drawn.draw(st.lists(st.integers(0, 50), min_size=len(day), max_size=len(day)).filter(any))


@given(st.data())
def test_kl_is_that_of_the_smoothed_shares(drawn: st.DataObject) -> None:
    """As SciPy has it, over the bins that either side uses."""
    day, reference = both(drawn)
    used = [place for place in range(len(day)) if day[place] + reference[place]]
    p, q = (np.array(each, dtype=float)[used] + half_a_row for each in (day, reference))
    assert kullback_leibler(day, reference) == pytest.approx(stats.entropy(p, q), abs=1e-12)


@given(st.data())
def test_psi_is_kl_both_ways(drawn: st.DataObject) -> None:
    """And the same whichever side is the reference."""
    day, reference = both(drawn)
    psi = population_stability_index(day, reference)
    assert psi == pytest.approx(kullback_leibler(day, reference) + kullback_leibler(reference, day), abs=1e-12)
    assert psi == pytest.approx(population_stability_index(reference, day))


@given(st.data())
def test_bins_that_nobody_uses_change_nothing(drawn: st.DataObject) -> None:
    """Features have different numbers of bins in one array."""
    day, reference = both(drawn)
    for statistic in (population_stability_index, kullback_leibler, kolmogorov_smirnov, total_variation):
        assert statistic([*day, 0, 0], [*reference, 0, 0]) == pytest.approx(statistic(day, reference))


@given(st.data())
def test_ks_is_that_of_two_samples(drawn: st.DataObject) -> None:
    """Where each value has its bin, it is SciPy's."""
    day, reference = both(drawn)
    expected = stats.ks_2samp(np.repeat(range(len(day)), day), np.repeat(range(len(day)), reference)).statistic
    assert kolmogorov_smirnov(day, reference) == pytest.approx(expected)


@given(st.data())
def test_total_variation_is_the_largest_difference_of_any_set_of_bins(drawn: st.DataObject) -> None:
    """By its definition: the set of bins in which the day has more."""
    day, reference = both(drawn)
    p, q = np.array(day) / sum(day), np.array(reference) / sum(reference)
    assert total_variation(day, reference) == pytest.approx((p - q)[p > q].sum())


def test_without_rows_there_is_no_ks() -> None:
    """A day on which a feature has no value is no day on which it is as usual."""
    assert np.isnan(kolmogorov_smirnov([0, 0], [1, 2])) and np.isnan(total_variation([0, 0], [1, 2]))


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_a_share_scatters_as_much_wherever_it_lies(share: float) -> None:
    """Variance 1 / (4 n)."""
    rows = 2_000
    drawn = np.random.default_rng(7).binomial(rows, share, size=4_000) / rows
    assert share_distance(drawn, share).std() == pytest.approx(0.5 / np.sqrt(rows), rel=0.05)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.2]))
def test_false_discoveries_are_those_of_scipy(chances: list[float], rate: float) -> None:
    """Kept is whatever SciPy's adjusted p-value leaves at the rate."""
    adjusted = stats.false_discovery_control(chances)
    kept = benjamini_hochberg(chances, rate)
    # On the very edge the two may round apart.
    clear = np.abs(adjusted - rate) > 1e-9
    assert (kept == (adjusted <= rate))[clear].all()


def test_what_was_not_looked_at_counts_for_nothing() -> None:
    """A feature without a figure neither is found nor makes it harder to find others."""
    assert benjamini_hochberg([np.nan, 0.04, np.nan], 0.05).tolist() == [False, True, False]
    assert not benjamini_hochberg([np.nan], 0.05).any() and not benjamini_hochberg([], 0.05).size


def test_of_quiet_features_few_are_kept() -> None:
    """Where nothing is true, anything is found at about the rate."""
    random = np.random.default_rng(3)
    found = [benjamini_hochberg(random.random(50), 0.05).any() for _ in range(4_000)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_days_that_follow_each_other_are_worth_fewer(correlation: float) -> None:
    """The variance of a mean of so many correlated days is that of as many independent ones."""
    random, days = np.random.default_rng(5), 400
    series = np.zeros((days, 600))
    series[0] = random.normal(size=600)
    for day in range(1, days):
        innovation = random.normal(size=600) * np.sqrt(1 - correlation**2)
        series[day] = correlation * series[day - 1] + innovation
    assert np.median(effective_days(series)) == pytest.approx(1 / series.mean(axis=0).var(), rel=0.15)


def test_missing_days_do_not_count() -> None:
    """Nor does a series without any."""
    assert effective_days([1.0, np.nan, 3.0, 2.0]) <= 3
    assert effective_days([np.nan, np.nan]) == 1


def test_a_bound_of_few_days_is_passed_as_seldom_as_one_of_many() -> None:
    """That is what Student's t is for: with the normal distribution ten days would be passed three times as often."""
    random = np.random.default_rng(11)
    for days in (6, 30):
        past, new = random.normal(size=(days, 40_000)), random.normal(size=40_000)
        chance = tail(new, past.mean(axis=0), past.std(axis=0, ddof=1), days)
        assert (chance < 0.01).mean() == pytest.approx(0.01, abs=0.002)
