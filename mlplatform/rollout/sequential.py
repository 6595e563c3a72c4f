"""Bounds that hold at every look: confidence sequences for means and differences, and a test of the traffic split.

An ordinary interval is right once. Looked at every minute, it is wrong sooner or later, and a good model is rolled back
for nothing. A confidence sequence is wrong at any time at all with probability `alpha` only, so whoever likes may look
whenever they like, and stop when they have seen enough.

The means are of bounded quantities, and nothing else is asked of them: no normal distribution, no equal variance, no
independence beyond that each value's mean given the past is what the bound is about. Where that mean changes in time
(day and night, weekends), the bound is about its average so far.

What a whole day has in common (a storm, a strike) is no accident of single values. Told which values belong together,
the bounds are at least as wide as the differences between these blocks say. They are never narrower for it, so what is
promised still holds.

It refuses to guess: no values give bounds that say nothing, and a value outside its range is an error.

References
----------
Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 49 (2021), theorem 4 (empirical Bernstein) with a mixture of bets in place of one. Lindon and Malek,
"Anytime-valid inference for multinomial count data", NeurIPS 2022 (the sequential test of a sample ratio). Robbins,
"Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41 (1970), for the mixture.
"""

from dataclasses import dataclass
from math import inf, lgamma, log

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]

BETS = 0.9 * 0.5 ** np.arange(8)
"""Each is the best one for its own count of values: the first for a dozen, the last for millions. A bet that is off by
the root of two widens the bounds by a sixteenth; to try eight costs as much as an eighth of `alpha`."""

COSTS = -np.log1p(-BETS) - BETS
"""Of a bet, by variation."""


BLOCK_ERRORS = 3.0
"""Standard errors, as the differences between blocks tell them, that bounds are wide at least. Blocks are few, and a
sequence of their own would never decide: this is for a single look, and wide. On the flights a good challenger in
thirteen was sent back for a stormy day with 2.33, and none with 3."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is known of a mean, at every look at once."""

    n: int
    mean: float
    """Of the values, as they are; NaN without any."""

    lower: float
    upper: float
    """Each is passed by the true mean at some time with probability `alpha` at most."""

    deviation: float = float("nan")
    """Standard error of the mean, blocks counted; for a single look."""


def mean_bounds(
    values: Values,
    *,
    low: float,
    high: float,
    alpha: float,
    alpha_above: float | None = None,
    blocks: Blocks | None = None,
) -> Bounds:
    """One-sided bounds of a mean below and above, each at level `alpha`, valid at every look.

    Parameters
    ----------
    values : (n,) in the order in which they came, each in [low, high]
    low, high : range of a value, known beforehand
    alpha : probability that the lower (the upper) bound is ever wrong
    alpha_above : of the upper bound, where it is another one
    blocks : (n,) equal where values have something in common, as those of a day, by its number; None: nothing has

    Raises
    ------
    ValueError
        A value is outside the range, or is no number.

    Examples
    --------
    >>> values = np.tile([0.0, 0.0, 1.0, 0.0], 500)
    >>> found = mean_bounds(values, low=0.0, high=1.0, alpha=0.05)
    >>> bool(found.lower < 0.25 < found.upper), bool(found.upper - found.lower < 0.07)
    (True, True)
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return Bounds(n=0, mean=float("nan"), lower=low, upper=high)
    scaled = _scaled(values, low, high)
    mean, variation = float(scaled.mean()), float(np.square(_surprises(scaled)).sum())
    below, above = (float(_widths(np.array([variation]), each)[0]) for each in (alpha, alpha_above or alpha))
    least = 0.0
    if blocks is not None:
        variation = max(variation, _between(scaled - mean, blocks))
        least = BLOCK_ERRORS * variation**0.5
    return Bounds(
        n=int(values.size),
        mean=float(values.mean()),
        lower=low + (high - low) * max(0.0, mean - max(below, least) / values.size),
        upper=low + (high - low) * min(1.0, mean + max(above, least) / values.size),
        deviation=(high - low) * variation**0.5 / values.size,
    )


def bounds_at_each(values: Values, *, low: float, high: float, alpha: float) -> tuple[Values, Values]:
    """The lower and the upper bounds as they were after each value: `mean_bounds` of every beginning, at once.

    Bounds of earlier looks do not tighten later ones, although a sequence allows it: a mean that changes has left them.

    Examples
    --------
    >>> values = np.tile([0.0, 0.0, 1.0, 0.0], 500)
    >>> lower, _ = bounds_at_each(values, low=0.0, high=1.0, alpha=0.05)
    >>> bool(np.isclose(lower[99], mean_bounds(values[:100], low=0.0, high=1.0, alpha=0.05).lower))
    True
    """
    scaled = _scaled(values, low, high)
    n = np.arange(1, scaled.size + 1)
    mean, width = np.cumsum(scaled) / n, _widths(np.cumsum(np.square(_surprises(scaled))), alpha) / n
    lower, upper = np.maximum(mean - width, 0.0), np.minimum(mean + width, 1.0)
    return low + (high - low) * lower, low + (high - low) * upper


def _scaled(values: Values, low: float, high: float) -> Values:
    if not ((values >= low) & (values <= high)).all():
        raise ValueError(f"values outside [{low:g}, {high:g}]")
    return (values - low) / (high - low)


def _surprises(scaled: Values) -> Values:
    """How far each value is from what those before it said: the bets must not know what they are laid on."""
    mean = (0.5 + np.cumsum(scaled)) / np.arange(2, scaled.size + 2)
    found: Values = scaled - np.concatenate([[0.5], mean[:-1]])
    return found


def _widths(variations: Values, alpha: float) -> Values:
    """How far the sum of values may be from that of their means, by variation so far: as the best of the bets says."""
    least = np.full(variations.size, inf)
    for bet, cost in zip(BETS, COSTS, strict=True):
        np.minimum(least, (log(len(BETS) / alpha) + cost * variations) / bet, out=least)
    return least


def _between(centred: Values, blocks: Blocks) -> float:
    """Variation of the sum as the sums of whole blocks tell it."""
    places = blocks - blocks.min()
    sums, count = np.bincount(places, weights=centred), int((np.bincount(places) > 0).sum())
    return float(np.square(sums).sum()) * count / max(1, count - 1)


def ratio_evidence(in_arm: int, of: int, share: float, *, prior_keys: float = 100.0) -> float:
    """Evidence (an e-value) that keys do not fall into an arm with the share that the plan says.

    Below 1/alpha at every look, but with probability alpha, as long as the split is as planned.

    Parameters
    ----------
    in_arm, of : keys seen in the arm, and in all arms; each key once, since all its requests fall the same way
    share : of the arm, by the plan
    prior_keys : weight of the planned share in the mixture: as if so many keys had been seen; the larger, the smaller
        the deviations that are found first

    Examples
    --------
    >>> bool(ratio_evidence(520, 10_000, 0.05) < 20), bool(ratio_evidence(650, 10_000, 0.05) > 1000)
    (True, True)
    """
    if not 0 < share < 1:
        return inf if (share == 0 and in_arm) or (share == 1 and in_arm < of) else 1.0
    others = of - in_arm
    a, b = prior_keys * share, prior_keys * (1 - share)
    evidence = lgamma(a + in_arm) - lgamma(a) + lgamma(b + others) - lgamma(b)
    evidence += lgamma(a + b) - lgamma(a + b + of)
    evidence -= in_arm * log(share) + others * log(1 - share)
    return float(np.exp(min(evidence, 700.0)))
