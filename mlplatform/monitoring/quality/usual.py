"""What is usual inside the training window of a model, and which features of a day are not.

A day is compared twice: with the whole training set, and with the two weeks before it. The first says how far it is
from what the model knows, the second whether that came about now or with the season. Both distances were taken of
every day of the training window too, there with the rest of the window, its own month left out, and with the two weeks
before; so each feature and statistic has its own bounds, which know its season and its good and bad days. A feature has
*changed* on a day when, against the two weeks before, its distance is so far in the tail of those of the window that
the false-discovery rate over all features is kept (Student's t with as many degrees of freedom as the window holds
independent days, so that a small window gives wide bounds), when both distances pass the largest one in the window by
a margin, and when the effect is worth a word at all. Of a drift, two of mean shift, PSI and KS must say so: each has
something quiet that it takes for a change (a long tail, a bin of few rows, a spike). KL is shown and not judged: it is
half of PSI. A feature that is only farther from the training set than any day of it was has *moved slowly*: that is for
whoever decides about retraining, and wakes nobody.

Why both: against the training set alone every season raises an alarm sooner or later (of 50 features of flights 8 to 16
pass PSI 0.25 in every month), against the days before alone every holiday does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.monitoring.drift import Floats, Mask, benjamini_hochberg, effective_days, tail
from mlplatform.monitoring.quality.sketch import Apart, Bins, Sketch, apart, coarse_bins, distances, shares

recent_days = 14
"""Two weeks hold each weekday twice. A longer stretch takes in the season, a shorter one is one spell of weather."""

days_at_least = 10
"""Days of the training window, below which nothing is judged: they do not tell what is usual."""

recent_at_least = 5
"""Days that can be compared with: fewer are not yet a usual."""

month = 28
"""Days around a day that are left out of what it is compared with: its neighbours would vouch for it. Of a window of
less than five months it is a fifth."""

rules = (*shares, "frozen", "drift")
"""What can be wrong with a feature."""

_frozen_by = [distances.index(name) for name in ("spread", "ks")]
"""Both, since a share of cancellations that is nothing all day has no spread either, and is quite usual."""

_drift_by = [distances.index(name) for name in ("mean_shift", "psi", "ks")]
_judged_by = (*([number] for number in range(len(shares))), _frozen_by, _drift_by)

judged_by = tuple(sorted({number for each in _judged_by for number in each}))
"""Places of those that are judged."""

margin = 1.5
"""How much farther from the two weeks before than ever in the training window. A bound at the maximum itself is passed
by the next year of quiet days about once for each feature."""

margin_of_few = 12.0
"""Divided by the days of the window, and added, since the largest of few is no bound for many: 0.75 for 16 days, 0.1
for 120."""

margin_of_training = 1.25
"""How much farther from the training set than ever in its window. Less, since both must be passed, and since a fault
may well happen in a season that has moved towards the training set."""

days_for_an_incident = 100
"""Days of the window for each of which one distance is left out at the top: what happened once may have been a fault
too, and must not vouch for the next one."""

days_of_all = 10
"""Days that the spread common to all features counts as, beside the feature's own: of ten days one feature cannot tell
its own spread to better than a quarter, and a bound of ten days alone would be passed by nothing. The largest distance
of the feature itself stays a bound. (G. K. Smyth, "Linear models and empirical Bayes methods", Stat. Appl. Genet. Mol.
Biol. 3 (2004), 3.)"""

noise = np.array([0.25, 0.25, 0.25, 0.5, 1.0, 0.5, 0.25, 0.25])
"""Of each distance: variance that n rows give it by chance, times n; by the delta method for independent rows. The
least spread that is believed in, however still the training window was."""

bias = np.array([0.25, 0.25, 0.25, 0.5, 1.0, coarse_bins - 1.0, (coarse_bins - 1.0) / 2, np.pi**2 / 12])
"""Of each distance: mean of its square that n rows give it by chance, times n (of KS, the second moment of
Kolmogorov's distribution)."""

worth_a_word = np.array([0.02, 0.02, 0.02, 0.98, 0.2, 0.05, 0.025, 0.05])
"""Least effect, as it is shown: two rows in a hundred, next to nothing left of the spread, a fifth of a standard
deviation, half of what is by custom a little PSI. With a million rows less is significant, and nobody's business."""


@dataclass(frozen=True, eq=False)
class Past:
    """Distances that days of the training window had, (8, k) each; the first axis as `distances`."""

    mean: Floats
    spread: Floats
    largest: Floats
    days: Floats
    """Independent ones, and those that the features have in common."""


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual of each feature of one model."""

    whole: Past
    """Against the training set, the month of the day left out."""

    recent: Past
    """Against the two weeks before."""

    rows: float
    """Of a day of the training window, the median."""

    days: int
    """Of the training window that are large enough to learn from."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """One day of k features, against the training set."""

    shown: Floats
    """(8, k) the figures, as `distances`."""

    chance: Floats
    """(k,) p-value; NaN: there was nothing to look at"""

    changed: Mask
    """(5, k) as `rules`."""

    slow: Mask
    """(k,) farther from the training set than any day of it, and not changed."""

    worst: npt.NDArray[np.intp]
    """(5, k) of each rule the distance that stands out the most."""

    ratio: Floats
    """(8, k) distance over its bound; NaN where there is no distance."""

    bound: Floats
    """(8, k) of the figures, as they are shown."""


def learn_usual(days: Sketch, bins: Bins) -> Usual:
    """Distances of the days of a training window.

    Parameters
    ----------
    days : (days, k) in their order
    """
    rows = days.rows[:, 0]
    middle = float(np.median(rows)) if rows.size else 0.0
    chosen = np.flatnonzero(rows >= max(1.0, middle / 5))
    large = days[chosen]
    count = chosen.size
    running = large.running()
    whole = running[count]
    half = max(1, min(month, count // 5)) // 2
    first, last = np.maximum(np.arange(count) - half, 0), np.minimum(np.arange(count) + half + 1, count)
    apart_from_whole = apart(large, whole_without(whole, running[last] - running[first]), bins)
    since = np.maximum(np.arange(count) - recent_days, 0)
    before = running[np.arange(count)] - running[since]
    apart_from_recent = apart(large, before, bins)
    too_early = np.arange(count) - since < recent_at_least
    apart_from_recent.distance[:, too_early] = np.nan
    return Usual(
        whole=_past(apart_from_whole.distance), recent=_past(apart_from_recent.distance), rows=middle, days=count
    )


def whole_without(whole: Sketch, some: Sketch) -> Sketch:
    """(days, k) all days but some, for each day."""
    return Sketch(
        *(
            np.broadcast_to(getattr(whole, name), getattr(some, name).shape) - getattr(some, name)
            for name in Sketch.__dataclass_fields__
        )
    )


def judge(
    day: Sketch,
    usual: Usual,
    training: Sketch,
    before: Sketch,
    days_before: npt.NDArray[np.int64],
    bins: Bins,
    *,
    going_on: Mask,
    rate: float,
) -> Verdict:
    """Which features of a day are not as they were.

    Parameters
    ----------
    training : (k,) all of the training set
    before : (k,) of each feature the last days on which it had not changed, added up
    days_before : (k,) how many those are
    going_on : (k,) had changed on the day before: it has not come back while both distances pass the largest ones of
        the window, margin or not, so that one change is not found anew each other day
    rate : false-discovery rate
    """
    from_training, from_recent = apart(day, training, bins), apart(day, before, bins)
    rows, rows_before = float(day.rows[0]), np.maximum(before.rows, 1)
    by_chance = 1.0 / rows + 1.0 / rows_before
    usually = 1.0 / max(usual.rows, 1.0)
    lies = _without_bias(from_training.distance, 1.0 / rows - usually)
    moved = _without_bias(from_recent.distance, by_chance - usually * (1.0 + 1.0 / recent_days))
    moved = np.where(days_before >= recent_at_least, moved, np.nan)
    spread = np.sqrt(usual.recent.spread**2 + noise[:, None] * by_chance)
    chance = _of_rules(tail(moved, usual.recent.mean, spread, usual.recent.days))
    looked_at = np.isfinite(chance)
    chance = np.where(looked_at, chance, 1.0) * looked_at.sum(axis=0)
    of_feature = np.where(looked_at.any(axis=0), np.minimum(chance.min(axis=0), 1.0), np.nan)
    kept = benjamini_hochberg(of_feature, rate)
    least = _least(from_training)
    bound = margin_of_training * usual.whole.largest
    beyond = (lies > bound) & least
    farther = margin + margin_of_few / max(usual.days, 1)
    found = _agreed(beyond & (moved > farther * usual.recent.largest))
    lasting = _agreed((lies > usual.whole.largest) & (moved > usual.recent.largest) & least)
    changed = (found & kept & (chance <= of_feature[kept].max(initial=0.0))) | (lasting & going_on)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(np.isnan(lies), np.nan, np.where(lies > 0, lies / bound, 0.0))
    standing_out = np.where(np.isnan(ratio) | ~least, -1.0, ratio)
    return Verdict(
        shown=from_training.shown,
        chance=of_feature,
        changed=changed,
        slow=_agreed(beyond).any(axis=0) & ~changed.any(axis=0),
        worst=np.stack([np.array(each)[standing_out[each].argmax(axis=0)] for each in _judged_by]),
        ratio=ratio,
        bound=_in_words(bound, from_training.usual),
    )


def _without_bias(distance: Floats, excess: float | Floats) -> Floats:
    """Distances as if the day had as many rows as those of the window: fewer make them larger by chance."""
    return np.asarray(np.sqrt(np.maximum(distance**2 - bias[:, None] * np.maximum(excess, 0.0), 0.0)))


def _of_rules(chance: Floats) -> Floats:
    """(5, k) p-values from (8, k): of the shares their own, of the others that two agree.

    That two of two chances are below x has itself a chance of at most x, that two of three are one of at most 3 x / 2,
    however they depend on one another.
    """
    second = [np.sort(chance[each], axis=0)[1] for each in (_frozen_by, _drift_by)]
    return np.stack([*chance[: len(shares)], second[0], np.minimum(1.5 * second[1], 1.0)])


def _agreed(each: Mask) -> Mask:
    """(5, k) from (8, k), likewise."""
    return np.stack([*each[: len(shares)], *(each[by].sum(axis=0) >= 2 for by in (_frozen_by, _drift_by))])


def before_each(days: Sketch, unchanged: Mask) -> tuple[Sketch, npt.NDArray[np.int64]]:
    """Of each feature the last two weeks on which it had not changed.

    Parameters
    ----------
    days : (days, k) in their order
    unchanged : (days, k)

    Returns
    -------
    sum : (k,)
    days : (k,) how many were added up
    """
    from_the_end = np.cumsum(unchanged[::-1], axis=0)[::-1]
    taken = unchanged & (from_the_end <= recent_days)
    added = Sketch(
        *(
            np.where(taken.reshape(taken.shape + (1,) * (part.ndim - 2)), part, 0).sum(axis=0)
            for part in (getattr(days, name) for name in Sketch.__dataclass_fields__)
        )
    )
    return added, taken.sum(axis=0)


def _in_words(distance: Floats, usual: Floats) -> Floats:
    """(8, k) bounds of distances as people know the figures."""
    share = np.sin(np.clip(np.arcsin(np.sqrt(usual[: len(shares)])) + distance[: len(shares)], 0.0, np.pi / 2)) ** 2
    spread, shift, psi, kl, ks = distance[len(shares) :]
    return np.stack([*share, usual[len(shares)] * np.exp(-spread), np.expm1(shift), psi**2, kl**2, ks])


def _least(of: Apart) -> Mask:
    """(8, k) where the effect is worth a word."""
    effect = np.abs(of.shown)
    effect[: len(shares)] = np.abs(of.shown[: len(shares)] - of.usual[: len(shares)])
    with np.errstate(invalid="ignore", divide="ignore"):
        effect[len(shares)] = 1.0 - of.shown[len(shares)] / of.usual[len(shares)]
        return np.asarray(effect >= worth_a_word[:, None])


def _past(of_days: Floats) -> Past:
    """Of (8, days, k)."""
    known = np.isfinite(of_days)
    count = np.maximum(known.sum(axis=1), 1)
    given = np.where(known, of_days, 0.0)
    mean = given.sum(axis=1) / count
    variance = np.where(known, (given - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(count - 1, 1)
    days = np.stack([effective_days(each) for each in of_days])
    common = np.median(variance, axis=1, keepdims=True)
    moderated = (days * variance + days_of_all * common) / (days + days_of_all)
    return Past(
        mean=mean,
        # Never below what the feature itself has shown.
        spread=np.sqrt(np.maximum(variance, moderated)),
        largest=np.sort(given, axis=1)[:, -1 - given.shape[1] // days_for_an_incident],
        days=days + days_of_all,
    )
