"""A whole small domain, `harbour`, written as a package into a folder, and bundles of it: real code, real booster."""

import importlib
import importlib.util
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import Device
from mlplatform.features.online.store import ViewRecord, open_online_store
from mlplatform.features.view import model_inputs
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.scoring.calibration import Calibration, Curve
from mlplatform.scoring.simple_model import SimpleModel

VIEW = "harbour/berth_waits"
VIEW_VERSION = "v-1"
AT = datetime(2024, 5, 1, 12, tzinfo=UTC)

FEATURES_SOURCE = '''
"""Feature code of the harbour."""
import math

import polars as pl


def of_request(requests: pl.DataFrame) -> pl.DataFrame:
    return requests.select((pl.col("length") * FACTOR).cast(pl.Float32).alias("scaled_length"))


def waits(facts: pl.DataFrame, at: object) -> pl.DataFrame:
    return facts.group_by("berth").agg(pl.col("wait").mean().cast(pl.Float32).alias("mean_wait"))


FACTOR = 2.0 * math.cos(0.0)
'''

DOMAIN_SOURCE = '''
"""The harbour: does a ship wait?"""
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.column import Column, Contract
from mlplatform.domain.domain import Domain, Requests
from mlplatform.domain.model import Gate, Label, ModelSpec, Objectives, Serving, Split, XGBoostSettings
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.source import Source
from mlplatform.domain.view import Feature, FeatureView, FittedValue, OnDemand

from .features import of_request, waits

DAY = timedelta(days=1)
columns = (
    Column(name="berth", dtype=pl.String(), meaning="berth", allowed=("north", "south")),
    Column(name="length", dtype=pl.Float32(), meaning="length of the ship", unit="m", minimum=1, maximum=400),
    Column(name="flag", dtype=pl.String(), meaning="flag", nullable=True),
)
number = Threshold(value=10, reason="small data")
DOMAIN = Domain(
    name="harbour",
    meaning="for tests",
    owners=("team:tests",),
    start=date(2024, 1, 1),
    sources=(
        Source(
            name="calls",
            meaning="ships that called",
            contract=Contract(columns=columns),
            base=lambda rows: rows,
            base_columns=(*columns, Column(name="wait", dtype=pl.Float32(), meaning="wait")),
        ),
    ),
    views=(
        FeatureView(
            name="berth_waits",
            meaning="recent waits",
            facts="calls",
            entity=("berth",),
            features=(Feature(name="mean_wait", dtype=pl.Float32(), meaning="mean wait", unit="h"),),
            look_back=7 * DAY,
            ttl=2 * DAY,
            function=waits,
        ),
    ),
    on_demand=(
        OnDemand(
            name="of_request",
            meaning="size",
            features=(Feature(name="scaled_length", dtype=pl.Float32(), meaning="length, scaled"),),
            function=of_request,
        ),
    ),
    fitted=(
        FittedValue(
            name="flags",
            meaning="code of each flag",
            features=(Feature(name="flag_code", dtype=pl.Float32(), meaning="code"),),
            fit=lambda known: {flag: code for code, flag in enumerate(sorted(known["flag"].drop_nulls().unique()))},
            apply=lambda known, codes: known.select(
                pl.col("flag").replace_strict(codes, default=None, return_dtype=pl.Float32).alias("flag_code")
            ),
        ),
    ),
    requests=Requests(
        columns=columns,
        facts="calls",
        of_facts=lambda facts: facts,
        identity=("berth",),
        example={"berth": "north", "length": 120.0, "flag": "NO"},
    ),
    models=(
        ModelSpec(
            name="waits",
            meaning="Does the ship wait?",
            task="binary",
            label=Label(name="waits", meaning="the ship waits", value=lambda: pl.col("wait") > 1, delay=DAY),
            views=("berth_waits",),
            on_demand=("of_request",),
            fitted=("flags",),
            settings=XGBoostSettings(rounds=5, threads=1, device="DEVICE"),
            split=Split(warm_up=DAY, calibration=DAY, evaluation=DAY),
            gate=Gate(metric="log_loss", min_rows=number, margin=number, segment_margin=number),
            objectives=Objectives(p99_ms=number, rows_per_second=number),
            serving=Serving(deadline=timedelta(seconds=2)),
            simple_features=("scaled_length",),
            rules=lambda request: None,
            decision=Threshold(value=0.5, reason="both mistakes cost the same"),
            review_below=Threshold(value=0.6, reason="one reviewer"),
        ),
    ),
)
'''


