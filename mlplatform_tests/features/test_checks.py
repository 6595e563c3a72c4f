"""The contract as Dagster shows it: one result per day, also where a run takes many days."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mlplatform.definitions import platform_definitions
from mlplatform.domain.column import RowRule
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DeclarationError
from mlplatform.features.assets import only_due_tag
from mlplatform.features.checks import contract_check, evaluations, last_evaluations, naming_materialisations
from mlplatform.features.materialization import Fault, Outcome
from mlplatform.features.partitions import daily
from mlplatform.features.rules import Checked
from mlplatform.features.sensors import range_end, range_start
from mlplatform.features.tables import day_range
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import land_orders

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

DAYS = day_range("2024-01-01", "2024-01-04")
CHECK = dg.AssetCheckKey(dg.AssetKey([DOMAIN.name, "validated"]), "contract")


@dataclass(frozen=True)
class Judged:
    """What one run said of every day, and what Dagster shows of them after it and after a second one."""

    results: dict[str | None, dg.AssetCheckEvaluation]
    shown: list[dict[str, list[str]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Over four days: a clean one, one with a bad row, a blocked one, a clean one; then again over what is due."""
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
    found: list[list[dg.AssetCheckEvaluation]] = []
    shown = []
    with dg.DagsterInstance.ephemeral() as instance:
        for more in ({}, {only_due_tag: "true"}):
            tags = {range_start: DAYS[0], range_end: DAYS[-1], **more}
            run = job.execute_in_process(instance=instance, run_config=quiet, tags=tags, raise_on_error=False)
            records = instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ).records
            events = [record.event_log_entry.dagster_event for record in records]
            found.append([event.asset_check_evaluation_data for event in events if event is not None])
            shown.append(days_shown(instance))
    assert {each.asset_check_key for each in found[0]} == {CHECK}
    return Judged({each.partition: each for each in found[0]}, shown)


