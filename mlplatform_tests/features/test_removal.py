"""Removal: rows go, what is known of them stays; whatever must be there is there, to the bit."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataError, RemovedByPolicy
from mlplatform.features import removal
from mlplatform.features.integrity import altered
from mlplatform.features.known_facts import known_facts, removed_until
from mlplatform.features.removal import is_open, remove_revisions, sweep
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.provenance.content_hash import content_hash
from mlplatform_tests.fakes.killed import Killed, killed_at
from mlplatform_tests.fakes.s3_endpoint import Held

SCHEMA = {"flight": pl.Int64(), "delay": pl.Float64()}
NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
FACTS = {
    "berth": pl.String(),
    "wait": pl.Float64(),
    "event_time": pl.Datetime("us", "UTC"),
    "available_at": pl.Datetime("us", "UTC"),
}


def hour(number: float) -> datetime:
    """Some hours after noon."""
    return NOON + timedelta(hours=number)


def append(stage: Stage, number: float, **delays: float) -> None:
    """Append partitions of one flight each, some hours after noon."""
    drafts = {
        day: Draft(rows=pl.DataFrame({"flight": [1], "delay": [delay]}, schema=SCHEMA)) for day, delay in delays.items()
    }
    stage.append(drafts, Written(run_id="run", code_version="code", environment="lock", known_at=hour(number)))


def delay(stage: Stage, day: str, number: int | None = None, at: datetime | None = None) -> float:
    """The delay that a revision tells."""
    rows = stage.read([day], numbers=None if number is None else {day: number}, known_at=at)
    return float(rows["delay"].item())


def files(stage: Stage) -> set[str]:
    """Parquet files in the folder of a table."""
    return {path.relative_to(stage.uri).as_posix() for path in Path(stage.uri).rglob("*.parquet")} - {
        f"_delta_log/{path.name}" for path in Path(stage.uri, "_delta_log").glob("*.parquet")
    }


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Days `a` and `b`, four revisions each, an hour apart."""
    made = Stage(str(tmp_path / "base"), SCHEMA, name="shop/base/sales", sort_by=["flight"])
    for number in range(4):
        append(made, number, a=number, b=10 + number)
    return made


def test_a_removed_revision_says_so_and_the_others_stay_what_they_were(stage: Stage) -> None:
    """Its file is gone; its number, hash and time are known; nothing else has changed."""
    before = stage.revisions()
    assert remove_revisions(stage, {("a", 2): "gone by rule", ("b", 2): "gone by rule", ("b", 3): "gone too"}) == 3
    after = stage.revisions()
    assert [(each.number, each.known_at, each.content_hash, each.inputs) for each in after] == [
        (each.number, each.known_at, each.content_hash, each.inputs) for each in before
    ]
    assert [each.removed for each in after] == ["", "gone by rule", "", "", "", "gone by rule", "gone too", ""]
    with pytest.raises(RemovedByPolicy, match=r"^gone too\. It cannot be had again") as told:
        delay(stage, "b", 3)
    assert told.value.tombstone == "gone too"
    with pytest.raises(RemovedByPolicy, match="gone by rule"):
        stage.pinned({"a": 2}, rows_at_once=10)
    assert [delay(stage, "a", number) for number in (1, 3, 4)] == [0, 2, 3]
    assert stage.history()["_revision"].to_list() == [1, 3, 4, 1, 4]
    assert {before[place].path for place in (1, 5, 6)}.isdisjoint(files(stage))
    assert not is_open(stage.uri, None)
    assert altered(stage, after) == {}


def test_no_older_revision_is_given_for_one_that_was_removed(stage: Stage) -> None:
    """As known while it was believed: refused. Before and after: what was believed then."""
    remove_revisions(stage, {("a", 2): "gone", ("a", 3): "gone"})
    assert delay(stage, "a", at=hour(0.5)) == 0
    for believed in (1, 1.5, 2.9):
        with pytest.raises(RemovedByPolicy):
            delay(stage, "a", at=hour(believed))
        assert stage.current(known_at=hour(believed))["a"].removed == "gone"
    assert delay(stage, "a", at=hour(3)) == 3
    remove_revisions(stage, {("a", 1): "gone first"})
    with pytest.raises(RemovedByPolicy, match="gone first"):
        stage.read(known_at=hour(0.5))


