"""The code location: what Dagster shows of every domain, what importing it costs, and what a run over days records."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from mlplatform.definitions import defs, monitors, platform_definitions
from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domains
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.landing.landing import land
from mlplatform.features.sensors import range_end, range_start
from mlplatform.features.tables import Tables, day_range, online_store, stages
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import land_orders

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

OF_A_MODEL = ("training_set", "model", "evaluation", "promotion", "rollout", "dossier", "bento")
MONITORED = ("prediction_log", *monitors)
UNPARTITIONED = ("retention",)
HEAVY = ("bentoml", "evidently", "great_expectations", "matplotlib", "mlflow", "optuna", "xgboost")
DAYS = day_range("2024-01-01", "2024-01-03")

domains = pytest.mark.parametrize("domain", registered_domains().values(), ids=registered_domains())


def keys_of(domain: Domain) -> set[dg.AssetKey]:
    """The assets that a domain must have."""
    models = {dg.AssetKey([domain.name, model.name, name]) for model in domain.models for name in OF_A_MODEL}
    of_days = (*stages, online_store, *MONITORED, *UNPARTITIONED)
    stages_and_log = {dg.AssetKey([domain.name, stage]) for stage in of_days}
    return stages_and_log | models


def reported(domain: Domain) -> set[dg.AssetKey]:
    """What sensors report, and no run makes."""
    return {dg.AssetKey([domain.name, model.name, "retrain_decision"]) for model in domain.models}


def specs() -> dict[dg.AssetKey, dg.AssetSpec]:
    """Every asset of the code location."""
    return {spec.key: spec for spec in defs().resolve_all_asset_specs()}


def test_the_domains_stand_side_by_side() -> None:
    """Every asset belongs to exactly one of two or more domains, and Dagster finds nothing wrong with the whole."""
    assert len(registered_domains()) >= 2
    dg.Definitions.validate_loadable(defs())
    expected = [key for domain in registered_domains().values() for key in keys_of(domain) | reported(domain)]
    assert sorted(specs()) == sorted(expected)


@domains
def test_every_asset_says_what_it_is(domain: Domain) -> None:
    """A description, the owners, the kinds and the version of its code, and the group of its domain or model."""
    for key in keys_of(domain):
        spec = specs()[key]
        _, *between, name = key.path
        group = ["monitoring"] if name in (*MONITORED, *UNPARTITIONED) else between
        assert spec.group_name == "_".join([domain.name, *group]), key
        assert len(spec.description or "") > 40, key
        assert tuple(spec.owners) == domain.owners and spec.owners, key
        assert spec.kinds, key
        assert spec.code_version, key


@domains
def test_days_and_recipes_are_the_partitions(domain: Domain) -> None:
    """Stages are daily from the domain's first day; what a model goes through is partitioned by its recipe.

    What goes by policy goes by the clock.
    """
    for key in keys_of(domain):
        partitions = specs()[key].partitions_def
        if key.path[-1] == "outcomes_weekly":
            assert isinstance(partitions, dg.WeeklyPartitionsDefinition), key
        elif key.path[-1] in UNPARTITIONED:
            assert partitions is None
        elif len(key.path) == 2:
            assert isinstance(partitions, dg.DailyPartitionsDefinition), key
            assert partitions.get_first_partition_key() == domain.start.isoformat()
        else:
            assert isinstance(partitions, dg.DynamicPartitionsDefinition), key
            assert partitions.name == f"{domain.name}/{key.path[1]}/recipe"


@domains
def test_there_is_a_job_for_the_stages_and_one_for_each_model(domain: Domain) -> None:
    """Each job takes exactly the assets of its group; the prediction log and its comparison have one each."""
    job = defs().resolve_job_def(f"{domain.name}_features")
    assert job.asset_layer.selected_asset_keys == {
        dg.AssetKey([domain.name, stage]) for stage in (*stages, online_store)
    }
    for name in (*MONITORED, *UNPARTITIONED):
        job = defs().resolve_job_def(f"{domain.name}_{name}")
        assert job.asset_layer.selected_asset_keys == {dg.AssetKey([domain.name, name])}
    for model in domain.models:
        job = defs().resolve_job_def(f"{domain.name}_{model.name}_training")
        assert job.asset_layer.selected_asset_keys == {
            dg.AssetKey([domain.name, model.name, name]) for name in OF_A_MODEL
        }
        job = defs().resolve_job_def(f"{domain.name}_{model.name}_release")
        assert job.asset_layer.selected_asset_keys == {
            dg.AssetKey([domain.name, model.name, name]) for name in ("rollout", "dossier", "bento")
        }


def test_the_checks_that_stop_a_run_are_there() -> None:
    """The contract of every domain and the gate of every model, both blocking."""
    checks = {spec.key for asset in defs().assets or () for spec in getattr(asset, "check_specs", ()) if spec.blocking}
    expected = set()
    for domain in registered_domains().values():
        expected.add(dg.AssetCheckKey(dg.AssetKey([domain.name, "validated"]), "contract"))
        expected |= {
            dg.AssetCheckKey(dg.AssetKey([domain.name, model.name, "evaluation"]), "gate") for model in domain.models
        }
    assert checks == expected


def test_loading_the_code_location_imports_nothing_heavy() -> None:
    """Every run process does it anew."""
    program = (
        "import json, sys; from mlplatform.definitions import defs; defs(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    imported = set(json.loads(done.stdout))
    assert "mlplatform.definitions" in imported
    assert imported.isdisjoint(HEAVY)


def run_days(platform: Platform, instance: dg.DagsterInstance, days: list[str]) -> str:
    """Take a range of days through the stages in one run; its id."""
    job = platform_definitions({DOMAIN.name: DOMAIN}, platform).resolve_job_def("synthetic_features")
    tags = {range_start: days[0], range_end: days[-1]}
    return job.execute_in_process(instance=instance, run_config=quiet, tags=tags).run_id


def materialized(instance: dg.DagsterInstance, run: str, stage: str) -> dict[str, dg.AssetMaterialization]:
    """What a run recorded of a stage, by partition."""
    records = instance.get_records_for_run(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    found = [record.asset_materialization for record in records]
    return {
        each.partition or "": each for each in found if each and each.asset_key == dg.AssetKey(["synthetic", stage])
    }


def data_version(materialization: dg.AssetMaterialization) -> str:
    """The version under which Dagster keeps it."""
    return (materialization.tags or {})["dagster/data_version"]


def test_a_run_over_days_records_each_of_them(tmp_path: Path) -> None:
    """Per partition its own row count, revision, content and inputs; the data version follows the content."""
    platform = Platform(home=tmp_path)
    land_orders(platform, DAYS[:1], rows_per_day=20)
    land_orders(platform, DAYS[1:], rows_per_day=30)
    store = Tables(platform, DOMAIN).raw("orders")
    with dg.DagsterInstance.ephemeral() as instance:
        first = run_days(platform, instance, DAYS)
        for stage in (*stages, online_store):
            assert list(materialized(instance, first, stage)) == DAYS, stage
        recorded = materialized(instance, first, "base")
        assert [each.metadata["dagster/partition_row_count"].value for each in recorded.values()] == [20, 30, 30]
        assert recorded[DAYS[1]].metadata["inputs"].value == [f"validated/orders/{DAYS[1]}@1"]
        current = store.current()
        for day, each in materialized(instance, first, "raw").items():
            assert f"| orders | 1 | {current[day].rows} | `{current[day].content_hash[:12]}`" in str(
                each.metadata["revisions"].value
            )

        versions = {stage: materialized(instance, first, stage) for stage in (*stages, online_store)}
        again = run_days(platform, instance, DAYS)
        alone = run_days(platform, instance, DAYS[1:2])
        land(
            platform,
            DOMAIN,
            DOMAIN.sources[0],
            date.fromisoformat(DAYS[1]),
            rows(date(2024, 1, 2), seed=9),
        )
        corrected = run_days(platform, instance, DAYS[1:2])
        for stage in ("raw", "validated", "base", "derived", "feature_store", online_store):
            version = data_version(versions[stage][DAYS[1]])
            assert data_version(materialized(instance, again, stage)[DAYS[1]]) == version
            assert data_version(materialized(instance, alone, stage)[DAYS[1]]) != data_version(
                materialized(instance, corrected, stage)[DAYS[1]]
            )
    assert [each.number for each in store.revisions(DAYS[1:2])] == [1, 2]
