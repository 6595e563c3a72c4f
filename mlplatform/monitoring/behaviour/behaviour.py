"""How models behaved over some rows of the prediction log: answers, sources, scores, latency, expected performance.

Pure over rows of the log, of a day or of the last quarter of an hour. Each model, manifest and arm is looked at on its
own. It judges nothing; `rules` does.

What is read from which rows: shares, reasons and latency from all answers; scores, confidence, predictions and
estimates from the model's own answers alone, since a fallback's say nothing about the model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.behaviour.usual import Usual, certainty
from mlplatform.monitoring.estimated import estimated
from mlplatform.monitoring.prediction_log import SHADOW, phases
from mlplatform.monitoring.served import clocks_apart

Floats = npt.NDArray[np.float64]

quantiles = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
latency_quantiles = (0.5, 0.95, 0.99)
reasons_shown = 5

normal_995 = 2.5758293035489004
"""Standard deviations that a mean leaves by chance once in 200, on one side."""

_of = ("model", "manifest", "model_version", "arm")
_read = (
    *_of,
    *("source", "degraded", "needs_review", "reason", "prediction", "probability", "confidence", "scores"),
    *("at", "received"),
    *(f"{phase}_us" for phase in phases),
)
# Texts that are the same in most rows, held once.
_repeated = (*_of, "source", "reason", "prediction")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number that was measured."""

    name: str
    part: str = ""
    """Of what: a source, a phase and a quantile, a metric."""

    value: float
    low: float | None = None
    high: float | None = None
    """Its interval, or its bounds: the ends of a bin, the deadline."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one model, in one version and arm, behaved."""

    model: str
    manifest: str
    model_version: str
    arm: str
    figures: tuple[Figure, ...]
    not_compared: str = ""
    """Why there is nothing usual to compare with; empty: there is."""

    @property
    def is_shadow(self) -> bool:
        """Whether these rows were nobody's answers."""
        return self.arm == SHADOW

    def figure(self, name: str, part: str = "") -> Figure | None:
        """A figure; None where it was not measured."""
        return next((each for each in self.figures if (each.name, each.part) == (name, part)), None)

    def value(self, name: str, part: str = "") -> float:
        """Its value; NaN where it was not measured."""
        found = self.figure(name, part)
        return float("nan") if found is None else found.value

    def parts(self, name: str) -> dict[str, float]:
        """All figures of a name, by part."""
        return {each.part: each.value for each in self.figures if each.name == name}

    def count(self, name: str) -> int:
        """A figure that is a count; 0 where it was not measured."""
        return int(self.parts(name).get("", 0.0))


def behaviour_of(
    rows: pl.DataFrame | pl.LazyFrame,
    models: Mapping[str, ModelSpec],
    usual: Callable[[str, str], Usual | str],
) -> list[Behaviour]:
    """How each model, manifest and arm behaved, those with the most answers first.

    Parameters
    ----------
    rows : of the prediction log, with its columns or more
    models : the domain's, by name
    usual : model name and manifest -> what is usual of it, or why that cannot be told
    """
    repeated = [pl.col(column).cast(pl.Categorical) for column in _repeated]
    read = rows.lazy().select(_read).with_columns(repeated).collect()
    listed = read.group_by(_of).len().with_columns(pl.col(_of).cast(pl.String)).sort("len", *_of, descending=True)
    found = []
    for *key, _ in listed.iter_rows():
        model, manifest, model_version, arm = key
        own = (
            read
            if listed.height == 1
            else read.filter(pl.col(name) == said for name, said in zip(_of, key, strict=True))
        )
        known = usual(model, manifest)
        spec = known.spec if isinstance(known, Usual) else models.get(model)
        found.append(
            Behaviour(
                model=model,
                manifest=manifest,
                model_version=model_version,
                arm=arm,
                figures=tuple(_figures(own, spec, known if isinstance(known, Usual) else None)),
                not_compared="" if isinstance(known, Usual) else known,
            )
        )
    return found


def _figures(rows: pl.DataFrame, spec: ModelSpec | None, usual: Usual | None) -> Iterator[Figure]:
    yield Figure(name="answers", value=rows.height)
    yield from _throughput(rows)
    yield from _sources(rows)
    yield from _latency(rows, spec)
    own = rows.filter(pl.col("source") == "model")
    yield Figure(name="model_answers", value=own.height)
    if spec is not None:
        yield from _scores(own, spec, usual)


def _throughput(rows: pl.DataFrame) -> Iterator[Figure]:
    came = rows["received"]
    for hour, answers in came.dt.hour().value_counts(sort=False).sort("received").iter_rows():
        yield Figure(name="answers_of_hour", part=f"{hour:02}", value=answers)
    minutes = came.dt.truncate("1m").value_counts()["count"]
    yield Figure(name="peak_minute", value=cast(int, minutes.max()))
    # By the time that requests were answered as of: a day that is replayed comes in a minute.
    yield Figure(name="hours", value=rows["at"].dt.truncate("1h").n_unique())
    apart = (rows["at"] - came).abs() > clocks_apart
    yield Figure(name="clocks_apart", value=int(apart.sum()))


