"""The MLflow registry, on a real SQLite file."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlplatform.errors import Unavailable
from mlplatform.registry.manifest import Manifest
from mlplatform.registry.mlflow_registry import LoggedModel, log_model_run, set_alias
from mlplatform_tests.fakes.tiny_domain import bundle_of, write_package

# MLflow 3.17 uses what SQLAlchemy 2.1 is going to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*loader strategy")

AT = datetime(2024, 5, 1, tzinfo=UTC)
TRIALS = tuple({"number": number, "params": {"max_depth": number + 3}, "value": 0.5} for number in range(6))


class Registry:
    """A registry of its own, and what is logged into it."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/mlflow/mlflow.db"
        self.bundle = bundle_of(folder / "bundles", write_package(folder))
        self.evaluation = folder / "evaluation.json"
        self.evaluation.write_text("{}")

    def log(self, manifest: Manifest | None = None, **changed: Any) -> LoggedModel:
        """Log a model, by default the bundle's."""
        arguments: dict[str, Any] = {
            "manifest": manifest or self.bundle.manifest,
            "bundle_folder": self.bundle.folder,
            "parameters": {"rounds": 5, "device": "cpu"},
            "metrics": {"log_loss": 0.4},
            "artifacts": [self.evaluation],
            "trials": TRIALS,
            "at": AT,
        }
        return log_model_run(self.uri, **{**arguments, **changed})

    @property
    def client(self) -> MlflowClient:
        """MLflow's own view of it."""
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One file for all tests: creating it takes MLflow seconds."""
    return Registry(tmp_path_factory.mktemp("registry"))


def test_holds_run_trials_and_version(registry: Registry) -> None:
    """A model is one run with its numbers and files, its trials beneath it, and a version that points at the bundle."""
    logged = registry.log()
    client = registry.client
    run = client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rounds": "5", "device": "cpu"}
    assert run.data.metrics == {"log_loss": 0.4}
    assert run.data.tags["recipe"] == registry.bundle.manifest.model_version
    assert run.data.tags["manifest"] == registry.bundle.digest
    assert [file.path for file in client.list_artifacts(logged.run_id)] == ["evaluation.json"]
    experiment = client.get_experiment_by_name("harbour/waits")
    assert experiment is not None
    nested = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{logged.run_id}'")
    assert sorted(trial.data.params["max_depth"] for trial in nested) == ["3", "4", "5", "6", "7", "8"]
    version = client.get_model_version_by_alias("harbour.waits", "candidate")
    assert (str(version.version), version.run_id) == (logged.version, logged.run_id)
    assert version.source == str(registry.bundle.folder)


def test_logged_twice_is_logged_once(registry: Registry) -> None:
    """The same recipe and manifest give the same run and version, and no further trial."""
    first = registry.log()
    before = len(registry.client.search_runs([registry.client.get_run(first.run_id).info.experiment_id]))
    assert registry.log(metrics={"log_loss": 9.9}) == first
    after = registry.client.search_runs([registry.client.get_run(first.run_id).info.experiment_id])
    assert len(after) == before
    assert registry.client.get_run(first.run_id).data.metrics == {"log_loss": 0.4}


def test_interrupted_log_is_taken_up(registry: Registry) -> None:
    """After a failure half-way the next call finishes the same run."""
    manifest = replace(registry.bundle.manifest, model_version="2024-06-01-00000000")
    with pytest.raises(KeyError, match="params"):
        registry.log(manifest, trials=(*TRIALS[:2], {"number": 2}))
    logged = registry.log(manifest)
    experiment = registry.client.get_run(logged.run_id).info.experiment_id
    runs = registry.client.search_runs([experiment], "tags.recipe = '2024-06-01-00000000'")
    assert len(runs) == 1 + len(TRIALS)
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_alias_moves(registry: Registry) -> None:
    """An alias points at one version at a time; an unknown manifest moves nothing."""
    first = registry.log()
    second = registry.log(replace(registry.bundle.manifest, model_version="2024-07-01-00000000"), alias=None)
    assert first.version != second.version
    set_alias(registry.uri, manifest=registry.bundle.manifest, alias="champion")
    assert str(registry.client.get_model_version_by_alias("harbour.waits", "champion").version) == first.version
    with pytest.raises(Unavailable, match="holds no version"):
        set_alias(registry.uri, manifest=replace(registry.bundle.manifest, task="other"), alias="champion")
    assert str(registry.client.get_model_version_by_alias("harbour.waits", "champion").version) == first.version
