"""The stage table: revisions are appended exactly once, never change, and can always be read."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlplatform.errors import (
    DataError,
    DeclarationError,
    MissingPartition,
    NonDeterministicStage,
    StaleRevision,
    Unavailable,
)
from mlplatform.features.stage import Draft, Revision, Stage, Written

SCHEMA = {"flight": pl.Int64(), "delay": pl.Float64()}
NOON = datetime(2013, 3, 15, 12, 0, 0, 123456, tzinfo=UTC)
# Each example makes a table on disk.
FEW_EXAMPLES = settings(max_examples=10, suppress_health_check=list(HealthCheck))


def draft(*delays: float, inputs: tuple[str, ...] = (), known_at: datetime | None = None) -> Draft:
    """Draft a partition of numbered flights with these delays."""
    rows = pl.DataFrame({"flight": range(len(delays)), "delay": delays}, schema=SCHEMA)
    return Draft(rows=rows, inputs=inputs, known_at=known_at)


def written(hours: float = 0, run_id: str = "run", code_version: str = "code", environment: str = "lock") -> Written:
    """Say that a run wrote some hours after noon."""
    known_at = NOON + timedelta(hours=hours)
    return Written(run_id=run_id, code_version=code_version, environment=environment, known_at=known_at)


def delays(stage: Stage, partition: str, number: int | None = None) -> list[float]:
    """Read the delays of one partition."""
    pins = None if number is None else {partition: number}
    return stage.read([partition], numbers=pins)["delay"].to_list()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage whose table does not exist yet."""
    return Stage(str(tmp_path / "base"), SCHEMA, name="base", sort_by=["flight"])


def test_going_back_and_forth_is_four_revisions(stage: Stage) -> None:
    """A → B → A → B is four revisions, though the contents are two."""
    for hour, delay in enumerate([1.0, 2.0, 1.0, 2.0]):
        stage.append({"2013-03-14": draft(delay)}, written(hour))
    revisions = stage.revisions()
    assert [each.number for each in revisions] == [1, 2, 3, 4]
    assert [delays(stage, "2013-03-14", number) for number in (1, 2, 3, 4)] == [[1.0], [2.0], [1.0], [2.0]]
    assert [each.known_at for each in revisions] == [NOON + timedelta(hours=hour) for hour in range(4)]
    assert len({each.content_hash for each in revisions}) == 2


@FEW_EXAMPLES
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b"]), st.tuples(st.sampled_from([(), (1.0,), (2.0, 3.0)]), st.integers(-3, 3))
        ),
        max_size=6,
    )
)
def test_a_stage_is_the_sequence_of_its_changes(appends: list[dict[str, tuple[tuple[float, ...], int]]]) -> None:
    """Whatever is appended, the table holds each change of content in order, and answers as known at any time."""
    model: dict[str, list[tuple[tuple[float, ...], datetime]]] = {}
    with TemporaryDirectory() as folder:
        stage = Stage(f"{folder}/base", SCHEMA, name="base", sort_by=["flight"])
        for step in appends:
            for partition, (content, hour) in step.items():
                past = model.setdefault(partition, [])
                known_at = NOON + timedelta(hours=hour)
                if not past or past[-1][0] != content:
                    past.append((content, max([known_at, *(each[1] for each in past)])))
            drafts = {key: draft(*value, known_at=NOON + timedelta(hours=hour)) for key, (value, hour) in step.items()}
            answer = stage.append(drafts, written())
            assert {key: each.number for key, each in answer.items()} == {key: len(model[key]) for key in step}
        assert [(each.partition, each.number, each.known_at, each.rows) for each in stage.revisions()] == [
            (partition, number, known_at, len(content))
            for partition in sorted(model)
            for number, (content, known_at) in enumerate(model[partition], 1)
        ]
        for hour in range(-4, 4):
            at = NOON + timedelta(hours=hour)
            believed = {
                partition: [content for content, known_at in past if known_at <= at]
                for partition, past in model.items()
            }
            expected = [value for partition in sorted(model) for value in (believed[partition] or [()])[-1]]
            assert stage.read(known_at=at)["delay"].to_list() == expected


