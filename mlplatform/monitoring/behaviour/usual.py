"""What is usual of a model: how the days that it was trained and evaluated on look to it, one by one.

A day is the unit. The rows of a day share its weather and its customers, so the days differ by far more than their rows
would let one expect, and follow each other; a season bends them further. A bound that holds for rows alarms every other
week. So the bounds are made of daily values, as few and as alike as they are.

It is made once for each manifest and kept beside its training set: weights, code and rows of a manifest never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import BundleError, DataError
from mlplatform.monitoring.estimated import estimated, estimated_against_truth, truth_of, uncertainty
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.training.dataset import load_rows
from mlplatform.training.examples import Examples, examples
from mlplatform.training.recipe import load_recipe

Floats = npt.NDArray[np.float64]

BINS = 20

rows_of_a_day = 30
"""Fewer, and a day of the reference is left out: its mean is mostly noise."""

days_at_least = 10
"""Days of which bounds are made. With fewer, next to every day is outside of what they show, and nothing is judged."""

rows_at_once = 100_000


class UsualDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day, as the model sees it."""

    day: str
    held_out: bool
    """Of the calibration or evaluation part: the model was not fitted to it."""

    rows: int
    hours: int
    """Hours in which there were requests."""

    mean_score: float
    log_loss: float | None
    """As estimated from the scores; None for a regression."""

    rarest_class: float
    """Share of the class that was predicted least; 0 for a regression."""


class AtEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on the evaluation rows."""

    estimated: float
    truth: float
    daily_error: float | None
    """Root mean square of estimate − truth over its days; None with fewer than five."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Daily values that are usual."""

    centre: float
    low: float
    high: float


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept in the file."""

    edges: tuple[float, ...]
    days: tuple[UsualDay, ...]
    evaluation: dict[str, AtEvaluation]


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What is usual of one manifest."""

    spec: ModelSpec
    """As it was declared when it was trained."""

    edges: tuple[float, ...]
    """(at most 19,) Inner edges of the histogram of scores: quantiles of the evaluation rows."""

    days: tuple[UsualDay, ...]
    evaluation: Mapping[str, AtEvaluation]

    @cached_property
    def bands(self) -> Mapping[str, Band]:
        """By name, `mean_score` and `log_loss`; empty where the days are too few to say."""
        found = {}
        for name in ("mean_score", "log_loss"):
            held_out = [getattr(each, name) for each in self.days if each.held_out]
            trained = [getattr(each, name) for each in self.days if not each.held_out]
            if None not in held_out and (made := band(held_out, trained)) is not None:
                found[name] = made
        return found

    @property
    def hours(self) -> float:
        """Hours of a day in which there are requests, in the middle of the days."""
        return float(np.median([each.hours for each in self.days])) if self.days else 0.0

    @property
    def rarest_class(self) -> float:
        """Of the days, the smallest share of the class that was predicted least."""
        return min((each.rarest_class for each in self.days if each.held_out), default=0.0)


def band(held_out: Sequence[float] | Floats, trained: Sequence[float] | Floats) -> Band | None:
    """Daily values that are no reason to look; None where there are too few days to say.

    Parameters
    ----------
    held_out : of days that the model was not fitted to: they give the level
    trained : of the days that it was fitted to: they are more, and show how far a season moves

    Notes
    -----
    A prediction interval for one more day, from days that hang together. Of `n` days `n / days_alike` count as
    independent; their standard deviation, of whichever part varies more, is widened by Student's t for so few, and by
    `season` for what the window has not seen of the year. What the held-out days showed is inside whatever happens.

    References
    ----------
    Hahn and Meeker, "Statistical intervals", 1991, chapter 4. Bayley and Hammersley, "The 'effective' number of
    independent observations in an autocorrelated time series", JRSS Suppl. 8 (1946).
    """
    days = len(held_out) + len(trained)
    if days < days_at_least or len(held_out) < 2:
        return None
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    spread = max(float(np.std(part, ddof=1)) for part in (held_out, trained) if len(part) > 1)
    independent = max(2.0, days / days_alike)
    reach = season * float(stdtrit(independent - 1.0, 1.0 - chance)) * float(np.sqrt(1.0 + 1.0 / independent)) * spread
    centre = float(np.mean(held_out))
    return Band(
        centre=centre,
        low=min(centre - reach, float(np.min(held_out))),
        high=max(centre + reach, float(np.max(held_out))),
    )


days_alike = 3.0
"""Days that count as one: with an autocorrelation of a half from day to day, (1 + 1/2) / (1 - 1/2)."""

chance = 1e-3
"""One-sided, of one day, were it drawn as those were."""

season = 1.5
"""How much further than the days of the window the rest of a year goes, in standard deviations."""


