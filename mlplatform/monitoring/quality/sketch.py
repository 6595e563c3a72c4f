"""The sketch of a day: what is kept of all rows of each feature, so small that years of days can be compared.

A histogram in the bins of the training set, and a few counts. Sketches add up: slices of a day make the day, days make
a month, and a day is left out of its window by a subtraction. No figure of a day is made from a sample.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.view import Feature
from mlplatform.monitoring.drift import (
    Floats,
    kolmogorov_smirnov,
    kullback_leibler,
    population_stability_index,
    share_distance,
    total_variation,
)
from mlplatform.scoring.booster import Matrix

Counts = npt.NDArray[np.int64]

bins_at_most = 128
"""Of one feature. KS is found to within 1 / 128 then, and a year of days of 50 features takes 20 MB."""

coarse_bins = 16
"""Into which they are joined for PSI and KL, whose sampling noise grows with their number: 16 bins of 1,000 rows are
0.015 of PSI by chance alone, 128 would be 0.13."""

categories_at_most = 32
"""A whole number with so few values is taken for a category: a weekday, an hour, a number of engines."""

shares = ("null_rate", "out_of_range", "new_category")
distances = (*shares, "spread", "mean_shift", "psi", "kl", "ks")
"""What is judged of a feature, in the order of every array of them."""


no_spread = 1e-6
"""In standard deviations of the training set: what rounding leaves of a constant."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Where the values of each feature are counted: learned from the training set, and the same ever after."""

    names: tuple[str, ...]
    edges: npt.NDArray[np.float32]
    """(k, bins - 1) ascending upper edges, included in their bin; infinite where a feature has fewer."""

    used: Counts
    """(k,) edges that each feature has."""

    coarse: Counts
    """(k, bins) into which of the coarse bins each goes."""

    category: npt.NDArray[np.bool_]
    """(k,) each edge is one value, and another value is a new category."""

    coded: npt.NDArray[np.bool_]
    """(k,) of a fitted value: a missing value is a category that training did not know."""

    minimum: Floats
    """(k,) as declared; minus infinity where nothing is."""

    maximum: Floats
    centre: Floats
    """(k,) about the mean, so that sums stay exact."""

    scale: Floats
    """(k,) the standard deviation."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is known of the rows of one day, or of several: (…, k) each, days first where there are several."""

    rows: Counts
    nulls: Counts
    outside: Counts
    """Not in the declared range, or infinite."""

    unseen: Counts
    """New categories."""

    total: Floats
    """Sum of the finite values, each less the centre and over the scale."""

    squares: Floats
    """Of their squares, likewise."""

    finite: Counts
    counts: Counts
    """(…, k, bins)"""

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(*(mine + its for mine, its in zip(_parts(self), _parts(other), strict=True)))

    def __sub__(self, other: "Sketch") -> "Sketch":
        return Sketch(*(mine - its for mine, its in zip(_parts(self), _parts(other), strict=True)))

    def __getitem__(self, days: slice | int | npt.NDArray[np.intp]) -> "Sketch":
        return Sketch(*(each[days] for each in _parts(self)))

    def added_up(self) -> "Sketch":
        """All days as one."""
        return Sketch(*(each.sum(axis=0) for each in _parts(self)))

    def running(self) -> "Sketch":
        """(days + 1, …) the sum of the days before each, and of all."""
        return Sketch(*(np.concatenate([np.zeros_like(each[:1]), np.cumsum(each, axis=0)]) for each in _parts(self)))

    def to_bytes(self, feature: int) -> bytes:
        """One feature, to be kept in a table."""
        whole = [each[feature] for each in (self.rows, self.nulls, self.outside, self.unseen, self.finite)]
        numbers = np.concatenate([np.array(whole, dtype="<i8"), self.counts[feature].astype("<i8")])
        sums = np.array([self.total[feature], self.squares[feature]], dtype="<f8")
        return zlib.compress(sums.tobytes() + numbers.tobytes(), 1)

    @classmethod
    def from_bytes(cls, features: Sequence[bytes]) -> "Sketch":
        """What `to_bytes` made of each feature."""
        raw = [zlib.decompress(each) for each in features]
        numbers = np.array([np.frombuffer(each[16:], dtype="<i8") for each in raw], dtype=np.int64)
        sums = np.array([np.frombuffer(each[:16], dtype="<f8") for each in raw], dtype=np.float64)
        return cls(
            rows=numbers[:, 0],
            nulls=numbers[:, 1],
            outside=numbers[:, 2],
            unseen=numbers[:, 3],
            total=sums[:, 0],
            squares=sums[:, 1],
            finite=numbers[:, 4],
            counts=numbers[:, 5:],
        )


