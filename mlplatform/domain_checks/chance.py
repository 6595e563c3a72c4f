"""The label shuffle: with outcomes dealt out at random, nothing can be foretold, and the naive baseline stands.

The outcomes are exchanged between the facts before anything is computed from them, so windows, requests and features
are all made again from a world in which the past says nothing of the future. A quick model is trained on the earlier
requests. If it beats the constant on the later ones, it has seen their outcomes: through the split, through a feature,
or through a column that moves with the outcome.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from mlplatform.domain.model import ModelSpec, XGBoostSettings
from mlplatform.domain.threshold import Threshold
from mlplatform.domain_checks.evidence import Asked, Evidence, seed, spread
from mlplatform.domain_checks.leaks import label_columns
from mlplatform.domain_checks.one_feature import Floats
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import CannotJudge
from mlplatform.features.view import instant
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.evaluate import naive_scores
from mlplatform.training.fit import fit, importance

beyond_noise = Threshold(
    value=4.0,
    reason="standard errors of the mean gain per row; with outcomes dealt out at random the rows are independent, and "
    "four are passed by chance once in thirty thousand times",
)

quick = XGBoostSettings(rounds=40, learning_rate=0.1, max_depth=3, min_child_weight=10, threads=1, seed=seed)
"""Small trees that find any feature with the outcome in it, and little else."""

least_rows = 100
"""Of the earlier and of the later requests."""

most_training_rows = 20_000


def label_shuffle(evidence: Evidence) -> Looked:
    """With outcomes exchanged at random, no model beats the naive baseline on later requests."""
    domain = evidence.domain
    facts = evidence.facts(domain.requests.facts)
    inputs = _columns_of_requests(evidence, facts)
    mixed, judged = [], []
    for model in domain.models:
        read = label_columns(model, facts)
        outcomes = [name for name in read if name not in inputs]
        if outcomes and len(outcomes) < len(read):
            known = ", ".join(name for name in read if name in inputs)
            mixed.append(f"the label of {model.name} reads {known}, which is asked with too")
        else:
            judged.append(model)
    if not judged:
        raise CannotJudge("; ".join(mixed))
    dealt = _dealt(facts, _outcome_columns(evidence, facts, inputs, judged))
    requests = evidence.asked_of(dealt)
    if requests.schema["at"] != instant:
        raise CannotJudge("`at` is no instant in UTC")
    tables = {
        view.name: evidence.published(
            view, dealt if view.facts == domain.requests.facts else evidence.facts(view.facts)
        )
        for view in domain.views
    }
    faults, notes = [], list(mixed)
    for model in judged:
        asked = evidence.labelled(model, requests, evidence.label(model, dealt), tables)
        try:
            gain, feature = _gain(evidence, model, asked)
        except CannotJudge as reason:
            notes.append(str(reason))
            continue
        if gain > beyond_noise.value:
            faults.append(
                Fault(
                    what=f"model {model.name}",
                    where=f"feature {feature}",
                    told=f"with outcomes dealt out at random a quick model beats the naive baseline by {gain:.1f} "
                    f"standard errors ({beyond_noise.value:.0f} are noise), mostly through this feature. Look how it "
                    "knows the outcome of its own case",
                )
            )
    if len(notes) == len(domain.models):
        raise CannotJudge("; ".join(notes))
    return Looked(
        at=f"{len(domain.models) - len(notes)} models on shuffled outcomes"
        + "".join(f"; not judged: {each}" for each in notes),
        faults=tuple(faults),
    )


def _columns_of_requests(evidence: Evidence, facts: pl.DataFrame) -> set[str]:
    """Columns of the facts that requests are made from."""
    some = spread(facts, 1_000)
    before = evidence.asked_of(some)
    found = set()
    for name in facts.columns:
        after = evidence.asked_of(some.with_columns(pl.col(name).shuffle(seed=seed)))
        if not before.equals(after):
            found.add(name)
    return found


def _outcome_columns(evidence: Evidence, facts: pl.DataFrame, inputs: set[str], judged: list[ModelSpec]) -> list[str]:
    """What is dealt out: the columns of the labels, and with them all that only tells of the outcome."""
    labels = {name for model in judged for name in label_columns(model, facts)}
    keys = {key for view in evidence.domain.views for key in view.entity}
    kept = (inputs | keys | {"event_time", "available_at"}) - labels
    return [name for name in facts.columns if name not in kept]


def _dealt(facts: pl.DataFrame, outcomes: list[str]) -> pl.DataFrame:
    """Facts with the outcomes of others; what happened together stays together."""
    return facts.with_columns(facts.select(outcomes).sample(fraction=1, shuffle=True, seed=seed).get_columns())


def _gain(evidence: Evidence, model: ModelSpec, asked: Asked) -> tuple[float, str]:
    """By how many standard errors a quick model beats the constant on later rows, and its strongest feature."""
    earlier, later = evidence.training_rows(model, asked, least_rows)
    features = evidence.inputs_of(model, asked, earlier)
    labels = asked.labels.to_numpy().astype(np.float64)
    if model.task == "regression":
        # Ranks, so that a few huge labels do not decide.
        labels = asked.labels.rank().to_numpy().astype(np.float64) / len(labels)
    learning = np.flatnonzero(earlier.to_numpy())[-most_training_rows:]
    judging = np.flatnonzero(later.to_numpy())
    spec = replace(model, gate=replace(model.gate, metric="rmse" if model.task == "regression" else "log_loss"))
    booster = fit(features[learning], labels[learning], spec, quick)
    scores = raw_scores(booster, matrix(features[judging]))
    naive = naive_scores(spec, labels[learning], len(judging))
    gains = _loss(spec, labels[judging], naive) - _loss(spec, labels[judging], scores)
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5
    shares: Mapping[str, float] = importance(booster)
    strongest = max(shares, key=lambda name: shares[name])
    return (float(gains.mean()) / error if error > 0 else 0.0), strongest


def _loss(spec: ModelSpec, labels: Floats, scores: Floats) -> Floats:
    if spec.task == "regression":
        squares: Floats = (labels - scores) ** 2
        return squares
    of_one = np.where(labels == 1, scores, 1 - scores) if scores.ndim == 1 else None
    given = scores[np.arange(len(labels)), labels.astype(np.int64)] if of_one is None else of_one
    losses: Floats = -np.log(np.clip(given, 1e-7, 1.0))
    return losses