def test_the_same_content_is_committed_once(stage: Stage) -> None:
    """Appending what is there already, in any row order and by another run, commits nothing."""
    first = stage.append({"d": draft(1.0, 2.0)}, written(run_id="first"))
    version = DeltaTable(stage.uri).version()
    again = stage.append({"d": Draft(rows=draft(1.0, 2.0).rows.reverse())}, written(5, run_id="second"))
    assert again == first == stage.current()
    assert DeltaTable(stage.uri).version() == version


def test_many_partitions_are_one_commit(stage: Stage) -> None:
    """A backfill of 181 days is one commit, and every day is there."""
    stage.append({"other": draft()}, written())
    before = DeltaTable(stage.uri).version()
    days = [str(date(2013, 1, 1) + timedelta(days=day)) for day in range(181)]
    answer = stage.append({day: draft(float(number)) for number, day in enumerate(days)}, written())
    assert DeltaTable(stage.uri).version() == before + 1
    assert sorted(answer) == days
    assert stage.read(days)["delay"].to_list() == [float(number) for number in range(181)]


def test_a_revision_carries_where_it_came_from(stage: Stage) -> None:
    """Run, code, environment, inputs and the known time to the microsecond are kept whole, however long."""
    inputs = tuple(f"validated/2013-{month:02}-{day:02}@1" for month in (2, 1) for day in range(1, 29))
    answer = stage.append({"d": draft(1.0, inputs=inputs)}, written(run_id="r" * 200, code_version="c" * 64))
    (revision,) = stage.revisions()
    assert answer == {"d": revision}
    assert revision == Revision(
        partition="d",
        number=1,
        content_hash=revision.content_hash,
        known_at=NOON,
        run_id="r" * 200,
        code_version="c" * 64,
        environment="lock",
        inputs=tuple(sorted(inputs)),
        rows=1,
        path=revision.path,
    )
    assert (Path(stage.uri) / revision.path).is_file()


def test_an_empty_revision_is_not_a_missing_one(stage: Stage) -> None:
    """A correction that removes all rows reads as no rows; a partition never written is refused by name."""
    assert stage.revisions() == [] and stage.current() == {} and stage.read().schema == SCHEMA
    with pytest.raises(MissingPartition, match="base has no revision of d"):
        stage.read(["d"])
    stage.append({"d": draft(1.0)}, written())
    stage.append({"d": draft()}, written(1))
    assert stage.current()["d"].rows == 0
    assert stage.read(["d"]).is_empty() and stage.read(["d"]).schema == SCHEMA
    assert delays(stage, "d", 1) == [1.0]
    with pytest.raises(MissingPartition, match="e"):
        stage.read(["d", "e"])
    with pytest.raises(MissingPartition, match="d@3"):
        stage.read(numbers={"d": 3})
    with pytest.raises(MissingPartition, match="d"):
        stage.read(["d"], known_at=NOON - timedelta(microseconds=1))


def test_known_time_never_runs_backwards(stage: Stage) -> None:
    """A writer whose clock is behind gets the known time before it, so the highest number is what was known last."""
    stage.append({"d": draft(1.0)}, written(5))
    assert stage.append({"d": draft(2.0)}, written(3))["d"].known_at == NOON + timedelta(hours=5)
    assert stage.current(known_at=NOON + timedelta(hours=4)) == {}
    assert stage.current(known_at=NOON + timedelta(hours=5))["d"].number == 2


def test_as_known_is_exact_and_knows_zones(stage: Stage) -> None:
    """A revision is seen from its very microsecond on, asked in whatever zone; a time without a zone is refused."""
    stage.append({"d": draft(1.0)}, written())
    new_york = timezone(timedelta(hours=-5))
    assert "d" in stage.current(known_at=NOON.astimezone(new_york))
    assert "d" not in stage.current(known_at=NOON.astimezone(new_york) - timedelta(microseconds=1))
    with pytest.raises(DataError, match="zone"):
        stage.current(known_at=NOON.replace(tzinfo=None))
    with pytest.raises(DataError, match="zone"):
        stage.append({"d": draft(1.0, known_at=NOON.replace(tzinfo=None))}, written())


