"""One model's answers of a day with the labels that are in: counts, figures, and what early labels said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.stage import Revision
from mlplatform.features.tables import day_range, partition_end
from mlplatform.monitoring.estimated import estimated_against_truth
from mlplatform.monitoring.outcomes.answers import answers_of
from mlplatform.monitoring.outcomes.early import EarlyBias, early_rows
from mlplatform.monitoring.outcomes.labels import Facts, facts_of, mature_at
from mlplatform.monitoring.outcomes.tables import (
    day_bins_schema,
    early_schema,
    estimate_schema,
    figures_schema,
    label_schema,
    labels_table,
)
from mlplatform.monitoring.outcomes.tally import figures, tally
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ModelDay:
    """How many labels of a model's answers of a day are in."""

    model: str
    mature: bool
    mature_at: datetime
    """When its labels can be in."""

    answers: int
    """That were given; what was scored in the shadow is not counted."""

    labelled: int
    without_label: int
    """Whose case has a fact that gives no label: it never will, or the label is missing."""

    pending: int
    """Whose case has no fact."""

    contradicted: int
    refused: int
    """Whose request names no case, as the domain is declared now."""

    facts: int
    """Facts of the day's cases, asked about or not."""

    facts_asked: int
    early: EarlyBias | None = None
    """Before it is mature: how early labels differed on earlier days."""

    @property
    def coverage(self) -> float:
        """Share of the answers whose label is known."""
        return self.labelled / self.answers if self.answers else 0.0

    @property
    def coverage_of_traffic(self) -> float:
        """Share of the facts of the day's cases that somebody asked about."""
        return self.facts_asked / self.facts if self.facts else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A model's part of a day."""

    model: ModelSpec
    counts: ModelDay
    figures: pl.DataFrame
    """As `figures_schema`, without what they are held against."""

    bins: pl.DataFrame
    early: pl.DataFrame
    estimates: pl.DataFrame
    labels: pl.DataFrame
    manifests: tuple[str, ...]
    """That have answered."""


def part_of_day(
    platform: Platform,
    domain: Domain,
    day: str,
    model: ModelSpec,
    *,
    partitions: Mapping[str, Revision],
    between: tuple[datetime, datetime],
) -> Part:
    """Join a model's answers with their labels, and measure it.

    Parameters
    ----------
    partitions : of the facts, to look through
    between : the first and the last instant that the answers of the day are as of
    """
    answered = answers_of(platform, domain, day, model.name)
    identity = list(domain.requests.identity)
    cases = answered.filter("readable").select(identity).unique()
    days = day_range(between[0].date().isoformat(), between[1].date().isoformat())
    facts = facts_of(platform, domain, [model], cases, partitions, days)
    joined = _dated_as_kept(platform, domain, day, model, _joined(model, answered, facts, identity))
    due = mature_at(domain, model, between[1])
    mature = platform.clock() >= due
    known = joined.filter(pl.col("label").is_not_null())
    scores = scores_of(model, known)
    counted = tally(model, known, scores)
    # The blocks of a day are its hours; what is kept of it are its sums.
    bins = counted.bins.group_by("manifest", "arm", "source", "bin").agg(pl.col("rows", "certainty", "hits").sum())
    return Part(
        model=model,
        counts=_counts(model, joined, facts, mature=mature, due=due),
        figures=_named(model, figures(model, counted), {**figures_schema}, ("expected", "bound")),
        bins=_named(model, bins, {**day_bins_schema}),
        early=_early(model, known, scores, day) if mature else pl.DataFrame(schema=early_schema),
        estimates=_estimates(model, known, scores) if mature else pl.DataFrame(schema=estimate_schema),
        labels=_named(
            model,
            known.with_columns(day=pl.lit(day)).unique("request_id", keep="last", maintain_order=True),
            {**label_schema},
        ),
        manifests=tuple(sorted(joined.filter(pl.col("arm") != SHADOW)["manifest"].unique())),
    )


def scores_of(model: ModelSpec, rows: pl.DataFrame) -> Floats:
    """(n,) or (n, classes): what was said, NaN where that is no score.

    Parameters
    ----------
    rows : of the log: `scores`, `probability`, and `prediction` as a number
    """
    if model.task == "multiclass":
        classes = range(len(model.label.classes))
        whole = pl.col("scores").list.len() == len(model.label.classes)
        each = rows.select(
            pl.when(whole).then(pl.col("scores").list.get(place, null_on_oob=True)).alias(str(place))
            for place in classes
        )
        return np.ascontiguousarray(each.fill_null(float("nan")).to_numpy().astype(np.float64))
    own = pl.col("scores").list.get(0, null_on_oob=True).fill_nan(None)
    said = pl.col("probability" if model.task == "binary" else "prediction")
    first = rows.select(pl.coalesce(own, said).cast(pl.Float64).fill_null(float("nan")))
    return first.to_series().to_numpy()


