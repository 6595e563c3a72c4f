"""The contract as Dagster shows it: one result per day, also where a run takes many days."""

from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mlplatform.definitions import platform_definitions
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.sensors import range_end, range_start
from mlplatform.features.tables import day_range
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import land_orders

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

DAYS = day_range("2024-01-01", "2024-01-04")
CHECK = dg.AssetCheckKey(dg.AssetKey([DOMAIN.name, "validated"]), "contract")


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, dg.AssetCheckEvaluation]:
    """By day, what one run over four of them says: a clean one, one with a bad row, a blocked one, a clean one."""
    platform = Platform(home=tmp_path_factory.mktemp("checks"))
    a_bad_row = (
        rows(date.fromisoformat(DAYS[1]), rows_per_day=30)
        .with_row_index()
        .with_columns(distance_km=pl.when(pl.col("index") == 0).then(-1.0).otherwise("distance_km"))
    )
    frames = {
        DAYS[1]: a_bad_row.drop("index"),
        DAYS[2]: rows(date.fromisoformat(DAYS[2]), rows_per_day=30).with_columns(distance_km=pl.lit(-1.0)),
    }
    land_orders(platform, DAYS, frames)
    job = platform_definitions({DOMAIN.name: DOMAIN}, platform).resolve_job_def("synthetic_features")
    with dg.DagsterInstance.ephemeral() as instance:
        run = job.execute_in_process(
            instance=instance,
            run_config=quiet,
            tags={range_start: DAYS[0], range_end: DAYS[-1]},
            raise_on_error=False,
        )
        records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    assert {each.asset_check_key for each in found} == {CHECK}
    return {each.partition: each for each in found}


def test_every_day_has_its_own_result(evaluations: dict[str | None, dg.AssetCheckEvaluation]) -> None:
    """Clean days pass; a refused row is a warning; a broken blocking rule is an error that names source and rule."""
    assert list(evaluations) == DAYS
    assert [each.passed for each in evaluations.values()] == [True, False, False, True]
    assert evaluations[DAYS[1]].severity is dg.AssetCheckSeverity.WARN
    assert evaluations[DAYS[2]].severity is dg.AssetCheckSeverity.ERROR
    assert evaluations[DAYS[2]].metadata["blocked"].value == "orders: refused rows: at most 5 %"


def test_the_broken_rules_are_listed_with_their_rows(
    evaluations: dict[str | None, dg.AssetCheckEvaluation],
) -> None:
    """Only the broken ones: a clean day lists none."""
    assert "| orders | distance_km: at least 0.1 | 1 |" in str(evaluations[DAYS[1]].metadata["broken_rules"].value)
    assert "| orders | distance_km: at least 0.1 | 30 |" in str(evaluations[DAYS[2]].metadata["broken_rules"].value)
    assert "broken_rules" not in evaluations[DAYS[0]].metadata


def test_the_page_of_great_expectations_is_linked(evaluations: dict[str | None, dg.AssetCheckEvaluation]) -> None:
    """One page for the run, by source, named by its first and last day; it is there."""
    pages = {str(each.metadata["data_docs/orders"].value) for each in evaluations.values()}
    (page,) = pages
    assert Path(page).name == f"{DAYS[0]}_{DAYS[-1]}.html"
    assert "distance_km: at least 0.1" in Path(page).read_text()


def test_the_check_is_partitioned_as_its_asset() -> None:
    """By day, so that the UI shows a result for each."""
    (spec,) = [
        spec
        for asset in platform_definitions({DOMAIN.name: DOMAIN}, Platform(home=Path("nowhere"))).assets or ()
        for spec in getattr(asset, "check_specs", ())
        if spec.key == CHECK
    ]
    assert isinstance(spec.partitions_def, dg.DailyPartitionsDefinition)
