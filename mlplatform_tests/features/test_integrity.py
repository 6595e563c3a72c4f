"""Integrity: a revision's file that is not what was written is found, and it is told what became of it.

Files of before have no hash of their bytes in their names: `aged` makes such a table.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest

from mlplatform.features.integrity import altered
from mlplatform.features.removal import remove_revisions
from mlplatform.features.revision_files import promised_bytes
from mlplatform.features.stage import Draft, Revision, Stage, Written

KNOWN = datetime(2024, 1, 2, tzinfo=UTC)


def table(folder: Path, **more: pl.DataType) -> Stage:
    """A small one."""
    return Stage(str(folder / "table"), {"key": pl.String(), "value": pl.Float64(), **more}, name="shop/raw/orders")


def written(at: datetime = KNOWN) -> Written:
    """By a run."""
    return Written(run_id="run", code_version="code", environment="lock", known_at=at)


def rows(*values: float | None) -> Draft:
    """Some."""
    held = {"key": [f"k{each}" for each in values], "value": values}
    return Draft(rows=pl.DataFrame(held, schema={"key": pl.String, "value": pl.Float64}))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Two days, one of them corrected, one empty."""
    made = table(tmp_path)
    made.append({"a": rows(1.0, None, float("nan")), "b": rows()}, written())
    made.append({"a": rows(2.0)}, written())
    return made


def test_files_are_read_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store takes its time for each: here none is given before four are asked for."""
    made = table(tmp_path)
    made.append({day: rows(float(place)) for place, day in enumerate("abcdefgh")}, written())
    together, read = Barrier(4, timeout=10), Stage.content

    def content(self: Stage, revision: Revision) -> bytes:
        together.wait()
        return read(self, revision)

    monkeypatch.setattr(Stage, "content", content)
    held = made.revisions()
    flipped = Path(made.address(held[5]))
    flipped.write_bytes(flipped.read_bytes()[::-1])
    assert list(altered(made, held)) == [("f", 1)]


@pytest.fixture
def aged(stage: Stage) -> Stage:
    """The same, as it was written before files were named by their bytes."""
    for commit in sorted((Path(stage.uri) / "_delta_log").glob("*.json")):
        text = commit.read_text()
        for each in stage.revisions():
            text = text.replace(each.path, older(each.path))
        commit.write_text(text)
    for path in sorted(Path(stage.uri).glob("*/*.parquet")):
        path.rename(older(str(path)))
    assert all(promised_bytes(each.path) == "" for each in stage.revisions())
    return stage


def older(path: str) -> str:
    """The name that a file would have had."""
    return path.rpartition("-")[0] + ".parquet"


def path_of(stage: Stage, revision: Revision) -> Path:
    """Its file."""
    return Path(stage.address(revision))


def test_what_was_written_is_whole(stage: Stage) -> None:
    """Nulls, NaN and no rows at all included."""
    assert len(stage.revisions()) == 3
    assert altered(stage, stage.revisions()) == {}


def test_an_older_file_that_was_written_again_with_the_same_rows_is_whole(aged: Stage) -> None:
    """Of it nothing but content was promised: another compression is no fault."""
    first = aged.revisions()[0]
    pl.read_parquet(path_of(aged, first)).write_parquet(path_of(aged, first), compression="snappy")
    assert altered(aged, aged.revisions()) == {}


@pytest.mark.parametrize("kind", ["stage", "aged"])
def test_a_file_is_looked_at_by_its_own_columns(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A column that was declared since, or is no longer, is none of its business."""
    request.getfixturevalue(kind)
    wider = table(tmp_path, since=pl.Int64())
    assert altered(wider, wider.revisions()) == {}
    wider.append({"a": Draft(rows=pl.DataFrame({"key": ["k"], "value": [1.0], "since": [3]}))}, written())
    assert altered(wider, wider.revisions()) == {}
    assert len(wider.revisions()) == 4
    assert altered(table(tmp_path), wider.revisions()) == {}


