"""Rows of the prediction log of a day, and what is usual of the model that gave them."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.monitoring import Monitoring
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.behaviour.usual import AtEvaluation, Usual, UsualDay
from mlplatform.monitoring.estimated import estimated
from mlplatform.monitoring.prediction_log import Batch, frame
from mlplatform_tests.fakes.answered import NOON, answered

LATE = replace(DOMAIN.model("late_order"), monitoring=Monitoring())
MIDNIGHT = NOON - 43_200_000_000_000
DAY_SECONDS = 86_400


def usual_scores(rows: int = 600, *, seed: int = 1, shift: float = 0.0) -> npt.NDArray[np.float64]:
    """(rows,) float64 scores of a binary model, most of them low; `shift` moves their log odds."""
    odds = np.random.default_rng(seed).normal(-1.2 + shift, 1.2, rows)
    return 1.0 / (1.0 + np.exp(-odds))


def batch_of_day(given: npt.NDArray[np.float64], *, midnight: int = MIDNIGHT, **changes: Any) -> Batch:
    """Answers of the synthetic shop's binary model, evenly over a day.

    Parameters
    ----------
    midnight : nanoseconds since the epoch at which the day begins
    """
    rows = len(given)
    received = [midnight + place * DAY_SECONDS * 10**9 // max(1, rows) for place in range(rows)]
    told: dict[str, Any] = {
        "model": LATE.name,
        "request_id": [f"{midnight}-{place}" for place in range(rows)],
        "received": received,
        "at": [each // 1000 for each in received],
        "scores": np.ascontiguousarray(given).tobytes(),
        "probability": given.tolist(),
        "confidence": np.maximum(given, 1.0 - given).tolist(),
        "prediction": (given >= 0.5).astype(int).tolist(),
        "needs_review": [False] * rows,
    }
    return answered(rows, **(told | changes))


def rows_of_day(given: npt.NDArray[np.float64] | None = None, **changes: Any) -> pl.DataFrame:
    """The same as rows of the table."""
    return frame([batch_of_day(usual_scores() if given is None else given, **changes)])


def usual_days(*, spec: ModelSpec = LATE, days: int = 30, rows: int = 600, season: float = 0.2) -> Usual:
    """What is usual of the model of `usual_scores`: days that differ by `season` in their log odds, as days do."""
    random = np.random.default_rng(5)
    drawn = [usual_scores(rows, seed=100 + day, shift=season * random.standard_normal()) for day in range(days)]
    made = tuple(
        UsualDay(
            day=(date(2023, 12, 1) + timedelta(days=place)).isoformat(),
            held_out=place >= days // 2,
            rows=rows,
            hours=24,
            mean_score=float(each.mean()),
            log_loss=estimated("binary", each).figures["log_loss"].point,
            rarest_class=float((each >= 0.5).mean()),
        )
        for place, each in enumerate(drawn)
    )
    together = np.concatenate(drawn)
    said = estimated("binary", together).figures
    return Usual(
        spec=spec,
        edges=tuple(np.quantile(together, np.arange(1, 20) / 20).tolist()),
        days=made,
        evaluation={
            metric: AtEvaluation(estimated=each.point, truth=each.point, daily_error=0.01)
            for metric, each in said.items()
            if each.point is not None
        },
    )
