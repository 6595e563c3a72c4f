"""What goes wrong around a run: it is killed, it meets another, it is launched alone. Nothing is lost or doubled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable

from mlplatform.definitions import platform_definitions
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import PromotionRefused
from mlplatform.features.online.publish import unpublished
from mlplatform.features.online.store import open_online_store
from mlplatform.features.partitions import recipes
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables, day_range, online_store, stages
from mlplatform.operations.jobs import dagster_instance
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import bento_home
from mlplatform.registry.candidate import load_candidate
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.registry.mlflow_registry import registered_name
from mlplatform.rollout.judge import load_decision, load_evaluation
from mlplatform.rollout.promotion import promote
from mlplatform.rollout.registration import register_candidate
from mlplatform_tests.fakes.run_process import Moment, finish, processes, start
from mlplatform_tests.fakes.synthetic_home import TrainedHome, land_orders, train

pytestmark = [
    pytest.mark.end_to_end,
    # MLflow 3.17 uses what SQLAlchemy 2.1 is going to drop.
    pytest.mark.filterwarnings("ignore:.*noload.*loader strategy"),
]

DAYS = day_range("2024-01-01", "2024-01-03")
NAME = "synthetic/late_order"

MOMENTS = {
    "half of a file is written": Moment(
        function="pathlib:Path.write_bytes", where="tables/synthetic/raw", call=2, after=True, half_written=True
    ),
    "all files are written and none is committed": Moment(
        function="mlplatform.features.stage:Stage.write_file", where="derived/deliveries", call=len(DAYS), after=True
    ),
    "one table is committed, its twin is not, and Dagster knows of neither": Moment(
        function="mlplatform.features.stage:Stage.append", where="feature_store/courier", after=True
    ),
    "the tables are committed and nothing is published": Moment(
        function="mlplatform.features.online.lmdb_store:LmdbStore.replace", where="courier"
    ),
    "one view is published, its twin is not": Moment(
        function="mlplatform.features.online.lmdb_store:LmdbStore.replace", where="courier", after=True
    ),
}


def backfilled(home: Path, **moments: Any) -> int:
    """Exit code of `mlplatform backfill synthetic`."""
    return finish(start(home, "backfill", "synthetic", log=home / "said.log", **moments))


def landed_home(home: Path) -> Platform:
    """A home in which three days have landed and nothing was computed."""
    platform = Platform(home=home)
    land_orders(platform, DAYS)
    return platform


def every_table(platform: Platform) -> dict[str, Stage]:
    """All tables of all stages, by `stage/table`."""
    tables = Tables(platform, DOMAIN)
    return {f"{stage}/{name}": store for stage in stages for name, store in tables.of(stage).items()}


def contents(platform: Platform) -> dict[str, list[tuple[str, int, str, int]]]:
    """Every revision of every table: partition, number, content hash, rows."""
    return {
        name: [(each.partition, each.number, each.content_hash, each.rows) for each in store.revisions()]
        for name, store in every_table(platform).items()
    }


def recorded(platform: Platform) -> dict[str, set[str]]:
    """Partitions of every stage, and of the online store, that Dagster holds for materialised."""
    with dagster_instance(platform) as instance:
        return {
            asset: instance.get_materialized_partitions(dg.AssetKey(["synthetic", asset]))
            for asset in (*stages, online_store)
        }


def snapshots(platform: Platform) -> dict[str, Any]:
    """What the online store would answer from, by view."""
    store = open_online_store(platform.online_store)
    return {
        view.name: (store.version(f"synthetic/{view.name}"), store.content(f"synthetic/{view.name}"))
        for view in DOMAIN.views
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A home whose one run was left in peace."""
    platform = landed_home(tmp_path_factory.mktemp("undisturbed"))
    assert backfilled(platform.home) == 0
    return platform


def test_the_undisturbed_home_is_worth_comparing_with(undisturbed: Platform) -> None:
    """It has one revision of every day in every table, and rows in all of them but the quarantine."""
    for name, revisions in contents(undisturbed).items():
        assert [(day, number) for day, number, *_ in revisions] == [(day, 1) for day in DAYS], name
        assert all(rows > 0 for *_, rows in revisions) or name == "quarantine/orders"
    assert recorded(undisturbed) == {asset: set(DAYS) for asset in (*stages, online_store)}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_leaves_nothing_lost_and_nothing_double(
    moment: Moment, undisturbed: Platform, tmp_path: Path
) -> None:
    """Killed at this moment, then run again: every table is as if nothing had happened, and so is Dagster's record."""
    platform = landed_home(tmp_path)
    assert backfilled(platform.home, die_at=moment) == -9
    for store in every_table(platform).values():
        store.read()
    assert contents(platform) != contents(undisturbed) or recorded(platform) != recorded(undisturbed)
    assert backfilled(platform.home) == 0
    assert contents(platform) == contents(undisturbed)
    assert recorded(platform) == recorded(undisturbed)
    assert snapshots(platform) == snapshots(undisturbed) and not unpublished(platform, DOMAIN)


def test_two_runs_over_the_same_days_at_once_write_each_partition_once(undisturbed: Platform, tmp_path: Path) -> None:
    """Both are about to commit the first revisions when they meet; the loser reads again, and both end well."""
    platform = landed_home(tmp_path)
    meeting = processes.Barrier(2)
    meet_at = Moment(function="deltalake:DeltaTable.create_write_transaction")
    runs = [
        start(
            platform.home,
            "backfill",
            "synthetic",
            log=tmp_path / f"said-{number}.log",
            meet_at=meet_at,
            meeting=meeting,
        )
        for number in range(2)
    ]
    assert [finish(run) for run in runs] == [0, 0], [path.read_text() for path in tmp_path.glob("said-*.log")]
    assert contents(platform) == contents(undisturbed)
    # Two runs, one commit: the table was created, then written once.
    assert DeltaTable(platform.table("synthetic", "raw", "orders")).version() == 1
    assert recorded(platform) == recorded(undisturbed)


