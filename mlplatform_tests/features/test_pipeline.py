"""The stages of the pipeline, over days of the synthetic domain: exactly once, complete, blind to the future."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import Switches, rows
from mlplatform.errors import (
    ContractBroken,
    DataError,
    DeclarationError,
    IncompleteWindow,
    MalformedFile,
    MissingPartition,
    NonDeterministicStage,
    NotLanded,
)
from mlplatform.features import materialization, pipeline
from mlplatform.features.materialization import pending, raise_failures
from mlplatform.features.tables import Tables, available_at, day_range, stages
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import (
    AFTERWARDS,
    Clock,
    backfill,
    land_orders,
    platform_in,
    run_stage,
)

ORDERS = DOMAIN.source("orders")
DAYS = day_range("2024-01-01", "2024-01-06")
THIRD = DAYS[2]


def with_source(source: Source) -> Domain:
    """The synthetic domain with another source of orders."""
    return replace(DOMAIN, sources=(source,))


def orders(day: str) -> pl.DataFrame:
    """What the shop sends for a day: thirty orders."""
    return rows(date.fromisoformat(day), rows_per_day=30)


def numbers(platform: Platform, stage: str) -> dict[str, dict[str, int]]:
    """Current revision of each partition, by table."""
    opened = Tables(platform, DOMAIN).of(stage)
    return {name: {day: each.number for day, each in table.current().items()} for name, table in opened.items()}


def features(platform: Platform, days: list[str]) -> dict[str, pl.DataFrame]:
    """Published rows of some days, by view."""
    return {name: table.read(days) for name, table in Tables(platform, DOMAIN).of("feature_store").items()}


def all_pending(platform: Platform, domain: Domain = DOMAIN) -> dict[str, list[str]]:
    """What is not up to date, by stage."""
    return {stage: days for stage in stages if (days := pending(platform, domain, stage, DAYS))}


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A platform with six days of orders in every stage."""
    land_orders(platform, DAYS)
    backfill(platform, DAYS)
    return platform


def test_a_second_run_writes_nothing(platform: Platform) -> None:
    """What is not computed yet is pending; after a run nothing is, and a further run appends no revision."""
    land_orders(platform, DAYS)
    assert pending(platform, DOMAIN, "raw", DAYS) == DAYS
    # Five stages of one table, and two views.
    assert backfill(platform, DAYS) == 7 * len(DAYS)
    assert all_pending(platform) == {}
    assert backfill(platform, DAYS) == 0
    for stage in stages:
        assert {number for table in numbers(platform, stage).values() for number in table.values()} == {1}, stage


def test_a_correction_is_a_second_revision_of_what_it_touches(filled: Platform) -> None:
    """A corrected day gives revision 2 to itself, and to the features of the days whose windows hold it."""
    slower = orders(THIRD).with_columns(pl.col("delivered_at") + pl.duration(minutes=10))
    land_orders(filled, [THIRD], {THIRD: slower})
    assert all_pending(filled) == {"raw": [THIRD]}
    backfill(filled, DAYS)
    assert all_pending(filled) == {}
    for stage in ("raw", "validated", "base", "derived"):
        assert [numbers(filled, stage)[name][THIRD] for name in numbers(filled, stage)] == [2], stage
        assert sum(number for table in numbers(filled, stage).values() for number in table.values()) == len(DAYS) + 1
    assert numbers(filled, "quarantine") == {"orders": dict.fromkeys(DAYS, 1)}
    touched = dict.fromkeys(DAYS, 1) | dict.fromkeys(DAYS[2:5], 2)
    assert numbers(filled, "feature_store") == {"courier": touched, "district": touched}
    revisions = Tables(filled, DOMAIN).derived("deliveries").revisions([THIRD])
    assert revisions[0].content_hash != revisions[1].content_hash


@pytest.mark.parametrize("change", ["a file with the same rows", "another lock file"])
def test_a_change_without_consequence_is_settled_by_one_run(filled: Platform, change: str) -> None:
    """Where other inputs or libraries give the same rows no revision is made, yet nothing stays pending for ever."""
    changed = filled
    if change == "another lock file":
        changed = replace(filled, environment="another lock")
    else:
        path = filled.landing("synthetic") / "orders" / f"{THIRD}.parquet"
        orders(THIRD).write_parquet(path, compression="uncompressed")
    assert THIRD in pending(changed, DOMAIN, "raw", DAYS)
    assert backfill(changed, DAYS) == 0
    assert all_pending(changed) == {}
    if change == "another lock file":
        assert all_pending(filled) == {}


