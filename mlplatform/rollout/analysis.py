"""The analysis of a rollout: from what both arms did to one of `advance`, `hold` and `roll_back`, with the evidence.

Both arms score all requests for the whole rollout, so they are compared in pairs: on the same request, by the same
label. One per cent of a small stream would never decide anything. Every figure is a harm: what the challenger does
worse, above 0 where it is worse. Its bounds hold at every look (`sequential`), so it may be looked at every minute.

Rolled back is a challenger whose harm is certain (a lower bound above 0, on all requests or in one segment), or that
trips hard. A harm below its margin is none: where traffic is large, any two models differ for certain. A step is taken
when every harm is certainly below its margin, no segment looks hurt, there is enough evidence, and the step is baked.
Everything else is `hold`, and says what it waits for. Missing evidence is never a pass.

The error of a rollout is shared: half of it over the figures on all requests, half over the segments, in the order in
which they appear, so that one that nobody knew of has its part too; a hundredth for the split of the traffic.

It judges figures and does nothing. It knows neither the log nor the plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.rollout import Rollout
from mlplatform.rollout.sequential import Blocks, Bounds, Values, mean_bounds, ratio_evidence

Outcome = Literal["advance", "hold", "roll_back"]

LARGEST_DIFFERENCE = 1.0
"""Of two losses of one request: beyond it, it counts for no more. So one answer cannot decide, and the bounds are ten
times as narrow as with the 7 that a log loss may reach."""

SUSPICION = 2.33
"""Standard errors above nothing at which a segment looks hurt: of a hundred that are not, one does, for a while. A
segment has few rows, and to be certain takes weeks; no step is taken meanwhile."""

OF_SEGMENTS, OF_SPLIT = 0.5, 0.01
"""Parts of the error: of the segments, and of the test of the traffic split."""


@dataclass(frozen=True, kw_only=True)
class Trip:
    """Something after which nothing has to be counted."""

    name: str
    """`breaker_open`, `no_scores`, `sample_ratio` and so on."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Harm:
    """One figure: what the challenger does worse."""

    name: str
    """`failures`, `late`, `fallbacks`, `log_loss` and so on."""

    segment: str
    """`column=value`; empty: all requests."""

    bounds: Bounds
    """Of the harm, in its unit; above 0 is worse."""

    margin: float
    """Below it counts as equal."""

    @property
    def certain(self) -> bool:
        """Whether the challenger is worse, and by more than counts as equal."""
        return self.bounds.lower > 0 and self.bounds.mean >= self.margin

    @property
    def suspected(self) -> bool:
        """Whether it looks worse by more than the margin, and not by chance as a single look sees it."""
        return self.bounds.mean > max(self.margin, SUSPICION * self.bounds.deviation)

    @property
    def excluded(self) -> bool:
        """Whether it is worse by less than the margin, if at all."""
        return self.bounds.upper < self.margin

    def __str__(self) -> str:
        where = f" on {self.segment}" if self.segment else ""
        return (
            f"{self.name}{where}: {self.bounds.mean:+.4f} ({self.bounds.lower:+.4f} to {self.bounds.upper:+.4f}, "
            f"margin {self.margin:g}, {self.bounds.n:,} pairs)"
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The values behind a harm."""

    name: str
    segment: str
    values: Values
    """(n,) those that are known, in the order in which they came."""

    days: Blocks | None
    margin: float
    error: float
    """Its part of the probability that a challenger that does no harm is rolled back."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What should happen to the rollout now."""

    outcome: Outcome
    reasons: tuple[str, ...]
    harms: tuple[Harm, ...]
    trips: tuple[Trip, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What both arms did with the same requests, since the rollout began, in the order in which they came."""

    harms: Mapping[str, Values]
    """By figure, (n,): challenger minus champion, in [-1, 1]; NaN where it is not known (yet)."""

    margins: Mapping[str, float]
    """By figure."""

    segments: pl.DataFrame
    """(n, …) text: the declared segment columns. Judged on the figures in `by_segment`."""

    by_segment: tuple[str, ...] = ()

    segment_margins: Mapping[str, float] = field(default_factory=dict)
    """By figure, where a segment's is another one: its rows are fewer, and its bounds wider."""

    days: Blocks | None = None
    """(n,) on which they came, as numbers. Requests of a day share its weather, and a harm of one day is no more than
    that; None: nothing is shared."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the keys fell, in the step of now."""

    challenger: int
    """Distinct keys that it answered."""

    keys: int
    """Distinct keys of both."""

    share: float
    """As planned."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """All that a verdict is made of."""

    pairs: Pairs
    now: datetime
    step_since: datetime
    bake: timedelta
    split: Split | None = None
    """None: nobody is answered by the challenger."""

    trips: tuple[Trip, ...] = field(default=())
    """What tripped outside: a breaker, workers that are not there."""

    estimated: Bounds | None = None
    """The difference of the losses that the scores expect of themselves, labels or not; None: they expect none. It is
    shown and judges nothing: a challenger that is too sure of itself looks better by it, and an honest one worse."""


def judge(look: Look, settings: Rollout) -> Verdict:
    """What should happen now."""
    error = settings.error.value
    harms = tuple(_harm(each, settings.doubt.value) for each in figures(look.pairs, error))
    trips = (*look.trips, *_ratio_trips(look.split, error * OF_SPLIT))
    if trips:
        return Verdict(outcome="roll_back", reasons=tuple(each.reason for each in trips), harms=harms, trips=trips)
    if worse := [each for each in harms if each.certain]:
        return Verdict(outcome="roll_back", reasons=tuple(f"harm is certain: {each}" for each in worse), harms=harms)
    waits = tuple(_waits(look, harms, settings))
    return Verdict(
        outcome="hold" if waits else "advance",
        reasons=waits or tuple(f"harm is below the margin: {each}" for each in harms if not each.segment),
        harms=harms,
    )


def loss_difference(challenger: Values, champion: Values) -> Values:
    """The harm of two losses of the same requests, held to what one request may count for.

    Parameters
    ----------
    challenger, champion : (n,) loss of each request; NaN: not known

    Examples
    --------
    >>> loss_difference(np.array([0.5, 9.0, np.nan]), np.array([0.25, 0.5, 1.0])).tolist()
    [0.25, 1.0, nan]
    """
    return np.clip(challenger - champion, -LARGEST_DIFFERENCE, LARGEST_DIFFERENCE)


def figures(pairs: Pairs, error: float) -> Iterator[Figure]:
    """What is judged, each with its part of the error of a rollout."""
    of_all = error * (1 - OF_SEGMENTS - OF_SPLIT) / max(1, len(pairs.harms))
    for name in pairs.harms:
        yield _figure(pairs, name, "", None, of_all)
    # By their first rows, and not column by column: a new value of one column must not take from those of another what
    # they were promised at the looks before.
    appeared = []
    for column in pairs.segments.columns:
        told = pairs.segments.select(value=column).with_row_index("row").drop_nulls("value")
        rows_of = told.group_by("value", maintain_order=True).agg("row")
        for value, rows in zip(rows_of["value"], rows_of["row"], strict=True):
            appeared.append((rows[0], f"{column}={value}", rows.to_numpy()))
    for order, (_, segment, rows) in enumerate(sorted(appeared, key=lambda each: each[0]), 1):
        # 1/2 + 1/6 + 1/12 … = 1, however many there are in the end.
        share = error * OF_SEGMENTS / (order * (order + 1)) / max(1, len(pairs.by_segment))
        for name in pairs.by_segment:
            yield _figure(pairs, name, segment, rows, share)


def _figure(pairs: Pairs, name: str, segment: str, rows: npt.NDArray[np.uint32] | None, error: float) -> Figure:
    values = pairs.harms[name] if rows is None else pairs.harms[name][rows]
    known = ~np.isnan(values)
    days = pairs.days if pairs.days is None or rows is None else pairs.days[rows]
    return Figure(
        name=name,
        segment=segment,
        values=values[known],
        days=None if days is None else days[known],
        margin=pairs.segment_margins.get(name, pairs.margins[name]) if segment else pairs.margins[name],
        error=error,
    )


def _harm(of: Figure, doubt: float) -> Harm:
    bounds = mean_bounds(
        of.values,
        low=-LARGEST_DIFFERENCE,
        high=LARGEST_DIFFERENCE,
        alpha=of.error,
        alpha_above=doubt,
        blocks=of.days,
    )
    return Harm(name=of.name, segment=of.segment, bounds=bounds, margin=of.margin)


def _ratio_trips(split: Split | None, error: float) -> Iterator[Trip]:
    if split is None or ratio_evidence(split.challenger, split.keys, split.share) < 1 / error:
        return
    seen = split.challenger / split.keys if split.keys else 0.0
    yield Trip(
        name="sample_ratio",
        reason=f"{seen:.2%} of {split.keys:,} keys went to the challenger where the plan says {split.share:.2%}: the "
        "arms do not get the traffic that they should, and cannot be compared. Look at routing and log",
    )


def _waits(look: Look, harms: Sequence[Harm], settings: Rollout) -> Iterator[str]:
    """What a step waits for; nothing where it may be taken."""
    baked = look.step_since + look.bake
    if look.now < baked:
        yield f"the step bakes until {baked:%Y-%m-%d %H:%M} UTC"
    for each in harms:
        if each.segment:
            if each.suspected:
                yield f"a segment may be hurt: {each}"
            continue
        if each.bounds.n < settings.min_pairs.value:
            labels = "" if each.bounds.n or not look.pairs.segments.height else ": no labels have come yet"
            yield f"{each.name}: {each.bounds.n:,} pairs, {settings.min_pairs.value:,.0f} wanted{labels}"
        elif not each.excluded:
            yield f"harm is not excluded yet: {each}"
    if not harms:
        yield "there is nothing to judge by"
