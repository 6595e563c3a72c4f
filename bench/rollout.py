"""Where rollouts end: good, equal and harmful challengers, on real flights, by our rule and by those that are usual.

`make bench-rollout`; `ARGS="--seeds 3"` takes a quarter of it. A seed is a day on which the rollout begins, the arms'
draws, the latencies, and which carrier is hit. Requests stream through the very analysis of a rollout, looked at every
three hours, with the steps that a domain has by default; what lies between a gateway and the pairs (log, labels' join,
plan) is left out. The rivals look at the same pairs, which such tools do not have: only the rule differs.
"""

import argparse
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from bench.aims import aim, step
from bench.rollout_equal_arms import USUAL_ALPHA, USUAL_Z, equal_arms, labelled, power
from bench.rollout_worlds import (
    MARGINS,
    MODEL,
    SEGMENT_MARGINS,
    SETTINGS,
    Challenger,
    Floats,
    Traffic,
    latencies,
    world,
)
from mlplatform.domain.rollout import Step
from mlplatform.rollout.analysis import Look, Outcome, Pairs, Split, Trip, figures, judge, loss_difference
from mlplatform.training.metrics import per_row

HORIZON = timedelta(days=42)
"""What has not ended by then is told as under way."""

STARTS = np.arange(np.datetime64("2013-07-06T03"), np.datetime64("2013-11-17"), np.timedelta64(11, "D"))
"""Of the rollouts: 13, over all the half year. Constants of the analysis were chosen on other days."""

DAY = timedelta(days=1)
LOOKS = timedelta(hours=3)


@dataclass(frozen=True, eq=False)
class Stream:
    """What both arms do with the requests from a moment on."""

    challenger: Challenger
    at: list[datetime]
    known_at: Floats
    """Seconds of the epoch at which the loss is known."""

    harms: Mapping[str, Floats]
    segments: pl.DataFrame
    days: npt.NDArray[np.int64]
    keys: Floats
    """Uniform: a request goes to the challenger when it is below its share."""

    harmed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ended:
    """How a rollout went."""

    outcome: str
    """`full`, `rolled back`, `under way`."""

    right: bool
    days: float
    requests: int
    share: float
    """The largest of the traffic that it had."""

    answered: int
    harmed: int
    """Requests that it answered, and answers worse than its champion."""

    why: str


def stream(traffic: Traffic, challenger: Challenger, seed: int) -> Stream:
    """The requests of a seed."""
    start = STARTS[seed % len(STARTS)]
    begin, end = np.searchsorted(traffic.at, [start, start + np.timedelta64(HORIZON)])
    rows, random = slice(begin, end), np.random.default_rng([seed, 1])
    losses = per_row("log_loss", traffic.labels[rows], challenger.scores[rows])
    limit, count = MODEL.objectives.p99_ms.value, int(end - begin)
    late = (latencies(count, 2 * seed) * challenger.slower > limit).astype(np.float64)
    return Stream(
        challenger=challenger,
        at=[each.replace(tzinfo=UTC) for each in traffic.at[rows].tolist()],
        known_at=traffic.known_at[rows].astype("datetime64[s]").astype(np.float64),
        harms={
            "failures": np.isnan(challenger.scores[rows]).astype(np.float64),
            "late": late - (latencies(count, 2 * seed + 1) > limit),
            "log_loss": loss_difference(losses, traffic.losses[rows]),
        },
        segments=traffic.segments[rows],
        days=traffic.at[rows].astype("datetime64[D]").astype(np.int64),
        keys=random.random(count),
        harmed=challenger.harmed[rows],
    )


Rule = Callable[[Look], tuple[Outcome, str]]


def ours(look: Look) -> tuple[Outcome, str]:
    """The platform's analysis."""
    found = judge(look, SETTINGS)
    return found.outcome, found.reasons[0]


def t_tests(look: Look, *, by_segment: bool = False) -> tuple[Outcome, str]:
    """One-sided paired t-tests of each figure, as if each look were the only one; not significant is good enough."""
    for name, values in _figures(look, by_segment=by_segment):
        deviation = values.std(ddof=1) if values.size > 1 else 0.0
        if deviation and values.mean() / deviation * values.size**0.5 > USUAL_Z:
            return "roll_back", f"{name}: p < {USUAL_ALPHA}"
    return _when_baked(look)


def thresholds(look: Look) -> tuple[Outcome, str]:
    """No figure may be worse by more than its margin, whatever the count says of chance."""
    for name, values in _figures(look, by_segment=False):
        if values.size >= SETTINGS.min_pairs.value and values.mean() > MARGINS[name]:
            return "roll_back", f"{name}: {values.mean():.4f}"
    return _when_baked(look)


def _when_baked(look: Look) -> tuple[Outcome, str]:
    pairs = min(np.isfinite(values).sum() for values in look.pairs.harms.values())
    ready = look.now >= look.step_since + look.bake and pairs >= SETTINGS.min_pairs.value
    return ("advance" if ready else "hold"), ""


def _figures(look: Look, *, by_segment: bool) -> Iterator[tuple[str, Floats]]:
    for each in figures(look.pairs, 1.0):
        if by_segment or not each.segment:
            yield each.name, each.values


RULES: Mapping[str, tuple[Rule, timedelta]] = {
    "ours": (ours, LOOKS),
    "t-tests": (t_tests, DAY),
    "t-tests by segment": (partial(t_tests, by_segment=True), DAY),
    "thresholds": (thresholds, LOOKS),
}
"""Each with the time between its looks."""