def test_a_missing_day_stops_the_windows_that_need_it_and_is_named(platform: Platform) -> None:
    """The days that are there are computed; a window that lacks one is refused, and says which."""
    there = [day for day in DAYS if day != THIRD]
    land_orders(platform, there)
    raw = run_stage(platform, "raw", DAYS)
    assert (list(raw.failed), sorted(raw.revisions)) == ([THIRD], there)
    with pytest.raises(NotLanded, match=f"nothing has landed of synthetic/orders for {THIRD}"):
        raise_failures(raw)
    for stage in stages[1:-1]:
        run_stage(platform, stage, there)
    outcome = run_stage(platform, "feature_store", DAYS)
    assert sorted(outcome.failed) == DAYS[2:5]
    assert sorted(outcome.revisions) == [DAYS[0], DAYS[1], DAYS[5]]
    error = outcome.failed[DAYS[3]]
    assert isinstance(error, IncompleteWindow) and error.missing == (THIRD,)
    with pytest.raises(IncompleteWindow, match=f" of {THIRD} needs {THIRD}, which did not arrive") as raised:
        raise_failures(outcome)
    assert [note[: len("and 2024-01-04")] for note in raised.value.__notes__] == [f"and {day}" for day in DAYS[3:5]]


def test_an_absent_day_is_passed_over(platform: Platform) -> None:
    """A day on which the source is declared to have sent nothing fails no stage; windows are computed from the rest."""
    domain = with_source(replace(ORDERS, absent=frozenset({date.fromisoformat(THIRD)})))
    there = [day for day in DAYS if day != THIRD]
    land_orders(platform, there)
    backfill(platform, DAYS, domain)
    assert all_pending(platform, domain) == {}
    assert sorted(numbers(platform, "raw")["orders"]) == there
    assert sorted(numbers(platform, "feature_store")["courier"]) == DAYS
    deliveries = features(platform, [DAYS[3]])["courier"]["courier_deliveries_3d"].sum()
    assert deliveries == 2 * 30


def test_a_malformed_file_fails_its_partition_only(platform: Platform) -> None:
    """The error names the column; the other days are taken in, and nothing of the file is."""
    land_orders(platform, DAYS, {THIRD: orders(THIRD).with_columns(pl.lit("far").alias("distance_km"))})
    outcome = run_stage(platform, "raw", DAYS)
    assert isinstance(outcome.failed[THIRD], MalformedFile)
    with pytest.raises(MalformedFile, match="column distance_km"):
        raise_failures(outcome)
    assert sorted(numbers(platform, "raw")["orders"]) == [day for day in DAYS if day != THIRD]


def test_a_blocking_rule_stops_its_partition(platform: Platform) -> None:
    """Metres for kilometres: the day is stopped and its rows are in quarantine; the other days go on."""
    broken = rows(date.fromisoformat(THIRD), rows_per_day=30, switches=Switches(metres=True))
    land_orders(platform, DAYS, {THIRD: broken})
    run_stage(platform, "raw", DAYS)
    validated = run_stage(platform, "validated", DAYS)
    assert sorted(validated.revisions) == [day for day in DAYS if day != THIRD]
    with pytest.raises(ContractBroken, match="refused rows: at most 5 %"):
        raise_failures(validated)
    assert validated.found["orders"][THIRD].counts["distance_km: at most 50"] == 30
    raise_failures(run_stage(platform, "quarantine", DAYS))
    assert Tables(platform, DOMAIN).quarantine("orders").read([THIRD]).height == 30
    base = run_stage(platform, "base", DAYS)
    assert list(base.failed) == [THIRD] and isinstance(base.failed[THIRD], MissingPartition)


def test_refused_rows_are_in_quarantine_with_their_reason(platform: Platform) -> None:
    """Kept and refused rows are the landed ones, each once, and a refused row tells the rules that it breaks."""
    sent = orders(THIRD)
    dirty = sent.with_columns(
        items=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit(99, pl.Int16)).otherwise("items"),
    )
    land_orders(platform, [THIRD], {THIRD: dirty})
    for stage in ("raw", "validated", "quarantine"):
        raise_failures(run_stage(platform, stage, [THIRD]))
    tables = Tables(platform, DOMAIN)
    kept, refused = tables.validated("orders").read([THIRD]), tables.quarantine("orders").read([THIRD])
    assert refused["broken_rules"].to_list() == ["items: at most 20"]
    both = pl.concat([kept, refused.drop("broken_rules")]).sort("order_id")
    assert both.equals(tables.raw("orders").read([THIRD]).sort("order_id"))
    assert both.height == 30