def label_of(model: ModelSpec) -> pl.Expr:
    """The column `label` of facts; null where it is no label of the task."""
    label = pl.col("label")
    fits = label.is_finite()
    if model.task != "regression":
        fits &= label.is_in([float(each) for each in range(max(2, len(model.label.classes)))])
    return pl.when(fits).then(label)


def _joined(model: ModelSpec, answered: pl.DataFrame, facts: Facts, identity: Sequence[str]) -> pl.DataFrame:
    """Answers with their labels; `found` where the case has a fact."""
    cases = facts.cases.rename({f"label:{model.name}": "label", f"contradicted:{model.name}": "contradicted"})
    joined = answered.join(
        cases.with_columns(found=pl.lit(value=True)), on=list(identity), how="left", maintain_order="left"
    )
    said = pl.col("prediction") if model.task == "multiclass" else pl.col("prediction").cast(pl.Float64, strict=False)
    return joined.with_columns(
        label=label_of(model),
        prediction=said,
        block=pl.col("received").dt.hour().cast(pl.Int32),
        found=pl.col("found").fill_null(value=False),
        contradicted=pl.col("contradicted").fill_null(value=False),
    )


def _dated_as_kept(
    platform: Platform, domain: Domain, day: str, model: ModelSpec, joined: pl.DataFrame
) -> pl.DataFrame:
    """Labels whose revision was removed get the date under which they were kept when it was there."""
    table = labels_table(platform, domain)
    undated = pl.col("label").is_not_null() & pl.col("known_at").is_null()
    if not joined.select(undated.any()).item() or day not in (kept := table.current([day])) or kept[day].removed:
        return joined
    dates = ("known_at", "fact_revision")
    same = ["request_id", "label", "fact_partition"]
    before = table.read([day]).filter(pl.col("model") == model.name).select(*same, *dates).unique(same)
    found = joined.join(before, on=same, how="left", suffix="_kept", maintain_order="left")
    told = [pl.when(undated).then(f"{each}_kept").otherwise(each).alias(each) for each in dates]
    return found.with_columns(told).drop(f"{each}_kept" for each in dates)


def _counts(model: ModelSpec, joined: pl.DataFrame, facts: Facts, *, mature: bool, due: datetime) -> ModelDay:
    given = joined.filter(pl.col("arm") != SHADOW)
    labelled = pl.col("label").is_not_null()
    counted = given.select(
        labelled=labelled.sum(),
        without_label=(pl.col("found") & ~labelled).sum(),
        pending=(pl.col("readable") & ~pl.col("found")).sum(),
        contradicted=(pl.col("contradicted") & labelled).sum(),
        refused=(~pl.col("readable")).sum(),
    ).row(0, named=True)
    return ModelDay(
        model=model.name,
        mature=mature,
        mature_at=due,
        answers=given.height,
        facts=facts.seen,
        facts_asked=facts.asked,
        **counted,
    )


def _early(model: ModelSpec, known: pl.DataFrame, scores: Floats, day: str) -> pl.DataFrame:
    """What the labels of the model's own answers said at first."""
    chosen = _own(known, scores)
    if not chosen.any():
        return pl.DataFrame(schema=early_schema)
    hours = known.select((pl.col("known_at") - partition_end(day)).dt.total_seconds() / 3600).to_series().to_numpy()
    return early_rows(model, known["label"].to_numpy()[chosen], scores[chosen], hours[chosen])


def _estimates(model: ModelSpec, known: pl.DataFrame, scores: Floats) -> pl.DataFrame:
    """What the model's own scores promised, by manifest, beside what came true."""
    chosen = _own(known, scores)
    told = estimated_against_truth(
        model.task,
        known["manifest"].filter(pl.Series(chosen)),
        known["label"].to_numpy()[chosen],
        scores[chosen],
        threshold=model.decision.value if model.decision else 0.5,
    )
    return _named(model, told.rename({"day": "manifest"}), {**estimate_schema})


def _own(known: pl.DataFrame, scores: Floats) -> npt.NDArray[np.bool_]:
    """(n,) answers that the model gave itself, with a score."""
    own = known.select((pl.col("source") == "model") & (pl.col("arm") != SHADOW)).to_series().to_numpy()
    scored: npt.NDArray[np.bool_] = own & (np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1))
    return scored


def _named(
    model: ModelSpec, rows: pl.DataFrame, schema: Mapping[str, pl.DataType], absent: Sequence[str] = ()
) -> pl.DataFrame:
    """Rows in the columns of a table, with the model's name; columns of `absent` are null."""
    nulls = {name: pl.lit(None) for name in absent}
    told = rows.with_columns(model=pl.lit(model.name), **nulls)
    return told.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
