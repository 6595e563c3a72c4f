"""Bounds of what a day or a week may show by chance, learned from days that were judged before.

Days differ for two reasons: each has few rows, and days have weather. The first is known from the spread of the rows;
the second is what the earlier days vary beyond it, and it lasts: a bad day is followed by a bad one. A bound is the end
of a prediction interval that counts both, and that a week's mean of seven such days is not seven independent ones.

It refuses to give a bound from fewer than three days.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DAYS_AT_LEAST = 3

PRIOR_DAYS = 8.0
"""What is taken for known before a day was seen, in days: that days differ by half as much as their rows make them.
Four days that happen to be alike would else promise that all days are."""

LEAST_MEMORY, LONGEST_MEMORY = 0.5, 0.9
"""Correlation of two neighbouring days, beyond their rows, that a week is taken to have at least, and at most. Days
share weather and customers, and a month of them cannot show that they do not: taken at its word, one week in a hundred
was found where one in a thousand was asked for."""

LEAST_FREEDOM = 4.0
"""Degrees of freedom: with fewer a bound lies beyond anything, and a broken model would pass."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a figure of so many days and rows is expected to be, and the ends that chance alone rarely passes."""

    figure: float
    low: float
    high: float


def expected(
    figures: Sequence[float],
    rows: Sequence[int],
    spreads: Sequence[float],
    *,
    days: int,
    of_rows: int,
    chance: float,
    ratio: bool = False,
) -> Expected | None:
    """The prediction interval of the mean over some days to come.

    Parameters
    ----------
    figures : (m,) of days that follow one another
    rows, spreads : (m,) how many rows each has, and the standard deviation of what a row adds; zero where none is known
    days : over how many days the mean is taken
    of_rows : how many rows they have together
    chance : of passing one of the ends where nothing has changed
    ratio : whether days differ by a factor, as losses do, rather than by a difference

    Returns
    -------
    None from fewer than `DAYS_AT_LEAST` days.

    Examples
    --------
    >>> calm = expected([0.4, 0.41, 0.39, 0.4], [500] * 4, [0.3] * 4, days=1, of_rows=500, chance=0.001)
    >>> wild = expected([0.2, 0.7, 0.3, 0.5], [500] * 4, [0.3] * 4, days=1, of_rows=500, chance=0.001)
    >>> 0.45 < calm.high < 0.55, wild.high > 1.0
    (True, True)

    References
    ----------
    Student's prediction interval; the variance of a mean of days with memory as for a first-order autoregression (Box,
    Jenkins and Reinsel, "Time Series Analysis", 2008, section 2.1.5). The variance of days is the method of moments for
    random effects, drawn towards the prior by degrees of freedom.
    """
    from scipy import stats

    seen, counts, apart = (np.asarray(each, dtype=np.float64) for each in (figures, rows, spreads))
    if len(seen) < DAYS_AT_LEAST or of_rows <= 0:
        return None
    centre = float((seen * counts).sum() / counts.sum())
    scaled = bool(ratio and (seen > 0).all())
    if scaled:
        apart, seen = apart / seen, np.log(seen)
    of_row = float((apart**2).mean())
    of_rows_alone = float((apart**2 / counts).mean())
    middle = math.log(centre) if scaled else centre
    observed = float(((seen - seen.mean()) ** 2).sum() / (len(seen) - 1))
    beyond = max(0.0, observed - of_rows_alone)
    known = len(seen) - 1.0
    prior = (PRIOR_DAYS * of_rows_alone / 2 + known * beyond) / (PRIOR_DAYS + known)
    memory = _memory(seen, beyond)
    independent = len(seen) / _inflation(memory, len(seen))
    # Days with memory differ less among themselves than from days to come.
    beyond /= 1 - 1 / max(2.0, independent)
    of_days = max(prior, beyond)
    ahead = of_days * _inflation(max(memory, LEAST_MEMORY), days) / days
    behind = of_days / independent
    by_rows = of_row / of_rows + of_row / counts.sum()
    freedom = max(LEAST_FREEDOM, independent - 1 + (PRIOR_DAYS if prior > beyond else 0.0))
    # Satterthwaite: what rows vary is known from thousands of them, what days vary from these few.
    total = ahead + behind + by_rows
    freedom = freedom * (total / (ahead + behind)) ** 2 if ahead > 0 else float("inf")
    reach = float(stats.t.ppf(1 - chance, freedom)) * math.sqrt(total) if total > 0 else 0.0
    ends = middle - reach, middle + reach
    low, high = (math.exp(min(end, 700.0)) for end in ends) if scaled else ends
    return Expected(figure=centre, low=low, high=high)


def _memory(seen: Floats, variance: float) -> float:
    """Correlation of what two neighbouring days have beyond their rows, 0 to `LONGEST_MEMORY`."""
    if variance <= 0:
        return 0.0
    away = seen - seen.mean()
    raw = float((away[1:] * away[:-1]).mean() / variance)
    # Marriott and Pope, Biometrika 41 (1954): about the mean of the same days the correlation comes out too small.
    return float(np.clip(raw + (1 + 3 * max(0.0, raw)) / len(seen), 0.0, LONGEST_MEMORY))


def _inflation(memory: float, days: int) -> float:
    """How many times the variance of a mean of days with memory is that of independent ones."""
    lags = np.arange(1, days)
    return 1.0 + 2.0 * float(((1 - lags / days) * memory**lags).sum())
