"""The sensor of a domain's features: one run for what is due, none else, and no hot loop."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.test_utils import create_run_for_test

from mlplatform.definitions import platform_definitions
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.assets import only_due_tag, stage_key
from mlplatform.features.chain import run_chain
from mlplatform.features.checks import contract_key
from mlplatform.features.partitions import daily
from mlplatform.features.sensors import (
    due_tag,
    features_sensor,
    first_wait,
    longest_wait,
    range_end,
    range_start,
    seconds_between_ticks,
)
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.operations.jobs import quiet
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import Clock, land_orders

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

DAYS = day_range("2024-01-01", "2024-01-06")
JOB = "synthetic_features"


class Daemon:
    """Ticks the sensor as Dagster's daemon does, and executes what it requests, when it is told to."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self.platform, self.instance = platform, instance
        self.cursor: str | None = None
        self.definitions = platform_definitions({DOMAIN.name: DOMAIN}, platform)
        self.sensor = features_sensor(DOMAIN)

    def tick(self) -> dg.SensorResult:
        """One look of the sensor; the cursor is kept."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        )
        result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        if result.cursor:
            self.cursor = result.cursor
        return result

    def request(self) -> dg.RunRequest:
        """The one run that a tick requests."""
        (request,) = self.tick().run_requests or []
        return request

    def reason(self) -> str:
        """Why a tick requests no run."""
        result = self.tick()
        assert not result.run_requests
        return str(
            result.skip_reason.skip_message if isinstance(result.skip_reason, dg.SkipReason) else result.skip_reason
        )

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a requested run."""
        return self.definitions.resolve_job_def(JOB).execute_in_process(
            instance=self.instance, run_config=quiet, tags=dict(request.tags), raise_on_error=False
        )


@pytest.fixture
def clock() -> Clock:
    """The real time: Dagster's own records know no other."""
    return Clock(datetime.now(UTC))


@pytest.fixture
def daemon(tmp_path: Path, clock: Clock) -> Iterator[Daemon]:
    """A daemon over an empty home."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(Platform(home=tmp_path, clock=clock, environment="lock"), instance)


def materialized(daemon: Daemon, run: dg.ExecuteInProcessResult, stage: str) -> list[str | None]:
    """Partitions that a run says it has made of a stage."""
    records = daemon.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    found = [record.asset_materialization for record in records]
    return [each.partition for each in found if each and each.asset_key == dg.AssetKey([DOMAIN.name, stage])]


def test_it_runs_by_itself() -> None:
    """On by default, looking every few seconds, for the job of the stages."""
    sensor = features_sensor(DOMAIN)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == seconds_between_ticks
    assert sensor.job_name == JOB


def test_an_empty_home_asks_for_nothing(daemon: Daemon) -> None:
    """And so does every tick after it, without another look at the tables."""
    assert daemon.reason() == "everything is up to date"
    assert daemon.reason() == "everything is up to date"


def test_what_lands_is_run_once(daemon: Daemon) -> None:
    """One request over the days that are due; afterwards nothing; the same files again: still nothing."""
    land_orders(daemon.platform, DAYS[:3])
    request = daemon.request()
    assert (request.tags[range_start], request.tags[range_end]) == (DAYS[0], DAYS[2])
    assert only_due_tag in request.tags
    run = daemon.execute(request)
    assert run.success
    assert {stage: materialized(daemon, run, stage) for stage in stages} == dict.fromkeys(stages, DAYS[:3])
    assert daemon.reason() == "everything is up to date"
    land_orders(daemon.platform, DAYS[:3])
    assert daemon.reason() == "everything is up to date"


def test_a_tick_that_is_repeated_asks_for_the_same_run(daemon: Daemon) -> None:
    """Killed before its request was acted on, the next tick has the same run key; Dagster knows that it is one run."""
    land_orders(daemon.platform, DAYS[:2])
    first, again = daemon.request(), daemon.request()
    assert first.run_key == again.run_key
    daemon.execute(first)
    land_orders(daemon.platform, DAYS[2:3])
    assert daemon.request().run_key != first.run_key


def test_one_run_at_a_time(daemon: Daemon) -> None:
    """While a run is executed nothing is requested; what has landed meanwhile is found after it."""
    land_orders(daemon.platform, DAYS[:1])
    run = create_run_for_test(daemon.instance, job_name=JOB, status=dg.DagsterRunStatus.STARTED)
    assert daemon.reason() == f"run {run.run_id[:8]} is under way"
    daemon.instance.report_run_canceled(run)
    assert daemon.request().tags[range_end] == DAYS[0]


def test_a_run_whose_process_was_killed_is_not_waited_for(daemon: Daemon, clock: Clock) -> None:
    """It is recorded as failed as soon as its process is known to be gone, or never came; then its days are due."""
    land_orders(daemon.platform, DAYS[:1])
    killed = create_run_for_test(daemon.instance, job_name=JOB, status=dg.DagsterRunStatus.STARTED)
    assert "under way" in daemon.reason()
    (daemon.platform.home / "running").mkdir()
    (daemon.platform.home / "running" / killed.run_id).write_text(socket.gethostname())
    assert daemon.request().tags[range_start] == DAYS[0]
    found = daemon.instance.get_run_by_id(killed.run_id)
    assert found is not None and found.status is dg.DagsterRunStatus.FAILURE


def test_a_bad_day_is_red_and_the_others_are_done(daemon: Daemon) -> None:
    """The run fails and names the day; every good day is materialised; no further run until the file is another."""
    land_orders(daemon.platform, DAYS[:4])
    bad = daemon.platform.landing(DOMAIN.name) / "orders" / f"{DAYS[1]}.parquet"
    good = bad.read_bytes()
    bad.write_bytes(b"PAR1 no Parquet PAR1")
    run = daemon.execute(daemon.request())
    assert not run.success
    failure = run.failure_data_for_node("synthetic_stages")
    assert failure is not None and DAYS[1] in str(failure.error)
    assert materialized(daemon, run, "raw") == [DAYS[0], DAYS[2], DAYS[3]]
    assert materialized(daemon, run, "derived") == [DAYS[0], DAYS[2], DAYS[3]]
    assert "1 tables of days have failed and are unchanged" in daemon.reason()
    bad.write_bytes(good)
    run = daemon.execute(daemon.request())
    assert run.success
    assert materialized(daemon, run, "raw") == [DAYS[1]]
    assert materialized(daemon, run, "feature_store") == DAYS[1:4]


def test_a_failed_run_does_not_paint_days_red_that_were_done_before(daemon: Daemon) -> None:
    """A broken correction fails its day; the days after it, planned in the same run, stand as they were."""
    land_orders(daemon.platform, DAYS[:4])
    daemon.execute(daemon.request())
    (daemon.platform.landing(DOMAIN.name) / "orders" / f"{DAYS[1]}.parquet").write_bytes(b"PAR1 no Parquet PAR1")
    run = daemon.execute(daemon.request())
    assert not run.success
    assert materialized(daemon, run, "raw") == DAYS[2:4]


def test_a_run_that_fails_for_no_fault_of_a_day_is_tried_again_later_and_later(
    daemon: Daemon, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: after 30 s, a minute, two …, an hour at most; at once when something else has landed."""

    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    land_orders(daemon.platform, DAYS[:2])
    with monkeypatch.context() as broken:
        broken.setattr("mlplatform.features.stage.Stage.write_file", full)
        for attempt in range(9):
            assert not daemon.execute(daemon.request()).success
            clock.now = datetime.now(UTC)
            assert "failed; tried again at" in daemon.reason()
            wait = min(first_wait * 2**attempt, longest_wait)
            clock.now = datetime.now(UTC) + wait - timedelta(seconds=10)
            assert "failed; tried again at" in daemon.reason()
            clock.now = datetime.now(UTC) + wait + timedelta(seconds=1)
        assert daemon.execute(daemon.request()).success is False
        clock.now = datetime.now(UTC)
        assert "failed; tried again at" in daemon.reason()
        land_orders(daemon.platform, DAYS[2:3])
    assert daemon.request().tags[range_end] == DAYS[2]


