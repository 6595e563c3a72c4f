"""Drift: how far the values of one day lie from others, and how many such findings chance alone would give.

All of it works on counts, not on rows: a day is a histogram of each feature and a few sums, so that days can be added
up and left out of one another without reading a row again. Distances are on a scale that grows in proportion to the
change (the square root of PSI, the arcsine of a share), since only there does "twice as far as ever before" mean
something.

It knows no thresholds, no tables and no model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

half_a_row = 0.5
"""Added to every bin: a bin that one side lacks would make PSI and KL infinite. Much more would hide small bins of a
small day, much less would let a single stray row decide."""


def population_stability_index(day: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Sum over bins of (p - q) ln(p / q): Jeffreys' divergence, both ways of Kullback and Leibler added up.

    Parameters
    ----------
    day, reference : (…, bins) counts

    Returns
    -------
    (…) not negative; by custom below 0.1 is little, above 0.25 much

    Examples
    --------
    >>> print(population_stability_index([50, 50], [500, 500]).round(4))
    0.0
    >>> print(population_stability_index([900, 100], [500, 500]).round(2))
    0.88

    References
    ----------
    H. Jeffreys, "An invariant form for the prior probability in estimation problems", Proc. R. Soc. A 186 (1946), 453;
    as PSI: N. Siddiqi, "Credit Risk Scorecards" (Wiley, 2006), chapter 6.
    """
    p, q = _smoothed(day, reference)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def kullback_leibler(day: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Sum over bins of p ln(p / q), in nats: what it costs to take the day for the reference.

    Parameters
    ----------
    day, reference : (…, bins) counts

    Examples
    --------
    >>> print(kullback_leibler([900, 100], [500, 500]).round(3))
    0.367

    References
    ----------
    S. Kullback and R. A. Leibler, "On information and sufficiency", Ann. Math. Statist. 22 (1951), 79.
    """
    p, q = _smoothed(day, reference)
    # The sum of nearly equal shares may be a rounding below 0.
    return np.asarray(np.maximum((p * np.log(p / q)).sum(axis=-1), 0.0))


def kolmogorov_smirnov(day: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Largest difference of the two cumulative shares, looked for at the edges of the bins.

    So it is the two-sample statistic where every value has a bin of its own, and otherwise below it by at most the
    largest share that one bin holds. NaN where one side has no rows.

    Parameters
    ----------
    day, reference : (…, bins) counts, bins in ascending order of values

    Examples
    --------
    >>> print(kolmogorov_smirnov([3, 1], [1, 3]))
    0.5

    References
    ----------
    N. V. Smirnov, "Table for estimating the goodness of fit of empirical distributions", Ann. Math. Statist. 19 (1948),
    279.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = _cumulated(day) - _cumulated(reference)
    return np.asarray(np.abs(apart).max(axis=-1))


def total_variation(day: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Half the sum of |p - q|: the share of rows that would have to change to make one the other. NaN without rows.

    Examples
    --------
    >>> print(total_variation([9, 1], [5, 5]).round(3))
    0.4

    References
    ----------
    D. A. Levin and Y. Peres, "Markov Chains and Mixing Times", 2nd edition (AMS, 2017), section 4.1.
    """
    p, q = np.asarray(day, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = p / p.sum(axis=-1, keepdims=True) - q / q.sum(axis=-1, keepdims=True)
    return np.asarray(0.5 * np.abs(apart).sum(axis=-1))


def share_distance(day: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """How far two shares lie apart, with a sign, on the scale on which sampling noise is the same for each share.

    The variance of arcsin(sqrt(share)) of n rows is about 1 / (4 n), for a share of nothing as for one of a half.

    Examples
    --------
    >>> print(share_distance([0.01, 0.51], [0.0, 0.5]).round(3))
    [0.1  0.01]

    References
    ----------
    M. S. Bartlett, "The square root transformation in analysis of variance", Suppl. J. R. Stat. Soc. 3 (1936), 68;
    J. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd edition (1988), section 6.2, whose h is
    twice this.
    """
    p, q = np.asarray(day, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return np.asarray(np.arcsin(np.sqrt(np.clip(p, 0, 1))) - np.arcsin(np.sqrt(np.clip(q, 0, 1))))


def effective_days(values: npt.ArrayLike) -> Floats:
    """How many independent days a series of days is worth: n (1 - r) / (1 + r), r the correlation of neighbours.

    Parameters
    ----------
    values : (days, …), NaN where a day has none

    Returns
    -------
    (…) at least 1, at most the number of days: neighbours that avoid each other count as independent

    Examples
    --------
    >>> print(effective_days(np.repeat([1.0, 5.0, 2.0, 4.0], 10)).round(1), effective_days([1.0, 1.0, 1.0]))
    3.7 3.0

    References
    ----------
    G. V. Bayley and J. M. Hammersley, "The effective number of independent observations in an autocorrelated time
    series", Suppl. J. R. Stat. Soc. 8 (1946), 184; this form for a first-order process.
    """
    given = np.asarray(values, dtype=np.float64)
    known = np.isfinite(given)
    count = known.sum(axis=0)
    centred = np.where(known, given, 0.0)
    centred = np.where(known, given - centred.sum(axis=0) / np.maximum(count, 1), 0.0)
    variance = (centred**2).sum(axis=0)
    together = (centred[1:] * centred[:-1]).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(variance > 0, together / variance, 0.0)
    correlation = np.clip(correlation, 0.0, 0.95)
    return np.asarray(np.maximum(count * (1 - correlation) / (1 + correlation), 1.0))


def tail(distance: npt.ArrayLike, mean: npt.ArrayLike, spread: npt.ArrayLike, days: npt.ArrayLike) -> Floats:
    """Chance that a further value of a quiet process lies so high, where its mean and spread were learned of few days.

    The prediction interval of a normal sample: Student's t with days - 1 degrees of freedom and the spread of
    sqrt(1 + 1 / days). A bound that is learned from ten days is thereby twice as wide as one learned from a hundred.

    Parameters
    ----------
    days : effective ones; at least 2 degrees of freedom are taken, for with 1 there is no variance

    Returns
    -------
    (…) NaN where a distance is

    Examples
    --------
    >>> print(tail(4.0, 0.0, 1.0, [10, 100]).round(4))
    [0.0021 0.0001]

    References
    ----------
    G. J. Hahn, "Factors for calculating two-sided prediction intervals for samples from a normal distribution",
    J. Am. Stat. Assoc. 64 (1969), 878.
    """
    from scipy.stats import t

    known = np.maximum(np.asarray(days, dtype=np.float64), 2.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.asarray(distance, dtype=np.float64) - np.asarray(mean, dtype=np.float64)
        standing = apart / (np.asarray(spread, dtype=np.float64) * np.sqrt(1.0 + 1.0 / known))
    return np.asarray(t.sf(standing, np.maximum(known - 1.0, 2.0)), dtype=np.float64)


def benjamini_hochberg(chances: npt.ArrayLike, rate: float) -> Mask:
    """Which of many findings to keep so that of those kept about `rate` are due to chance.

    Parameters
    ----------
    chances : (n,) p-values; NaN: was not looked at
    rate : false-discovery rate

    Examples
    --------
    >>> benjamini_hochberg([0.001, 0.02, 0.025, 0.9], 0.05).tolist()
    [True, True, True, False]

    References
    ----------
    Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B 57 (1995), 289; it holds
    for features that move together too: Y. Benjamini and D. Yekutieli, Ann. Statist. 29 (2001), 1165.
    """
    given = np.asarray(chances, dtype=np.float64)
    kept = np.zeros(given.shape, dtype=np.bool_)
    looked_at = np.flatnonzero(np.isfinite(given))
    order = looked_at[np.argsort(given[looked_at], kind="stable")]
    allowed = rate * np.arange(1, order.size + 1) / max(order.size, 1)
    below = np.flatnonzero(given[order] <= allowed)
    if below.size:
        kept[order[: below[-1] + 1]] = True
    return kept


def _smoothed(day: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Shares that are nothing only where both sides have nothing; there both are 1, which adds nothing to a sum."""
    counts = np.broadcast_arrays(np.asarray(day, dtype=np.float64), np.asarray(reference, dtype=np.float64))
    used = (counts[0] + counts[1]) > 0
    p, q = (np.where(used, each + half_a_row, 0.0) for each in counts)
    with np.errstate(invalid="ignore"):
        p, q = (np.where(used, each / each.sum(axis=-1, keepdims=True), 1.0) for each in (p, q))
    return p, q


def _cumulated(counts: npt.ArrayLike) -> Floats:
    summed: Any = np.cumsum(np.asarray(counts, dtype=np.float64), axis=-1)
    return np.asarray(summed / summed[..., -1:])
