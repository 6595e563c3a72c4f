"""Evaluation and promotion as assets: what a repeated run finds."""

from dataclasses import replace

import dagster as dg
import pytest

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.domain.threshold import Threshold
from mlplatform.features.partitions import recipes
from mlplatform.operations.jobs import quiet
from mlplatform.registry.candidate import load_candidate
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.mlflow_registry import Alias, digest_of_alias
from mlplatform.rollout.assets import rollout_assets
from mlplatform.rollout.judge import load_decision, load_evaluation
from mlplatform.rollout.moves import roll_back
from mlplatform.rollout.promotion import promote
from mlplatform.rollout.registration import register_candidate
from mlplatform_tests.fakes.synthetic_home import TrainedHome, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAME = ("synthetic", "late_order")


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


def looked_at(home: TrainedHome, recipe: str) -> dg.AssetMaterialization:
    """Materialise `rollout` of a recipe by hand."""
    (asset,) = (each for each in rollout_assets(home.domain, home.model) if each.key.path[-1] == "rollout")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(recipes(home.domain, home.model).name or "", [recipe])
        result = dg.materialize(
            [asset],
            instance=instance,
            partition_key=recipe,
            resources={"platform": home.platform},
            run_config=quiet,
        )
    (shown,) = result.asset_materializations_for_node("synthetic__late_order__rollout")
    return shown


def test_the_rollout_is_shown_and_the_aliases_follow(own_trained: TrainedHome) -> None:
    """A challenger has its alias while it is one; what is not under way is told in words."""
    platform, champion = own_trained.platform, own_trained.recipe.key
    model = replace(own_trained.model, rollout=Rollout(), settings=replace(own_trained.model.settings, rounds=25))
    made = train(platform, model)
    home = replace(own_trained, model=model, recipe=made)
    for key in (champion, made.key):
        register_candidate(platform, home.domain, model, key, load_evaluation(platform.training(NAME[0], NAME[1], key)))
    digest = load_candidate(home.folder).manifest
    promote(platform, home.domain, model, made.key, actor="test")
    shown = looked_at(home, made.key)
    assert (shown.metadata["outcome"].value, shown.metadata["challenger"].value) == ("hold", digest)
    assert "| figure | where | pairs |" in str(shown.metadata["bounds"].value)
    assert alias_of(home, "challenger") == digest
    assert looked_at(home, champion).metadata["rollout"].value == "not under way: the champion"
    roll_back(platform, "/".join(NAME), by="ann", reason="harm")
    assert looked_at(home, made.key).metadata["rollout"].value == "not under way: rolled back by ann: harm"
    assert (alias_of(home, "challenger"), alias_of(home, "champion")) == (None, own_trained.entry.to_manifest)


def alias_of(home: TrainedHome, alias: Alias) -> str | None:
    """What an alias in MLflow points at."""
    return digest_of_alias(home.platform.mlflow_uri, model="/".join(NAME), alias=alias)


def test_a_champion_is_not_stopped_by_a_second_look_at_it(own_trained: TrainedHome) -> None:
    """A run killed after the promotion is repeated on a busy machine: slow now, its Bento is built all the same."""
    objectives = replace(own_trained.model.objectives, p99_ms=Threshold(value=1e-9, reason="no machine is as fast"))
    model = replace(own_trained.model, objectives=objectives)
    entries = Ledger(own_trained.platform).entries("synthetic/late_order")
    assert evaluated_and_promoted(own_trained, model)
    assert load_decision(own_trained.folder).outcome == "fail"
    assert Ledger(own_trained.platform).entries("synthetic/late_order") == entries
