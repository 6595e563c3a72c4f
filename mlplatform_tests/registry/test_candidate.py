"""A candidate: one per recipe, learned from the truth and from nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic.ground_truth import expected_minutes, late_probability
from mlplatform.errors import DataError
from mlplatform.registry.candidate import bundle_of, load_candidate, make_candidate
from mlplatform.rollout.judge import judge_candidate
from mlplatform.training.dataset import load_rows
from mlplatform.training.examples import examples
from mlplatform.training.metrics import value
from mlplatform_tests.fakes.synthetic_home import COMMITTED, TrainedHome, train


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_asked_again_it_gives_the_bundle_that_is_there(own_trained: TrainedHome) -> None:
    """A recipe has one model: nothing is trained or written a second time."""
    home = own_trained.platform.home
    before = files(home)
    again = make_candidate(own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe)
    assert again == load_candidate(own_trained.folder)
    assert files(home) == before


def test_made_anew_from_the_same_recipe_it_is_the_same_to_the_bit(own_trained: TrainedHome) -> None:
    """Where the answer was lost, training gives every file of the bundle again; only what led to it may differ."""
    first = load_candidate(own_trained.folder)
    before = bundle_of(own_trained.platform, first.manifest).manifest
    (own_trained.folder / "model.json").unlink()
    again = make_candidate(own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe)
    after = bundle_of(own_trained.platform, again.manifest).manifest
    assert after.files == before.files
    # It was promoted meanwhile, so rolling back leads to it; all else is as it was.
    assert after.rollback_target == first.manifest
    assert replace(again, manifest=first.manifest) == first


def test_it_says_what_it_was_made_of(trained: TrainedHome) -> None:
    """Parts in the order of time, apart by the label delay, and shares of gain that sum to one."""
    made = load_candidate(trained.folder)
    assert list(made.rows) == ["train", "calibration", "evaluation"]
    assert made.windows == {
        "training": "2024-01-04T00:00 to 2024-01-16T07:00",
        "calibration": "2024-01-16T13:00 to 2024-01-20T13:00",
        "evaluation": "2024-01-20T19:00 to 2024-01-24T19:00",
    }
    assert sum(made.importance.values()) == pytest.approx(1.0)
    record = bundle_of(trained.platform, made.manifest).manifest.record
    assert record.training_set == json.loads((trained.folder / "training_set.json").read_text())["content_hash"]
    assert record.lock == trained.platform.environment
    assert (record.commit, record.dirty) == (COMMITTED.commit, False)
    assert record.checkouts == {"mlplatform": {"commit": COMMITTED.commit, "dirty": False}}
    assert record.lacking() == []


def test_it_has_learned_the_truth(trained: TrainedHome) -> None:
    """It is well below the constant in log loss, near what the true coefficients reach, and leans on what matters."""
    rows = load_rows(trained.folder)
    cut = examples(trained.domain, trained.model, trained.recipe, rows)
    held_out = cut.parts.evaluation
    bundle = bundle_of(trained.platform, trained.entry.to_manifest)
    requests, labels = cut.requests[held_out], cut.labels[held_out]
    scores = bundle.scores(bundle.features(requests, cut.view_values[held_out]))
    best = np.array([truth(row) for row in requests.iter_rows(named=True)])
    constant = np.full(len(labels), cut.labels[cut.parts.train].mean())
    losses = {
        name: value("log_loss", labels, each)
        for name, each in (("model", scores), ("best", best), ("constant", constant))
    }
    assert losses["best"] < losses["model"] < losses["constant"]
    gained = (losses["constant"] - losses["model"]) / (losses["constant"] - losses["best"])
    assert gained > 0.6, losses
    importance = load_candidate(trained.folder).importance
    assert max(importance, key=lambda name: importance[name]) == "order_distance"
    assert importance["order_items"] < 0.05


def truth(row: dict[str, object]) -> float:
    """The true chance that an order is late."""
    ordered = row["ordered_at"]
    assert isinstance(ordered, datetime)
    minutes = expected_minutes(
        str(row["courier"]), str(row["district"]), float(str(row["distance_km"])), ordered.astimezone(UTC).hour
    )
    return late_probability(minutes)


def test_from_shuffled_labels_nothing_is_learned(own_trained: TrainedHome) -> None:
    """Where the labels say nothing of the requests, the gate does not find the candidate better than a constant."""
    folder = own_trained.folder
    rows = load_rows(folder)
    shuffled = rows.with_columns(label=pl.col("label").shuffle(seed=3))
    shuffled.write_parquet(folder / "training_set.parquet")
    (folder / "model.json").unlink()
    make_candidate(own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe)
    evaluation, decision = judge_candidate(
        own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe
    )
    point = evaluation.metrics["candidate"]["auc"].point
    assert point is not None and 0.4 < point < 0.6
    assert decision.outcome != "pass"
    assert any(reason.startswith("better than naive") for reason in decision.reasons)


@pytest.mark.parametrize("name", ["minutes_to_door", "speed"])
def test_every_task_can_be_trained_and_judged(own_trained: TrainedHome, name: str) -> None:
    """Regression and several classes go the same way as the binary model, and beat the constant."""
    model = own_trained.domain.model(name)
    made = train(own_trained.platform, model)
    _, decision = judge_candidate(own_trained.platform, own_trained.domain, model, made)
    assert (decision.outcome, decision.reasons) == ("pass", ())


def test_without_a_training_set_there_is_no_candidate(own_trained: TrainedHome) -> None:
    """The message names the step that is missing."""
    other = replace(own_trained.recipe, seed=1)
    with pytest.raises(DataError, match="Materialise `training_set` of that recipe first"):
        make_candidate(own_trained.platform, own_trained.domain, own_trained.model, other)
    with pytest.raises(DataError, match="Materialise `model` of that recipe first"):
        load_candidate(own_trained.folder.with_name(other.key))