def days_shown(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """Days by the state of the check that Dagster shows for them."""
    (state,) = instance.event_log_storage.get_asset_check_state([(CHECK, daily(DOMAIN))]).values()
    return {status.value: list(each.subset_value.get_partition_keys()) for status, each in state.subsets.items()}


@pytest.fixture(scope="module")
def results(run: Judged) -> dict[str | None, dg.AssetCheckEvaluation]:
    """By day, what the first run says."""
    return run.results


def test_dagster_shows_a_result_for_every_day_of_a_range(run: Judged) -> None:
    """After the run, and after a second one that finds only the blocked day due."""
    for shown in run.shown:
        assert shown["SUCCEEDED"] == [DAYS[0], DAYS[3]]
        assert shown["FAILED"] == DAYS[1:3]


def test_every_day_has_its_own_result(results: dict[str | None, dg.AssetCheckEvaluation]) -> None:
    """Clean days pass; a refused row is a warning; a broken blocking rule is an error that names source and rule."""
    assert list(results) == DAYS
    assert [each.passed for each in results.values()] == [True, False, False, True]
    assert results[DAYS[1]].severity is dg.AssetCheckSeverity.WARN
    assert results[DAYS[2]].severity is dg.AssetCheckSeverity.ERROR
    assert results[DAYS[2]].metadata["blocked"].value == "orders: refused rows: at most 5 %"


def test_the_broken_rules_are_listed_with_their_rows(
    results: dict[str | None, dg.AssetCheckEvaluation],
) -> None:
    """Only the broken ones: a clean day lists none."""
    assert "| orders | distance_km: at least 0.1 | 1 |" in str(results[DAYS[1]].metadata["broken_rules"].value)
    assert "| orders | distance_km: at least 0.1 | 30 |" in str(results[DAYS[2]].metadata["broken_rules"].value)
    assert "broken_rules" not in results[DAYS[0]].metadata


def test_the_page_of_great_expectations_is_linked(results: dict[str | None, dg.AssetCheckEvaluation]) -> None:
    """One page for the run, by source, named by its first and last day; it is there."""
    pages = {str(each.metadata["data_docs/orders"].value) for each in results.values()}
    (page,) = pages
    assert Path(page).name == f"{DAYS[0]}_{DAYS[-1]}.html"
    assert "distance_km: at least 0.1" in Path(page).read_text()


def judged(days: Sequence[str], broken: Sequence[str] = ()) -> Outcome:
    """What a contract of a source `orders` found: a clean day, or one with one row that breaks one rule."""
    none = pl.DataFrame()
    found = {
        day: Checked(kept=none, refused=none, counts={"r": int(day in broken)}, warnings=(), blocking=())
        for day in days
    }
    return Outcome(found={"orders": found})


def test_dagster_shows_the_newest_result_of_every_day() -> None:
    """Also of a day that is taken in and left as it was, or stopped; only a day never judged is told as skipped."""
    never, clean, bad, other = DAYS
    runs = [
        # judged, made, left as they were; what is shown then as passed and as failed
        (judged([clean, bad, other], [bad, other]), [clean, bad, other], [], [clean], [bad, other]),
        (judged([other]), [other, clean, bad], [clean, bad], [clean, other], [bad]),
        (judged([other], [other]), [clean, bad, clean, bad], [clean, bad], [clean], [bad, other]),
    ]

    @dg.multi_asset(
        specs=[dg.AssetSpec(CHECK.asset_key, partitions_def=daily(DOMAIN), skippable=True)],
        check_specs=[contract_check(DOMAIN)],
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def validated(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        outcome, made, left, *_ = runs[int(context.run.tags["number"])]
        for day in made:
            context.log_event(dg.AssetMaterialization(CHECK.asset_key, partition=day))
        results = [*evaluations(DOMAIN, outcome, {}), *last_evaluations(context.instance, DOMAIN, left)]
        for each in naming_materialisations(context.instance, results):
            context.log_event(each)
        yield from ()

    job = dg.Definitions(assets=[validated], jobs=[dg.define_asset_job("job", "*")]).resolve_job_def("job")
    with dg.DagsterInstance.ephemeral() as instance:
        for number, (*_, passed, failed) in enumerate(runs):
            tags = {range_start: DAYS[0], range_end: DAYS[-1], "number": str(number)}
            job.execute_in_process(instance=instance, run_config=quiet, tags=tags)
            days = days_shown(instance)
            assert (days["SUCCEEDED"], days["FAILED"], days["SKIPPED"]) == (passed, failed, [never])


def test_a_day_whose_rules_could_not_be_computed_has_not_passed() -> None:
    """The other sources may be clean: nobody has looked at this one."""
    outcome = judged(DAYS[:1])
    outcome.faults[DAYS[0]] = [Fault("prices", DeclarationError("no rule"), "")]
    (found,) = evaluations(DOMAIN, outcome, {})
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description == f"{DAYS[0]}: prices: no rule"


def test_a_rule_that_cannot_be_computed_is_told_when_the_domain_is_loaded() -> None:
    """Better than on the first day that lands."""
    rule = RowRule(name="cheap", holds=lambda: pl.col("prise") < 9, meaning="a misspelt column")
    source = replace(DOMAIN.sources[0], contract=replace(DOMAIN.sources[0].contract, rules=(rule,)))
    with pytest.raises(DeclarationError, match=r"'cheap' cannot be computed: .*prise"):
        contract_check(replace(DOMAIN, sources=(source, *DOMAIN.sources[1:])))


def test_the_check_is_partitioned_as_its_asset() -> None:
    """By day, so that the UI shows a result for each."""
    (spec,) = [
        spec
        for asset in platform_definitions({DOMAIN.name: DOMAIN}, Platform(home=Path("nowhere"))).assets or ()
        for spec in getattr(asset, "check_specs", ())
        if spec.key == CHECK
    ]
    assert isinstance(spec.partitions_def, dg.DailyPartitionsDefinition)