def test_a_run_that_succeeds_and_changes_nothing_is_no_hot_loop(daemon: Daemon, clock: Clock) -> None:
    """Runs have another lock file than this process: a wait that grows, and a word on what to do."""
    land_orders(daemon.platform, DAYS[:2])
    daemon.definitions = platform_definitions({DOMAIN.name: DOMAIN}, replace(daemon.platform, environment="new lock"))
    for attempt in range(3):
        assert daemon.execute(daemon.request()).success
        clock.now = datetime.now(UTC) + first_wait * 2**attempt - timedelta(seconds=10)
        assert "succeeded and the same is due still: reload the code location" in daemon.reason()
        clock.now = datetime.now(UTC) + first_wait * 2**attempt + timedelta(seconds=1)
    daemon.platform = replace(daemon.platform, environment="new lock")
    assert daemon.reason() == "everything is up to date"


def test_a_deleted_run_does_not_make_a_run_key_come_again(daemon: Daemon, clock: Clock) -> None:
    """Dagster would take the next run for one that it has launched, and never launch it."""
    land_orders(daemon.platform, DAYS[:2])
    daemon.definitions = platform_definitions({DOMAIN.name: DOMAIN}, replace(daemon.platform, environment="new lock"))
    first = daemon.request()
    deleted = daemon.execute(first)
    clock.now = datetime.now(UTC) + longest_wait
    second = daemon.request()
    daemon.execute(second)
    daemon.instance.delete_run(deleted.run_id)
    clock.now = datetime.now(UTC) + longest_wait
    assert daemon.request().run_key not in {first.run_key, second.run_key}


def taken_through(daemon: Daemon, days: list[str]) -> None:
    """A run that is killed when all its tables are committed, before Dagster has heard of any."""
    for _ in run_chain(daemon.platform, DOMAIN, days, run_id="killed", only_due=True):
        pass


