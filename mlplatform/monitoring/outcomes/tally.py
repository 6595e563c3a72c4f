"""Tallies: of each block of time the counts and sums that a metric is made of, and metrics with intervals out of them.

A day's figures are made of its hours, those of a week or a month of its days; so a month costs what its days' few
thousand numbers cost, however many answers there were. Losses, errors and business figures are means over rows; AUC
and calibration error come from counts in bins of the score, narrow enough to differ from the exact ones by some 1e-4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.estimated import uncertainty
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.training import metrics
from mlplatform.training.metrics import METRICS, Interval

Floats = npt.NDArray[np.float64]

group = ("manifest", "arm", "source")
"""Whose answers are judged together."""

place = (*group, "segment", "value", "metric")
"""What a figure is of; `segment` and `value` are empty for all answers of a group."""

values_at_most = 200
"""Values of a segment that are tallied, the largest: more are an identifier, and no segment."""

score_bins, widest_logit = 400, 8.0
"""Bins of equal width on the logit scale: where scores are dense a bin is 0.04 wide in the logit, 0.01 in the
probability at most."""

CALIBRATION_GROUPS = metrics.BINS

BIAS = "bias"
"""Mean score minus mean outcome: what is said against what comes true. For several classes, of the likeliest one."""

ASSOCIATION = "association"
"""How far scores and outcomes go together within a day, 0 by chance and 1 at best: Gini's coefficient (2 AUC − 1) of
two classes, of several the covariance with the classes as a share of their variance, of a regression Spearman's rank
correlation. A day on which all is late is a bad one for any model; that the wrong ones are late is not weather."""

EXCESS = "excess"
"""Log loss minus what the scores themselves expect it to be. Harder cases make any loss higher, and calibrated scores
know it; what lies above that is the model's."""

BUSINESS = "business:"
"""Before the name of a declared business metric."""

tally_schema: Mapping[str, pl.DataType] = {
    "block": pl.Int32(),
    **dict.fromkeys(place, pl.String()),
    "rows": pl.Int64(),
    "sum": pl.Float64(),
    "squares": pl.Float64(),
}
"""Sums over the rows of a block that have the metric. Of `rmse` they are sums of squared errors."""

bins_schema: Mapping[str, pl.DataType] = {
    "block": pl.Int32(),
    **dict.fromkeys(group, pl.String()),
    "bin": pl.Int32(),
    "rows": pl.Int64(),
    "certainty": pl.Float64(),
    "hits": pl.Float64(),
}
"""Of the rows whose certainty falls into a bin, the sum of it, and how many came true."""

figure_schema: Mapping[str, pl.DataType] = {
    **dict.fromkeys(place, pl.String()),
    "rows": pl.Int64(),
    "figure": pl.Float64(),
    "spread": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
}
"""A metric, the standard deviation of what single rows add to it (null for `auc` and `ece`), and its interval."""


@dataclass(frozen=True)
class Tally:
    """The sums of some blocks."""

    sums: pl.DataFrame
    """As `tally_schema`."""

    bins: pl.DataFrame
    """As `bins_schema`; no rows for a regression."""


def mean_metrics(model: ModelSpec) -> list[str]:
    """The metrics of a model that are means over rows, its business ones too."""
    named = [name for name in METRICS[model.task] if name not in ("auc", "ece")]
    excess = [EXCESS] if "log_loss" in named else []
    return [*named, BIAS, ASSOCIATION, *excess, *(BUSINESS + each.name for each in model.monitoring.business)]


def request_columns(model: ModelSpec) -> list[str]:
    """What a figure of the model reads beside label and answer: request columns, if they are any."""
    read = [name for each in model.monitoring.business for name in each.value().meta.root_names()]
    own = {"label", "prediction", "probability"}
    return list(dict.fromkeys([*(each.column for each in model.segments), *(name for name in read if name not in own)]))


def tally(model: ModelSpec, rows: pl.DataFrame, scores: Floats) -> Tally:
    """Count and sum some answers whose labels are known.

    Parameters
    ----------
    rows : (n, …) `block`, those of `group`, `label` (Float64, finite), `prediction` (as `scoring.postprocess.answers`
        gives it), `probability`, and the columns of `request_columns`
    scores : (n,) or (n, classes) float64; NaN where the answer has none
    """
    told = rows.with_columns(_row_values(model, rows, scores))
    names = [name for name in mean_metrics(model) if name in told.columns]
    keys = ["block", *group]
    parts = []
    for segment, column in [("", None), *((each.name, each.column) for each in model.segments)]:
        value = pl.lit("") if column is None else pl.col(column).cast(pl.String).fill_null("null")
        of = told.select(*keys, *names, value=value)
        if column is not None and of["value"].n_unique() > values_at_most:
            answers = of.filter(pl.col("arm") != SHADOW)
            largest = answers["value"].value_counts(sort=True).head(values_at_most)["value"]
            of = of.filter(pl.col("value").is_in(largest.implode()))
        summed = of.group_by(*keys, "value").agg(
            *(pl.col(name).count().alias(f"{name}\0rows") for name in names),
            *(pl.col(name).sum().alias(f"{name}\0sum") for name in names),
            *((pl.col(name) ** 2).sum().alias(f"{name}\0squares") for name in names),
        )
        parts += [
            summed.select(
                *keys,
                "value",
                segment=pl.lit(segment),
                metric=pl.lit(name),
                **{what: pl.col(f"{name}\0{what}") for what in ("rows", "sum", "squares")},
            )
            for name in names
        ]
    sums = pl.concat([_empty(tally_schema), *(_as(each, tally_schema) for each in parts)]).filter(pl.col("rows") > 0)
    return Tally(sums=sums, bins=_bins(told))