def test_pins_and_provenance(stage: Stage) -> None:
    """Pinned partitions give that revision, the others the current one, and each row can tell where it is from."""
    for hour, delay in enumerate([1.0, 2.0]):
        stage.append({"a": draft(delay, delay), "b": draft(delay)}, written(hour))
    assert stage.read(numbers={"a": 1})["delay"].to_list() == [1.0, 1.0]
    rows = stage.read(["b", "a"], numbers={"a": 1}, columns=["delay"], provenance=True)
    assert rows.schema == {
        "delay": pl.Float64(),
        "_partition": pl.String(),
        "_revision": pl.Int32(),
        "_known_at": pl.Datetime("us", "UTC"),
    }
    later = NOON + timedelta(hours=1)
    assert rows.rows() == [(1.0, "a", 1, NOON), (1.0, "a", 1, NOON), (2.0, "b", 2, later)]
    assert stage.history(["b"], ["delay"]).rows() == [(1.0, "b", 1, NOON), (2.0, "b", 2, later)]
    assert stage.read(columns=[], provenance=True).columns == ["_partition", "_revision", "_known_at"]


def test_other_content_from_the_same_inputs_is_an_error(stage: Stage) -> None:
    """Same inputs, code and lock file with other rows is refused; if any of them differs, it is a revision."""
    one, two = ("raw/d@1",), ("raw/d@2",)
    stage.append({"d": draft(1.0, inputs=one)}, written())
    stage.append({"d": draft(2.0, inputs=two)}, written())
    for inputs in (one, two):
        with pytest.raises(NonDeterministicStage):
            stage.append({"d": draft(9.0, inputs=inputs), "e": draft(1.0)}, written(1))
    stage.append({"f": draft(1.0, inputs=one)}, written())
    with pytest.raises(NonDeterministicStage, match="of d, f: same input") as refused:
        stage.append({"d": draft(9.0, inputs=one), "e": draft(1.0), "f": draft(2.0, inputs=one)}, written(1))
    assert refused.value.partitions == ("d", "f")
    assert list(stage.current()) == ["d", "f"], "nothing of a refused append is committed"
    assert stage.append({"d": draft(1.0, inputs=one)}, written())["d"].number == 3
    assert stage.append({"d": draft(4.0, inputs=one)}, written(code_version="other"))["d"].number == 4
    assert stage.append({"d": draft(5.0, inputs=one)}, written(environment="other"))["d"].number == 5
    assert stage.append({"d": draft(6.0)}, written())["d"].number == 6
    assert stage.append({"d": draft(7.0)}, written())["d"].number == 7, "rows from outside may be corrected"


def test_compare_and_set(stage: Stage) -> None:
    """A writer that expects another number than the current one is refused, also with the same content."""
    assert stage.append({"d": draft(1.0)}, written(), expect={"d": 0})["d"].number == 1
    for rows in (draft(1.0), draft(2.0)):
        with pytest.raises(StaleRevision, match="revision 1, not 0"):
            stage.append({"d": rows, "e": draft()}, written(), expect={"d": 0})
    assert stage.append({"d": draft(2.0)}, written(), expect={"d": 1})["d"].number == 2
    assert list(stage.current()) == ["d"]
    with pytest.raises(DataError, match="nothing is drafted"):
        stage.append({}, written(), expect={"d": 2})


def before_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], times: int = 1) -> None:
    """Let a rival act between a writer's decision and its commit."""
    commit = DeltaTable.create_write_transaction
    left = [act] * times

    def rival_first(table: DeltaTable, *args: object, **options: object) -> None:
        if left:
            left.pop()()
        commit(table, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DeltaTable, "create_write_transaction", rival_first)


def test_the_loser_of_a_race_reads_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival that commits the same number first keeps it; ours becomes the next, with the partitions beside it."""
    before_commit(monkeypatch, lambda: stage.append({"d": draft(1.0)}, written(2, "rival")))
    answer = stage.append({"d": draft(2.0), "e": draft(3.0)}, written(1))
    assert [(each.partition, each.number, each.run_id) for each in stage.revisions()] == [
        ("d", 1, "rival"),
        ("d", 2, "run"),
        ("e", 1, "run"),
    ]
    assert answer == stage.current() and answer["d"].known_at == NOON + timedelta(hours=2)
    assert delays(stage, "d") == [2.0] and delays(stage, "e") == [3.0]


def test_a_race_for_the_same_content_lands_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one deterministic step leave one revision, the faster one's."""
    before_commit(monkeypatch, lambda: stage.append({"d": draft(1.0)}, written(run_id="rival")))
    assert stage.append({"d": draft(1.0)}, written())["d"].run_id == "rival"
    assert len(stage.revisions()) == 1


