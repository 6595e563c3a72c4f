"""Requests that two manifests have scored: one answered, the other scored in the shadow.

Pure over rows of the prediction log. What the shadow was too busy for makes no pair, and neither does what was written
before the shadow began.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.outcomes.model_day import scores_of
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.rollout.sequential import Values

asked_columns = ("request_id", "received", "at", "request")
said_columns = ("source", "scores", "probability", "prediction", "features_us", "score_us")
"""Of the log: what is read of a request, and of each arm's row."""

_of_shadow = " of the shadow"


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """What one manifest did with the requests of all pairs."""

    failed: Values
    """(n,) 1 where there is no score of the model, else 0."""

    refused: Values
    """(n,) 1 where the model gave something that is no score."""

    seconds: Values
    """(n,) that features and score took; NaN: not told, or there is no score."""

    scores: Values
    """(n,) or (n, classes) of the model, else NaN."""

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(n,) whether there is a score."""
        finite = np.isfinite(self.scores)
        return finite if finite.ndim == 1 else np.asarray(finite.all(axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Paired:
    """Pairs, in the order in which the requests came."""

    asked: pl.DataFrame
    """(n, …) `asked_columns`."""

    champion: Arm
    challenger: Arm

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(n,) whether both gave a score."""
        both: npt.NDArray[np.bool_] = self.champion.scored & self.challenger.scored
        return both


def paired(model: ModelSpec, rows: pl.DataFrame, challenger: str) -> Paired:
    """Answers with what the other arm said of them.

    Parameters
    ----------
    rows : of the two manifests, by time, with `asked_columns`, `said_columns`, `manifest` and `arm`
    challenger : digest
    """
    # A caller may use an id again: only with its time it names one request. During a pick-up a row may come twice.
    key = ["request_id", "received"]
    answers = rows.filter(pl.col("arm") != SHADOW).unique(key, keep="first", maintain_order=True)
    shadows = rows.filter(pl.col("arm") == SHADOW).select(*key, "manifest", *said_columns).unique(key, keep="first")
    both = answers.join(shadows, on=key, how="inner", suffix=_of_shadow, maintain_order="left").filter(
        pl.col("manifest") != pl.col(f"manifest{_of_shadow}")
    )
    by_challenger = pl.col("manifest") == challenger
    return Paired(
        asked=both.select(asked_columns),
        champion=_arm(model, both.select(_chosen(name, ~by_challenger) for name in said_columns)),
        challenger=_arm(model, both.select(_chosen(name, by_challenger) for name in said_columns)),
    )


def _chosen(name: str, answered: pl.Expr) -> pl.Expr:
    """A column of the row that answered, or of the shadow's."""
    return pl.when(answered).then(name).otherwise(f"{name}{_of_shadow}").alias(name)


def _arm(model: ModelSpec, said: pl.DataFrame) -> Arm:
    own = (said["source"] == "model").to_numpy()
    number = said if model.task == "multiclass" else said.with_columns(pl.col("prediction").cast(float, strict=False))
    scores = scores_of(model, number)
    broken = said.select(pl.col("scores").list.eval(~pl.element().is_finite()).list.any().fill_null(value=False))
    gave = said["scores"].is_not_null().to_numpy()
    # An answer without scores was repeated, or fallen back on: no model took that time.
    spent = pl.col("features_us").fill_null(0) + pl.when(pl.col("scores").is_not_null()).then("score_us")
    took = said.select(spent.cast(float).fill_null(np.nan) / 1e6)
    return Arm(
        failed=(~own).astype(np.float64),
        # Scores that were given and not answered with were refused.
        refused=(gave & (~own | broken.to_series().to_numpy())).astype(np.float64),
        seconds=took.to_series().to_numpy(),
        # What the fallback chain said is not the model's.
        scores=np.where(own if scores.ndim == 1 else own[:, None], scores, np.nan),
    )
