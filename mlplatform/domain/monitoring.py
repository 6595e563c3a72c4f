"""What a domain says of its monitoring: the figures that matter to its people, and who is told.

Bounds that can be learned are learned from the training window of the model that serves; here stand those that only a
person can set, each with its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from mlplatform.domain.threshold import Direction, Threshold


@dataclass(frozen=True, kw_only=True)
class BusinessMetric:
    """What the predictions of a model are worth, in a unit that its users think in."""

    name: str
    meaning: str
    unit: str
    better: Direction
    value: Callable[[], pl.Expr]
    """Expression over `label`, `prediction`, `probability` and the request columns: one number per answered request
    whose label is known. Its mean is shown."""


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """How a model is watched."""

    min_rows: Threshold = Threshold(
        value=200, reason="with fewer answers a share of a half has an interval of 14 points, and nothing can be said"
    )
    """Answers of a day below which its figures are shown and not judged."""

    false_discoveries: Threshold = Threshold(
        value=0.01, reason="of what is said to have changed, one in a hundred may not have"
    )
    """False-discovery rate over the features of a day."""

    max_fallback_share: Threshold = Threshold(
        value=0.05, reason="one answer in twenty without the model is felt by its users, and is no hiccup"
    )
    """Share of a day's (or a window's) answers that were not the model's."""

    max_late_share: Threshold = Threshold(
        value=0.01, reason="the deadline is a promise; past one answer in a hundred it is not a slow moment any more"
    )
    """Share of a day's (or a window's) answers that took longer than `Serving.deadline`."""

    calibration_margin: Threshold = Threshold(
        value=0.05, reason="a probability that is off by one in twenty changes hardly any decision"
    )
    """How far the mean probability may be off the rate of what came true, beyond what it was when evaluated, before it
    is harm. A regression takes the margin of its gate."""

    discrimination_drop: Threshold = Threshold(
        value=0.25, reason="a model that has lost a quarter of what it can tell apart is another model"
    )
    """Share of the correlation of scores and outcomes that may be lost, against the evaluation, before it is harm."""

    coverage_drop: Threshold = Threshold(
        value=0.1, reason="one label in ten that does not come can bend every figure: those that lack are rarely alike"
    )
    """By how much the share of answers whose label is known may fall below that of earlier days."""

    business: tuple[BusinessMetric, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """Who is told of a domain's findings: tags of the Apprise configuration, by layer.

    Addresses are secrets and stand in that configuration, not here.
    """

    data_quality: tuple[str, ...] = ("ticket",)
    model_behaviour: tuple[str, ...] = ("page",)
    outcomes: tuple[str, ...] = ("ticket",)
    digest: tuple[str, ...] = ("digest",)
    """Of the daily digest."""

    muted: tuple[str, ...] = ()
    """`rule` or `rule:subject`: found and shown, and nobody is told."""
