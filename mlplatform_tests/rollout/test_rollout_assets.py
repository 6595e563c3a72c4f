"""Evaluation and promotion as assets: what a repeated run finds."""

from dataclasses import replace

import dagster as dg
import pytest

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.features.partitions import recipes
from mlplatform.operations.jobs import quiet
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.assets import rollout_assets
from mlplatform.rollout.judge import load_decision
from mlplatform_tests.fakes.synthetic_home import TrainedHome

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def evaluated_and_promoted(home: TrainedHome, model: ModelSpec) -> bool:
    """Whether a run of both succeeds."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(recipes(home.domain, model).name or "", [home.recipe.key])
        return dg.materialize(
            rollout_assets(home.domain, model),
            instance=instance,
            partition_key=home.recipe.key,
            resources={"platform": home.platform},
            run_config=quiet,
            raise_on_error=False,
        ).success


def test_a_champion_is_not_stopped_by_a_second_look_at_it(own_trained: TrainedHome) -> None:
    """A run killed after the promotion is repeated on a busy machine: slow now, its Bento is built all the same."""
    objectives = replace(own_trained.model.objectives, p99_ms=Threshold(value=1e-9, reason="no machine is as fast"))
    model = replace(own_trained.model, objectives=objectives)
    entries = Ledger(own_trained.platform).entries("synthetic/late_order")
    assert evaluated_and_promoted(own_trained, model)
    assert load_decision(own_trained.folder).outcome == "fail"
    assert Ledger(own_trained.platform).entries("synthetic/late_order") == entries
