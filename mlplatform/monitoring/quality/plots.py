"""The picture of a day's data quality: what of the model's gain rests on rows that have moved, by feature."""

from __future__ import annotations

import io
from collections.abc import Sequence

from mlplatform.monitoring.quality.day_quality import FeatureQuality, order_of_rules

BAR = {"changed": "#b3261e", "slow": "#d99a2b", "usual": "#9aa7b5"}
FEATURES_SHOWN = 15


def harm_plot(features: Sequence[FeatureQuality], title: str) -> bytes:
    """PNG: the features with the largest harm, those that have changed in red, those that moved slowly in yellow.

    Parameters
    ----------
    features : of one manifest
    """
    # Figures made without pyplot need no window system and are not kept in a global list.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(features, key=lambda each: (-each.harm, each.feature))[:FEATURES_SHOWN][::-1]
    figure = Figure(figsize=(6.0, 3.9), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh([each.feature for each in shown], [each.harm for each in shown], color=[_colour(each) for each in shown])
    axes.set_xlabel("importance x share of rows that have moved", fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=10)
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _colour(of: FeatureQuality) -> str:
    return BAR["changed" if of.rule in order_of_rules else "slow" if of.rule else "usual"]