def stacked(days: Sequence[Sketch]) -> Sketch:
    """Several days as one sketch with a leading axis."""
    return Sketch(*(np.stack(each) for each in zip(*(_parts(day) for day in days), strict=True)))


def learn_bins(sample: Matrix, declared: Sequence[Feature], fitted: Sequence[str]) -> Bins:
    """Bins from a sample of the training set: one for each value where they are few, else by quantiles.

    Parameters
    ----------
    sample : (n, k) float32, NaN where missing
    declared : (k,) features as the model's bundle declares them
    fitted : names of those that are made of fitted values
    """
    width = len(declared)
    edges = np.full((width, bins_at_most - 1), np.inf, dtype=np.float32)
    used, coarse = np.zeros(width, dtype=np.int64), np.zeros((width, bins_at_most), dtype=np.int64)
    category, centre, scale = np.zeros(width, dtype=np.bool_), np.zeros(width), np.ones(width)
    for place, feature in enumerate(declared):
        known = np.sort(sample[:, place][np.isfinite(sample[:, place])])
        if not known.size:
            continue
        values = np.unique(known)
        whole = feature.dtype.is_integer() or feature.dtype == pl.Boolean()
        few = values.size < bins_at_most
        category[place] = whole and few and (values.size <= categories_at_most or feature.name in fitted)
        # The lower neighbour, so that an edge is a value and a value is in one bin.
        at = np.linspace(0, 1, bins_at_most)[1:]
        chosen = values if few else np.unique(np.quantile(known, at, method="lower"))
        used[place] = chosen.size
        edges[place, : chosen.size] = chosen
        upto = np.searchsorted(known, chosen, side="right") / known.size
        joined = np.minimum(((upto - 0.5 / known.size) * coarse_bins).astype(np.int64), coarse_bins - 1)
        coarse[place, : chosen.size] = joined
        # Beyond the largest value of the sample; new categories have a count of their own.
        coarse[place, chosen.size :] = joined[-1]
        deviation = float(known.astype(np.float64).std())
        centre[place] = float(known.astype(np.float64).mean())
        scale[place] = deviation if deviation > 1e-9 * max(1.0, abs(centre[place])) else 1.0
    return Bins(
        names=tuple(each.name for each in declared),
        edges=edges,
        used=used,
        coarse=coarse,
        category=category,
        coded=np.array([each.name in fitted and each.dtype.is_integer() for each in declared], dtype=np.bool_),
        minimum=np.array([-np.inf if each.minimum is None else each.minimum for each in declared]),
        maximum=np.array([np.inf if each.maximum is None else each.maximum for each in declared]),
        centre=centre,
        scale=scale,
    )


def sketch(rows: Matrix, bins: Bins) -> Sketch:
    """Sketch of some rows.

    Parameters
    ----------
    rows : (n, k) float32, NaN where missing
    """
    height, width = rows.shape
    made = Sketch(
        rows=np.full(width, height, dtype=np.int64),
        **{name: np.zeros(width, dtype=np.int64) for name in ("nulls", "outside", "unseen", "finite")},
        total=np.zeros(width),
        squares=np.zeros(width),
        counts=np.zeros((width, bins_at_most), dtype=np.int64),
    )
    for place in range(width):
        # Sorted, everything is a matter of a few places: a third of the time of a look-up for each value.
        column = np.sort(rows[:, place])
        known = int(np.searchsorted(column, np.inf, side="right"))
        values = column[:known]
        finite = values[np.searchsorted(values, -np.inf, side="right") : np.searchsorted(values, np.inf)]
        low, high = np.float32(bins.minimum[place]), np.float32(bins.maximum[place])
        inside = int(np.searchsorted(finite, high, side="right") - np.searchsorted(finite, low))
        scaled = (finite.astype(np.float64) - bins.centre[place]) / bins.scale[place]
        made.nulls[place] = height - known
        made.finite[place] = finite.size
        made.outside[place] = known - inside
        made.total[place] = float(scaled.sum())
        made.squares[place] = float(scaled @ scaled)
        used = int(bins.used[place])
        edges = bins.edges[place, :used]
        upto = np.searchsorted(values, edges, side="right")
        made.counts[place, : used + 1] = np.diff(upto, prepend=0, append=known)
        if bins.category[place]:
            made.unseen[place] = known - int((upto - np.searchsorted(values, edges)).sum())
        if bins.coded[place]:
            made.unseen[place] += made.nulls[place]
    return made


