"""What is usual: a world with a season and bad weeks stays quiet for months; each fault is found on its day."""

from collections.abc import Callable
from functools import cache

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.view import Feature
from mlplatform.monitoring.drift import Mask
from mlplatform.monitoring.quality.sketch import Bins, Sketch, distances, learn_bins, sketch, stacked
from mlplatform.monitoring.quality.usual import (
    Usual,
    Verdict,
    before_each,
    days_for_an_incident,
    judge,
    learn_usual,
    recent_days,
    rules,
)
from mlplatform.scoring.booster import Matrix

FEATURES, TRAINED, QUIET, ROWS = 20, 60, 180, 250
RATE = 0.01
PSI = distances.index("psi")


class World:
    """Features of five kinds that go with the year and the week, and have good and bad weeks of their own."""

    def __init__(self, seed: int) -> None:
        random, days = np.random.default_rng(seed), np.arange(TRAINED + QUIET)[:, None]
        self.seed, self.kind = seed, np.arange(FEATURES) % 5
        weeks = np.zeros((TRAINED + QUIET, FEATURES))
        for day in range(1, TRAINED + QUIET):
            weeks[day] = 0.8 * weeks[day - 1] + 0.6 * random.normal(size=FEATURES)
        season = 0.5 * np.sin(2 * np.pi * (days / 365 + random.random(FEATURES)))
        weekday = 0.2 * np.cos(2 * np.pi * days / 7 + random.random(FEATURES))
        self.level = season + weekday + 0.3 * random.random(FEATURES) * weeks
        self.declared = [
            Feature(
                name=f"f{place}", dtype=pl.Int32() if kind == 2 else pl.Float32(), meaning="", minimum=-8, maximum=200
            )
            for place, kind in enumerate(self.kind)
        ]

    def rows(self, day: int) -> Matrix:
        """What is served on a day."""
        random = np.random.default_rng([self.seed, day])
        values = random.normal(size=(ROWS, FEATURES)) + self.level[day]
        values = np.where(self.kind == 1, np.exp(0.8 * values), values)
        values = np.where(self.kind == 2, np.clip(np.floor(3 + 1.5 * values), 0, 7), values)
        missing = (self.kind == 3) & (random.random(values.shape) < 0.05 * (1 + 0.5 * np.tanh(self.level[day])))
        return np.where(missing, np.nan, np.where(self.kind == 4, np.round(5 * values), values)).astype(np.float32)


class Trained:
    """What was learned of the first days of a world."""

    def __init__(self, world: World) -> None:
        sample = np.concatenate([world.rows(day) for day in range(TRAINED)])
        self.world = world
        self.bins: Bins = learn_bins(sample, world.declared, ["f2"])
        self.days: list[Sketch] = [sketch(world.rows(day), self.bins) for day in range(TRAINED)]
        self.usual: Usual = learn_usual(stacked(self.days), self.bins)
        self.whole: Sketch = stacked(self.days).added_up()

    def verdict(self, rows: Matrix, before: list[Sketch], unchanged: list[Mask]) -> Verdict:
        """Of a day, after some others."""
        added, days = before_each(stacked(before[-40:]), np.array(unchanged[-40:]))
        return judge(
            sketch(rows, self.bins),
            self.usual,
            self.whole,
            added,
            days,
            self.bins,
            going_on=~unchanged[-1],
            rate=RATE,
        )


@cache
def trained(seed: int) -> Trained:
    """Of one world; made once."""
    return Trained(World(seed))


def quiet() -> list[Mask]:
    """Of each day of the training: nothing had changed."""
    return [np.ones(FEATURES, dtype=np.bool_)] * TRAINED


def lived(of: Trained, days: int) -> tuple[list[int], list[Sketch], list[Mask]]:
    """So many quiet days after the training: on which one a change began, and what is known after them."""
    before, unchanged, began = list(of.days), quiet(), list[int]()
    for day in range(TRAINED, TRAINED + days):
        rows = of.world.rows(day)
        changed = np.asarray(of.verdict(rows, before, unchanged).changed.any(axis=0))
        began += [day] * bool((changed & unchanged[-1]).any())
        before.append(sketch(rows, of.bins))
        unchanged.append(~changed)
    return began, before, unchanged


@pytest.mark.parametrize("seed", [101, 102])
def test_half_a_year_without_a_fault_is_quiet(seed: int) -> None:
    """Two months were trained on, so that season and bad weeks go where they never were; one change may be found."""
    began, _, _ = lived(trained(seed), QUIET)
    assert len(began) <= 1


