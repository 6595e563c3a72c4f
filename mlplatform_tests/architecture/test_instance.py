"""`dagster.yaml` and `workspace.yaml` as Dagster itself reads them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    """An instance made from the file in a folder of its own, as the demo makes it."""
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(ROOT / "dagster.yaml", home)
    with DagsterInstance.from_config(str(home)) as loaded:
        yield loaded


def test_nothing_is_sent_and_nothing_asks_to_sign_up(instance: DagsterInstance) -> None:
    """Telemetry and the sign-up window are off."""
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


def test_a_late_monitor_is_noticed(instance: DagsterInstance) -> None:
    """Freshness policies are evaluated."""
    assert instance.freshness_enabled


def test_a_dead_run_frees_its_pool_and_is_repeated_once(instance: DagsterInstance) -> None:
    """A run whose process died gives back its slot; a step that failed is not repeated."""
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0
    assert instance.run_retries_max_retries == 1
    assert not instance.run_retries_retry_on_asset_or_op_failure


def test_runs_queue_for_a_machine_of_two_cores(instance: DagsterInstance) -> None:
    """Two runs at a time, and one run in each pool."""
    settings = instance.get_concurrency_config()
    assert settings.run_queue_config is not None
    assert settings.run_queue_config.max_concurrent_runs == 2
    assert settings.pool_config.default_pool_limit == 1


def test_state_stays_in_the_instance_folder(instance: DagsterInstance) -> None:
    """With no storage named, everything lies in SQLite under DAGSTER_HOME."""
    assert type(instance.run_storage).__name__ == "SqliteRunStorage"
    assert type(instance.event_log_storage).__name__ == "SqliteEventLogStorage"


def test_the_workspace_loads_the_one_code_location() -> None:
    """`workspace.yaml` names `mlplatform.definitions`, from the folder it stands in."""
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert location["python_module"]["module_name"] == "mlplatform.definitions"
    assert location["python_module"]["working_directory"] == "."