def _sources(rows: pl.DataFrame) -> Iterator[Figure]:
    for source, answers in rows["source"].value_counts(sort=True).iter_rows():
        yield Figure(name="source_share", part=source, value=answers / rows.height)
    yield Figure(name="fallbacks", value=int((rows["source"] != "model").sum()))
    for name in ("degraded", "needs_review"):
        yield Figure(name=f"{name}_share", value=cast(float, rows[name].mean()))
    reasons = rows.filter("degraded")["reason"].drop_nulls().cast(pl.String).value_counts()
    for reason, answers in reasons.sort("count", "reason", descending=[True, False]).head(reasons_shown).iter_rows():
        yield Figure(name="reason", part=reason, value=answers)


def _latency(rows: pl.DataFrame, spec: ModelSpec | None) -> Iterator[Figure]:
    """Milliseconds. `total` is held against the deadline of an answer, `score` against the objective of a row alone."""
    for phase in phases:
        taken = rows[f"{phase}_us"].drop_nulls().to_numpy() / 1e3
        if not len(taken):
            continue
        for quantile, value in zip(latency_quantiles, np.quantile(taken, latency_quantiles), strict=True):
            yield Figure(name="latency_ms", part=f"{phase} {_named(quantile)}", value=float(value))
        yield Figure(name="latency_ms", part=f"{phase} max", value=float(taken.max()))
        if spec is not None and phase == "total":
            deadline = spec.serving.deadline.total_seconds() * 1e3
            yield Figure(name="late", value=int((taken > deadline).sum()), high=deadline)
        if spec is not None and phase == "score":
            objective = spec.objectives.p99_ms.value
            yield Figure(name="over_objective_share", value=float((taken > objective).mean()), high=objective)


def _scores(rows: pl.DataFrame, spec: ModelSpec, usual: Usual | None) -> Iterator[Figure]:
    """Of the model's own answers."""
    if rows.is_empty():
        return
    if spec.task != "regression":
        for said, answers in rows["prediction"].drop_nulls().value_counts(sort=True).iter_rows():
            yield Figure(name="predicted", part=said, value=answers)
        sure = rows["confidence"].drop_nulls().to_numpy()
        yield from _distribution("confidence", sure, np.linspace(0.0, 1.0, 21)[1:-1])
    scores = logged_scores(rows, spec)
    finite = np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1)
    yield Figure(name="not_finite", value=int((~finite).sum()))
    scores = scores[finite]
    if not len(scores):
        return
    shown = certainty(scores)
    yield from _distribution("score", shown, _edges(shown, spec, usual))
    yield Figure(name="distinct_scores", value=len(np.unique(shown)))
    said = estimated(spec.task, scores, threshold=spec.decision.value if spec.decision else 0.5)
    for metric, each in said.figures.items():
        if each.point is not None:
            yield Figure(name="estimated", part=metric, value=each.point, low=each.low, high=each.high)
    if usual is not None:
        yield from usual_figures(usual)


def usual_figures(usual: Usual) -> Iterator[Figure]:
    """What the day is beside: daily values that are usual, the estimate on the evaluation rows, and its truth."""
    for name, band in usual.bands.items():
        yield Figure(name="usual", part=name, value=band.centre, low=band.low, high=band.high)
    for metric, each in usual.evaluation.items():
        yield Figure(name="estimated_at_evaluation", part=metric, value=each.estimated)
        yield Figure(name="truth_at_evaluation", part=metric, value=each.truth)
        if each.daily_error is not None:
            yield Figure(name="daily_error_at_evaluation", part=metric, value=each.daily_error)


def logged_scores(rows: pl.DataFrame, spec: ModelSpec) -> Floats:
    """Calibrated scores of logged rows, (n,) or (n, classes) float64; NaN where there is none.

    An answer that was given again has no scores in the log; of a binary model its probability is the score.
    """
    if spec.task == "multiclass":
        width = len(spec.label.classes)
        held = rows["scores"].list.len().fill_null(0) == width
        matrix = np.full((int(held.sum()), width), np.nan)
        if len(matrix):
            matrix[:] = rows["scores"].filter(held).list.to_array(width).to_numpy()
        return matrix
    first = rows["scores"].list.first()
    if spec.task == "binary":
        return cast(Floats, first.fill_null(rows["probability"]).fill_null(float("nan")).to_numpy())
    return cast(Floats, first.drop_nulls().to_numpy())


def _edges(shown: Floats, spec: ModelSpec, usual: Usual | None) -> Sequence[float] | Floats:
    if usual is not None:
        return usual.edges
    if spec.task == "regression":
        return np.linspace(float(shown.min()), float(shown.max()), 21)[1:-1]
    return np.linspace(0.0, 1.0, 21)[1:-1]


def _distribution(name: str, values: Floats, edges: Sequence[float] | Floats) -> Iterator[Figure]:
    """Mean, quantiles, and a histogram between edges; the outer bins are open."""
    if not len(values):
        return
    mean, error = float(values.mean()), float(values.std()) / np.sqrt(len(values))
    yield Figure(name=name, part="mean", value=mean, low=mean - normal_995 * error, high=mean + normal_995 * error)
    for quantile, value in zip(quantiles, np.quantile(values, quantiles), strict=True):
        yield Figure(name=name, part=_named(quantile), value=float(value))
    counted = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    ends = [None, *map(float, edges), None]
    for place, answers in enumerate(counted.tolist()):
        yield Figure(
            name=f"{name}_bin", part=f"{place:02}", value=answers / len(values), low=ends[place], high=ends[place + 1]
        )


def _named(quantile: float) -> str:
    return f"p{round(100 * quantile):02}"