@pytest.fixture
def challenged(own_trained: TrainedHome) -> Callable[..., TrainedHome]:
    """Makes a home with a champion and a candidate judged against it, both registered with MLflow."""

    def make(**changes: Any) -> TrainedHome:
        home = own_trained
        champion = load_evaluation(home.folder)
        register_candidate(home.platform, home.domain, home.model, home.recipe.key, champion)
        launch(home, "promotion")
        model = replace(home.model, settings=replace(home.model.settings, rounds=25), **changes)
        return register(replace(home, model=model, recipe=train(home.platform, model)))

    return make


def register(home: TrainedHome) -> TrainedHome:
    """Log the candidate of a home to MLflow."""
    register_candidate(home.platform, home.domain, home.model, home.recipe.key, load_evaluation(home.folder))
    return home


def launch(home: TrainedHome, *names: str) -> None:
    """Materialise some assets of the home's recipe through Dagster, and nothing else."""
    domain = replace(home.domain, models=(home.model,))
    job = platform_definitions({domain.name: domain}, home.platform).resolve_job_def("synthetic_late_order_training")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(recipes(domain, home.model).name or "", [home.recipe.key])
        job.execute_in_process(
            instance=instance,
            partition_key=home.recipe.key,
            asset_selection=[dg.AssetKey(["synthetic", "late_order", name]) for name in names],
        )


def commanded(home: TrainedHome, log: Path) -> int:
    """Exit code of `mlplatform promote` for the home's recipe."""
    return finish(start(home.platform.home, "promote", NAME, home.recipe.key, log=log))


def ledger_of(home: TrainedHome) -> list[Entry]:
    """What was recorded of the model."""
    return Ledger(home.platform).entries(NAME)


def alias_of(home: TrainedHome) -> str:
    """Digest of the manifest that MLflow calls champion."""
    from mlflow import MlflowClient

    uri = home.platform.mlflow_uri
    version = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version_by_alias(
        registered_name(NAME), "champion"
    )
    return version.tags["manifest"]


def candidate_of(home: TrainedHome) -> str:
    """Digest of the manifest of the home's candidate."""
    return load_candidate(home.folder).manifest


def impossible(model: ModelSpec) -> dict[str, Any]:
    """A gate that nothing passes."""
    least = Threshold(value=0.0, reason="every score is too good to be true")
    return {"gate": replace(model.gate, too_good={"auc": least})}


def test_a_promotion_launched_alone_after_a_failed_gate_is_refused(
    challenged: Callable[..., TrainedHome], own_trained: TrainedHome, tmp_path: Path
) -> None:
    """Through Dagster and through the command: no ledger entry, no alias moved, no Bento; after a pass it works."""
    home = challenged(**impossible(own_trained.model))
    assert load_decision(home.folder).outcome == "fail"
    before = ledger_of(home)
    assert len(before) == 1 and alias_of(home) == before[0].to_manifest != candidate_of(home)
    with pytest.raises(PromotionRefused, match="the decision is `fail`"):
        launch(home, "promotion")
    assert commanded(home, tmp_path / "refused.log") == 1
    assert "the decision is `fail`" in (tmp_path / "refused.log").read_text()
    with pytest.raises(PromotionRefused, match="the ledger tells of no promotion"):
        launch(home, "bento")
    assert (ledger_of(home), alias_of(home)) == (before, before[0].to_manifest)
    assert not bento_home(home.platform.home).exists()

    passed = replace(home, model=replace(home.model, gate=own_trained.model.gate))
    launch(passed, "evaluation")
    launch(passed, "promotion")
    assert [entry.to_manifest for entry in ledger_of(home)] == [before[0].to_manifest, candidate_of(home)]
    assert alias_of(home) == candidate_of(home)


def test_a_promotion_judged_against_another_champion_is_refused_until_it_is_judged_again(
    challenged: Callable[..., TrainedHome], tmp_path: Path
) -> None:
    """The champion changes between evaluation and promotion: refused; evaluated against the new one, it is promoted."""
    home = challenged()
    quicker = register(replace(home, recipe=train(home.platform, home.model, as_of="2024-01-24")))
    promote(home.platform, home.domain, home.model, quicker.recipe.key, actor="somebody quicker")
    assert load_decision(home.folder).outcome == "pass"
    before, alias = ledger_of(home), alias_of(home)
    with pytest.raises(PromotionRefused, match="the champion has changed since the evaluation"):
        launch(home, "promotion")
    assert commanded(home, tmp_path / "refused.log") == 1
    assert "the champion has changed" in (tmp_path / "refused.log").read_text()
    assert (ledger_of(home), alias_of(home)) == (before, alias)

    launch(home, "evaluation")
    assert commanded(home, tmp_path / "promoted.log") == 0, (tmp_path / "promoted.log").read_text()
    assert [entry.to_manifest for entry in ledger_of(home)] == [
        *(entry.to_manifest for entry in before),
        candidate_of(home),
    ]
    assert alias_of(home) == candidate_of(home)
    assert list(bento_home(home.platform.home).glob("bentos/*/*/bento.yaml"))
