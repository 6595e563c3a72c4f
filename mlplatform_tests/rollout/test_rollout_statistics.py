"""What the analysis of a rollout promises, by simulation: looked at every minute for a week, on traffic of all kinds.

A path tells the bounds after every pair, so that no look is left out; one test holds it against the verdicts.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from mlplatform.domain.rollout import Rollout
from mlplatform.domain.threshold import Threshold
from mlplatform.rollout.analysis import OF_SPLIT, Figure, Look, Pairs, Split, figures, judge
from mlplatform.rollout.sequential import Values, bounds_at_each, ratio_evidence

ERROR = 0.05
"""Stated in these tests: of 0.01, the default, thousands of weeks would be needed."""

SETTINGS = Rollout(error=Threshold(value=ERROR, reason="for the test"))
MARGINS = {"log_loss": 0.01, "failures": 0.01}
BEGUN = datetime(2024, 5, 1, tzinfo=UTC)
MINUTES = 7 * 24 * 60
MINUTE = np.arange(MINUTES)
DAYLIGHT = np.maximum(0.0, np.sin((MINUTE / 1440 - 0.25) * 2 * np.pi))
"""Nothing comes by night."""

TRAFFIC = {
    "steady": np.full(MINUTES, 0.5),
    "day and night": 1.6 * DAYLIGHT,
    "low": np.full(MINUTES, 0.01),
    "one burst": np.where(MINUTE // 60 == 30, 80.0, 0.02),
}
"""Requests a minute; both arms score them all, also where the challenger answers one in a hundred."""


def most(rate: float, runs: int) -> float:
    """Of so many runs, what a rate exceeds once in 200."""
    return rate + 2.6 * float(np.sqrt(rate * (1 - rate) / runs))


def minutes(random: np.random.Generator, rate: Values) -> npt.NDArray[np.int64]:
    """When requests come."""
    return np.repeat(MINUTE, random.poisson(rate))


def week(random: np.random.Generator, at: npt.NDArray[np.int64], *, harm: float = 0.0, failing: float = 0.0) -> Pairs:
    """The pairs of two arms, equal but for the harm. Losses scatter more by night; both arms fail now and then."""
    n = at.size
    scatter = np.where(DAYLIGHT[at] > 0.5, 0.15, 0.3)
    failures = random.binomial(1, 0.005 + failing, n) - random.binomial(1, 0.005, n)
    return Pairs(
        harms={
            "log_loss": np.clip(harm + scatter * random.standard_t(4, n), -1, 1),
            "failures": failures.astype(np.float64),
        },
        margins=MARGINS,
        segments=pl.DataFrame({"port": random.choice(list("abc"), n), "carrier": random.choice(list("uvwxyz"), n)}),
        by_segment=("log_loss", "failures"),
        days=BEGUN.toordinal() + at // 1440,
    )


def ever_above(pairs: Pairs) -> bool:
    """Whether the lower bound of any harm was above 0 at any look; the days, and the margin, make it rarer only."""
    parts = (each for each in figures(pairs, ERROR) if each.values.size)
    return any((bounds_at_each(each.values, low=-1.0, high=1.0, alpha=each.error)[0] > 0).any() for each in parts)


def certain(each: Figure) -> npt.NDArray[np.bool_]:
    """After each pair, whether the harm was certain."""
    mean = np.cumsum(each.values) / np.arange(1, each.values.size + 1)
    return (bounds_at_each(each.values, low=-1.0, high=1.0, alpha=each.error)[0] > 0) & (mean >= each.margin)


def ever_significant(pairs: Pairs) -> bool:
    """What a t-test at each look would have said."""
    values = pairs.harms["log_loss"]
    n = np.arange(1, values.size + 1)
    mean = np.cumsum(values) / n
    error = np.sqrt((np.cumsum(values**2) / n - mean**2) / n)
    return bool((mean > 1.645 * error)[100:].any())


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_equals_looked_at_every_minute_for_a_week_are_sent_back_no_more_often_than_stated(traffic: str) -> None:
    """Two figures and nine segments, each after each pair: 300 weeks."""
    random = np.random.default_rng(31)
    back = np.mean([ever_above(week(random, minutes(random, TRAFFIC[traffic]))) for _ in range(300)])
    assert back <= most(ERROR, 300)


def test_t_tests_every_minute_would_send_back_a_quarter_of_equals() -> None:
    """What the bounds are for: the same weeks, judged as if each look were the only one."""
    random = np.random.default_rng(31)
    back = np.mean([ever_significant(week(random, minutes(random, TRAFFIC["steady"]))) for _ in range(100)])
    assert back > 1 / 4


@pytest.mark.parametrize(
    ("harm", "failing", "count"), [(0.03, 0.0, 5000), (0.05, 0.0, 2000), (0.0, 0.02, 4000), (0.0, 0.1, 700)]
)
def test_stated_harm_is_found(harm: float, failing: float, count: int) -> None:
    """In nineteen of twenty weeks, within so many pairs, whatever share of them the challenger answers."""
    random = np.random.default_rng(32)
    at = minutes(random, TRAFFIC["day and night"])[:count]
    assert at.size == count
    weeks = (week(random, at, harm=harm, failing=failing) for _ in range(200))
    found = [any(certain(each).any() for each in figures(pairs, ERROR)) for pairs in weeks]
    assert np.mean(found) >= 0.95


def test_a_challenger_that_is_worse_by_the_margin_hardly_ever_gets_on() -> None:
    """Its harm is taken for smaller than the margin, at any look of a week, in no more weeks than stated."""
    random = np.random.default_rng(33)
    doubt = SETTINGS.doubt.value
    taken = 0
    for _ in range(200):
        values = week(random, minutes(random, TRAFFIC["steady"]), harm=MARGINS["log_loss"]).harms["log_loss"]
        upper = bounds_at_each(values, low=-1.0, high=1.0, alpha=doubt)[1]
        taken += bool((upper < MARGINS["log_loss"]).any())
    assert taken / 200 <= most(doubt, 200)


@pytest.mark.parametrize("at", [[], [5], list(range(0, MINUTES, 480))], ids=["none", "one request", "three a day"])
def test_without_traffic_nothing_is_decided(at: list[int]) -> None:
    """Neither up nor back, at no look of the week."""
    random = np.random.default_rng(34)
    pairs = week(random, np.array(at, dtype=np.int64), harm=0.02)
    for hour in range(1, 7 * 24 + 1, 8):
        found = judge(_look(pairs, np.array(at), 60 * hour), SETTINGS)
        assert found.outcome == "hold", found.reasons


@pytest.mark.parametrize("harm", [0.0, 0.06])
def test_a_verdict_is_what_the_path_says(harm: float) -> None:
    """Judged hour by hour: sent back at the first look at which a harm is certain, and not before."""
    random = np.random.default_rng(35)
    at = minutes(random, TRAFFIC["day and night"])
    pairs = week(random, at, harm=harm)
    pairs = replace(pairs, days=None)
    first = MINUTES
    for each in figures(pairs, ERROR):
        rows = slice(None) if not each.segment else _rows(pairs, each.segment)
        hours = np.searchsorted(at[rows], 60 * np.arange(1, 7 * 24 + 1))
        found = np.flatnonzero((hours > 0) & certain(each)[np.maximum(hours, 1) - 1])
        first = min(first, *(60 * (hour + 1) for hour in found.tolist()), MINUTES)
    for minute in range(60, MINUTES + 1, 60):
        outcome = judge(_look(pairs, at, minute), SETTINGS).outcome
        assert (outcome == "roll_back") == (minute == first and harm > 0)
        if outcome == "roll_back":
            break
    assert (first < MINUTES) == (harm > 0)


def test_one_key_in_a_hundred_falls_as_planned() -> None:
    """Looked at every minute of a week: a split as planned is hardly ever called wrong; one that loses half always."""
    random = np.random.default_rng(36)
    limit, wrong = 1 / (ERROR * OF_SPLIT), {0.01: 0, 0.005: 0}
    for real in wrong:
        for _ in range(20):
            keys = np.cumsum(random.poisson(3.0, MINUTES))
            seen = np.cumsum(random.random(int(keys[-1])) < real)
            looks = zip(seen[np.maximum(keys, 1) - 1].tolist(), keys.tolist(), strict=True)
            wrong[real] += any(ratio_evidence(in_arm, of, 0.01) >= limit for in_arm, of in looks)
    assert wrong == {0.01: 0, 0.005: 20}


def test_a_segment_that_looks_hurt_holds_the_step() -> None:
    """Better on all other carriers, worse on one that has too few rows to be certain: no step is taken meanwhile."""
    random = np.random.default_rng(37)
    at = minutes(random, TRAFFIC["steady"])
    pairs = week(random, at)
    few = np.arange(at.size) % 50 == 0
    carrier = pairs.segments["carrier"].to_numpy().copy()
    carrier[few] = "small"
    loss = np.clip(random.normal(np.where(few, 0.12, -0.02), 0.3), -1, 1)
    harms = {"log_loss": loss, "failures": np.zeros(at.size)}
    segments = pl.DataFrame({"carrier": carrier})
    found = judge(_look(replace(pairs, harms=harms, segments=segments), at, MINUTES), SETTINGS)
    assert found.outcome == "hold"
    assert "a segment may be hurt: log_loss on carrier=small" in found.reasons[0]
    others = replace(pairs, harms=harms, segments=segments.with_columns(carrier=pl.lit("all")))
    assert judge(_look(others, at, MINUTES), SETTINGS).outcome == "advance"


def test_a_segment_has_a_margin_of_its_own() -> None:
    """A harm on a few requests that the wider margin of segments calls equal neither holds a step nor sends back."""
    random = np.random.default_rng(40)
    few = np.arange(60_000) % 10 == 0
    pairs = Pairs(
        harms={"log_loss": np.clip(random.normal(np.where(few, 0.02, -0.01), 0.1), -1, 1)},
        margins={"log_loss": 0.01},
        segments=pl.DataFrame({"carrier": np.where(few, "small", "large")}),
        by_segment=("log_loss",),
    )
    at = np.zeros(few.size, dtype=np.int64)
    assert judge(_look(pairs, at, MINUTES), SETTINGS).outcome == "roll_back"
    wider = replace(pairs, segment_margins={"log_loss": 0.03})
    assert judge(_look(wider, at, MINUTES), SETTINGS).outcome == "advance"


def test_a_harm_that_is_below_the_margin_counts_as_equal() -> None:
    """With a million pairs any two models differ for certain; one that is worse by nothing to speak of stays."""
    values = np.clip(np.random.default_rng(38).normal(0.001, 0.05, 300_000), -1, 1)
    pairs = Pairs(harms={"log_loss": values}, margins={"log_loss": 0.01}, segments=pl.DataFrame(height=values.size))
    found = judge(_look(pairs, np.zeros(values.size, dtype=np.int64), MINUTES), SETTINGS)
    (harm,) = found.harms
    assert harm.bounds.lower > 0
    assert found.outcome == "advance"


def test_one_bad_day_sends_nobody_back() -> None:
    """A harm that differs from day to day more than it is large is certain only where nobody tells the days."""
    random = np.random.default_rng(39)
    day = np.repeat(np.arange(7), 2000)
    loss = np.clip(random.normal(np.array([0.12, -0.04, 0.03, -0.02, 0.05, -0.03, 0.04])[day], 0.2), -1, 1)
    pairs = Pairs(
        harms={"log_loss": loss}, margins={"log_loss": 0.01}, segments=pl.DataFrame(height=loss.size), days=day
    )
    told, untold = (
        judge(_look(each, day * 1440, MINUTES), SETTINGS).outcome for each in (pairs, replace(pairs, days=None))
    )
    assert (told, untold) == ("hold", "roll_back")


def _look(pairs: Pairs, at: npt.NDArray[np.int64], minute: int) -> Look:
    came = int(np.searchsorted(at, minute))
    return Look(
        pairs=replace(
            pairs,
            harms={name: values[:came] for name, values in pairs.harms.items()},
            segments=pairs.segments[:came],
            days=None if pairs.days is None else pairs.days[:came],
        ),
        now=BEGUN + timedelta(minutes=minute),
        step_since=BEGUN,
        bake=timedelta(hours=1),
        split=Split(challenger=0, keys=0, share=0.01),
    )


def _rows(pairs: Pairs, segment: str) -> npt.NDArray[np.bool_]:
    column, _, value = segment.partition("=")
    return (pairs.segments[column] == value).to_numpy()
