"""The plot and the tables of replay coverage, small enough to stand in the metadata of an asset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from mlplatform.reproducibility.coverage.coverage import Coverage, command, is_fault
from mlplatform.reproducibility.coverage.tables import shares
from mlplatform.reproducibility.replay.verdict import Replayed, meaning
from mlplatform.training.plots import BLUE, GREY, figure_png, new_figure

nights_shown = 60
"""In the plot; all of them stand in the table."""

faults_shown = 20
"""Lines of the table of faults in the UI, some of each cause; all of them stand in the table `replay_findings`."""

_colours = {"exact": BLUE, "within_tolerance": "#8fb8de", "diverged": "#c0392b", "impossible": "#e59866"}


def coverage_plot(figures: pl.DataFrame, wanted: float) -> bytes:
    """PNG: of each night, what share of the replays had which outcome, and what is promised.

    Parameters
    ----------
    figures : of the nights, as `past_nights` gives them
    """
    figure, axes = new_figure("", "share of replays")
    told = shares(figures)
    nights = [str(night)[5:] for night in told["night"]]
    below = [0.0] * told.height
    for outcome, colour in _colours.items():
        share = told[outcome].to_list()
        axes.bar(nights, share, bottom=below, color=colour, width=0.9, label=outcome.replace("_", " "))
        below = [under + over for under, over in zip(below, share, strict=True)]
    axes.axhline(wanted, color=GREY, linestyle="--", linewidth=1)
    # Where nearly all is well, what is not would be a line of a pixel.
    worst = min(told["exact"] + told["within_tolerance"], default=1.0)
    axes.set_ylim(max(0.0, min(worst, wanted) - max(0.02, 1.0 - worst)), 1.005)
    axes.set_xticks(range(0, len(nights), max(1, len(nights) // 12)))
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set_title("Old answers given again; dashed: promised", fontsize=10)
    axes.legend(fontsize=7, loc="lower left")
    return figure_png(figure)


def coverage_lines(found: Coverage) -> str:
    """Markdown: a line per manifest and age."""
    lines = []
    for (model, version, manifest, age), each in found.by("model", "model_version", "manifest", "age").items():
        counts = (each.exact, each.within_tolerance, each.diverged, each.impossible, each.removed)
        share = "–" if each.share != each.share else f"{each.share:.1%}"
        told = [f"{count:,}" for count in (*counts, each.shadows, each.fallbacks)]
        named = (model, version, f"`{manifest[:12]}`", age, f"{each.replayed:,}", share)
        lines.append([*named, *told, f"{each.largest:.2g}"])
    head = (
        "model,version,manifest,age,replayed,share,exact,within tolerance,diverged,impossible,removed by policy,"
        "of them shadows,fallbacks,largest difference"
    )
    return _table(head, lines)


def cause_lines(found: Coverage) -> str:
    """Markdown: how many could not be given again, by the first thing that differed."""
    causes: dict[str, list[Replayed]] = {}
    for each in found.replayed:
        if is_fault(each):
            causes.setdefault(str(each.verdict.cause), []).append(each)
    lines = [
        [cause, _said(cause), f"{len(answers):,}", f"`{command(answers[0])}`"]
        for cause, answers in sorted(causes.items(), key=lambda each: -len(each[1]))
    ]
    return _table("cause,which is,answers,look at one", lines)


def fault_lines(found: Coverage) -> str:
    """Markdown: answers that could not be given again, some of each cause."""
    by_cause: dict[str, int] = {}
    ordered = []
    for each in filter(is_fault, found.replayed):
        cause = str(each.verdict.cause)
        by_cause[cause] = place = by_cause.get(cause, 0) + 1
        ordered.append((place, cause, each))
    lines = [
        (
            *(each.request_id, each.model, f"`{each.manifest[:12]}`", f"{each.received:%Y-%m-%d %H:%M}"),
            *(each.arm, each.source, each.verdict.outcome, cause, each.verdict.reason),
        )
        for _, cause, each in sorted(ordered, key=lambda told: (told[0], told[1]))[:faults_shown]
    ]
    return _table("request,model,manifest,received (UTC),arm,source,outcome,cause,reason", lines)


def until_lines(told: Mapping[tuple[str, str, str], tuple[str, str]]) -> str:
    """Markdown: until when each version can be made and its answers replayed.

    Parameters
    ----------
    told : model, version and manifest -> until when, and why
    """
    lines = [
        [model, version, f"`{manifest[:12]}`", until, why] for (model, version, manifest), (until, why) in told.items()
    ]
    return _table("model,version,manifest,reproducible until,because", lines)


def _said(cause: str) -> str:
    return next((said for name, said in meaning.items() if name == cause), "")


def _table(head: str, lines: Iterable[Sequence[str]]) -> str:
    names = head.split(",")
    rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])
