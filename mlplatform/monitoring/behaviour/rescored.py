"""Whether the logged scores are what the model says: some answers of a day, scored again with their own bundle.

Every other rule looks at scores beside what is usual of them, and scores that are wrong by themselves look usual
enough for weeks. The log holds the very vector that each score was made of, so a few hundred rows settle it.

It refuses to guess: a bundle that cannot be loaded is told, and is no finding.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import Device
from mlplatform.errors import BundleError, RemovedByPolicy
from mlplatform.monitoring.behaviour.rules import LAYER
from mlplatform.monitoring.finding import Finding
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import BOOSTER, SCORING_THREADS, Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import Matrix, load_booster, raw_scores

Floats = npt.NDArray[np.float64]

rows_rescored = 256
"""Of a manifest and day: a fault of one answer in fifty is met 99 times in 100, in some milliseconds."""

tolerance = 1e-4
"""By how much a score may be off before it is harm, of 1 or of the score where that is larger: another device sums the
same leaves to the last bits of a float32, which a steep piece of a calibration curve makes larger."""

gateways_named = 5

_device: Device = "cpu"
"""Monitors score here, wherever was answered: they have no card."""

_of = ("model", "manifest")
_read = ("request_id", "gateway", "device", "features", "scores")


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """What came of scoring some answers of one manifest again."""

    model: str
    manifest: str
    answers: int
    """Of the model itself, those of shadows too."""

    rows: int = 0
    """Those of them that were scored again."""

    differing: int = 0
    """Not the same: to the bit where the CPU answered too, else within `tolerance`."""

    wrong: int = 0
    """Off by more than `tolerance`, on whatever device."""

    largest: float = 0.0
    """Largest absolute difference."""

    gateways: tuple[str, ...] = ()
    """Those that gave differing scores."""

    example: str = ""
    """Id of the request whose score is off the most."""

    not_compared: str = ""
    """Why not; empty where it was."""


def rescored_of_day(platform: Platform, log: pl.LazyFrame) -> list[Rescored]:
    """Score some of a day's answers again, of each model and manifest, those with the most answers first."""
    own = log.filter(pl.col("source") == "model")
    # By a hash of the id: the same rows each time. Polars' own is a hundred times as quick as a digest, and holds for
    # one version of Polars; which rows are looked at changes nothing that is said of them.
    drawn = pl.col("request_id").bottom_k_by(pl.col("request_id").hash(), rows_rescored)
    listed = own.group_by(_of).agg(pl.len().alias("answers"), drawn).sort("answers", *_of, descending=True).collect()
    chosen = listed.select(*_of, "request_id").explode("request_id", empty_as_null=False, keep_nulls=False)
    # One look for all of them: to read the vectors of a large day is nearly all that this costs.
    of_any = own.filter(pl.col("request_id").is_in(chosen["request_id"].unique().implode())).select(*_of, *_read)
    rows = of_any.collect().join(chosen, on=[*_of, "request_id"], how="semi")
    return [
        _rescored(platform, Rescored(model=model, manifest=manifest, answers=answers), rows)
        for model, manifest, answers in listed.select(*_of, "answers").iter_rows()
    ]


def _rescored(platform: Platform, told: Rescored, rows: pl.DataFrame) -> Rescored:
    own = rows.filter(pl.col("model") == told.model, pl.col("manifest") == told.manifest)
    try:
        return beside_bundle(told, bundle_of(platform, told.manifest), own)
    except (BundleError, RemovedByPolicy) as error:
        return replace(told, not_compared=str(error))


def beside_bundle(told: Rescored, bundle: Bundle, rows: pl.DataFrame) -> Rescored:
    """What was told of a manifest, and what its bundle says of some rows.

    Parameters
    ----------
    rows : of the log, with `request_id`, `gateway`, `device`, `features`, `scores`
    """
    width = len(bundle.manifest.features)
    outputs = bundle.model.outputs
    fit = (pl.col("features").list.len() == width) & (pl.col("scores").list.len() == outputs)
    kept = rows.filter(fit).sort("request_id")
    if kept.is_empty():
        return replace(told, not_compared=f"no vector of {width} features was logged with its {outputs} scores")
    logged = kept["scores"].list.to_array(outputs).to_numpy()
    again = _scores(bundle, np.ascontiguousarray(kept["features"].list.to_array(width).to_numpy()))
    apart = np.abs(logged - again)
    alike = np.isnan(logged) & np.isnan(again)
    # A score that is no number on one side only is not within anything.
    far = (~(apart <= tolerance * np.maximum(1.0, np.abs(again))) & ~alike).any(axis=1)
    other = ((logged != again) & ~alike).any(axis=1) & (kept["device"] == _device).to_numpy()
    differing = far | other
    by_row = np.nan_to_num(apart).max(axis=1)
    return replace(
        told,
        rows=kept.height,
        wrong=int(far.sum()),
        differing=int(differing.sum()),
        largest=float(by_row[differing].max(initial=0.0)),
        gateways=tuple(kept["gateway"].filter(differing).unique().sort()),
        example=kept["request_id"][int(np.where(differing, by_row, -1.0).argmax())] if differing.any() else "",
    )


def rescored_finding(domain: Domain, day: str, told: Rescored) -> Finding | None:
    """Answers whose score is not the model's. No bound is learned: the same vector gives the same score, or does not.

    What another release of XGBoost does to the last bits costs no good prediction: it is shown and wakes nobody.
    """
    if not told.differing:
        return None
    where = ", ".join(told.gateways[:gateways_named]) + (" and others" if told.gateways[gateways_named:] else "")
    look = (
        "The features are not at fault. Look at what scores there: which bundle it has loaded, and on what machine"
        if told.wrong
        else "Look whether XGBoost is of another release there than here"
    )
    return Finding(
        layer=LAYER,
        rule="scores_differ",
        subject=f"{domain.name}/{told.model}",
        day=day,
        manifest=told.manifest,
        summary=f"{told.manifest[:12]}: {told.differing} of {told.rows} answers that were scored again have another "
        f"score than the model gives to the vector that was logged with it, by up to {told.largest:.2g} "
        f"(request {told.example}; gateways {where}). {look}",
        harmful=bool(told.wrong),
        figures={
            "value": told.differing / told.rows,
            "bound": 0.0,
            "rows": float(told.rows),
            "differing": float(told.differing),
            "largest": told.largest,
        },
    )


def _scores(bundle: Bundle, vectors: Matrix) -> Floats:
    """(n, outputs) as a model worker on the CPU gives them."""
    booster = (
        bundle.booster
        if bundle.manifest.device == _device
        else load_booster(bundle.folder / BOOSTER, device=_device, threads=SCORING_THREADS)
    )
    scores = bundle.calibration.apply(raw_scores(booster, vectors))
    return scores.reshape(len(scores), -1)