def write_package(folder: Path, *, device: Device = "cpu", factor: str = "2.0", extra: str = "") -> Path:
    """The package `harbour` below `folder`."""
    package = folder / "harbour"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text(DOMAIN_SOURCE.replace("DEVICE", device))
    (package / "features.py").write_text(FEATURES_SOURCE.replace("FACTOR = 2.0", f"FACTOR = {factor}") + extra)
    (package / "data" / "rebuild.py").write_text('"""How the sample was made."""\nimport requests\n')
    (package / "data" / "sample.parquet").write_bytes(b"not code")
    return package


def import_package(package: Path) -> Domain:
    """The domain of a written package, imported under a name nothing else has."""
    name = f"imported_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    domain = module.DOMAIN
    assert isinstance(domain, Domain)
    return domain


def record(**changed: Any) -> Record:
    """A reproducibility record."""
    made = Record(
        inputs={"harbour/calls": "aa"},
        training_set="bb",
        code={"training": "cc"},
        commit=None,
        dirty=None,
        lock="dd",
        python="3.11.9",
        versions={"polars": pl.__version__},
        configuration="ee",
        seeds={"booster": 1},
        threads=1,
        device="cpu",
    )
    return replace(made, **changed)


def rows(count: int = 200) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests with `at`, and their view values; some of both are null."""
    random = np.random.default_rng(7)
    requests = pl.DataFrame(
        {
            "berth": random.choice(["north", "south"], count).tolist(),
            "length": random.uniform(20, 300, count).astype(np.float32),
            "flag": [None if each == "none" else str(each) for each in random.choice(["NO", "PA", "none"], count)],
            "at": [AT + timedelta(minutes=minute) for minute in range(count)],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    waits = random.uniform(0, 5, count).astype(np.float32)
    return requests, pl.DataFrame(
        {"mean_wait": [None if wait < 0.3 else float(wait) for wait in waits]}, schema={"mean_wait": pl.Float32}
    )


def bundle_of(root: Path, package: Path, **changed: Any) -> Bundle:
    """Train a booster on a written package, and bundle it below `root`."""
    domain = import_package(package)
    model = domain.model("waits")
    requests, view_values = rows()
    fitted = {"flags": {"NO": 0, "PA": 1}}
    features = model_inputs(domain, model, requests, view_values, fitted)
    inputs = matrix(features)
    labels = (np.nan_to_num(inputs[:, 0]) + inputs[:, 1] / 100 > 4).astype(np.float32)
    booster = xgb.train(
        {"objective": "binary:logistic", "seed": 1, "nthread": 1}, xgb.DMatrix(inputs, label=labels), num_boost_round=5
    )
    calibration = Calibration(curves=(Curve(raw=(0.0, 0.4, 1.0), calibrated=(0.1, 0.5, 0.9)),))
    golden = requests.hstack(view_values).head(8)
    arguments: dict[str, Any] = {
        "domain": domain,
        "model": model,
        "booster": booster,
        "calibration": calibration,
        "simple": SimpleModel(
            task="binary",
            features=("scaled_length",),
            means=(300.0,),
            scales=(100.0,),
            weights=((1.0,),),
            intercepts=(0.2,),
        ),
        "fitted": fitted,
        "view_versions": {VIEW: VIEW_VERSION},
        "record": record(),
        "model_version": "2024-05-01-ab12cd34",
        "rollback_target": None,
        "golden": (golden, calibration.apply(raw_scores(booster, inputs[:8]))),
        "code": package,
    }
    return write_bundle(root, **{**arguments, **changed})


def publish(home: Path, *, version: str = VIEW_VERSION, address: str | None = None) -> None:
    """Publish the view in the store below `home`, or at an address: north has a value, south an expired one."""
    rows = pl.DataFrame(
        {
            "berth": ["north", "south"],
            "mean_wait": [4.5, 0.5],
            "event_time": [AT - timedelta(hours=3), AT - timedelta(days=5)],
            "available_at": [AT - timedelta(hours=2), AT - timedelta(days=4)],
            "_revision": [1, 1],
        },
        schema_overrides={
            "mean_wait": pl.Float32,
            "event_time": pl.Datetime("us", "UTC"),
            "available_at": pl.Datetime("us", "UTC"),
        },
    )
    view = ViewRecord(
        name=VIEW,
        version=version,
        keys={"berth": pl.String()},
        features={"mean_wait": pl.Float32()},
        ttl=timedelta(days=2),
    )
    open_online_store(address or str(home / "online")).replace(view, [rows], content="made", now=AT)
