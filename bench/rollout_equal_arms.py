"""Arms that are equal by construction: how often one is sent back, and how soon a harm that is added to it is found."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from bench.rollout_worlds import MARGINS, SEGMENT_MARGINS, SETTINGS, Challenger, Floats, Traffic
from mlplatform.rollout.analysis import Look, Pairs, figures, judge, loss_difference
from mlplatform.rollout.sequential import bounds_at_each
from mlplatform.training.metrics import per_row

PER_WEEK = 6_300
"""Pairs, as many as the flights have."""

USUAL_ALPHA, USUAL_Z = 0.05, 1.645
"""Of a one-sided test, as it is usually done."""


def equal_arms(pools: Mapping[str, Pairs], weeks: int) -> dict[str, float]:
    """How often one of two arms that are equal by construction is sent back.

    Real differences of two models on the same requests, whose arms are then swapped by a coin: for each request by
    itself (a week, looked at after every pair), or for whole days (28 days, looked at on each, since labels come
    daily), which leaves in what the requests of a day have in common.
    """
    found = {}
    for name, pool in pools.items():
        random = np.random.default_rng(7)
        ours_back = minutely = daily = 0
        for _ in range(weeks):
            pairs = _swapped(random, pool, PER_WEEK)
            ours_back += any(certain.any() for certain in _certain(pairs))
            z = _z(pairs.harms["log_loss"])
            minutely += bool((z[30:] > USUAL_Z).any())
            daily += bool((z[PER_WEEK // 7 - 1 :: PER_WEEK // 7] > USUAL_Z).any())
        found[f"{name}, each pair swapped: ours"] = ours_back / weeks
        found[f"{name}, each pair swapped: t-test of the log loss after each pair"] = minutely / weeks
        found[f"{name}, each pair swapped: t-test of the log loss daily"] = daily / weeks
        months = weeks // 10
        told = untold = tested = 0
        for _ in range(months):
            pairs = _swapped_days(random, pool, 28)
            assert pairs.days is not None
            ends = np.searchsorted(pairs.days, np.arange(1, 29)).tolist()
            told += any(_sent_back(pairs, end, days=True) for end in ends)
            untold += any(_sent_back(pairs, end, days=False) for end in ends)
            tested += bool((_z(pairs.harms["log_loss"])[np.array(ends) - 1] > USUAL_Z).any())
        found[f"{name}, whole days swapped: ours"] = told / months
        found[f"{name}, whole days swapped: ours, if the days were not told"] = untold / months
        found[f"{name}, whole days swapped: t-test of the log loss daily"] = tested / months
    return found


def power(pool: Pairs, weeks: int) -> dict[str, tuple[float, list[float]]]:
    """Of weeks with a harm: the share in which it is found, and after how many pairs."""
    random, found = np.random.default_rng(8), {}
    for figure, harm in (
        ("log_loss", 0.02),
        ("log_loss", 0.03),
        ("log_loss", 0.05),
        ("failures", 0.02),
        ("failures", 0.05),
    ):
        pairs_needed: list[float] = []
        for _ in range(weeks):
            pairs = _swapped(random, pool, PER_WEEK)
            # A shift of all losses, or some scores that are not there.
            added = harm if figure == "log_loss" else random.binomial(1, harm, PER_WEEK)
            harms = dict(pairs.harms) | {figure: np.clip(pairs.harms[figure] + added, -1, 1)}
            firsts = [
                int(np.argmax(certain)) + 1
                for certain in _certain(replace(pairs, harms=harms, segments=pairs.segments.select([])))
                if certain.any()
            ]
            pairs_needed += [min(firsts)] if firsts else []
        found[f"{figure} {harm:+.2f}, within {PER_WEEK:,} pairs"] = (len(pairs_needed) / weeks, pairs_needed)
    return found


def labelled(traffic: Traffic, challenger: Challenger) -> Pairs:
    """All pairs with a label."""
    loss = loss_difference(per_row("log_loss", traffic.labels, challenger.scores), traffic.losses)
    known = np.isfinite(loss)
    return Pairs(
        harms={"log_loss": loss[known], "failures": np.zeros(int(known.sum()))},
        margins=MARGINS,
        segments=traffic.segments.filter(pl.Series(known)),
        by_segment=("log_loss",),
        segment_margins=SEGMENT_MARGINS,
        days=traffic.at[known].astype("datetime64[D]").astype(np.int64),
    )


def _swapped(random: np.random.Generator, pool: Pairs, count: int) -> Pairs:
    """Some pairs of the pool, each with its arms as a coin says."""
    rows = random.integers(0, pool.segments.height, count)
    loss = pool.harms["log_loss"][rows] * random.choice([-1, 1], count)
    return replace(pool, harms={"log_loss": loss, "failures": np.zeros(count)}, segments=pool.segments[rows], days=None)


def _swapped_days(random: np.random.Generator, pool: Pairs, count: int) -> Pairs:
    """Some days of the pool, each with its arms as a coin says."""
    assert pool.days is not None
    every = np.unique(pool.days)
    first, last = (np.searchsorted(pool.days, every, side=side) for side in ("left", "right"))
    parts = [np.arange(first[day], last[day]) for day in random.integers(0, every.size, count)]
    rows, days = np.concatenate(parts), np.repeat(np.arange(count), [part.size for part in parts])
    loss = pool.harms["log_loss"][rows] * random.choice([-1, 1], count)[days]
    return replace(
        pool, harms={"log_loss": loss, "failures": np.zeros(rows.size)}, segments=pool.segments[rows], days=days
    )


def _certain(pairs: Pairs) -> Iterator[npt.NDArray[np.bool_]]:
    """Of each harm, after each pair, what `Harm.certain` says."""
    for each in figures(pairs, SETTINGS.error.value):
        lower = bounds_at_each(each.values, low=-1.0, high=1.0, alpha=each.error)[0]
        mean = np.cumsum(each.values) / np.arange(1, each.values.size + 1)
        yield (lower > 0) & (mean >= each.margin)


def _sent_back(pairs: Pairs, end: int, *, days: bool) -> bool:
    seen = replace(
        pairs,
        harms={name: values[:end] for name, values in pairs.harms.items()},
        segments=pairs.segments[:end],
        days=pairs.days[:end] if days and pairs.days is not None else None,
    )
    never = datetime(2100, 1, 1, tzinfo=UTC)
    look = Look(pairs=seen, now=never, step_since=never, bake=timedelta(0))
    return judge(look, SETTINGS).outcome == "roll_back"


def _z(values: Floats) -> Floats:
    n = np.arange(1, values.size + 1)
    mean = np.cumsum(values) / n
    deviation = np.sqrt(np.maximum(np.cumsum(values**2) / n - mean**2, 1e-12) / n)
    told: Floats = mean / deviation
    return told
