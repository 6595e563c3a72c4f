"""Plots and the table of an evaluation, small enough to stand in the metadata of an asset.

A plot is PNG bytes below 60 kB. Nothing is drawn from anything but the evaluation, so an old one can be drawn again.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from mlplatform.training.evaluation import Evaluation
from mlplatform.training.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#1f5fa8", "#888888"
FEATURES_SHOWN = 15
MODELS = ("candidate", "champion", "naive", "simple")


def calibration_plot(evaluation: Evaluation) -> bytes:
    """PNG: what came true against what was said, one point for each bin."""
    figure, axes = new_figure("said: mean probability", "came true: share")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    curve = evaluation.calibration_curve
    axes.plot(
        [each.mean_score for each in curve], [each.observed for each in curve], color=BLUE, marker="o", markersize=4
    )
    error = _cell(evaluation.metrics.get("candidate", {}).get("ece"))
    axes.set_title(f"Calibration of {evaluation.model}, error {error}", fontsize=10)
    return figure_png(figure)


def roc_plot(evaluation: Evaluation) -> bytes:
    """PNG: the ROC curve."""
    figure, axes = new_figure("false-positive rate", "true-positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot([each[0] for each in evaluation.roc], [each[1] for each in evaluation.roc], color=BLUE)
    area = _cell(evaluation.metrics.get("candidate", {}).get("auc"))
    axes.set_title(f"ROC of {evaluation.model}, area {area}", fontsize=10)
    return figure_png(figure)


def importance_plot(evaluation: Evaluation) -> bytes:
    """PNG: the features with the largest share of the gain."""
    figure, axes = new_figure("share of gain", "")
    shown = sorted(evaluation.importance.items(), key=lambda each: (-each[1], each[0]))[:FEATURES_SHOWN][::-1]
    axes.barh([name for name, _ in shown], [share for _, share in shown], color=BLUE)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(f"Importance in {evaluation.model}", fontsize=10)
    return figure_png(figure)


def as_markdown(png: bytes, title: str) -> str:
    """A PNG inside Markdown, as a data address: the page that shows it loads nothing from elsewhere."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def metrics_table(evaluation: Evaluation) -> str:
    """Markdown: each metric of each model with its 95 % interval, then candidate − other, overall and per segment."""
    names = [name for name in MODELS if name in evaluation.metrics]
    others = [name for name in names if name != "candidate"]
    head = ["metric", *names, *(f"− {name}" for name in others)]
    drawn = f"95 % intervals from {evaluation.resamples} draws of days"
    lines = [
        f"{evaluation.rows:,} rows of {evaluation.days} days; {drawn}.",
        "",
        *_rule(head),
    ]
    for metric in evaluation.metrics["candidate"]:
        cells = [_cell(evaluation.metrics[name][metric]) for name in names]
        cells += [_cell(evaluation.differences[name][metric]) for name in others]
        lines.append(_row([metric, *cells]))
    if evaluation.segments:
        lines += ["", *_segment_lines(evaluation, others)]
    return "\n".join(lines) + "\n"


def _segment_lines(evaluation: Evaluation, others: list[str]) -> list[str]:
    metric = next(iter(evaluation.metrics["candidate"]))
    lines = _rule(["segment", "rows", metric, *(f"− {name}" for name in others)])
    for each in evaluation.segments:
        if not each.judged:
            lines.append(_row([f"{each.segment} {each.value}", f"{each.rows:,}", "too few", *("" for _ in others)]))
            continue
        cells = [_cell(each.differences[name][metric]) for name in others]
        lines.append(
            _row([f"{each.segment} {each.value}", f"{each.rows:,}", _cell(each.metrics["candidate"][metric]), *cells])
        )
    return lines


def _rule(head: list[str]) -> list[str]:
    return [_row(head), _row(["---"] * len(head))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cell(figure: Interval | None) -> str:
    if figure is None or figure.point is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.point:.4g} (no interval)"
    return f"{figure.point:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def new_figure(x: str, y: str) -> tuple[Figure, Axes]:
    """One small plot with named axes."""
    # Figures made without pyplot need no window system and are not kept in a global list.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def figure_png(figure: Figure) -> bytes:
    """The same figure gives the same bytes."""
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()