def test_a_lost_compare_and_set_is_not_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers that expect the same number, the second is told so."""
    before_commit(monkeypatch, lambda: stage.append({"d": draft(1.0)}, written()))
    with pytest.raises(StaleRevision):
        stage.append({"d": draft(2.0)}, written(), expect={"d": 0})
    assert delays(stage, "d") == [1.0]


def test_a_writer_that_always_loses_gives_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts are bounded."""

    def lose(*args: object, **options: object) -> None:
        raise CommitFailedError("somebody was faster")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lose)
    with pytest.raises(Unavailable, match="append again"):
        stage.append({"d": draft(1.0)}, written())
    assert stage.revisions() == []


def test_a_commit_that_landed_but_was_reported_lost_is_recognised(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store may answer too late: the writer finds its own revision and neither repeats nor refuses it."""
    commit = DeltaTable.create_write_transaction

    def land_and_fail(table: DeltaTable, *args: object, **options: object) -> None:
        commit(table, *args, **options)  # type: ignore[arg-type]
        raise CommitFailedError("no answer")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", land_and_fail)
    assert stage.append({"d": draft(1.0)}, written(), expect={"d": 0})["d"].number == 1
    assert len(stage.revisions()) == 1


def test_threads_lose_nothing(stage: Stage) -> None:
    """Four writers of a shared and an own partition, from before the table exists: every content lands exactly once."""

    def write(writer: int) -> None:
        for step in range(4):
            value = float(10 * writer + step)
            stage.append({"shared": draft(value), f"own-{writer}": draft(value)}, written(run_id=f"{writer}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    values = {float(10 * writer + step) for writer in range(4) for step in range(4)}
    shared = stage.history(["shared"])
    assert shared["_revision"].to_list() == list(range(1, 17))
    assert sorted(shared["delay"]) == sorted(values)
    for writer in range(4):
        assert stage.history([f"own-{writer}"])["delay"].to_list() == [10.0 * writer + step for step in range(4)]


PREAMBLE = """
import os, signal, sys
from pathlib import Path
from datetime import UTC, datetime
import polars as pl
from deltalake import DeltaTable
from mlplatform.features.stage import Draft, Stage, Written

SCHEMA = {"flight": pl.Int64(), "delay": pl.Float64()}
stage = Stage(sys.argv[1], SCHEMA, name="base")
written = Written(run_id=sys.argv[2], code_version="c", environment="e", known_at=datetime(2013, 3, 15, 12, tzinfo=UTC))
def draft(delay):
    return Draft(rows=pl.DataFrame({"flight": [0], "delay": [delay]}, schema=SCHEMA))
"""
WRITE_FIVE = """
for step in range(5):
    stage.append({"shared": draft(10.0 * float(sys.argv[2]) + step), "own-" + sys.argv[2]: draft(1.0 * step)}, written)
"""
DIE = """
def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name, before=None, after=None, survived=0):
    real, calls = getattr(owner, name), []
    def act(*args, **options):
        calls.append(1)
        if len(calls) <= survived:
            return real(*args, **options)
        if before:
            before()
        answer = real(*args, **options)
        if after:
            after(*args)
        return answer
    setattr(owner, name, act)