def test_what_is_current_is_never_removed(stage: Stage) -> None:
    """Nor is anything else of the same call, nor what there is not."""
    for wrong in (("a", 4), ("a", 5), ("c", 1)):
        with pytest.raises(DataError, match="what is current is never removed"):
            remove_revisions(stage, {("a", 1): "gone", wrong: "gone"})
    assert all(not each.removed for each in stage.revisions())


def test_numbers_go_on_and_a_content_that_was_removed_may_come_again(stage: Stage) -> None:
    """After a removal the next revision is the fifth; the content of a removed one is a new revision of its own."""
    remove_revisions(stage, {("a", number): "gone" for number in (1, 2, 3)})
    append(stage, 5, a=1)
    assert [each.number for each in stage.revisions(["a"])] == [1, 2, 3, 4, 5]
    assert delay(stage, "a") == 1
    assert remove_revisions(stage, {("a", 2): "another text", ("a", 4): "gone later"}) == 1
    assert [each.removed for each in stage.revisions(["a"])] == ["gone", "gone", "gone", "gone later", ""]


def test_the_table_stays_append_only(stage: Stage) -> None:
    """Whoever deletes by hand is refused before and after."""
    remove_revisions(stage, {("a", 1): "gone"})
    with pytest.raises(DeltaError, match="append-only"):
        DeltaTable(stage.uri).delete("_partition = 'a'")


def test_what_another_writer_is_about_to_commit_survives(stage: Stage) -> None:
    """A file that no log names yet is not taken for rubbish."""
    uncommitted = Path(stage.uri, "a", "5-beef.parquet")
    uncommitted.write_bytes(b"being written")
    os.utime(uncommitted, (0, 0))
    remove_revisions(stage, {("a", 1): "gone"})
    sweep(stage.uri, None)
    assert uncommitted.exists()


def test_a_removal_that_is_killed_at_any_line_is_completed_by_the_next(tmp_path: Path) -> None:
    """Closed again, nothing lost that was not to go, everything gone that was, and no file left of it."""
    left_open = 0
    # Every third one: it takes several lines from one commit to the next.
    for line in count(1, 3):
        stage = Stage(str(tmp_path / str(line)), SCHEMA, name="base", sort_by=["flight"])
        for number in range(3):
            append(stage, number, a=number, b=10 + number)
        gone = {("a", 1): "gone", ("b", 1): "gone", ("b", 2): "gone"}
        left = {each.path for each in stage.revisions() if (each.partition, each.number) not in gone}
        try:
            with killed_at(line, removal):
                remove_revisions(stage, gone)
            killed = False
        except Killed:
            killed = True
            assert [delay(stage, "a", 2), delay(stage, "b")] == [1, 12]
            left_open += is_open(stage.uri, None)
            sweep(stage.uri, None)
            assert not is_open(stage.uri, None)
            remove_revisions(stage, gone)
        assert {(each.partition, each.number): each.removed for each in stage.revisions()} == {
            ("a", 2): "", ("a", 3): "", ("b", 3): "", **gone
        }  # fmt: skip
        assert [delay(stage, "a", 2), delay(stage, "a"), delay(stage, "b")] == [1, 2, 12]
        held = [path for path in files(stage) if pl.read_parquet(f"{stage.uri}/{path}", hive_partitioning=False).height]
        assert set(held) == left
        assert not is_open(stage.uri, None)
        if not killed:
            break
    assert line > 60
    assert left_open > 1


