"""An answer that was computed, judged: values, code, score and what was told, in this order.

What was logged beside an answer tells on the way where it went wrong: the revisions that were served, the vector, the
score. Where the bits are others and what computes is too, that is the cause; and where nothing else is, the record is.
"""

import numpy as np
import polars as pl

from mlplatform.errors import BundleError, DataError, DeclarationError, RemovedByPolicy, UnknownFeature
from mlplatform.features.integrity import unreadable
from mlplatform.monitoring.served import views_read
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.replay.answered import (
    Floats,
    answers_of,
    apart,
    close,
    differing,
    same_bits,
    scored,
    tier_answers,
)
from mlplatform.reproducibility.replay.part import Part
from mlplatform.reproducibility.replay.rebuilt import Rebuilt
from mlplatform.reproducibility.replay.vectors import JudgedVectors, Scores
from mlplatform.reproducibility.replay.verdict import Cause
from mlplatform.scoring.booster import Matrix
from mlplatform.scoring.fallback import Answer


def judge_answers(platform: Platform, part: Part) -> None:
    """Judge rows, none of which is settled yet."""
    part.note_circumstances()
    computed = part.rows.get_column("features").is_not_null().to_numpy()
    _judge_tiers(part.of(np.flatnonzero(~computed)), None)
    _judge_computed(platform, _of_the_model(part.of(np.flatnonzero(computed))))


def _of_the_model(part: Part) -> Part:
    """Rows whose vector and scores are as long as the model's; the others are no record of it."""
    width, scores = len(part.bundle.manifest.features), part.bundle.model.outputs
    fit = part.rows.select(
        (pl.col("features").list.len() == width) & (pl.col("scores").list.len().fill_null(scores) == scores)
    )
    fits = fit.to_series().to_numpy()
    for row in np.flatnonzero(~fits):
        reason = f"its vector or scores are not those of a model of {width} features"
        part.findings.settle(part.places[row], "impossible", "record", reason)
    return part.of(np.flatnonzero(fits))


def _judge_computed(platform: Platform, part: Part) -> None:
    """Rows whose features were computed."""
    if part.rows.is_empty():
        return
    bundle = part.bundle
    vectors = part.rows["features"].list.to_array(len(bundle.manifest.features)).to_numpy()
    logged: Matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    read = views_read(part.rows)
    away = {view: (told["status"] == "unavailable").fill_null(value=False) for view, told in read.items()}
    try:
        rebuilt = Rebuilt(platform, bundle, part.requests, away, logged)
        again, by_logged = scored(bundle, rebuilt.vectors), scored(bundle, logged)
    except RemovedByPolicy as error:
        # Since its revisions were listed.
        for place in part.places:
            part.findings.settle(place, "impossible", "removed", error.tombstone)
        return
    except (*unreadable, DataError, DeclarationError, UnknownFeature, BundleError) as error:
        cause: Cause = "bundle" if isinstance(error, BundleError) else "data"
        reason = " ".join(str(error).split()) or type(error).__name__
        for place in part.places:
            part.findings.settle(place, "impossible", cause, reason[:400])
        return
    for view, gone in away.items():
        for row in np.flatnonzero(gone.to_numpy()):
            part.note(int(row), f"{view} could not be read")
    scores = Scores(
        logged=_logged_scores(part),
        there=part.rows["scores"].is_not_null().to_numpy(),
        again=again.scores,
        by_logged=by_logged.scores,
    )
    JudgedVectors(part, rebuilt, logged, read, scores).judge()
    _judge_scores(part, scores, again.device)
    _judge_told(part, scores, rebuilt.features)


def _logged_scores(part: Part) -> Floats:
    """(n, outputs), NaN where the model gave none."""
    nothing = [float("nan")] * part.bundle.model.outputs
    rows = [nothing if each is None else each for each in part.rows["scores"].to_list()]
    return np.array(rows, dtype=np.float64).reshape(-1, len(nothing))


