"""What the judge of outcomes takes for harm."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tables import day_range
from mlplatform.monitoring.outcomes.judge import verdicts, watched
from mlplatform.monitoring.outcomes.tally import EXCESS, figures, tally
from mlplatform.scoring.postprocess import answers
from mlplatform_tests.fakes.judged_answers import MANIFEST, best_scores, labels_of, orders_of

MODEL = DOMAIN.model("late_order")
EVALUATED = day_range("2024-03-01", "2024-03-14")

Floats = npt.NDArray[np.float64]


def figures_of(orders: pl.DataFrame, labels: Floats | None = None) -> pl.DataFrame:
    """Figures of a day that was answered as well as can be."""
    scores = best_scores(MODEL, orders)
    told = orders.hstack(answers(MODEL, scores).select("prediction", "probability")).with_columns(
        label=labels_of(MODEL, orders) if labels is None else pl.Series(labels),
        block=pl.col("ordered_at").dt.hour().cast(pl.Int32),
        **{name: pl.lit(value) for name, value in (("manifest", MANIFEST), ("arm", "champion"), ("source", "model"))},
    )
    return figures(MODEL, tally(MODEL, told, scores))


def evaluation() -> pl.DataFrame:
    """Figures of two quiet weeks."""
    return pl.concat(figures_of(orders_of(day)).with_columns(day=pl.lit(day)) for day in EVALUATED)


def hard(day: str) -> pl.DataFrame:
    """Of many orders those that are next to a coin toss."""
    orders = orders_of(day, count=3_000)
    scores: Any = best_scores(MODEL, orders)
    return orders.filter(pl.Series((scores > 0.3) & (scores < 0.7)))


def harmful(told: pl.DataFrame, reference: pl.DataFrame) -> list[str]:
    """Rules that a day breaks."""
    found = verdicts(watched(MODEL, told, 1, {MANIFEST: reference}))
    return [each.watched.rule for each in found if each.harmful]


def test_harder_cases_are_no_worse_model() -> None:
    """A loss as high as the scores expect it to be is not the model's fault, however far above the evaluation's."""
    reference, day = evaluation(), hard("2024-04-02")
    assert "log_loss" not in harmful(figures_of(day), reference)
    assert "segment_harm" not in harmful(figures_of(day), reference)
    # The same day without what scores expect: the loss alone is far out.
    loss_alone = reference.filter(pl.col("metric") != EXCESS)
    assert "log_loss" in harmful(figures_of(day), loss_alone)


def test_a_loss_that_scores_do_not_expect_is_harmful() -> None:
    """Confident scores that come out wrong."""
    day = orders_of("2024-04-02")
    labels = labels_of(MODEL, day).to_numpy()
    turned = np.where(np.random.default_rng(1).random(len(labels)) < 0.4, 1 - labels, labels)
    assert "log_loss" in harmful(figures_of(day, turned), evaluation())
