"""How golden requests are answered: by the domain's code as it is registered now, and stored weights.

Each step is the one that a gateway takes: the body is read against the declared columns and rules, the inputs are
computed, scored, calibrated and made an answer. Beside the model's answer stand those of the other ways to answer, and
which of them a request falls to. What a request is refused for, or what the domain's code raises on it, is told of that
request alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, DeclarationError, InvalidRequest, ScoreOutOfRange
from mlplatform.features.pipeline import given
from mlplatform.features.view import feature_names, instant, model_inputs, view_features
from mlplatform.reproducibility.golden.golden import Weights
from mlplatform.scoring.booster import Scores, matrix, raw_scores
from mlplatform.scoring.fallback import Answer, fall_back
from mlplatform.scoring.postprocess import answers
from mlplatform.scoring.request import held_rules, read_request, request_frame
from mlplatform.scoring.request_decoder import RequestDecoder
from mlplatform.scoring.simple_model import SimpleModel

Rows = npt.NDArray[np.intp]

_what = "golden requests"
_answer_fields = ("prediction", "probability", "confidence", "needs_review")


@dataclass(frozen=True, kw_only=True)
class Read:
    """Bodies as the domain reads them now."""

    requests: pl.DataFrame
    """(m, …) request columns and `at`."""

    kept: list[int]
    """(m,) Places among the bodies."""

    refused: Mapping[int, str]
    """Place -> why it would not be answered."""


def read_bodies(domain: Domain, bodies: Sequence[str], at: Sequence[datetime]) -> Read:
    """Bodies as a gateway reads them."""
    columns = domain.requests.columns
    decode = RequestDecoder(columns)
    refused: dict[int, str] = {}
    taken: dict[int, tuple[Any, ...]] = {}
    for place, body in enumerate(bodies):
        try:
            values = decode(body.encode())
            if values is None:
                fields = msgspec.json.decode(body)
                # Its own time, which a gateway takes where it is told to; what it was answered as of is stored.
                fields.pop("at", None)
                values = read_request(fields, columns)
            taken[place] = values
        except InvalidRequest as error:
            refused[place] = str(error)
    kept = list(taken)
    requests = request_frame(list(taken.values()), columns).with_columns(
        pl.Series("at", [at[place] for place in kept], dtype=instant)
    )
    for rule in held_rules(domain.requests.rules):
        holds = requests.select(holds=rule.holds())["holds"].to_list()
        refused |= {
            kept[row]: f"{rule.name}: broken: {rule.meaning}" for row, each in enumerate(holds) if each is False
        }
    good = [row for row, place in enumerate(kept) if place not in refused]
    return Read(requests=requests[good], kept=[kept[row] for row in good], refused=refused)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What each way to answer gives."""

    features: pl.DataFrame
    """(n, k) inputs of the weights that the domain still declares, float32 as in the matrix; NaN where missing."""

    scores: Scores
    """(n, outputs) calibrated, NaN where there is none."""

    rows: list[dict[str, Any]]
    """By row: `scores`, the answers of `model`, `simple_model` and `rules`, and `falls_to`: the tier that answers with
    an earlier answer in the cache, with the features alone, and with no more than the request."""

    raised: Mapping[int, str]
    """Row -> what the feature code raised on it."""

    gone: tuple[str, ...] = ()
    """Inputs of the weights that the domain does not declare any more: with them gone, nothing is scored."""

    added: tuple[str, ...] = ()
    """Features and fitted values that it declares and the weights do not know."""

    told: frozenset[str] = field(default=frozenset())
    """Why tiers were passed over."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """What the other ways to answer are given, so that a moved input or answer of the model does not reach them."""

    features: pl.DataFrame
    """(n, k) the inputs as they were stored."""

    model: Sequence[Mapping[str, Any] | None]
    """(n,) The answers of the model as they were stored."""


def answered(
    domain: Domain,
    model: ModelSpec,
    weights: Weights,
    requests: pl.DataFrame,
    view_values: pl.DataFrame,
    before: Before | None = None,
) -> Answered:
    """Answer requests in every way.

    Parameters
    ----------
    model : as it is declared now
    requests : (n, …) request columns and `at`, as `read_bodies` gives them
    view_values : (n, …) the stored values; of a feature that was added since there is none, and null is taken
    before : what the other ways answer from; None: from what is computed here
    """
    known = replace(model, fitted=tuple(name for name in model.fitted if name in weights.fitted))
    declared = feature_names(domain, known)
    gone = tuple(name for name in weights.features if name not in declared)
    added = tuple(name for name in feature_names(domain, model) if name not in weights.features)
    looked_up = {each.name: each.dtype for features in view_features(domain, known).values() for each in features}
    values = (
        view_values.select(
            pl.col(name) if name in view_values.columns else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in looked_up.items()
        )
        if looked_up
        else pl.DataFrame(height=requests.height)
    )
    inputs, raised = _inputs(domain, known, weights, requests, values)
    there = [name for name in weights.features if name in declared]
    features = pl.DataFrame(matrix(inputs.select(there)), schema=there)
    scores = _scores(model, weights, features, raised, whole=not gone)
    said: set[str] = set()
    by_model = _of_model(model, scores)
    ways = _Ways(domain, model, weights.simple)
    if before is None:
        beside = _beside(ways, requests, None if gone else inputs, by_model, raised.keys(), said)
    else:
        of_then = [None if each is None else Answer(**each, source="model") for each in before.model]
        beside = _beside(ways, requests, _unmoved(inputs, features, before.features), of_then, (), said)
    rows = [
        {
            "scores": None if np.isnan(scores[row]).any() else scores[row].tolist(),
            "model": _plain(by_model[row]),
            **beside[row],
        }
        for row in range(requests.height)
    ]
    return Answered(
        features=features, scores=scores, rows=rows, raised=raised, gone=gone, added=added, told=frozenset(said)
    )


def probe_scores(model: ModelSpec) -> Scores:
    """Scores at which a post-processing shows what it does: thresholds, the values beside them, ends and ties."""
    if model.task == "regression":
        return np.array([-1.5, 0.0, 0.1, 1.0, 60.0, 1e6])
    # The one-sided neighbours tell a threshold from the next number that there is.
    marks = [0.0, 0.25, 0.5, 0.75, 1.0]
    for threshold in (model.decision, model.review_below):
        for value in (threshold.value, 1.0 - threshold.value) if threshold else ():
            marks += [value, np.nextafter(value, 0.0), np.nextafter(value, 1.0)]
    marks = sorted({float(each) for each in marks if 0.0 <= each <= 1.0})
    if model.task == "binary":
        return np.array(marks)
    others = len(model.label.classes) - 1
    return np.array([np.roll([mark] + [(1.0 - mark) / others] * others, each) for mark in marks for each in (0, 1)])


def probed(model: ModelSpec, scores: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """What post-processing makes of scores, one by one; `refused` where it makes nothing of them."""
    told: list[dict[str, Any]] = []
    for each in scores:
        given_scores = np.array([each]) if model.task == "multiclass" else np.array(each)
        try:
            made = answers(model, given_scores).row(0, named=True)
        except ScoreOutOfRange as error:
            made = {"refused": error.reason}
        told.append({"scores": list(each), **made})
    return told


def by_rules(domain: Domain, model: ModelSpec, simple: SimpleModel, requests: pl.DataFrame) -> list[Answer]:
    """What the rules alone answer."""
    return fall_back(
        _Ways(domain, model, simple),
        requests.select(column.name for column in domain.requests.columns),
        None,
        lambda _: None,
        deadline=1.0,
        clock=lambda: 0.0,
        tell=lambda _: None,
        tiers=("rules",),
    )


@dataclass
class _Ways:
    """What `fall_back` asks of a bundle."""

    domain: Domain
    model: ModelSpec
    simple: SimpleModel


def _inputs(
    domain: Domain, model: ModelSpec, weights: Weights, requests: pl.DataFrame, values: pl.DataFrame
) -> tuple[pl.DataFrame, dict[int, str]]:
    """All inputs; null for a row on which the code raises, which is told."""

    def of(rows: pl.DataFrame, looked_up: pl.DataFrame) -> pl.DataFrame:
        return given(model_inputs, "the feature code", _what, domain, model, rows, looked_up, weights.fitted)

    try:
        return of(requests, values), {}
    except (DataError, DeclarationError):
        # Alone, each tells for itself.
        raised: dict[int, str] = {}
        parts: dict[int, pl.DataFrame] = {}
    for row in range(requests.height):
        try:
            parts[row] = of(requests[row : row + 1], values[row : row + 1])
        except (DataError, DeclarationError) as error:
            raised[row] = str(error)
    if not parts:
        nothing = dict.fromkeys(feature_names(domain, model), pl.Float32())
        return pl.DataFrame(schema=nothing).clear(requests.height), raised
    computed = pl.concat(parts.values()).with_columns(pl.Series("_row", list(parts), dtype=pl.Int64))
    every_row = pl.DataFrame({"_row": range(requests.height)}, schema={"_row": pl.Int64})
    return every_row.join(computed, on="_row", how="left", maintain_order="left").drop("_row"), raised


def _scores(
    model: ModelSpec, weights: Weights, features: pl.DataFrame, raised: Mapping[int, str], *, whole: bool
) -> Scores:
    if not whole:
        return np.full((features.height, model.outputs), np.nan)
    scores = weights.calibration.apply(raw_scores(weights.booster, matrix(features)))
    scores = scores.reshape(len(scores), -1)
    scores[list(raised)] = np.nan
    return scores


def _unmoved(inputs: pl.DataFrame, features: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Inputs of which those that moved are as they were stored; the others are in the precision they are made in."""
    return pl.DataFrame(
        [
            inputs[each.name] if each.name in features.columns and features[each.name].equals(each) else each
            for each in stored
        ]
    )