def _judge_scores(part: Part, scores: Scores, device: str) -> None:
    """Of the same vector."""
    again, then = answers_of(part.bundle, scores.again), answers_of(part.bundle, scores.logged)
    same, near = same_bits(scores.logged, scores.again), close(scores.logged, scores.again)
    off = apart(scores.logged, scores.again)
    for row in part.open():
        if not scores.there[row]:
            continue
        place = part.places[row]
        part.findings.difference[place] = off[row]
        if same[row]:
            continue
        what = f"the score was {_shown(scores.logged[row])}, and is {_shown(scores.again[row])}"
        within = bool(near[row]) and _same_decision(part, then[row], again[row])
        other = part.elsewhere(int(row), device)
        if other is not None:
            part.findings.differs(place, other.cause, f"{other.reason}: {what}", within=within)
        elif part.verified[row] or (part.versions[row] is None and near[row]):
            reason = f"{what}, by the same versions as far as is told: look at what scored there"
            part.findings.differs(place, "environment", reason, within=within)
        else:
            part.findings.settle(place, "diverged", "record", f"{what}: the row is not what was written")


def _judge_told(part: Part, scores: Scores, features: pl.DataFrame) -> None:
    """What was told of the score, or instead of it."""
    sources = part.rows["source"].to_list()
    fallen = []
    told = answers_of(part.bundle, scores.logged)
    for row in part.open():
        place, again = part.places[row], told[row]
        if sources[row] == "model":
            fault = "the model's score is none" if again is None else differing(part.told[row], again)
        elif again is not None:
            fault = f"the model gave a score, and {sources[row]} answered"
        else:
            fallen.append(row)
            continue
        if fault:
            part.findings.settle(place, "diverged", "answer", fault)
    if fallen:
        rows = np.array(fallen, dtype=np.intp)
        _judge_tiers(part.of(rows), features[rows])


def _judge_tiers(part: Part, features: pl.DataFrame | None) -> None:
    """Answers of the fallback chain, each by its own tier.

    Parameters
    ----------
    features : (n, k); None: they could not be computed
    """
    sources = part.rows.get_column("source")
    for source in sources.unique().sort():
        rows = np.flatnonzero((sources == source).to_numpy())
        own = None if features is None else features[rows]
        for row, again in zip(rows, tier_answers(part.bundle, source, part.requests[rows], own), strict=True):
            if difference := differing(part.told[row], again):
                _other_tier(part, int(row), again, f"{source} answered otherwise: {difference}")


def _other_tier(part: Part, row: int, again: Answer, reason: str) -> None:
    then, now = _numbers(part.told[row]), _numbers(again)
    if then.size == now.size:
        part.findings.difference[part.places[row]] = apart(then, now)[0]
    other = part.elsewhere(row)
    if other is None:
        part.findings.settle(part.places[row], "diverged", "answer", reason)
        return
    within = then.size == now.size and bool(close(then, now)[0]) and _same_decision(part, part.told[row], again)
    part.findings.differs(part.places[row], other.cause, f"{other.reason}: {reason}", within=within)


def _same_decision(part: Part, one: Answer | None, other: Answer | None) -> bool:
    """Whether two answers decide alike: the same class and the same need of a review; of a number any is."""
    if one is None or other is None:
        return one is other
    number = part.bundle.model.task == "regression"
    return (number or str(one.prediction) == str(other.prediction)) and one.needs_review == other.needs_review


def _numbers(answer: Answer) -> Floats:
    """(1, …) What of an answer is a number: the probability, else the prediction."""
    if answer.probability is not None:
        return np.array([[answer.probability]], dtype=np.float64)
    try:
        return np.array([[float(answer.prediction)]] if answer.prediction is not None else [[]], dtype=np.float64)
    except ValueError:
        return np.empty((1, 0))


def _shown(scores: Floats) -> str:
    return ", ".join(repr(float(each)) for each in scores)
