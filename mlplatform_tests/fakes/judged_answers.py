"""Answers in the log of the synthetic shop, of which a test says who gave them and how well, and their labels."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import Switches, expected, late_after_minutes, noise_minutes, rows
from mlplatform.domains.synthetic.models import quick_minutes
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import day_range, partition_end
from mlplatform.monitoring.outcomes.outcomes import DayOutcomes, keep, outcomes_of_day
from mlplatform.monitoring.outcomes.tables import reference_schema, reference_table
from mlplatform.monitoring.outcomes.tally import figures, tally
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder, rows_at_once
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.scoring.postprocess import answers
from mlplatform_tests.fakes.answered import answered
from mlplatform_tests.fakes.synthetic_home import Clock, land_orders, platform_in, run_stage

FACT_STAGES = ("raw", "validated", "quarantine", "base", "derived")
ORDERS = 400
"""Of a day."""

MANIFEST = "5" * 64
EVALUATED = day_range("2024-03-01", "2024-03-14")
"""Days of which `JudgedShop.evaluate` takes the figures for those of an evaluation: another season, never landed."""


class JudgedShop:
    """The synthetic shop on some days: its facts, and answers as good as can be given."""

    def __init__(self, home: Path, domain: Domain = DOMAIN) -> None:
        self.domain = domain
        self.platform: Platform = platform_in(home)

    def at(self, day: str, hour: int = 0, minute: int = 0) -> None:
        """It is so late."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(
            hours=hour, minutes=minute
        )

    def land(self, *days: str, orders: Mapping[str, pl.DataFrame] | None = None) -> None:
        """Facts of some days come, each as soon as it can."""
        for day in days:
            sent = (orders or {}).get(day)
            self.at(partition_end(day).date().isoformat(), 0, 30)
            self.send(day, orders_of(day) if sent is None else sent)

    def send(self, day: str, orders: pl.DataFrame) -> None:
        """The orders of a day come, or come again, now."""
        land_orders(self.platform, [day], {day: orders})
        for stage in FACT_STAGES:
            if stage != "quarantine":
                run_stage(self.platform, stage, [day], self.domain)

    def answer(
        self,
        orders: pl.DataFrame,
        model: ModelSpec,
        *,
        scores: Any = None,
        prefix: str = "",
        silent: bool = False,
        **changes: Any,
    ) -> None:
        """Answer requests at the time of each, and have them picked up.

        Parameters
        ----------
        scores : (n,) or (n, classes); None: the best there are
        silent : as an answer that knows nothing: no score, no prediction
        changes : columns of the log: one value for all
        """
        given = best_scores(model, orders) if scores is None else np.asarray(scores, dtype=np.float64)
        said = answers(model, given)
        # One segment's batches share their model; in the order of the log of a gateway.
        segments = Segments(log_folder(self.platform.home, self.domain.name), size=1 << 22, spares=1)
        for start in range(0, orders.height, rows_at_once):
            part = orders.slice(start, rows_at_once)
            at = part["ordered_at"].to_physical().to_list()
            told: dict[str, Any] = {
                "model": model.name,
                "manifest": MANIFEST,
                "request_id": [f"{prefix}o{each}" for each in part["order_id"]],
                "at": at,
                "received": [each * 1000 for each in at],
                "request": [_body(row) for row in part.iter_rows(named=True)],
                "prediction": said["prediction"].slice(start, part.height).to_list(),
                "probability": said["probability"].slice(start, part.height).to_list(),
                "confidence": said["confidence"].slice(start, part.height).to_list(),
                "scores": np.ascontiguousarray(given[start : start + part.height]).tobytes(),
            }
            if silent:
                nothing = dict.fromkeys(("prediction", "probability", "confidence"), [None] * part.height)
                told |= {**nothing, "scores": b""}
            for name, value in changes.items():
                told[name] = [value] * part.height if name in _of_row else value
            assert segments.append(encode(answered(part.height, **told)), part.height)
        segments.close()
        pick_up(self.platform, self.domain)

    def evaluate(self, model: ModelSpec, manifest: str = MANIFEST) -> None:
        """Have the best scores of some days of another season stand for the evaluation of a manifest."""
        days = []
        for day in EVALUATED:
            orders = orders_of(day)
            scores = best_scores(model, orders)
            told = orders.hstack(answers(model, scores).select("prediction", "probability")).with_columns(
                labels_of(model, orders),
                block=pl.lit(0, pl.Int32()),
                manifest=pl.lit(manifest),
                arm=pl.lit("champion"),
                source=pl.lit("model"),
            )
            days.append(figures(model, tally(model, told, scores)).with_columns(day=pl.lit(day)))
        rows_of_days = pl.concat(days).select(list(reference_schema))
        written = Written(run_id="test", code_version="", environment="", known_at=self.platform.clock())
        reference_table(self.platform, self.domain).append({manifest: Draft(rows=rows_of_days)}, written)

    def outcomes(self, day: str) -> DayOutcomes:
        """Judge a day, and keep it."""
        found = outcomes_of_day(self.platform, self.domain, day)
        keep(self.platform, self.domain, found, run_id="test")
        return found


_of_row = {"arm", "source", "request"}


def orders_of(day: str, *, seed: int = 7, count: int = ORDERS, **switches: Any) -> pl.DataFrame:
    """Orders that are made and reported on a day."""
    sent = rows(date.fromisoformat(day), seed, count, Switches(**switches))
    return sent.filter(pl.col("ordered_at").dt.date() == date.fromisoformat(day))


def labels_of(model: ModelSpec, orders: pl.DataFrame) -> pl.Series:
    """`label`, as the facts will give it."""
    took = (orders["delivered_at"] - orders["ordered_at"]).dt.total_minutes()
    facts = pl.DataFrame({"minutes": took, "late": took > late_after_minutes})
    return facts.select(model.label.value().cast(pl.Float64).alias("label")).to_series()


def best_scores(model: ModelSpec, orders: pl.DataFrame) -> Any:
    """What a model says that knows the truth."""
    minutes = orders.select(expected(pl.col("ordered_at").dt.hour())).to_series().to_numpy()
    if model.task == "regression":
        return minutes
    late = 1 / (1 + np.exp((late_after_minutes - minutes) / noise_minutes))
    if model.task == "binary":
        return late
    not_quick = 1 / (1 + np.exp((quick_minutes - minutes) / noise_minutes))
    return np.column_stack([1 - not_quick, not_quick - late, late])


def _body(row: Mapping[str, Any]) -> bytes:
    asked = {name: row[name] for name in ("order_id", "courier", "district", "distance_km", "items", "ordered_at")}
    return json.dumps({**asked, "ordered_at": asked["ordered_at"].isoformat()}).encode()
