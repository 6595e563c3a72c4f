"""Plots and the table of a day of model behaviour, small enough to stand in the metadata of an asset."""

from __future__ import annotations

from collections.abc import Sequence

from mlplatform.monitoring.behaviour.behaviour import Behaviour
from mlplatform.monitoring.behaviour.day import DayBehaviour
from mlplatform.monitoring.behaviour.usual import BINS
from mlplatform.training.plots import BLUE, GREY, figure_png, new_figure

lines_shown = 6
"""Behaviours in one plot; all of them stand in the table."""


def scores_plot(found: Sequence[Behaviour]) -> bytes:
    """PNG: share of the scores in each bin of the evaluation, where each would hold as many."""
    figure, axes = new_figure("bin of the evaluation's scores", "share of answers")
    axes.axhline(1.0 / BINS, color=GREY, linestyle="--", linewidth=1, label="evaluation")
    for each in found[:lines_shown]:
        shares = list(each.parts("score_bin").values())
        axes.step(range(len(shares)), shares, where="mid", linewidth=1.2, label=_named(each))
    axes.set_title("Scores", fontsize=10)
    axes.legend(fontsize=7)
    return figure_png(figure)


def latency_plot(found: Sequence[Behaviour]) -> bytes:
    """PNG: how long whole answers took, and the deadline."""
    figure, axes = new_figure("", "ms, whole answer")
    quantiles = ("p50", "p95", "p99", "max")
    for each in found[:lines_shown]:
        taken = [each.value("latency_ms", f"total {quantile}") for quantile in quantiles]
        axes.plot(quantiles, taken, marker="o", markersize=4, linewidth=1.2, label=_named(each))
        if (late := each.figure("late")) is not None and late.high is not None:
            axes.axhline(late.high, color=GREY, linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.set_title("Latency; dashed: the deadline", fontsize=10)
    axes.legend(fontsize=7)
    return figure_png(figure)


def traffic_plot(found: Sequence[Behaviour]) -> bytes:
    """PNG: answers of each hour."""
    figure, axes = new_figure("hour, UTC", "answers")
    counted = [
        sum(each.parts("answers_of_hour").get(f"{hour:02}", 0.0) for each in found if not each.is_shadow)
        for hour in range(24)
    ]
    axes.bar(range(24), counted, color=BLUE)
    axes.set_title("Traffic", fontsize=10)
    return figure_png(figure)


def behaviour_table(found: DayBehaviour) -> str:
    """Markdown: a line per model, manifest and arm."""
    head = (
        "model manifest arm answers peak_minute fallback degraded needs_review mean_score usual estimated_log_loss "
        "at_evaluation p50_ms p99_ms late not_compared"
    )
    names = [name.replace("_", " ") for name in head.split()]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for each in found.behaviours:
        cells = [
            each.model,
            f"`{each.manifest[:12]}`",
            each.arm,
            f"{each.count('answers'):,}",
            f"{each.count('peak_minute'):,}",
            _share(each.count("fallbacks") / each.count("answers")),
            _share(each.value("degraded_share")),
            _share(each.value("needs_review_share")),
            _number(each.value("score", "mean")),
            _range(each, "usual", "mean_score"),
            f"{_number(each.value('estimated', 'log_loss'))} {_range(each, 'estimated', 'log_loss')}".strip(),
            _number(each.value("estimated_at_evaluation", "log_loss")),
            _number(each.value("latency_ms", "total p50")),
            _number(each.value("latency_ms", "total p99")),
            _share(each.count("late") / each.count("answers")),
            _text(each.not_compared),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rescored_table(found: DayBehaviour) -> str:
    """Markdown: how many answers were scored again, and how many of them gave another score."""
    lines = [
        f"| {each.model} | `{each.manifest[:12]}` | {each.rows} of {each.answers:,} | {each.differing} | "
        f"{each.largest:.2g} | {_text(each.not_compared)} |"
        for each in found.rescored
    ]
    head = "| model | manifest | scored again | differ | largest difference | not compared |"
    return "\n".join([head, "|---|---|---|---|---|---|", *lines])


def findings_table(found: DayBehaviour) -> str:
    """Markdown: what is wrong, the harmful first."""
    lines = [
        f"| {each.rule} | {each.subject} | {'yes' if each.harmful else 'no'} | {_text(each.summary)} |"
        for each in found.findings
    ]
    return "\n".join(["| rule | subject | harmful | summary |", "|---|---|---|---|", *lines])


def _text(said: str) -> str:
    return said.replace("|", "\\|")


def _named(each: Behaviour) -> str:
    return f"{each.model} {each.manifest[:8]} {each.arm}"


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.1%}"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4g}"


def _range(each: Behaviour, name: str, part: str) -> str:
    figure = each.figure(name, part)
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"({figure.low:.4g} to {figure.high:.4g})"
