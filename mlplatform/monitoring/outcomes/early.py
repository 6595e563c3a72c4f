"""Labels that come early are not like the rest: a flight that lands in time has landed before the late one.

So of each mature day it is kept what its early labels said, some hours after its end, beside what all of them said. Of
a day that is not mature yet, these differences are the bias that its figure is to be read with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.outcomes.tables import early_schema
from mlplatform.training import metrics

hours_after = (0, 1, 2, 3, 6, 12, 18, 24, 36, 48, 72, 96, 168, 336, 672)
"""Hours after a day's end at which it is noted which labels are in; the last ones are for labels that take weeks."""

days_compared = 28
"""Mature days that the bias is taken from: enough to average their weather, few enough to be of this season."""


@dataclass(frozen=True, kw_only=True)
class EarlyBias:
    """How what a day's early labels say differs from what all of them will, as seen on earlier days."""

    hours: int
    """After the end of the day."""

    days: int
    share: float
    """Of the labels that were in by then."""

    bias: float
    """Of the deciding metric: on early labels minus on all."""


def early_rows(
    model: ModelSpec, labels: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], hours: npt.NDArray[np.float64]
) -> pl.DataFrame:
    """What the early labels of a mature day said, as `early_schema`.

    Parameters
    ----------
    labels, scores : of the model's own answers, all finite
    hours : (n,) from the end of the day until the label was known; may be negative
    """
    threshold = model.decision.value if model.decision else 0.5

    def metric(chosen: npt.NDArray[np.bool_]) -> float | None:
        if not chosen.any():
            return None
        value = metrics.value(model.gate.metric, labels[chosen], scores[chosen], threshold=threshold)
        return value if np.isfinite(value) else None

    every = metric(np.ones(len(labels), dtype=np.bool_))
    rows = []
    for hour in hours_after:
        known = hours <= hour
        rows.append((model.name, hour, int(known.sum()), len(labels), metric(known), every))
        if known.all():
            break
    return pl.DataFrame(rows, schema=early_schema, orient="row")


def early_bias(noted: Sequence[pl.DataFrame], model: str, hours: float) -> EarlyBias | None:
    """The bias of labels that are in so many hours after the end of a day; None: no mature day tells.

    Parameters
    ----------
    noted : `early_rows` of mature days
    """
    steps = [step for step in hours_after if step <= hours]
    if not steps:
        return None
    known = pl.concat(
        [
            pl.DataFrame(schema=early_schema),
            # A day whose labels were all in earlier has no later step: its last one stands.
            *(
                each.filter(pl.col("model") == model, pl.col("hours") <= steps[-1]).sort("hours").tail(1)
                for each in noted
            ),
        ]
    ).drop_nulls()
    if known.is_empty():
        return None
    share, bias = known.select(
        pl.col("labelled").sum() / pl.col("rows").sum(), (pl.col("early") - pl.col("all")).mean()
    ).row(0)
    return EarlyBias(hours=steps[-1], days=known.height, share=share, bias=bias)
