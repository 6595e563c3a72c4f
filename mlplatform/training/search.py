"""Hyper-parameter search: a few Optuna trials on the newest training rows, judged on the rows after them.

Trial 0 is the declared settings, so a search never ends below them. It looks at the training part only: calibration and
evaluation rows stay unseen. Sampler and seed are recorded, and the trials run one after another, so the same rows give
the same trials.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Between, ModelSpec, XGBoostSettings
from mlplatform.errors import DataError, DeclarationError
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.fit import fit
from mlplatform.training.metrics import DIRECTIONS, value

if TYPE_CHECKING:
    import optuna

HOLD_OUT = 0.2
"""Newest share of the sampled rows, which judges a trial."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best settings, and every trial that was made."""

    settings: XGBoostSettings
    trials: tuple[dict[str, Any], ...]
    """Each with `number`, `params` and `value`; empty where no search was declared."""

    metric: str
    """What `value` is: `log_loss`, or for a regression the gate's metric. Lower is better."""

    seed: int


def search(features: pl.DataFrame, labels: npt.NDArray[Any], at: pl.Series, spec: ModelSpec) -> SearchResult:
    """Search the declared space.

    Parameters
    ----------
    features : (n, k) frame of the training part
    labels : (n,) numbers
    at : (n,) Datetime, request times
    spec : its `search` says what may be tried, its `settings` are trial 0 and give the seed

    Returns
    -------
    Settings with the lowest value on the hold-out, the earlier of equals; the declared ones without a search.

    Raises
    ------
    DeclarationError
        A parameter of the space is no number among the settings.
    DataError
        Nothing is left to fit on before the hold-out and its gap.
    """
    metric = spec.gate.metric if spec.task == "regression" else "log_loss"
    declared, space = spec.settings, spec.search
    if space.trials < 1:
        return SearchResult(settings=declared, trials=(), metric=metric, seed=declared.seed)
    _refuse_unknown(spec)
    before, after = _hold_out(at, spec)
    labels = np.asarray(labels, dtype=np.float64)
    judged = matrix(features[after])

    def judge(settings: XGBoostSettings) -> float:
        booster = fit(features[before], labels[before], spec, settings)
        return value(metric, labels[after], raw_scores(booster, judged))

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=declared.seed))
    tried = [(declared, _chosen(declared, spec), judge(declared))]
    distributions = {name: _distribution(between) for name, between in space.parameters.items()}
    if _inside(declared, spec):
        study.add_trial(optuna.trial.create_trial(params=tried[0][1], distributions=distributions, value=tried[0][2]))
    for _ in range(space.trials - 1):
        trial = study.ask(distributions)
        settings = replace(declared, **trial.params)
        result = judge(settings)
        study.tell(trial, result)
        tried.append((settings, dict(trial.params), result))
    best = min(tried, key=lambda each: each[2])
    return SearchResult(
        settings=best[0],
        trials=tuple(
            {"number": number, "params": params, "value": result} for number, (_, params, result) in enumerate(tried)
        ),
        metric=metric,
        seed=declared.seed,
    )


def _refuse_unknown(spec: ModelSpec) -> None:
    if spec.task == "regression" and DIRECTIONS.get(spec.gate.metric) != "lower":
        raise DeclarationError(f"model {spec.name}: a search minimises mae or rmse, not {spec.gate.metric}")
    numeric = {each.name for each in fields(XGBoostSettings)} - {"objective", "device", "threads", "seed", "more"}
    unknown = sorted(set(spec.search.parameters) - numeric)
    if unknown:
        raise DeclarationError(
            f"model {spec.name}: no search over {', '.join(unknown)}; there is {', '.join(sorted(numeric))}"
        )


def _hold_out(at: pl.Series, spec: ModelSpec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the rows to fit on and of those to judge on, in time order, with the label delay between them."""
    order = at.arg_sort().to_numpy().astype(np.int64)[-spec.search.sample_rows :]
    after = order[int(len(order) * (1.0 - HOLD_OUT)) :]
    begin = at[int(after[0])] if len(after) else None
    if not isinstance(begin, datetime):
        raise DataError(f"model {spec.name}: no request times to search on")
    known = at.gather(order) < begin - spec.label.delay
    before = order[known.to_numpy()]
    after = order[(at.gather(order) >= begin).to_numpy()]
    if not len(before):
        raise DataError(
            f"model {spec.name}: all {len(order)} sampled rows lie within one label delay, so no trial can be judged. "
            "Raise `sample_rows`, or search on more days"
        )
    return before, after


def _chosen(settings: XGBoostSettings, spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in spec.search.parameters}


def _inside(settings: XGBoostSettings, spec: ModelSpec) -> bool:
    """Whether the sampler may learn from the declared settings: it refuses values outside its ranges."""
    chosen = _chosen(settings, spec)
    return all(between.low <= chosen[name] <= between.high for name, between in spec.search.parameters.items())


def _distribution(between: Between) -> optuna.distributions.BaseDistribution:
    import optuna

    if between.whole:
        return optuna.distributions.IntDistribution(int(between.low), int(between.high), log=between.log)
    return optuna.distributions.FloatDistribution(between.low, between.high, log=between.log)