def _row_values(model: ModelSpec, rows: pl.DataFrame, scores: Floats) -> list[pl.Series | pl.Expr]:
    """What each row adds to the means; null where it has no score."""
    labels = rows["label"].to_numpy()
    scored = np.flatnonzero(np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1))
    known, given = labels[scored], scores[scored]

    def spread(name: str, values: Floats) -> pl.Series:
        column = np.full(rows.height, np.nan)
        column[scored] = values
        return pl.Series(name, column).fill_nan(None)

    made: list[pl.Series | pl.Expr] = [
        spread(name, metrics.per_row(name, known, given))
        for name in mean_metrics(model)
        if name in METRICS[model.task] and name != "accuracy"
    ]
    if model.task == "multiclass":
        made.append(spread(ASSOCIATION, _covariance(rows[scored], known, given)))
    else:
        told = rows[scored].select(*group, "label").with_columns(score=pl.Series(given))
        binary = model.task == "binary"
        made.append(spread(ASSOCIATION, told.select(_gini() if binary else _spearman()).to_series().to_numpy()))
    if model.task == "regression":
        made.append(spread(BIAS, given - known))
    else:
        made.append(spread(EXCESS, metrics.per_row("log_loss", known, given) - uncertainty(given)))
        certainty, hit = metrics.certainty_and_hit(known, given)
        made += [spread(BIAS, certainty - hit), spread("certainty", certainty), spread("hit", hit)]
        # Of what was answered: the decision is the manifest's, and a fallback may have no score.
        said = pl.col("prediction")
        if model.task == "multiclass":
            said = said.replace_strict(
                {name: float(place) for place, name in enumerate(model.label.classes)},
                default=None,
                return_dtype=pl.Float64,
            )
        made.append((said.cast(pl.Float64) == pl.col("label")).cast(pl.Float64).alias("accuracy"))
    made += [
        each.value().cast(pl.Float64).fill_nan(None).alias(BUSINESS + each.name) for each in model.monitoring.business
    ]
    return made


def _away(ranked: str) -> pl.Expr:
    """Rank in the group, from its mean, in units of its rows."""
    rank = pl.col(ranked).rank() / pl.len()
    return (rank - rank.mean()).over(group)


def _gini() -> pl.Expr:
    """The mean rank of one class lies above that of the other by AUC − ½, in units of all rows; NaN with one class."""
    label = pl.col("label")
    return 2 * _away("score") * ((label - label.mean()) / label.var(ddof=0)).over(group)


def _spearman() -> pl.Expr:
    score, label = _away("score"), _away("label")
    return score * label / ((score**2).mean().over(group) * (label**2).mean().over(group)).sqrt()


def _covariance(rows: pl.DataFrame, labels: Floats, scores: Floats) -> Floats:
    """(n,) the probability of what happened, above a guess by the shares of the classes."""
    by_chance, spread = np.zeros(len(labels)), np.ones(len(labels))
    for place in range(scores.shape[1]):
        shares = rows.select(*group, is_it=pl.Series(labels == place)).select(pl.col("is_it").mean().over(group))
        by_chance += scores[:, place] * shares.to_series().to_numpy()
        spread -= shares.to_series().to_numpy() ** 2
    above = scores[np.arange(len(labels)), labels.astype(np.int64)] - by_chance
    share: Floats = np.divide(above, spread, out=np.full(len(labels), np.nan), where=spread > 0)
    return share


def _bins(told: pl.DataFrame) -> pl.DataFrame:
    if "certainty" not in told.columns:
        return _empty(bins_schema)
    scored = told.filter(pl.col("certainty").is_not_null())
    chance = scored["certainty"].to_numpy().clip(1e-12, 1 - 1e-12)
    logit = np.log(chance / (1 - chance))
    place_of = ((logit + widest_logit) / (2 * widest_logit) * score_bins).clip(0, score_bins - 1).astype(np.int32)
    counted = (
        scored.with_columns(bin=pl.Series(place_of))
        .group_by("block", *group, "bin")
        .agg(pl.len().alias("rows"), pl.col("certainty").sum(), pl.col("hit").sum().alias("hits"))
    )
    return _as(counted, bins_schema)