def nulls(rows: Matrix, place: int) -> None:
    """A quarter of the rows lose their value."""
    rows[::4, place] = np.nan


def other_unit(rows: Matrix, place: int) -> None:
    """Metres in a column of kilometres."""
    rows[:, place] *= 1_000


def shifted(rows: Matrix, place: int) -> None:
    """Two standard deviations higher."""
    rows[:, place] += 2 * np.nanstd(rows[:, place])


def stands_still(rows: Matrix, place: int) -> None:
    """One value for all."""
    rows[:, place] = np.nanmax(rows[:, place])


def renamed(rows: Matrix, place: int) -> None:
    """A category gets another code."""
    rows[rows[:, place] == 3, place] = 9


def all_missing(rows: Matrix, place: int) -> None:
    """No row has a value."""
    rows[:, place] = np.nan


@pytest.mark.parametrize(
    ("fault", "place", "told"),
    [
        (nulls, 0, {"null_rate"}),
        (all_missing, 8, {"null_rate"}),
        (other_unit, 0, {"out_of_range"}),
        (shifted, 0, {"drift"}),
        (stands_still, 5, {"frozen"}),
        (renamed, 2, {"new_category"}),
    ],
)
def test_a_fault_is_found_on_its_day(fault: Callable[[Matrix, int], None], place: int, told: set[str]) -> None:
    """As what it is, in the feature that has it and in no other."""
    of = trained(101)
    _, before, unchanged = lived(of, 20)
    rows = of.world.rows(TRAINED + 20)
    fault(rows, place)
    changed = of.verdict(rows, before, unchanged).changed
    assert told <= {rule for number, rule in enumerate(rules) if changed[number, place]}
    assert np.flatnonzero(changed.any(axis=0)).tolist() == [place]


def test_a_fault_goes_on_until_it_is_mended() -> None:
    """Days on which a feature had changed do not become what is usual; the day it is mended, all is quiet."""
    of = trained(101)
    _, before, unchanged = lived(of, 5)
    for day in range(TRAINED + 5, TRAINED + 5 + 2 * recent_days):
        rows = of.world.rows(day)
        shifted(rows, 0)
        changed = np.asarray(of.verdict(rows, before, unchanged).changed.any(axis=0))
        assert changed[0], day
        before.append(sketch(rows, of.bins))
        unchanged.append(~changed)
    assert not of.verdict(of.world.rows(day + 1), before, unchanged).changed[:, 0].any()


def test_what_moves_slowly_is_told_from_what_changes_at_once() -> None:
    """A feature that creeps away from its training set is slow; one that jumps as far has changed."""
    of = trained(101)
    before, unchanged = list(of.days), quiet()
    for day in range(TRAINED, TRAINED + 90):
        rows = of.world.rows(day)
        rows[:, 0] += 0.02 * (day - TRAINED)
        verdict = of.verdict(rows, before, unchanged)
        assert not verdict.changed[:, 0].any(), day
        before.append(sketch(rows, of.bins))
        unchanged.append(np.asarray(~verdict.changed.any(axis=0)))
    assert verdict.slow[0]


def test_a_small_day_is_not_far_away_for_being_small() -> None:
    """With a tenth of the rows every distance is larger by chance, and none is found."""
    of = trained(101)
    _, before, unchanged = lived(of, 10)
    far, far_with_few = [], []
    for day in range(TRAINED + 10, TRAINED + 40):
        rows = of.world.rows(day)
        few = of.verdict(rows[: ROWS // 10], before, unchanged)
        assert not few.changed.any(), day
        far.append(of.verdict(rows, before, unchanged).ratio[PSI].mean())
        far_with_few.append(few.ratio[PSI].mean())
    assert np.mean(far_with_few) < 1.2 * np.mean(far)


def test_one_bad_day_of_training_does_not_excuse_the_next() -> None:
    """Of a hundred days one is left out at the top: a feature that was missing once must not go missing unseen."""
    world = World(103)
    bins = learn_bins(world.rows(0), world.declared, [])
    days = [sketch(world.rows(day), bins) for day in range(days_for_an_incident + 20)]
    rows = world.rows(50)
    nulls(rows, 0)
    usual, with_a_bad_day = (
        learn_usual(stacked(each), bins) for each in (days, [*days[:50], sketch(rows, bins), *days[51:]])
    )
    assert with_a_bad_day.whole.largest[0, 0] < 0.1
    assert with_a_bad_day.whole.largest[:, 1:] == pytest.approx(usual.whole.largest[:, 1:], abs=0.1)