def usual_of(platform: Platform, domain: Domain, model: str, manifest: str) -> Usual | str:
    """What is usual of a manifest, or why that cannot be told: its bundle or its training set is gone.

    The first time it scores the training set; some seconds for some 100,000 rows.
    """
    try:
        bundle = bundle_of(platform, manifest)
        folder = platform.training(domain.name, model, bundle.manifest.model_version)
        kept = _kept(folder / f"usual-{manifest[:12]}.json") or _made(bundle, folder, manifest)
    except (BundleError, DataError) as error:
        return str(error)
    return Usual(spec=bundle.model, edges=kept.edges, days=kept.days, evaluation=kept.evaluation)


def certainty(scores: Floats) -> Floats:
    """What is shown of scores: the score, or of several classes the largest."""
    top: Floats = scores if scores.ndim == 1 else scores.max(axis=1)
    return top


def _kept(path: Path) -> _Kept | None:
    """None: not made yet, or by a version of the platform that kept other things."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _made(bundle: Bundle, folder: Path, manifest: str) -> _Kept:
    recipe = load_recipe(folder)
    cut = examples(bundle.domain, bundle.model, recipe, load_rows(folder))
    evaluated = cut.parts.evaluation
    at_evaluation = _scored(bundle, cut, evaluated)
    held_out = np.concatenate([cut.parts.calibration, evaluated])
    scores = np.concatenate([_scored(bundle, cut, cut.parts.calibration), at_evaluation])
    fitted_to = cut.parts.train
    days = [
        *_days(bundle.model, cut, fitted_to, _scored(bundle, cut, fitted_to), held_out=False),
        *_days(bundle.model, cut, held_out, scores, held_out=True),
    ]
    edges = np.unique(np.quantile(certainty(at_evaluation), np.arange(1, BINS) / BINS))
    kept = _Kept(
        edges=tuple(edges.tolist()), days=tuple(days), evaluation=_at_evaluation(bundle.model, cut, at_evaluation)
    )
    write_whole(folder / f"usual-{manifest[:12]}.json", msgspec.json.encode(kept))
    return kept


def _scored(bundle: Bundle, cut: Examples, rows: npt.NDArray[np.int64]) -> Floats:
    parts = [rows[start : start + rows_at_once] for start in range(0, len(rows), rows_at_once)]
    return np.concatenate([bundle.scores(bundle.features(cut.requests[each], cut.view_values[each])) for each in parts])


def _days(
    spec: ModelSpec, cut: Examples, rows: npt.NDArray[np.int64], scores: Floats, *, held_out: bool
) -> list[UsualDay]:
    at = cut.requests["at"].gather(rows)
    told = pl.DataFrame({"day": at.dt.strftime("%Y-%m-%d"), "hour": at.dt.hour(), "score": certainty(scores)})
    uncertain = None if spec.task == "regression" else uncertainty(scores)
    classes = _predicted(spec, scores)
    found = []
    for (day,), places in told.with_row_index("place").group_by("day", maintain_order=True):
        here = places["place"].to_numpy()
        if len(here) < rows_of_a_day:
            continue
        counted = np.bincount(classes[here], minlength=_classes(spec))
        found.append(
            UsualDay(
                day=str(day),
                held_out=held_out,
                rows=len(here),
                hours=places["hour"].n_unique(),
                mean_score=float(places["score"].to_numpy().mean()),
                log_loss=None if uncertain is None else float(uncertain[here].mean()),
                rarest_class=float(counted.min() / len(here)) if len(counted) > 1 else 0.0,
            )
        )
    return sorted(found, key=lambda each: each.day)


def _classes(spec: ModelSpec) -> int:
    return {"binary": 2, "multiclass": len(spec.label.classes), "regression": 1}[spec.task]


def _predicted(spec: ModelSpec, scores: Floats) -> npt.NDArray[np.int64]:
    if spec.task == "multiclass":
        best: npt.NDArray[np.int64] = scores.argmax(axis=1)
        return best
    if spec.task == "binary" and spec.decision is not None:
        return (scores >= spec.decision.value).astype(np.int64)
    return np.zeros(len(scores), dtype=np.int64)


def _at_evaluation(spec: ModelSpec, cut: Examples, scores: Floats) -> dict[str, AtEvaluation]:
    rows = cut.parts.evaluation
    labels = cut.labels[rows]
    threshold = spec.decision.value if spec.decision else 0.5
    days = cut.requests["at"].gather(rows).dt.date()
    by_day = estimated_against_truth(spec.task, days, labels, scores, threshold=threshold)
    found = {}
    for metric, figure in estimated(spec.task, scores, threshold=threshold).figures.items():
        truth = truth_of(metric, labels, scores, threshold=threshold)
        if figure.point is None or truth is None:
            continue
        errors = by_day.filter(metric=metric)["error"].drop_nulls().to_numpy()
        daily = float(np.sqrt((errors**2).mean())) if len(errors) >= 5 else None
        found[metric] = AtEvaluation(estimated=figure.point, truth=truth, daily_error=daily)
    return found
