"""Plots and table: real images of bounded size, and every figure in its cell."""

from dataclasses import replace

import pytest

from mlplatform.training.evaluation import CurveBin, Evaluation, SegmentResult
from mlplatform.training.metrics import Interval
from mlplatform.training.plots import as_markdown, calibration_plot, importance_plot, metrics_table, roc_plot

figure = Interval(point=0.4512, low=0.44, high=0.46)
gain = Interval(point=-0.02, low=-0.03, high=-0.01)
evaluation = Evaluation(
    model="late",
    task="binary",
    rows=12_345,
    days=14,
    seed=1,
    resamples=200,
    metrics={
        "candidate": {"log_loss": figure, "auc": Interval(point=None)},
        "naive": {"log_loss": figure, "auc": figure},
    },
    differences={"naive": {"log_loss": gain, "auc": Interval(point=0.1)}},
    segments=(
        SegmentResult(
            segment="origin",
            value="E|WR",
            rows=900,
            judged=True,
            metrics={"candidate": {"log_loss": figure}},
            differences={"naive": {"log_loss": gain}},
        ),
        SegmentResult(segment="origin", value="JFK", rows=3, judged=False, metrics={}, differences={}),
    ),
    calibration_curve=tuple(CurveBin(rows=9, mean_score=each / 10, observed=each / 11) for each in range(10)),
    roc=tuple((each / 200, (each / 200) ** 0.5) for each in range(201)),
    importance={f"a_feature_with_quite_a_long_name_{each}": 1 / (each + 1) for each in range(40)},
    immaturity=None,
    latency=None,
    parity=0.0,
)
empty = replace(evaluation, metrics={"candidate": {}}, calibration_curve=(), roc=(), importance={})


@pytest.mark.parametrize("plot", [calibration_plot, roc_plot, importance_plot])
def test_plots_are_small_images(plot: object) -> None:
    """A PNG below 60 kB, also when there is nothing to draw."""
    assert callable(plot)
    for told in (evaluation, empty):
        png = plot(told)
        assert png.startswith(b"\x89PNG")
        assert 1_000 < len(png) < 60_000


def test_the_table_shows_each_figure_with_its_interval() -> None:
    """Missing figures are a dash, missing intervals are said, and a name cannot break the table."""
    table = metrics_table(evaluation)
    assert "12,345 rows of 14 days" in table
    assert "| metric | candidate | naive | − naive |" in table
    assert "| log_loss | 0.4512 (0.44 to 0.46) | 0.4512 (0.44 to 0.46) | -0.02 (-0.03 to -0.01) |" in table
    assert "| auc | – | 0.4512 (0.44 to 0.46) | 0.1 (no interval) |" in table
    assert "| origin E\\|WR | 900 | 0.4512 (0.44 to 0.46) | -0.02 (-0.03 to -0.01) |" in table
    assert "| origin JFK | 3 | too few |  |" in table


def test_an_image_in_markdown_loads_nothing() -> None:
    """The picture is in the text itself."""
    assert as_markdown(b"abc", "curve") == "![curve](data:image/png;base64,YWJj)"