def test_what_becomes_known_later_changes_no_earlier_feature(filled: Platform, platform: Platform) -> None:
    """Without any of the facts available after a day, the features of that day and of those before are the same."""
    past = platform_in(platform.home.with_name("past"))
    for day in DAYS[:4]:
        land_orders(past, [day])
    backfill(past, DAYS[:4])
    now, then = features(filled, DAYS[:4]), features(past, DAYS[:4])
    assert now.keys() == then.keys() == {"courier", "district"}
    for view, frame in now.items():
        assert frame.equals(then[view]), view
    # And the other way: what is taken away from the past does change them.
    land_orders(past, [DAYS[1]], {DAYS[1]: orders(DAYS[1]).head(20)})
    backfill(past, DAYS[:4])
    assert not features(past, DAYS[:4])["courier"].equals(now["courier"])


def test_features_of_a_day_are_computed_from_its_window_alone(filled: Platform) -> None:
    """Three days of orders, ending with the partition; available an hour after it, seen as of its end."""
    published = features(filled, [DAYS[4]])
    window = Tables(filled, DOMAIN).derived("deliveries").read(DAYS[2:5])
    courier = published["courier"].sort("courier")
    expected = window.group_by("courier").agg(pl.len(), pl.col("minutes").mean()).sort("courier")
    assert courier["courier_deliveries_3d"].to_list() == expected["len"].to_list()
    assert courier["courier_mean_minutes_3d"].to_list() == pytest.approx(expected["minutes"].to_list(), rel=1e-6)
    end = datetime(2024, 1, 6, tzinfo=UTC)
    assert courier.select("event_time", "available_at").unique().rows() == [(end, end + timedelta(hours=1))]
    last = window.group_by("district").agg(pl.col("event_time").max()).sort("district")
    assert published["district"].sort("district")["event_time"].equals(last["event_time"])


def test_history_counts_as_known_when_it_became_available(filled: Platform) -> None:
    """The first revision of a declared backfill is known at its availability; a correction when it is made."""
    clock = filled.clock
    assert isinstance(clock, Clock)
    clock.now = AFTERWARDS + timedelta(days=1)
    land_orders(filled, [THIRD], {THIRD: orders(THIRD).head(29)})
    backfill(filled, DAYS)
    known = [each.known_at for each in Tables(filled, DOMAIN).derived("deliveries").revisions([THIRD])]
    assert known == [available_at(DOMAIN, THIRD), clock.now]


def test_a_live_day_is_known_when_it_is_computed(platform: Platform) -> None:
    """Without a declared history the first revision, too, is known at the time of the clock."""
    live = replace(DOMAIN, history_until=date(2024, 1, 2))
    land_orders(platform, DAYS)
    backfill(platform, DAYS, live)
    current = Tables(platform, live).derived("deliveries").current()
    assert {day: each.known_at for day, each in current.items()} == {
        day: AFTERWARDS if day > "2024-01-02" else available_at(live, day) for day in DAYS
    }