def tear(path, content):
    os.truncate(path, os.path.getsize(path) // 2)
    die()
"""
DEATHS = {
    "before the table is created": 'dying(DeltaTable, "create", before=die)',
    "after the table is created": 'dying(DeltaTable, "create", after=die)',
    "between two files": 'dying(Path, "write_bytes", before=die, survived=1)',
    "within a file": 'dying(Path, "write_bytes", after=tear)',
    "before the commit": 'dying(DeltaTable, "create_write_transaction", before=die)',
    "after the commit": 'dying(DeltaTable, "create_write_transaction", after=die)',
}


def start(script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a writer in a process of its own, with the same import path."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{PREAMBLE}{script}"
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def test_processes_lose_nothing(stage: Stage) -> None:
    """Two processes on a shared and an own partition: every content lands exactly once, in each one's order."""
    writers = [start(WRITE_FIVE, stage.uri, str(number)) for number in (0, 1)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    shared = stage.history(["shared"])
    assert shared["_revision"].to_list() == list(range(1, 11))
    for number in (0, 1):
        mine = [value for value in shared["delay"] if value // 10 == number]
        assert mine == [10.0 * number + step for step in range(5)]
        assert len(stage.revisions([f"own-{number}"])) == 5


@pytest.mark.parametrize("death", list(DEATHS))
def test_a_killed_writer_leaves_a_table_that_reads_and_a_retry_that_lands_once(stage: Stage, death: str) -> None:
    """SIGKILL anywhere in an append leaves all of it or nothing; the retry leaves it once."""
    write = '\nstage.append({"d": draft(1.0), "e": draft(2.0)}, written)\n'
    assert start(DIE + DEATHS[death] + write, stage.uri, "killed").wait(timeout=60) == -9
    assert len(stage.revisions()) == (2 if death == "after the commit" else 0)
    assert stage.read().height == len(stage.revisions())
    stage.append({"d": draft(1.0), "e": draft(2.0)}, written())
    assert [(each.partition, each.number) for each in stage.revisions()] == [("d", 1), ("e", 1)]
    assert stage.read()["delay"].to_list() == [1.0, 2.0]


def test_the_storage_refuses_to_change_what_is_written(stage: Stage) -> None:
    """Deleting, updating and overwriting through deltalake itself are refused: the table is append-only."""
    stage.append({"d": draft(1.0)}, written())
    attempts: Sequence[Callable[[], object]] = [
        lambda: DeltaTable(stage.uri).delete(),
        lambda: DeltaTable(stage.uri).delete("delay > 0"),
        lambda: DeltaTable(stage.uri).update({"delay": "0.0"}),
        lambda: DeltaTable(stage.uri).create_write_transaction([], "overwrite", DeltaTable(stage.uri).schema()),
    ]
    for attempt in attempts:
        with pytest.raises(DeltaError, match="append-only"):
            attempt()
    assert delays(stage, "d") == [1.0]
    assert DeltaTable(stage.uri).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


def test_an_aged_table_still_has_every_revision(stage: Stage) -> None:
    """After the log has passed its retention, a checkpoint, clean-up, compaction and vacuum, all is as it was."""
    inputs = tuple(f"validated/2013-01-{day:02}@1" for day in range(1, 29))
    for hour in range(5):
        stage.append({"d": draft(float(hour), inputs=inputs), "e": draft()}, written(hour, code_version=f"{hour}"))
    stage.append({"d": draft()}, written(5))
    revisions, history = stage.revisions(), stage.history()
    log = Path(stage.uri) / "_delta_log"
    for file in (*log.iterdir(), *Path(stage.uri).rglob("*.parquet")):
        os.utime(file, (0, 0))
    DeltaTable(stage.uri).create_checkpoint()
    DeltaTable(stage.uri).cleanup_metadata()
    assert len(list(log.glob("*.json"))) == 1, "the commits before the checkpoint must be gone for this to be a test"
    DeltaTable(stage.uri).optimize.compact()
    assert DeltaTable(stage.uri).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True) == []
    assert stage.revisions() == revisions
    assert stage.history().equals(history)
    assert stage.append({"d": draft(9.0)}, written(9))["d"].number == 7


def test_a_table_that_something_else_has_rewritten_is_refused(stage: Stage) -> None:
    """Where another writer's optimisation has lost an empty revision, the stage says so instead of counting anew."""
    stage.append({"d": draft(1.0)}, written())
    stage.append({"d": draft()}, written())
    DeltaTable(stage.uri).optimize.z_order(["flight"])
    for rows in (draft(1.0), draft(2.0)):
        with pytest.raises(DataError, match="gone from the log"):
            stage.append({"d": rows}, written())


def test_other_readers_see_the_same_rows(stage: Stage) -> None:
    """Polars and deltalake themselves read rows and provenance, with filters on the partition columns."""
    stage.append({"flight_delay/late": draft(1.0, 2.0), "d": draft(3.0), "e": draft()}, written())
    stage.append({"d": draft(4.0)}, written(1))
    wanted = sorted(stage.history(columns=["delay"]).rows())
    columns = ["delay", "_partition", "_revision", "_known_at"]
    assert sorted(pl.scan_delta(stage.uri).select(columns).collect().rows()) == wanted
    first = pl.scan_delta(stage.uri).filter(pl.col("_partition") == "d", pl.col("_revision") == 1)
    assert first.collect()["delay"].to_list() == [3.0]
    table = DeltaTable(stage.uri).to_pyarrow_table(columns=columns)
    assert sorted(pl.DataFrame(table).rows()) == wanted


def test_provenance_is_text_to_other_readers(stage: Stage) -> None:
    """What is written as one repeated text is read as text, by Polars and by deltalake."""
    told = stage.append({"d": draft(1.0, 2.0)}, written())["d"]
    names = ["_content_hash", "_run_id", "_inputs", "_partition"]
    wanted = [(told.content_hash, "run", "[]", "d")] * 2
    assert pl.scan_delta(stage.uri).select(names).collect().rows() == wanted
    table = DeltaTable(stage.uri).to_pyarrow_table(columns=names)
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == wanted
    assert set(map(str, table.schema.types)) == {"string"}


@FEW_EXAMPLES
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.integers(1, 9),
    st.data(),
)
def test_pinned_partitions_are_read_one_by_one(sizes: list[int], rows_at_once: int, data: st.DataObject) -> None:
    """Each partition gives the rows of its pinned revision, asked in any order and with batches of any size."""
    with TemporaryDirectory() as folder:
        stage = Stage(f"{folder}/base", SCHEMA, name="base", sort_by=["flight"])
        rows = {f"d{number}": [float(number * 10 + row) for row in range(size)] for number, size in enumerate(sizes)}
        stage.append({name: draft(*values) for name, values in rows.items()}, written())
        stage.append({"d0": draft(99.0)}, written(1))
        pinned = stage.pinned(dict.fromkeys(rows, 1), rows_at_once=rows_at_once)
        for name in [*rows, *data.draw(st.permutations(list(rows)))]:
            assert pinned(name)["delay"].to_list() == rows[name]
        assert pinned("never").equals(pl.DataFrame(schema=SCHEMA))


def test_pinned_partitions_are_read_a_batch_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, every file is read once, with its neighbours while these have few rows; a missing revision is named."""
    stage.append({name: draft(1.0, 2.0) for name in "abcde"}, written())
    pinned = stage.pinned(dict.fromkeys("abcde", 1), rows_at_once=4)
    read: list[int] = []
    scan = pl.scan_parquet

    def counted(files: list[str], **how: Any) -> pl.LazyFrame:
        read.append(len(files))
        return scan(files, **how)

    monkeypatch.setattr(pl, "scan_parquet", counted)
    assert [pinned(name).height for name in "abcde"] == [2] * 5
    assert read == [2, 2, 1]
    with pytest.raises(MissingPartition, match="a@2"):
        stage.pinned({"a": 2}, rows_at_once=4)


SORTED_SCHEMA = {"a": pl.Int64(), "b": pl.Float64(), "c": pl.String()}


@settings(parent=FEW_EXAMPLES, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 3),
            st.none() | st.sampled_from([0.0, 1.0, float("nan")]),
            st.none() | st.sampled_from(["", "x"]),
        ),
        max_size=6,
    ),
    st.sampled_from([None, ["a", "b", "c"], ["b", "c"], ["a"]]),
)
@example([(0, 1.0, "x"), (0, 0.0, "x")], None)
@example([(0, 0.0, "x"), (0, 0.0, "")], None)
@example([(1, 0.0, "x"), (0, 1.0, "x"), (0, 1.0, "")], None)
def test_rows_are_sorted_whatever_order_they_come_in(values: list[tuple[object, ...]], came: list[str] | None) -> None:
    """Rows that come in order, or in order but for the first column, are stored as a sort by all columns gives them."""
    rows = pl.DataFrame(values, schema=SORTED_SCHEMA, orient="row")
    given_rows = rows.sort(came) if came else rows
    with TemporaryDirectory() as folder:
        stage = Stage(f"{folder}/base", SORTED_SCHEMA, name="base", sort_by=list(SORTED_SCHEMA))
        stage.append({"d": Draft(rows=given_rows)}, written())
        assert stage.read().equals(rows.sort(list(SORTED_SCHEMA)))


@FEW_EXAMPLES
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), min_size=1, max_size=6))
def test_a_partition_is_any_text(partitions: set[str]) -> None:
    """A slash, an equals sign, a percent sign, `..`, `_delta_log` or any other text names a partition like any word."""
    names = sorted({*partitions, "_delta_log", "..", "a=b", "a%2Fb", "a/b", "a|1", "x" * 300})
    with TemporaryDirectory() as folder:
        stage = Stage(f"{folder}/ledger", SCHEMA, name="ledger")
        stage.append({name: draft(float(number)) for number, name in enumerate(names)}, written())
        DeltaTable(stage.uri).create_checkpoint()
        for number, name in enumerate(names):
            assert delays(stage, name) == [float(number)]
        assert [each.partition for each in stage.revisions()] == names
        assert os.listdir(folder) == ["ledger"]


def test_every_type_that_is_declared_comes_back(tmp_path: Path) -> None:
    """Each type that a stage accepts survives the way to disk and back, nulls included, and deltalake reads it too."""
    rows = pl.DataFrame(
        {
            "text": ["é", None],
            "raw": [b"\0", None],
            "late": [True, None],
            "small": pl.Series([-1, None], dtype=pl.Int8),
            "short": pl.Series([-1, None], dtype=pl.Int16),
            "number": pl.Series([-1, None], dtype=pl.Int32),
            "long": [2**62, None],
            "single": pl.Series([0.5, None], dtype=pl.Float32),
            "double": [float("inf"), None],
            "day": [date(2013, 1, 1), None],
            "local": pl.Series([datetime(2013, 1, 1, 5, 15), None], dtype=pl.Datetime("us")),
            "instant": pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC")),
        }
    )
    stage = Stage(str(tmp_path / "typed"), rows.schema, name="typed")
    stage.append({"d": Draft(rows=rows)}, written())
    assert stage.read().equals(rows) and stage.read().schema == rows.schema
    assert pl.scan_delta(stage.uri).select(rows.columns).collect().equals(rows)


def test_a_column_can_be_added_later(stage: Stage) -> None:
    """A column declared since is null in older revisions; a column that changed its type is refused by name."""
    stage.append({"d": draft(1.0)}, written())
    wider = Stage(stage.uri, {**SCHEMA, "local": pl.Datetime("us")}, name="base", sort_by=["flight"])
    rows = draft(2.0).rows.with_columns(local=datetime(2013, 1, 1))
    wider.append({"d": Draft(rows=rows)}, written(1))
    assert wider.history(columns=["delay", "local"])["local"].to_list() == [None, datetime(2013, 1, 1)]
    assert delays(stage, "d") == [2.0]
    retyped = Stage(stage.uri, {**SCHEMA, "delay": pl.String()}, name="base")
    with pytest.raises(DeclarationError, match="'delay'"):
        retyped.append({"d": Draft(rows=draft(1.0).rows.cast({"delay": pl.String()}))}, written())


def test_rows_that_are_not_as_declared_are_refused_by_column(stage: Stage) -> None:
    """A missing, undeclared or differently typed column is named, and nothing is written."""
    rows = draft(1.0).rows
    for wrong, column in (
        (rows.drop("delay"), "delay"),
        (rows.with_columns(extra=1), "extra"),
        (rows.cast({"flight": pl.Int32}), "flight"),
    ):
        with pytest.raises(DataError, match=f"'{column}'"):
            stage.append({"d": Draft(rows=wrong)}, written())
    with pytest.raises(DataError, match="name"):
        stage.append({"": draft(1.0)}, written())
    with pytest.raises(DeclarationError, match="'nothing'"):
        stage.read(columns=["nothing"])
    assert stage.revisions() == []
    shuffled = stage.append({"d": Draft(rows=rows.select("delay", "flight"))}, written())["d"]
    assert stage.append({"d": Draft(rows=rows)}, written())["d"] == shuffled, "column order is not content"


@pytest.mark.parametrize(
    ("schema", "sort_by", "named"),
    [
        ({"x": pl.UInt8()}, [], "'x'"),
        ({"x": pl.Datetime("ns")}, [], "'x'"),
        ({"x": pl.Datetime("us", "America/New_York")}, [], "'x'"),
        ({"_known_at": pl.String()}, [], "'_known_at'"),
        ({"x": pl.Int64()}, ["y"], "'y'"),
    ],
)
def test_a_schema_that_cannot_be_held_is_refused_when_declared(
    schema: dict[str, pl.DataType], sort_by: list[str], named: str
) -> None:
    """Types that Delta would change on the way, and names of our own columns, are refused at once."""
    with pytest.raises(DeclarationError, match=named):
        Stage("nowhere", schema, name="base", sort_by=sort_by)
