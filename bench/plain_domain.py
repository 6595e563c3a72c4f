"""The plain model of the serving benchmark: thirty numbers of a request, and no feature to compute.

What is left is what serving itself costs. `bench/serving.py` copies this file into a package of its own, since a bundle
carries its domain's code.
"""

from datetime import date, timedelta

import polars as pl

from mlplatform.domain.column import Column, Contract
from mlplatform.domain.domain import Domain, Requests
from mlplatform.domain.model import Gate, Label, ModelSpec, Objectives, Split, XGBoostSettings
from mlplatform.domain.source import Source
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.view import Feature, OnDemand

COLUMNS = 30
NAMES = [f"c{number:02}" for number in range(COLUMNS)]
FEATURES = [f"x{number:02}" for number in range(COLUMNS)]
DAY = timedelta(days=1)


def of_request(requests: pl.DataFrame) -> pl.DataFrame:
    """The request's own numbers, by the model's names."""
    numbers = requests[NAMES]
    numbers.columns = FEATURES
    return numbers


columns = tuple(
    Column(name=name, dtype=pl.Float64(), meaning="a number", minimum=-1_000, maximum=1_000) for name in NAMES
)
number = Threshold(value=1, reason="nothing is decided by it")

DOMAIN = Domain(
    name="plain",
    meaning="Thirty numbers, for measuring what serving costs.",
    owners=("team:bench",),
    start=date(2024, 1, 1),
    sources=(
        Source(
            name="rows",
            meaning="rows of numbers",
            contract=Contract(columns=columns),
            base=lambda rows: rows,
            base_columns=(*columns, Column(name="label", dtype=pl.Float64(), meaning="0 or 1")),
        ),
    ),
    on_demand=(
        OnDemand(
            name="of_request",
            meaning="the request's own numbers",
            features=tuple(Feature(name=name, dtype=pl.Float64(), meaning="a number") for name in FEATURES),
            function=of_request,
        ),
    ),
    requests=Requests(
        columns=columns,
        facts="rows",
        of_facts=lambda facts: facts,
        identity=("c00",),
        example=dict.fromkeys(NAMES, 0.5),
    ),
    models=(
        ModelSpec(
            name="model",
            meaning="300 trees of depth 6",
            task="binary",
            label=Label(name="label", meaning="0 or 1", value=lambda: pl.col("label"), delay=DAY),
            views=(),
            on_demand=("of_request",),
            settings=XGBoostSettings(rounds=300, max_depth=6, threads=1),
            split=Split(warm_up=DAY, calibration=DAY, evaluation=DAY),
            gate=Gate(metric="log_loss", min_rows=number, margin=number, segment_margin=number),
            objectives=Objectives(
                p99_ms=Threshold(value=500, reason="the deadline is not what is measured: nothing may fall back"),
                rows_per_second=number,
            ),
            simple_features=("x00",),
            rules=lambda _: None,
            decision=Threshold(value=0.5, reason="both mistakes cost the same"),
        ),
    ),
)
