"""A model on feature views: label, task, settings, thresholds, fallback. Each number says why it is that number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from mlplatform.domain.monitoring import Monitoring
from mlplatform.domain.rollout import Rollout
from mlplatform.domain.serving import BreakerSettings
from mlplatform.domain.threshold import Threshold

Task = Literal["binary", "multiclass", "regression"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is predicted."""

    name: str
    meaning: str
    value: Callable[[], pl.Expr]
    """Expression over the facts of the domain's requests. Null: this fact has no label and is not trained on."""

    delay: timedelta
    """The time from the request until almost every label is known; the gap between two splits."""

    unit: str = ""
    classes: tuple[str, ...] = ()
    """Names of the classes in label order, for a multiclass task; the label is their index."""


@dataclass(frozen=True, kw_only=True)
class XGBoostSettings:
    """XGBoost's parameters that every model states; anything else goes into `more`."""

    rounds: int = 200
    learning_rate: float = 0.1
    max_depth: int = 6
    min_child_weight: float = 1.0
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    reg_lambda: float = 1.0
    objective: str | None = None
    """XGBoost's objective; None takes the usual one of the task (`binary:logistic`, `multi:softprob`,
    `reg:squarederror`)."""

    device: Device = "cpu"
    """Checked where it is used: XGBoost itself falls back to the CPU with no more than a warning."""

    threads: int = 2
    """Recorded; the bytes of the model do not depend on it."""

    seed: int = 20130101
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Between:
    """A range of one parameter that the search may try, both ends included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    """Whole numbers only."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What Optuna may try. The declared settings are always trial 0, so a search never ends below them."""

    trials: int = 0
    """0: no search."""

    parameters: Mapping[str, Between] = field(default_factory=dict)
    """Names of `XGBoostSettings` fields."""

    sample_rows: int = 50_000
    """Rows of the training window that a trial fits on: the newest ones."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the time axis is cut: warm-up | training | gap | calibration | gap | evaluation. Never random."""

    warm_up: timedelta
    """Days after the first partition whose windows are not full yet, and are not trained on."""

    calibration: timedelta
    evaluation: timedelta


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of the traffic that is judged on its own, so that no average hides a hurt group."""

    name: str
    column: str
    """A request column; each of its values is one segment."""

    min_rows: int = 500
    """Values with fewer evaluation rows are not judged: their interval would say nothing."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must show before it may replace the champion."""

    metric: str
    """The metric that decides: `log_loss`, `auc`, `mae`, `rmse`, `accuracy`."""

    min_rows: Threshold
    """Evaluation rows below which the answer is `inconclusive`."""

    margin: Threshold
    """How much worse than the champion (in the metric's unit) still counts as equal, overall."""

    segment_margin: Threshold
    """The same for each segment: no group may lose more than this."""

    max_calibration_error: Threshold | None = None
    """Expected calibration error (binary) that is still acceptable."""

    too_good: Mapping[str, Threshold] = field(default_factory=dict)
    """Metric -> value from which a leak is the likelier explanation, and the candidate fails."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """When a model is trained again without anybody asking."""

    new_rows: Threshold
    """Facts of requests that have come, or were corrected, since the newest recipe."""

    labels: Threshold = Threshold(
        value=1_000, reason="fewer new outcomes than that do not move a model, whatever it suffers from"
    )
    """Outcomes known since the newest recipe, below which neither harm nor age has a model trained again."""

    drift: Threshold = Threshold(
        value=0.05, reason="a twentieth of what the model has learned is asked of values that it did not learn it from"
    )
    """Part of the model's gain that rests on values which have harmfully drifted, from which it is trained again."""

    loss_rise: Threshold = Threshold(
        value=0.10, reason="a tenth is what a model may be better than a guess by; having lost that, it is of no use"
    )
    """By what share the gate's metric may surely be worse than at the model's evaluation, beyond what harder cases
    explain."""

    recalibration: Threshold = Threshold(
        value=0.01, reason="a hundredth of the loss for nothing but outdated rates: what a training surely mends"
    )
    """Share of the evaluation's log loss that is surely lost because the mean probability is not the rate of the
    outcomes any more."""

    max_age: Threshold = Threshold(value=90, reason="a quarter: what was learned in one season is asked of the next")
    """Days of data since the newest recipe after which it is trained again, whatever else is known: the schedule."""

    cooldown: Threshold = Threshold(
        value=7, reason="a week holds each weekday once: less adds the noise of single days, and costs a training"
    )
    """Days, of data or on the clock, that must pass between two trainings, whatever asks for one."""


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Service level objectives of one model."""

    p99_ms: Threshold
    """99th percentile of the time to score one row inside the process, milliseconds."""

    rows_per_second: Threshold
    """Rows scored a second in batches of 1,024 on one core."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a service of this model behaves; a change is another feature code, hence another manifest."""

    deadline: timedelta = timedelta(milliseconds=500)
    """Time of a request, fallback chain included; `objectives.p99_ms` is what most of them should take. Past four
    fifths of it the model is not waited for any longer."""

    max_batch_rows: int = 128
    """Rows scored together. Beyond some hundred a row gets little cheaper, and waits for more others."""

    max_queued_rows: int = 4_096
    """Rows that may wait; more are refused with 429. At the usual speeds that is a few deadlines' worth."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    """Of the model workers."""

    store_breaker: BreakerSettings = field(default_factory=BreakerSettings)
    """Of the online store."""

    cache_for: timedelta = timedelta(0)
    """How long the answer to the same request with the same feature revision is given again. Zero: never, since a
    feature may read the request's own time."""

    cached_fallback_for: timedelta = timedelta(hours=1)
    """Age up to which an earlier answer to the same request is the first tier of the fallback chain."""

    cached_entries: int = 10_000
    """Answers kept in each gateway worker, some 500 bytes each. Zero: none."""

    tiers: tuple[str, ...] = ("cached", "simple_model", "rules", "low_confidence")
    """The fallback chain; what it lacks is not asked. A low-confidence answer is always its end."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model of a domain."""

    name: str
    meaning: str
    task: Task
    label: Label
    views: tuple[str, ...]
    """Views it reads: `view` of this domain, `domain/view` of another one."""

    on_demand: tuple[str, ...] = ()
    fitted: tuple[str, ...] = ()
    settings: XGBoostSettings = XGBoostSettings()
    search: SearchSpace = SearchSpace()
    split: Split
    segments: tuple[Segment, ...] = ()
    gate: Gate
    objectives: Objectives
    simple_features: tuple[str, ...]
    """Features of the simple model (logistic or linear regression) that answers when the booster cannot."""

    serving: Serving = Serving()
    rules: Callable[[Mapping[str, Any]], float | None]
    """The domain's rule of thumb: one request -> probability (binary), class index (multiclass) or value
    (regression), or None where the rules know nothing either. Never raises."""

    retraining: Retraining = Retraining(
        new_rows=Threshold(value=10_000, reason="some thousand labels are the least that moves a model's figures")
    )

    monitoring: Monitoring = Monitoring()

    rollout: Rollout | None = None
    """How a challenger comes to answer everybody. None: a model that passes its gate becomes champion at once."""

    decision: Threshold | None = None
    """Binary: probability from which the prediction is 1."""

    review_below: Threshold | None = None
    """Confidence below which a person should look (`needs_review`)."""

    @property
    def outputs(self) -> int:
        """Scores of one row."""
        return len(self.label.classes) if self.task == "multiclass" else 1
