"""Plots and tables of outcomes, small enough to stand in the metadata of an asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.outcomes.latest import LatestOutcome
from mlplatform.monitoring.outcomes.outcomes import DayOutcomes
from mlplatform.monitoring.outcomes.tally import BIAS, BUSINESS
from mlplatform.training.plots import BLUE, GREY, figure_png, new_figure

segments_shown = 30
"""Lines of the table of segments in the UI; all of them stand in the table `outcomes`."""


def trend_plot(told: Sequence[LatestOutcome]) -> bytes:
    """PNG: the deciding metric of one model day by day, its intervals, and the bound where it was judged."""
    figure, axes = new_figure("", told[0].metric if told else "")
    for number, manifest in enumerate(dict.fromkeys(each.manifest for each in told if each.manifest)):
        of = [each for each in told if each.manifest == manifest and each.mature and each.figure.point is not None]
        days = [each.day[5:] for each in of]
        axes.plot(days, [each.figure.point or 0.0 for each in of], marker="o", markersize=4, label=manifest[:8])
        axes.vlines(
            [each.day[5:] for each in of if each.figure.low is not None],
            [each.figure.low for each in of if each.figure.low is not None],
            [each.figure.high for each in of if each.figure.high is not None],
            color=BLUE,
            linewidth=0.8,
        )
        bounded = [each for each in of if each.bound is not None]
        axes.plot(
            [each.day[5:] for each in bounded],
            [each.bound or 0.0 for each in bounded],
            color=GREY,
            linestyle="--",
            linewidth=1,
            label="bound" if not number else None,
        )
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set_title(told[0].model if told else "", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    return figure_png(figure)


def counts_table(found: DayOutcomes) -> str:
    """Markdown: how many labels are in, a line per model."""
    lines = []
    for each in found.models:
        early = (
            f"{each.early.share:.1%} are in so early, {each.early.bias:+.4g} on {each.early.days} days"
            if each.early
            else "–"
        )
        state = "yes" if each.mature else f"no, from {each.mature_at:%Y-%m-%d %H:%M}"
        counts = (each.answers, each.labelled, each.without_label, each.pending, each.contradicted, each.refused)
        shares = [f"{each.coverage:.1%}", f"{each.coverage_of_traffic:.1%}"]
        lines.append(row([each.model, state, *(f"{count:,}" for count in counts), *shares, early]))
    head = (
        "model,mature,answers,labelled,without label,pending,contradicted,refused,coverage,facts asked about,"
        "bias of early labels"
    )
    return table(head, lines)


def figures_table(figures: pl.DataFrame, models: Sequence[ModelSpec]) -> str:
    """Markdown: the metrics of all answers, a line per model, manifest, arm and source."""
    lines = []
    for model in models:
        overall = figures.filter(pl.col("model") == model.name, pl.col("segment") == "")
        for of in overall.partition_by("manifest", "arm", "source", maintain_order=True):
            key = of.row(0, named=True)
            manifest, arm, source = str(key["manifest"]), str(key["arm"]), str(key["source"])
            told = ", ".join(said(each) for each in of.iter_rows(named=True))
            lines.append(row([model.name, f"`{manifest[:12]}`", arm, source, f"{max(of['rows']):,}", told]))
    return table("model,manifest,arm,source,labels,figures", lines)


def segments_table(figures: pl.DataFrame, models: Sequence[ModelSpec]) -> str:
    """Markdown: the deciding metric of each segment, the largest first."""
    deciding = {model.name: model.gate.metric for model in models}
    of = figures.filter(
        pl.col("segment") != "",
        pl.col("source") == "model",
        pl.col("metric") == pl.col("model").replace_strict(deciding, default=None, return_dtype=pl.String),
    ).sort("rows", descending=True)
    lines = [
        row(
            [
                each["model"],
                f"`{each['manifest'][:12]}`",
                each["arm"],
                each["segment"],
                each["value"],
                f"{each['rows']:,}",
                said(each),
            ]
        )
        for each in of.head(segments_shown).iter_rows(named=True)
    ]
    return table("model,manifest,arm,segment,value,labels,figure", lines)


def estimates_table(found: DayOutcomes) -> str:
    """Markdown: what was estimated before the labels were in, beside what they say."""
    lines = [
        row(
            [
                each["model"],
                f"`{each['manifest'][:12]}`",
                each["metric"],
                f"{number(each['estimated'])} ({number(each['low'])} to {number(each['high'])})",
                number(each["truth"]),
                number(each["error"]),
            ]
        )
        for each in found.estimates.iter_rows(named=True)
    ]
    return table("model,manifest,metric,estimated before labels,truth,error", lines)


def said(figure: Mapping[str, Any]) -> str:
    """A figure in words: name, value, interval, and what it is held against."""
    name = {BIAS: "score − outcome"}.get(figure["metric"], figure["metric"].removeprefix(BUSINESS))
    told = f"{name} {number(figure['figure'])}"
    if figure["low"] is not None:
        told += f" ({number(figure['low'])} to {number(figure['high'])})"
    if figure.get("expected") is not None:
        told += f", evaluation {number(figure['expected'])}, bound {number(figure['bound'])}"
    return told


def number(value: float | None) -> str:
    """Four digits."""
    return "–" if value is None else f"{value:.4g}"


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(head: str, lines: Sequence[str]) -> str:
    """A Markdown table; `head` is separated by commas."""
    names = head.split(",")
    return "\n".join([row(names), "|---" * len(names) + "|", *lines])
