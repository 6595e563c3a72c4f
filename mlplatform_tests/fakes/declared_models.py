"""Small model declarations for tests, one for each task."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl

from mlplatform.domain.model import Gate, Label, ModelSpec, Objectives, Segment, Split, Task, XGBoostSettings
from mlplatform.domain.threshold import Threshold

DAY = timedelta(days=1)


def model_of(task: Task, **changed: Any) -> ModelSpec:
    """A model of that task on the features `a`, `b`, `c`, with some of its fields changed."""
    metric = "mae" if task == "regression" else "log_loss"
    declared = ModelSpec(
        name="late",
        meaning="for tests",
        task=task,
        label=Label(
            name="label",
            meaning="for tests",
            value=lambda: pl.col("label"),
            delay=DAY,
            classes=("red", "green", "blue") if task == "multiclass" else (),
        ),
        views=(),
        settings=XGBoostSettings(rounds=15, max_depth=3, threads=1),
        split=Split(warm_up=2 * DAY, calibration=5 * DAY, evaluation=7 * DAY),
        gate=Gate(
            metric=metric,
            min_rows=Threshold(value=100, reason="for tests"),
            margin=Threshold(value=0.01, reason="for tests"),
            segment_margin=Threshold(value=0.02, reason="for tests"),
            max_calibration_error=None if task == "regression" else Threshold(value=0.1, reason="for tests"),
        ),
        objectives=Objectives(
            p99_ms=Threshold(value=50, reason="for tests"), rows_per_second=Threshold(value=10, reason="for tests")
        ),
        segments=(Segment(name="place", column="place", min_rows=50),),
        simple_features=("a", "b"),
        rules=lambda request: None,
        decision=Threshold(value=0.4, reason="for tests") if task == "binary" else None,
        review_below=Threshold(value=0.65, reason="for tests"),
    )
    return replace(declared, **changed)