def follow(of: Stream, rule: Rule, every: timedelta) -> Ended:
    """A rollout from its beginning to its end."""
    begun = of.at[0].replace(minute=0, second=0, microsecond=0)
    step, since, before, answered, harmed, in_step = 0, begun, 0, 0, 0, [0, 0]
    outcome, why, share = "under way", "", 0.0
    now = begun
    while now < begun + HORIZON and outcome == "under way":
        now += every
        came = bisect_left(of.at, now)
        share = SETTINGS.steps[step].share
        own = of.keys[before:came] < share
        answered += int(own.sum())
        harmed += int((own & of.harmed[before:came]).sum())
        in_step = [in_step[0] + int(own.sum()), in_step[1] + came - before]
        before = came
        told, why = rule(_look(of, came, now, since, SETTINGS.steps[step], in_step))
        if told == "roll_back":
            outcome = "rolled back"
        elif told == "advance" and step + 1 == len(SETTINGS.steps):
            outcome = "full"
        elif told == "advance":
            step, since, in_step = step + 1, now, [0, 0]
    return Ended(
        outcome=outcome,
        right=outcome == ("full" if of.challenger.harmless else "rolled back"),
        days=(now - begun) / DAY,
        requests=before,
        share=share,
        answered=answered,
        harmed=harmed,
        why=why,
    )


def _look(of: Stream, came: int, now: datetime, since: datetime, step: Step, in_step: Sequence[int]) -> Look:
    known = of.known_at[:came] <= now.timestamp()
    loss = np.where(known, of.harms["log_loss"][:came], np.nan)
    unscored = int(of.harms["failures"][:came].sum())
    trips = (Trip(name="no_scores", reason=f"no score for {unscored} requests that its champion scored"),)
    return Look(
        pairs=Pairs(
            harms={name: values[:came] for name, values in of.harms.items()} | {"log_loss": loss},
            margins=MARGINS,
            segments=of.segments[:came],
            by_segment=("failures", "log_loss"),
            segment_margins=SEGMENT_MARGINS,
            days=of.days[:came],
        ),
        now=now,
        step_since=since,
        bake=step.bake,
        split=Split(challenger=in_step[0], keys=in_step[1], share=step.share) if step.share else None,
        trips=trips if unscored else (),
    )


def main() -> None:
    """Train, stream, simulate, and print the tables and the aims."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=len(STARTS), help="rollouts of each challenger")
    arguments.add_argument("--weeks", type=int, default=1_000, help="of equal arms, and of each harm")
    told = arguments.parse_args()
    with step("models"):
        traffic, challengers = world()
    streams = {
        name: [stream(traffic, make(seed), seed) for seed in range(told.seeds)] for name, make in challengers.items()
    }
    right = {(name, rule): _row(name, of, rule) for name, of in streams.items() for rule in RULES}
    print("\nEqual arms, share sent back")
    pools = {name: labelled(traffic, challengers[name](0)) for name in ("equal", "good")}
    found = equal_arms(pools, told.weeks)
    for name, share in found.items():
        print(f"  {name:76}{share:>7.1%}")
    print("\nHarm added to equal arms: weeks in which it is found, and after how many pairs, min – median – max")
    for name, (share, pairs) in power(pools["good"], told.weeks // 5).items():
        print(f"  {name:40}{share:>7.1%}  {_spread(pairs, 0)}")
    print()
    for name in streams:
        aim(f"rollout.ended_right.{name.replace(',', '').replace(' ', '_')}", right[name, "ours"], ">=", 1.0)
    for name in pools:
        for how, of in (("pairs", "each pair"), ("days", "whole days")):
            share = found[f"{name}, {of} swapped: ours"]
            aim(f"rollout.sent_back_of_equal_arms.{name}.{how}", share, "<=", SETTINGS.error.value)


def _row(name: str, of: Sequence[Stream], rule: str) -> float:
    """Print how the rollouts of one challenger went by one rule; the share that ended where they should."""
    judged, every = RULES[rule]
    started = time.monotonic()
    ended = [follow(each, judged, every) for each in of]
    if rule == "ours":
        harm = [float(np.nanmean(each.harms["log_loss"])) for each in of]
        print(f"\n{name}: log loss {_spread(harm, 4)} against the champion, over {HORIZON.days} days")
        print(f"  {'':20}{'right':>7}  {'ended':34}{'days':24}{'requests':26}{'share':20}{'answered':22}harmed")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(each.outcome for each in ended).items())
    print(
        f"  {rule:20}{f'{sum(each.right for each in ended)}/{len(ended)}':>7}  {outcomes:34}"
        f"{_spread([each.days for each in ended], 1):24}{_spread([each.requests for each in ended], 0):26}"
        f"{_spread([each.share for each in ended], 2):20}{_spread([each.answered for each in ended], 0):22}"
        f"{_spread([each.harmed for each in ended], 0)}   ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    for each in ended:
        if rule == "ours" and not each.right:
            print(f"    {each.outcome} after {each.days:.1f} days: {each.why[:140]}")
    return float(np.mean([each.right for each in ended]))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    return " – ".join(f"{each:,.{digits}f}" for each in (min(values), float(np.median(values)), max(values)))


if __name__ == "__main__":
    main()