def shown(daemon: Daemon) -> dict[str, list[str]]:
    """Days by what Dagster shows of their contract."""
    key = contract_key(DOMAIN)
    (state,) = daemon.instance.event_log_storage.get_asset_check_state([(key, daily(DOMAIN))]).values()
    return {status.value: list(each.subset_value.get_partition_keys()) for status, each in state.subsets.items()}


def with_a_bad_row(day: str) -> dict[str, pl.DataFrame]:
    """A day's orders, one of which breaks the contract."""
    sent = rows(date.fromisoformat(day), rows_per_day=30).with_row_index()
    broken = pl.when(pl.col("index") == 0).then(-1.0).otherwise("distance_km")
    return {day: sent.with_columns(distance_km=broken).drop("index")}


def test_what_a_killed_run_has_not_told_is_told_by_the_next_one(daemon: Daemon) -> None:
    """Everything is up to date: a run makes nothing, and tells Dagster of each day and of its contract."""
    land_orders(daemon.platform, DAYS[:3], with_a_bad_row(DAYS[1]))
    taken_through(daemon, DAYS[:3])
    run = daemon.execute(daemon.request())
    assert run.success
    assert {stage: materialized(daemon, run, stage) for stage in stages} == dict.fromkeys(stages, DAYS[:3])
    assert (shown(daemon)["SUCCEEDED"], shown(daemon)["FAILED"]) == ([DAYS[0], DAYS[2]], [DAYS[1]])
    revisions = Tables(daemon.platform, DOMAIN).raw("orders").revisions()
    assert [(each.partition, each.number, each.run_id) for each in revisions] == [(d, 1, "killed") for d in DAYS[:3]]
    assert daemon.reason() == "everything is up to date"


def test_an_untold_correction_is_told_too(daemon: Daemon) -> None:
    """Dagster knows the day, in the version before: it is told of the one that is there, and of its contract."""
    land_orders(daemon.platform, DAYS[:3])
    daemon.execute(daemon.request())
    land_orders(daemon.platform, [DAYS[1]], with_a_bad_row(DAYS[1]))
    taken_through(daemon, DAYS[:3])
    run = daemon.execute(daemon.request())
    assert materialized(daemon, run, "raw") == [DAYS[1]]
    assert materialized(daemon, run, "quarantine") == [DAYS[1]]
    assert (shown(daemon)["SUCCEEDED"], shown(daemon)["FAILED"]) == ([DAYS[0], DAYS[2]], [DAYS[1]])
    assert daemon.reason() == "everything is up to date"


def test_a_day_that_its_contract_stopped_is_told_after_a_kill(daemon: Daemon) -> None:
    """It has failed and is unchanged, so nothing is due; its result is an error none the less, told once."""
    land_orders(daemon.platform, DAYS[:1], {DAYS[0]: with_a_bad_row(DAYS[0])[DAYS[0]].with_columns(distance_km=-1.0)})
    taken_through(daemon, DAYS[:1])
    killed_later = daemon.definitions.resolve_job_def(JOB).execute_in_process(
        instance=daemon.instance,
        run_config=quiet,
        tags={range_start: DAYS[0], range_end: DAYS[0], only_due_tag: "true"},
        asset_selection=[stage_key(DOMAIN, stage) for stage in ("raw", "quarantine")],
    )
    assert materialized(daemon, killed_later, "quarantine") == DAYS[:1]
    assert daemon.execute(daemon.request()).success
    assert shown(daemon)["FAILED"] == DAYS[:1]
    assert "1 tables of days have failed and are unchanged" in daemon.reason()


def test_other_code_is_looked_at_again(daemon: Daemon) -> None:
    """A sensor that rests over an unchanged landing place wakes up for a changed contract."""
    land_orders(daemon.platform, DAYS[:1])
    daemon.execute(daemon.request())
    assert daemon.reason() == "everything is up to date"
    contract = DOMAIN.source("orders").contract
    changed = replace(DOMAIN, sources=(replace(DOMAIN.source("orders"), contract=replace(contract, max_rows=9_000)),))
    daemon.sensor = features_sensor(changed)
    assert daemon.request().tags[range_start] == DAYS[0]


def test_a_correction_of_a_day_long_past_runs_over_its_windows(daemon: Daemon) -> None:
    """From the corrected day to the last one that looks back to it."""
    land_orders(daemon.platform, DAYS)
    daemon.execute(daemon.request())
    land_orders(daemon.platform, [DAYS[1]], {DAYS[1]: rows(date.fromisoformat(DAYS[1]), seed=3, rows_per_day=30)})
    request = daemon.request()
    assert (request.tags[range_start], request.tags[range_end]) == (DAYS[1], DAYS[3])
    run = daemon.execute(request)
    assert materialized(daemon, run, "derived") == [DAYS[1]]
    assert materialized(daemon, run, "feature_store") == DAYS[1:4]
    numbers = {each.partition: each.number for each in Tables(daemon.platform, DOMAIN).raw("orders").revisions()}
    assert numbers == {day: 2 if day == DAYS[1] else 1 for day in DAYS}
    assert daemon.instance.get_runs(dg.RunsFilter(job_name=JOB, tags={due_tag: request.tags[due_tag]}))