@dataclass(frozen=True, eq=False)
class Apart:
    """How far days lie from others: (8, …, k), the first axis in the order of `distances`."""

    shown: Floats
    """As people know them: shares of the day, its standard deviation and its mean shift (with a sign) in those of the
    training set, PSI, KL, KS."""

    usual: Floats
    """(4, …, k) the shares of the others, and their spread."""

    distance: Floats
    """On the scale that is judged; NaN where the day, or what it is compared with, has no value. Of a mean shift that
    is the logarithm of one more: the mean of a long tail goes up and down by factors."""


def apart(day: Sketch, others: Sketch, bins: Bins) -> Apart:
    """Compare days with others, each with each along the leading axes."""
    mine, its = _shares(day), _shares(others)
    moved = share_distance(mine, its)
    spread, usual_spread = _spread(day), _spread(others)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = day.total / day.finite - others.total / others.finite
    now, then = joined(day.counts, bins), joined(others.counts, bins)
    both = (day.counts.sum(axis=-1) > 0) & (others.counts.sum(axis=-1) > 0)
    psi = np.where(both, population_stability_index(now, then), np.nan)
    kl = np.where(both, kullback_leibler(now, then), np.nan)
    ks = np.where(both, kolmogorov_smirnov(day.counts, others.counts), np.nan)
    return Apart(
        shown=np.stack([*mine, spread, shift, psi, kl, ks]),
        usual=np.stack([*its, usual_spread]),
        distance=np.stack(
            [
                np.abs(moved[0]),
                # Fewer of these than usual is nobody's trouble; nor is more spread, which the histogram shows.
                *np.maximum(moved[1:], 0.0),
                np.maximum(np.log(np.maximum(usual_spread, no_spread) / np.maximum(spread, no_spread)), 0.0),
                np.log1p(np.abs(shift)),
                np.sqrt(psi),
                np.sqrt(kl),
                ks,
            ]
        ),
    )


def displaced(day: Sketch, others: Sketch, bins: Bins) -> Floats:
    """(…, k) share of the rows whose value, or whose lack of one, would have to be another to give the others."""
    now, then = joined(day.counts, bins), joined(others.counts, bins)
    moved = total_variation(
        np.concatenate([now, day.nulls[..., None]], axis=-1), np.concatenate([then, others.nulls[..., None]], axis=-1)
    )
    # A value that no training row had was counted in the bin of its neighbour.
    return np.maximum(moved, _share(day.unseen, day.rows))


def joined(counts: Counts, bins: Bins) -> Counts:
    """Counts in the coarse bins: (…, k, 16)."""
    into = np.eye(coarse_bins)[bins.coarse]
    # As floats, for the sake of a matrix product: exact up to 2^53 rows.
    return np.asarray(np.rint(counts[..., None, :].astype(np.float64) @ into)[..., 0, :], dtype=np.int64)


def _shares(of: Sketch) -> Floats:
    """(3, …, k) in the order of `shares`."""
    return np.stack(
        [
            _share(of.nulls, of.rows),
            _share(of.outside, of.rows),
            _share(of.unseen, of.rows),
        ]
    )


def _spread(of: Sketch) -> Floats:
    """(…, k) standard deviation, in those of the training set; NaN without values."""
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = of.squares / of.finite - (of.total / of.finite) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def _share(part: Counts, whole: Counts) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole)


def _parts(of: Sketch) -> list[npt.NDArray[Any]]:
    return [getattr(of, each.name) for each in fields(of)]
