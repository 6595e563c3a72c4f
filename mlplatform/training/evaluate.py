"""Evaluating a candidate: beside the champion, a constant and the simple model, on the same rows.

Arrays in, one `Evaluation` out; no file, no clock but the one that is handed in. It judges nothing.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.training import metrics
from mlplatform.training.evaluation import CurveBin, Evaluation, Immaturity, Latency, SegmentResult
from mlplatform.training.metrics import METRICS, Interval, Resamples

Floats = npt.NDArray[np.float64]
Models = Mapping[str, Floats]

ROC_POINTS = 201
BATCH = 1024
LATENCY_CALLS = 300
"""p99 is then the third slowest row: enough to see a slow tail, and over in 0.3 s."""

LATENCY_ROUNDS = 5
"""Of each row the fastest counts. On a machine whose neighbours take its cores by turns, every hundredth call takes
tens of milliseconds, whatever the model: a gate that refuses it for that refuses it for the weather."""


def evaluate(
    spec: ModelSpec,
    *,
    labels: npt.NDArray[np.float64],
    at: pl.Series,
    candidate: Floats,
    simple: Floats,
    training_labels: npt.NDArray[np.float64],
    champion: Floats | None = None,
    requests: pl.DataFrame | None = None,
    importance: Mapping[str, float] | None = None,
    exported: Floats | None = None,
    latency: Latency | None = None,
    immaturity: Immaturity | None = None,
    seed: int | None = None,
    resamples: int = metrics.RESAMPLES,
) -> Evaluation:
    """Put figures and intervals to a candidate.

    Parameters
    ----------
    labels : (n,) float64, of the evaluation part
    at : (n,) Datetime, request times; their days are the blocks of the bootstrap
    candidate, simple, champion : (n,) or (n, classes) float64, calibrated scores on the same rows
    training_labels : (m,) float64; they give the naive baseline
    requests : (n, …) frame with the columns of the declared segments; may be left out if there are none
    importance : feature -> share of the gain
    exported : scores of the exported bundle on the same rows, for parity; None: not checked
    latency, immaturity : measured elsewhere; None: not measured
    seed : of the bootstrap; None takes the seed of the model's settings

    Raises
    ------
    DataError
        There are no rows, two arguments have different lengths, or a label is not finite.
    """
    labels = np.asarray(labels, dtype=np.float64)
    models: dict[str, Floats] = {"candidate": candidate, "naive": naive_scores(spec, training_labels, len(labels))}
    models["simple"] = simple
    if champion is not None:
        models["champion"] = champion
    _refuse_unequal(spec, labels, at, models, requests)
    chosen_seed = spec.settings.seed if seed is None else seed
    sample = metrics.bootstrap(at.dt.epoch("d").to_numpy().astype(np.int64), seed=chosen_seed, resamples=resamples)
    figures, differences = _compare(spec, labels, models, sample)
    return Evaluation(
        model=spec.name,
        task=spec.task,
        rows=len(labels),
        days=sample.draws.shape[1],
        seed=chosen_seed,
        resamples=resamples,
        metrics=figures,
        differences=differences,
        segments=tuple(_segments(spec, labels, models, sample, requests)),
        calibration_curve=() if spec.task == "regression" else calibration_curve(labels, candidate),
        roc=roc_points(labels, candidate) if spec.task == "binary" else (),
        importance=dict(importance or {}),
        immaturity=immaturity,
        latency=latency,
        parity=None if exported is None else parity(candidate, exported),
    )


def naive_scores(spec: ModelSpec, training_labels: npt.NDArray[np.float64], rows: int) -> Floats:
    """The constant that knows nothing but the training labels: their share, class shares, or median.

    Parameters
    ----------
    training_labels : (m,) float64, m ≥ 1
    rows : how often the constant is repeated

    Returns
    -------
    (rows,) or (rows, classes) float64. The mean instead of the median where the gate decides by `rmse`, since that is
    the constant with the smallest squared error.
    """
    known = np.asarray(training_labels, dtype=np.float64)
    if not len(known):
        raise DataError(f"model {spec.name}: without training labels there is no naive baseline")
    if spec.task == "multiclass":
        shares = np.bincount(known.astype(np.int64), minlength=len(spec.label.classes)) / len(known)
        return np.tile(shares, (rows, 1))
    if spec.task == "regression" and spec.gate.metric != "rmse":
        return np.full(rows, float(np.median(known)))
    return np.full(rows, float(known.mean()))


def measure_latency(
    score: Callable[[npt.NDArray[np.float32]], object],
    features_matrix: npt.NDArray[np.float32],
    *,
    clock: Callable[[], float] = time.perf_counter,
    calls: int = LATENCY_CALLS,
) -> Latency:
    """Time the scoring of one row and of batches of 1,024.

    Parameters
    ----------
    score : what the model worker runs, calibration included, on a booster loaded with one thread
    features_matrix : (n, k) float32, n ≥ 1; its rows are used in turn
    clock : seconds
    calls : rows that are timed alone, each `LATENCY_ROUNDS` times

    Returns
    -------
    p50 and p99 (nearest rank) over single rows, of each its fastest call; rows per second of the fastest of five
    batches: a slower one tells more about the neighbours on the machine than about the model.
    """
    rows = len(features_matrix)
    single = [np.ascontiguousarray(features_matrix[each % rows][None, :]) for each in range(calls)]
    batch = np.ascontiguousarray(features_matrix[np.arange(BATCH) % rows])
    for row in single[:10]:
        score(row)
    taken = np.sort(np.min([[_timed(score, row, clock) for row in single] for _ in range(LATENCY_ROUNDS)], axis=0))
    score(batch)
    fastest = min(_timed(score, batch, clock) for _ in range(5))
    return Latency(
        p50_ms=float(taken[int(np.ceil(0.50 * calls)) - 1]) * 1e3,
        p99_ms=float(taken[int(np.ceil(0.99 * calls)) - 1]) * 1e3,
        rows_per_second=BATCH / fastest if fastest > 0 else None,
        calls=calls,
    )


def parity(trained: Floats, exported: Floats) -> float | None:
    """Largest absolute difference of scores; None where one is not finite or the shapes differ."""
    if trained.shape != exported.shape or not trained.size:
        return None
    largest = float(np.abs(trained - exported).max())
    return largest if np.isfinite(largest) else None


def calibration_curve(labels: Floats, scores: Floats) -> tuple[CurveBin, ...]:
    """Mean score against what came true, in bins of equally many rows."""
    certainty, hit = metrics.certainty_and_hit(labels, scores)
    if not np.isfinite(certainty).all():
        return ()
    bin_of = metrics.bins(certainty)
    return tuple(
        CurveBin(
            rows=int((bin_of == each).sum()),
            mean_score=float(certainty[bin_of == each].mean()),
            observed=float(hit[bin_of == each].mean()),
        )
        for each in np.unique(bin_of).tolist()
    )


def roc_points(labels: Floats, scores: Floats) -> tuple[tuple[float, float], ...]:
    """False-positive and true-positive rate from (0, 0) to (1, 1); empty with only one class."""
    positives = float((labels == 1.0).sum())
    if positives in (0.0, float(len(labels))) or not np.isfinite(scores).all():
        return ()
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(labels[order] == 1.0)[ends] / positives
    false = np.cumsum(labels[order] != 1.0)[ends] / (len(labels) - positives)
    kept = np.unique(np.linspace(0, len(ends) - 1, min(len(ends), ROC_POINTS - 1)).astype(np.int64))
    return ((0.0, 0.0), *zip(false[kept].tolist(), true[kept].tolist(), strict=True))


def _timed(
    score: Callable[[npt.NDArray[np.float32]], object], rows: npt.NDArray[np.float32], clock: Callable[[], float]
) -> float:
    begun = clock()
    score(rows)
    return clock() - begun


def _compare(
    spec: ModelSpec, labels: Floats, models: Models, sample: Resamples
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]]]:
    """Every metric of every model, and candidate − other from the same draws."""
    threshold = spec.decision.value if spec.decision else 0.5
    days = len(np.unique(sample.day))
    figures: dict[str, dict[str, Interval]] = {name: {} for name in models}
    differences: dict[str, dict[str, Interval]] = {name: {} for name in models if name != "candidate"}
    for metric in METRICS[spec.task]:
        drawn = {
            name: metrics.replicates(metric, labels, scores, sample, threshold=threshold)
            for name, scores in models.items()
        }
        for name, values in drawn.items():
            figures[name][metric] = metrics.interval(values, days)
            if name != "candidate":
                differences[name][metric] = metrics.interval(drawn["candidate"] - values, days)
    return figures, differences


def _segments(
    spec: ModelSpec, labels: Floats, models: Models, sample: Resamples, requests: pl.DataFrame | None
) -> list[SegmentResult]:
    results = []
    for segment in spec.segments:
        if requests is None or segment.column not in requests.columns:
            raise DataError(f"segment {segment.name} needs the request column {segment.column}, which was not given")
        column = requests.get_column(segment.column).cast(pl.String).fill_null("null")
        for value in sorted(column.unique().to_list()):
            rows = np.flatnonzero((column == value).to_numpy()).astype(np.int64)
            judged = len(rows) >= segment.min_rows
            inside = {name: scores[rows] for name, scores in models.items()} if judged else {}
            figures, differences = _compare(spec, labels[rows], inside, sample.of_rows(rows)) if judged else ({}, {})
            results.append(
                SegmentResult(
                    segment=segment.name,
                    value=value,
                    rows=len(rows),
                    judged=judged,
                    metrics=figures,
                    differences=differences,
                )
            )
    return results


def _refuse_unequal(
    spec: ModelSpec, labels: Floats, at: pl.Series, models: Models, requests: pl.DataFrame | None
) -> None:
    if not len(labels) or not np.isfinite(labels).all() or at.null_count():
        raise DataError(f"model {spec.name}: an evaluation needs rows, each with a label and a request time")
    lengths = {name: len(scores) for name, scores in models.items()} | {"at": len(at)}
    if requests is not None:
        lengths["requests"] = requests.height
    unequal = {name: length for name, length in lengths.items() if length != len(labels)}
    if unequal:
        raise DataError(f"model {spec.name}: {len(labels)} labels, but {unequal}; evaluate all on the same rows")