@pytest.mark.parametrize("rows_at_once", [1, 70])
def test_how_much_is_held_at_once_changes_nothing(
    filled: Platform, tmp_path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read and committed day by day, or by a few days, every table has the content that it has in one go."""
    for reader_or_writer in (pipeline, materialization):
        monkeypatch.setattr(reader_or_writer, "rows_at_once", rows_at_once)
    other = platform_in(tmp_path / "other")
    land_orders(other, DAYS)
    assert backfill(other, DAYS) == 7 * len(DAYS)
    for stage in stages:
        at_once, in_parts = Tables(filled, DOMAIN).of(stage), Tables(other, DOMAIN).of(stage)
        for name, store in at_once.items():
            hashes = {day: each.content_hash for day, each in store.current().items()}
            assert {day: each.content_hash for day, each in in_parts[name].current().items()} == hashes, stage
            commits = DeltaTable(in_parts[name].uri).version()
            assert commits > DeltaTable(store.uri).version() or stage in ("quarantine", "feature_store")
    assert all_pending(other) == {}


def test_an_empty_day_is_a_day(platform: Platform) -> None:
    """A file without rows is no missing file: windows are computed with it, and tell of fewer orders."""
    land_orders(platform, DAYS, {THIRD: orders(THIRD).clear()})
    backfill(platform, DAYS)
    assert Tables(platform, DOMAIN).derived("deliveries").current([THIRD])[THIRD].rows == 0
    assert features(platform, [DAYS[4]])["courier"]["courier_deliveries_3d"].sum() == 2 * 30
    assert backfill(platform, DAYS) == 0


def test_only_empty_days_give_no_entity(platform: Platform) -> None:
    """A window of empty days publishes an empty partition."""
    land_orders(platform, DAYS[:1], {DAYS[0]: orders(DAYS[0]).clear()})
    backfill(platform, DAYS[:1])
    assert {view: frame.height for view, frame in features(platform, DAYS[:1]).items()} == {"courier": 0, "district": 0}


def test_changed_code_makes_its_stage_pending(filled: Platform) -> None:
    """Another function of a derived table makes that stage pending, and after its run the windows over it."""

    def never_late(base: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        return base["orders"].with_columns(late=pl.lit(value=False))

    changed = replace(DOMAIN, derived=(replace(DOMAIN.derived[0], function=never_late),))
    assert all_pending(filled, changed) == {"derived": DAYS}
    raise_failures(run_stage(filled, "derived", DAYS, changed))
    assert all_pending(filled, changed) == {"feature_store": DAYS}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda rows: rows.drop("event_time"), "gives no `event_time`"),
        (lambda rows: rows.with_columns(event_time=pl.lit(None, rows["event_time"].dtype)), "without an `event_time`"),
        (lambda rows: rows.with_columns(secret=1), "gives secret, which is not declared"),
    ],
)
def test_a_table_gives_what_it_declares(platform: Platform, changed: object, told: str) -> None:
    """A base table without its clock, or with more columns than declared, is a fault of the declaration."""
    assert callable(changed)
    domain = with_source(replace(ORDERS, base=lambda landed: changed(ORDERS.base(landed))))
    land_orders(platform, DAYS[:1])
    for stage in ("raw", "validated"):
        raise_failures(run_stage(platform, stage, DAYS[:1], domain))
    outcome = run_stage(platform, "base", DAYS[:1], domain)
    with pytest.raises(DeclarationError, match=told):
        raise_failures(outcome)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda rows: rows.with_columns(minutes=pl.col("minutes").cast(pl.Float64)), "'minutes' is Float64"),
        (lambda rows: rows.drop("minutes"), "lacks the column 'minutes'"),
        (lambda _rows: None, "base of orders gives a NoneType for 2024-01-03"),
        (lambda rows: rows.lazy(), "base of orders gives a LazyFrame for 2024-01-03"),
    ],
)
def test_a_day_that_is_not_as_declared_fails_alone(platform: Platform, changed: object, told: str) -> None:
    """A function that gives something else over one odd day: that day is a fault, the others are appended."""
    assert callable(changed)
    domain = with_source(
        replace(ORDERS, base=lambda landed: (changed if landed.height < 25 else pl.DataFrame)(ORDERS.base(landed)))
    )
    land_orders(platform, DAYS[:4], {THIRD: orders(THIRD).head(20)})
    for stage in ("raw", "validated"):
        raise_failures(run_stage(platform, stage, DAYS[:4], domain))
    outcome = run_stage(platform, "base", DAYS[:4], domain)
    assert sorted(outcome.revisions) == [DAYS[0], DAYS[1], DAYS[3]]
    (fault,) = outcome.faults[THIRD]
    assert fault.table == "orders" and told in str(fault.error)
    assert outcome.failed == {THIRD: fault.error}


def test_a_step_that_is_not_deterministic_fails_its_days_alone(
    filled: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days come out otherwise than before: each is a fault of its own, and the new day beside them is appended."""
    given, later = pipeline.given, "2024-01-07"

    def odd(function: Callable[..., pl.DataFrame], what: str, day: str, *arguments: object) -> pl.DataFrame:
        rows = given(function, what, day, *arguments)
        return rows.head(10) if day in DAYS[2:4] else rows

    land_orders(filled, [later])
    for stage in ("raw", "validated"):
        raise_failures(run_stage(filled, stage, [later]))
    monkeypatch.setattr(pipeline, "given", odd)
    outcome = run_stage(filled, "base", [*DAYS, later])
    assert sorted(outcome.failed) == sorted(outcome.faults) == DAYS[2:4]
    for day, error in outcome.failed.items():
        assert isinstance(error, NonDeterministicStage) and error.partitions == (day,)
    assert (outcome.new, sorted(outcome.revisions)) == (1, [*DAYS[:2], *DAYS[4:], later])


def test_a_stage_that_nobody_declared_is_refused(platform: Platform) -> None:
    """The name is in the message; an error of the data it is not."""
    with pytest.raises(DeclarationError, match="no stage is called 'golden'") as raised:
        run_stage(platform, "golden", DAYS)
    assert not isinstance(raised.value, DataError)


def test_history_made_from_a_correction_is_known_no_earlier_than_the_correction(platform: Platform) -> None:
    """A first revision that is computed after its input was corrected must not pass for what was known before."""
    day = DAYS[0]
    land_orders(platform, [day])
    run_stage(platform, "raw", [day])
    land_orders(platform, [day], {day: orders(day).head(20)})
    run_stage(platform, "raw", [day])
    run_stage(platform, "validated", [day])
    assert [each.known_at for each in Tables(platform, DOMAIN).raw("orders").revisions([day])] == [
        available_at(DOMAIN, day),
        AFTERWARDS,
    ]
    assert Tables(platform, DOMAIN).validated("orders").current([day])[day].known_at == AFTERWARDS
