"""What a model is held against is what its evaluation saw, day by day."""

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.outcomes.reference import evaluation_days, reference_of
from mlplatform.registry.candidate import bundle_of
from mlplatform.training.evaluation import Evaluation
from mlplatform_tests.fakes.synthetic_home import TrainedHome


def test_its_days_together_are_the_evaluation(trained: TrainedHome) -> None:
    """The same rows and scores: the mean over all of them is the figure that the gate saw."""
    days = evaluation_days(trained.platform, bundle_of(trained.platform, trained.entry.to_manifest))
    told = days.filter(pl.col("metric") == "log_loss", pl.col("segment") == "")
    judged = Evaluation.from_json((trained.folder / "evaluation.json").read_text())
    assert told["rows"].sum() == judged.rows and told["day"].n_unique() == told.height == judged.days
    pooled = told.select((pl.col("figure") * pl.col("rows")).sum() / pl.col("rows").sum()).item()
    assert pooled == pytest.approx(judged.metrics["candidate"]["log_loss"].point)
    assert {"association", "bias", "auc", "business:late_orders_announced"} <= set(days["metric"])


def test_it_is_made_once_and_kept(own_trained: TrainedHome) -> None:
    """And read afterwards, also when the scores have gone; of an unknown manifest it is said why there is none."""
    manifest = own_trained.entry.to_manifest
    made = reference_of(own_trained.platform, DOMAIN, manifest)
    (own_trained.folder / "trained_scores.npy").unlink()
    kept = reference_of(own_trained.platform, DOMAIN, manifest)
    assert isinstance(made, pl.DataFrame) and isinstance(kept, pl.DataFrame) and kept.height == made.height
    assert isinstance(reference_of(own_trained.platform, DOMAIN, "0" * 64), str)