def _beside(
    ways: _Ways,
    requests: pl.DataFrame,
    inputs: pl.DataFrame | None,
    by_model: Sequence[Answer | None],
    without: Collection[int],
    said: set[str],
) -> list[dict[str, Any]]:
    """By row, what answers where the model does not.

    Parameters
    ----------
    by_model : what lies in the cache
    without : rows that have no inputs
    """
    columns = requests.select(column.name for column in ways.domain.requests.columns)
    tiers = ways.model.serving.tiers

    def fall(asked: Sequence[str], *, features: bool, cached: bool = False) -> list[Answer]:
        # Row by row, since a row whose features could not be computed falls further than its neighbours.
        told: list[Answer] = []
        for row in range(columns.height):
            known = inputs[row : row + 1] if features and inputs is not None and row not in without else None
            earlier = by_model[row] if cached else None
            told += fall_back(
                ways,
                columns[row : row + 1],
                known,
                lambda _, earlier=earlier: earlier,  # type: ignore[misc]  # bound now
                deadline=1.0,
                clock=lambda: 0.0,
                tell=said.add,
                tiers=asked,
            )
        return told

    simple, rules = fall(("simple_model",), features=True), by_rules(ways.domain, ways.model, ways.simple, requests)
    stages = {
        "cache": fall(tiers, features=True, cached=True),
        "features": fall(tiers, features=True),
        "request": fall(tiers, features=False),
    }
    return [
        {
            "simple_model": _plain(simple[row]),
            "rules": _plain(rules[row]),
            "falls_to": {stage: told[row].source for stage, told in stages.items()},
        }
        for row in range(requests.height)
    ]


def _of_model(model: ModelSpec, scores: Scores) -> list[Answer | None]:
    found: list[Answer | None] = []
    for row in scores:
        try:
            told = answers(model, row[None, :] if model.task == "multiclass" else row)
        except ScoreOutOfRange:
            found.append(None)
            continue
        prediction, probability, confidence, needs_review = told.select(_answer_fields).row(0)
        found.append(Answer(prediction, probability, confidence, needs_review, "model"))
    return found


def _plain(answer: Answer | None) -> dict[str, Any] | None:
    """Null where this way gives none."""
    if answer is None or answer.source == "low_confidence":
        return None
    return {name: getattr(answer, name) for name in _answer_fields}