def test_writers_and_a_removal_do_not_lose_each_other(stage: Stage) -> None:
    """Appends of four threads during a removal: all are there, and so is the removal."""
    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(append, stage, 5, **{f"day{number}": number}) for number in range(12)]
        removing = pool.submit(remove_revisions, stage, {("a", 1): "gone", ("b", 2): "gone", ("b", 3): "gone"})
        for each in writers:
            each.result()
        assert removing.result() == 3
    assert [delay(stage, f"day{number}") for number in range(12)] == list(range(12))
    assert sum(bool(each.removed) for each in stage.revisions()) == 3
    assert not is_open(stage.uri, None)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1)),
        st.tuples(st.just("remove"), st.tuples(st.sampled_from("abc"), st.integers(1, 4))),
        st.tuples(st.sampled_from(["compact", "checkpoint", "vacuum", "clean the log"]), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(steps)
def test_every_revision_that_must_be_there_reads_to_the_bit(history: list[tuple[str, object]]) -> None:
    """Through appends, corrections, compaction, checkpoints, vacuums, log clean-ups and removals, in any order."""
    written: dict[tuple[str, int], tuple[str, datetime]] = {}
    gone: set[tuple[str, int]] = set()
    with TemporaryDirectory() as folder:
        stage = Stage(f"{folder}/base", SCHEMA, name="base", sort_by=["flight"])
        for at, (step, told) in enumerate([("append", {"a": 0}), *history]):
            if step == "append":
                assert isinstance(told, dict)
                append(stage, at, **told)
                for each in stage.current(told).values():
                    written.setdefault((each.partition, each.number), (each.content_hash, each.known_at))
            elif step == "remove":
                assert isinstance(told, tuple)
                if (told[0], told[1] + 1) in written:
                    remove_revisions(stage, {told: f"gone {told}"})
                    gone.add(told)
            else:
                table = DeltaTable(stage.uri)
                match step:
                    case "compact":
                        table.optimize.compact()
                    case "checkpoint":
                        table.create_checkpoint()
                    case "vacuum":
                        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
                    case _:
                        table.cleanup_metadata()
        assert {(each.partition, each.number) for each in stage.revisions()} == written.keys()
        for (day, number), (content, _) in written.items():
            if (day, number) in gone:
                with pytest.raises(RemovedByPolicy, match="gone"):
                    stage.read(numbers={day: number})
            else:
                assert content_hash(stage.read(numbers={day: number})) == content
        for at in range(len(history) + 1):
            for day in {day for day, _ in written}:
                believed = [
                    number for (each, number), (_, since) in written.items() if each == day and since <= hour(at)
                ]
                if not believed:
                    continue
                if (day, max(believed)) in gone:
                    with pytest.raises(RemovedByPolicy):
                        stage.read([day], known_at=hour(at))
                else:
                    assert content_hash(stage.read([day], known_at=hour(at))) == written[day, max(believed)][0]


def facts(wait: float) -> Draft:
    """A day of one berth."""
    row = {"berth": "north", "wait": wait, "event_time": hour(-20), "available_at": hour(-10)}
    return Draft(rows=pl.DataFrame([row], schema=FACTS))


def test_a_read_as_known_then_meets_a_removed_revision_only_where_it_was_believed(tmp_path: Path) -> None:
    """Requests before and after are told what they were; one in between is refused, never told something older."""
    store = Stage(str(tmp_path / "view"), FACTS, name="harbour/feature_store/waits", sort_by=["berth"])
    for number in range(3):
        store.append(
            {"2024-03-14": facts(number)},
            Written(run_id="run", code_version="code", environment="lock", known_at=hour(number)),
        )
    remove_revisions(store, {("2024-03-14", 2): "gone"})

    def waits(first: datetime, last: datetime) -> list[float]:
        known = known_facts(
            store, first, last, columns=["wait"], keys=["berth"], ttl=timedelta(days=3), pins=None, known_by="then",
            expired=False,
        )  # fmt: skip
        return sorted(known["wait"].to_list())

    assert waits(hour(0), hour(0.9)) == [0]
    assert waits(hour(2), hour(9)) == [2]
    for first, last in pairwise([hour(0.5), hour(1), hour(1.5), hour(3)]):
        with pytest.raises(RemovedByPolicy):
            waits(first, last)
    assert removed_until(store, {"2024-03-14": 3}) == [hour(2)]
    assert removed_until(store, {"2024-03-14": 2}) == []


def test_on_an_object_store_it_is_the_same(s3: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit that takes the rows and tells so, and a table that is closed again."""
    # The endpoint of the tests knows no deletion of many objects in one call, which is how a vacuum deletes.
    taken: list[str] = []
    monkeypatch.setattr(removal, "vacuum", lambda uri, *_, **__: taken.append(uri))
    options = {"aws_allow_http": "true"}
    stage = Stage(f"s3://{s3.bucket}/tables/base", SCHEMA, name="base", sort_by=["flight"], storage_options=options)
    for number in range(3):
        append(stage, number, a=number)
    remove_revisions(stage, {("a", 1): "gone"})
    sweep(stage.uri, options)
    assert [each.removed for each in stage.revisions()] == ["gone", "", ""]
    assert delay(stage, "a", 2) == 1
    with pytest.raises(RemovedByPolicy):
        delay(stage, "a", 1)
    assert not is_open(stage.uri, options)
    assert taken == [stage.uri] * 2