def figures(model: ModelSpec, of: Tally) -> pl.DataFrame:
    """Metrics with intervals from a bootstrap over blocks, as `figure_schema`; by place."""
    blocks = np.unique(of.sums["block"].to_numpy())
    if not len(blocks):
        return _empty(figure_schema)
    draws = metrics.bootstrap(blocks.astype(np.int64), seed=model.settings.seed).draws
    made = [*_means(of.sums, blocks, draws), *_from_bins(model, of.bins, blocks, draws)]
    return pl.DataFrame(made, schema=figure_schema, orient="row").sort(place)


def _means(sums: pl.DataFrame, blocks: npt.NDArray[np.int32], draws: Floats) -> list[tuple[object, ...]]:
    keys = sums.select(place).unique(maintain_order=True).with_row_index("key")
    placed = sums.join(keys, on=list(place))
    at = (placed["key"].to_numpy(), np.searchsorted(blocks, placed["block"].to_numpy()))
    counted, summed, squared = (np.zeros((keys.height, len(blocks))) for _ in range(3))
    for filled, column in ((counted, "rows"), (summed, "sum"), (squared, "squares")):
        np.add.at(filled, at, placed[column].to_numpy())
    made: list[tuple[object, ...]] = []
    for number, key in enumerate(keys.drop("key").iter_rows()):
        rows = counted[number].sum()
        drawn = _ratio(draws @ summed[number], draws @ counted[number])
        spread = math.sqrt(max(0.0, squared[number].sum() / rows - (summed[number].sum() / rows) ** 2))
        if key[-1] == "rmse":
            drawn = np.sqrt(drawn)
            # Of the root: a row moves it by this much to first order.
            spread = spread / (2 * drawn[0]) if drawn[0] > 0 else 0.0
        found = metrics.interval(drawn, int((counted[number] > 0).sum()))
        made.append((*key, int(rows), found.point, spread, found.low, found.high))
    return made


def _from_bins(
    model: ModelSpec, bins: pl.DataFrame, blocks: npt.NDArray[np.int32], draws: Floats
) -> list[tuple[object, ...]]:
    made: list[tuple[object, ...]] = []
    for key, rows in bins.partition_by(group, as_dict=True, maintain_order=True).items():
        at = (np.searchsorted(blocks, rows["block"].to_numpy()), rows["bin"].to_numpy())
        counted, certain, hits = (np.zeros((len(blocks), score_bins)) for _ in range(3))
        for filled, column in ((counted, "rows"), (certain, "certainty"), (hits, "hits")):
            np.add.at(filled, at, rows[column].to_numpy())
        total, days = int(counted.sum()), int((counted.sum(axis=1) > 0).sum())
        drawn = draws @ counted, draws @ certain, draws @ hits
        found: dict[str, Interval] = {"ece": metrics.interval(_calibration_error(*drawn), days)}
        if "auc" in METRICS[model.task]:
            found["auc"] = metrics.interval(_auc(drawn[0], drawn[2]), days)
        made += [(*key, "", "", name, total, each.point, None, each.low, each.high) for name, each in found.items()]
    return made


def _auc(counted: Floats, hits: Floats) -> Floats:
    """(draws,) Mann-Whitney form of the area under the ROC curve, scores of one bin counted as ties."""
    others = counted - hits
    wins = (hits * (np.cumsum(others, axis=1) - 0.5 * others)).sum(axis=1)
    return _ratio(wins, hits.sum(axis=1) * others.sum(axis=1))


def _calibration_error(counted: Floats, certain: Floats, hits: Floats) -> Floats:
    """(draws,) over groups of about equally many rows, made of neighbouring bins; the groups are those of all rows."""
    before = np.cumsum(counted[0]) - counted[0]
    of = np.minimum(before * CALIBRATION_GROUPS // max(1.0, counted[0].sum()), CALIBRATION_GROUPS - 1).astype(np.int64)
    starts = np.searchsorted(of, np.unique(of))
    gaps = np.abs(np.add.reduceat(certain - hits, starts, axis=1)).sum(axis=1)
    return _ratio(gaps, counted.sum(axis=1))


def tally_of_days(by_day: Sequence[tuple[int, pl.DataFrame, pl.DataFrame]]) -> Tally:
    """A tally whose blocks are days, from the figures and bins that were kept of each.

    Parameters
    ----------
    by_day : number of the block, its figures as `figure_schema`, its bins as `bins_schema` without `block`
    """
    squared = pl.col("metric") == "rmse"
    mean = pl.when(squared).then(pl.col("figure") ** 2).otherwise(pl.col("figure"))
    spread = pl.when(squared).then(2 * pl.col("figure") * pl.col("spread")).otherwise(pl.col("spread"))
    sums = [
        _as(
            kept.filter(pl.col("spread").is_not_null()).with_columns(
                block=pl.lit(block), sum=mean * pl.col("rows"), squares=(spread**2 + mean**2) * pl.col("rows")
            ),
            tally_schema,
        )
        for block, kept, _ in by_day
    ]
    bins = [_as(kept.with_columns(block=pl.lit(block)), bins_schema) for block, _, kept in by_day]
    return Tally(sums=pl.concat([_empty(tally_schema), *sums]), bins=pl.concat([_empty(bins_schema), *bins]))


def _empty(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)


def _as(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio
