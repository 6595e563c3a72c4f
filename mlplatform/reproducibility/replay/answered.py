"""What was told, told again: scores by the bundle's booster, and answers by its postprocessing or a fallback tier.

Scores are compared with scores, and what was told with what the logged score gives, so that a difference is found where
it arose.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Device
from mlplatform.errors import DeviceUnavailable, ScoreOutOfRange
from mlplatform.monitoring.behaviour.rescored import tolerance
from mlplatform.registry.bundle import BOOSTER, SCORING_THREADS, Bundle
from mlplatform.scoring.booster import Matrix, load_booster, raw_scores
from mlplatform.scoring.fallback import Answer, AnswerColumns, fall_back
from mlplatform.scoring.postprocess import plain_answers

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Scored(NamedTuple):
    """Scores, and where they were computed."""

    scores: Floats
    """(n, outputs)."""

    device: Device


def scored(bundle: Bundle, vectors: Matrix) -> Scored:
    """Score vectors on the device of the manifest, or on the CPU where that is not here.

    Raises
    ------
    BundleError
        XGBoost cannot read the booster.
    """
    device = cast(Device, bundle.manifest.device)
    try:
        booster = bundle.booster
    except DeviceUnavailable:
        device = "cpu"
        booster = load_booster(bundle.folder / BOOSTER, device=device, threads=SCORING_THREADS)
    scores = bundle.calibration.apply(raw_scores(booster, vectors))
    return Scored(scores.reshape(len(scores), -1), device)


def same_bits(one: Floats, other: Floats) -> Mask:
    """(n,) Rows of two (n, k) that are equal to the bit; one NaN is as good as another."""
    same: Mask = ((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
    return same


def close(one: Floats, other: Floats) -> Mask:
    """(n,) Rows within `tolerance`, of 1 or of the value where that is larger."""
    with np.errstate(invalid="ignore"):
        off: Floats = np.abs(one - other) - tolerance * np.maximum(1.0, np.abs(other))
    found: Mask = np.logical_and.reduce((off <= 0) | (np.isnan(one) & np.isnan(other)), axis=1)
    return found


def apart(one: Floats, other: Floats) -> Floats:
    """(n,) Largest absolute difference of each row."""
    with np.errstate(invalid="ignore"):
        found: Floats = np.nan_to_num(np.abs(one - other)).max(axis=1, initial=0.0)
    return found


def answers_of(bundle: Bundle, scores: Floats) -> list[Answer | None]:
    """What scores are told as; None where one is no score.

    Parameters
    ----------
    scores : (n, outputs)
    """
    shaped = scores if bundle.model.task == "multiclass" else scores[:, 0]
    found: list[Answer | None] = [None] * len(scores)
    rows = np.arange(len(scores))
    while rows.size:
        try:
            columns = plain_answers(bundle.model, shaped[rows])
        except ScoreOutOfRange as error:
            rows = np.delete(rows, error.rows)
            continue
        for row, answer in zip(rows, AnswerColumns(*columns, ["model"] * rows.size).rows(), strict=True):
            found[row] = answer
        break
    return found


def tier_answers(bundle: Bundle, tier: str, requests: pl.DataFrame, features: pl.DataFrame | None) -> list[Answer]:
    """What one tier of the fallback chain says, or the end of the chain where the manifest has no such tier."""
    tiers = (tier,) if tier in bundle.model.serving.tiers else ()
    return fall_back(
        bundle,
        requests,
        features,
        lambda _: None,
        deadline=1.0,
        clock=lambda: 0.0,
        tell=lambda _: None,
        tiers=tiers,
    )


def told(rows: pl.DataFrame) -> list[Answer]:
    """What rows of the log say that was told; the prediction is text there."""
    names = ("prediction", "probability", "confidence", "needs_review", "source")
    return [Answer(*row) for row in rows.select(names).iter_rows()]


def differing(logged: Answer, again: Answer) -> str:
    """The first part of an answer that is told otherwise, in words; empty where none is."""
    text = None if again.prediction is None else str(again.prediction)
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("source", logged.source, again.source),
        ("prediction", logged.prediction, text),
        ("probability", logged.probability, again.probability),
        ("confidence", logged.confidence, again.confidence),
        ("needs_review", logged.needs_review, again.needs_review),
    )
    for name, then, now in pairs:
        if then != now and not (then is not None and now is not None and then != then and now != now):
            return f"{name} was told as {then}, and is {now}"
    return ""