def test_a_revision_that_was_removed_by_policy_is_no_fault(stage: Stage) -> None:
    """Its file says so, and holds no rows."""
    assert remove_revisions(stage, {("a", 1): "it was removed"}) == 1
    assert altered(stage, stage.revisions()) == {}


def test_a_file_that_is_gone_is_named(stage: Stage) -> None:
    """The others are whole."""
    first = stage.revisions()[0]
    path_of(stage, first).unlink()
    (told,) = altered(stage, stage.revisions()).items()
    assert told[0] == ("a", 1) and "is gone" in told[1] and first.path in told[1]


def test_any_bit_that_is_turned_over_is_found(stage: Stage) -> None:
    """Wherever it lies, by the hash in the name; nothing of the file is read."""
    first = stage.revisions()[0]
    whole = path_of(stage, first).read_bytes()
    for place in range(0, len(whole), 97):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path_of(stage, first).write_bytes(content)
        assert set(altered(stage, stage.revisions())) == {("a", 1)}
    path_of(stage, first).write_bytes(whole)
    assert altered(stage, stage.revisions()) == {}


def test_an_older_file_that_cannot_be_read_is_told(aged: Stage) -> None:
    """Cut off, it is no Parquet any more."""
    first = aged.revisions()[0]
    path_of(aged, first).write_bytes(path_of(aged, first).read_bytes()[:-50])
    assert "cannot be read" in altered(aged, aged.revisions())["a", 1]


def changed(stage: Stage, revision: Revision, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Write a file anew."""
    held = change(stage.file(revision))
    held.write_parquet(path_of(stage, revision))


def test_other_rows_are_told_from_fewer(aged: Stage) -> None:
    """By the content, and by the count."""
    first = aged.revisions()[0]
    changed(aged, first, lambda held: held.with_columns(value=pl.col("value") + 1))
    assert "other content" in altered(aged, aged.revisions())["a", 1]
    changed(aged, first, lambda held: held.head(1))
    assert "holds 1 rows" in altered(aged, aged.revisions())["a", 1]


def test_a_file_that_contradicts_its_log_by_itself_is_told(aged: Stage) -> None:
    """What it says of itself is another, though its rows are right."""
    first = aged.revisions()[0]
    changed(aged, first, lambda held: held.with_columns(_code_version=pl.lit("other")))
    assert "code_version other of itself" in altered(aged, aged.revisions())["a", 1]


@pytest.mark.parametrize("column", ["_content_hash", "_known_at"])
def test_a_log_that_was_altered_is_told_from_a_file(stage: Stage, column: str) -> None:
    """The file agrees with itself: it is the log that says something else."""
    first = stage.revisions()[0]
    (commit,) = [path for path in (Path(stage.uri) / "_delta_log").glob("*.json") if first.path in path.read_text()]
    lines = [json.loads(line) for line in commit.read_text().splitlines()]
    for line in lines:
        if line.get("add", {}).get("path") == first.path:
            stats = json.loads(line["add"]["stats"])
            other = "0" * 32 if column == "_content_hash" else "2024-01-01T00:00:00.000000Z"
            stats["minValues"][column] = stats["maxValues"][column] = other
            line["add"]["stats"] = json.dumps(stats)
    commit.write_text("\n".join(map(json.dumps, lines)))
    told = altered(stage, stage.revisions())["a", 1]
    assert "the log was altered" in told and (column == "_content_hash" or "known_at" in told)


def test_a_file_that_was_found_whole_is_looked_at_again_once_it_was_touched(stage: Stage) -> None:
    """Damage after the first look is found too, and so is a file that was put back."""
    first = stage.revisions()[0]
    assert altered(stage, [first]) == {}
    content = path_of(stage, first).read_bytes()
    changed(stage, first, lambda held: held.with_columns(value=pl.col("value") + 1))
    assert altered(stage, [first])
    path_of(stage, first).write_bytes(content)
    assert altered(stage, [first]) == {}
