"""The sample of a night: every kind of answer is met, however rare, and each night looks at others."""

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.pickup import log_files, log_table
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage import sample as coverage_sample
from mlplatform.reproducibility.coverage.coverage import coverage_findings, coverage_of_night, keep_coverage
from mlplatform.reproducibility.coverage.sample import Sample, age_of, draw, parts
from mlplatform_tests.fakes.logged_answers import log_answers

NIGHT = "2024-06-30"
FIRST, SECOND, RARE = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def logged(platform: Platform) -> Platform:
    """Thousands of answers of yesterday, few of long ago, of three versions, with a shadow and an episode of rules."""
    log_answers(platform, NIGHT, 3000, manifest=SECOND)
    log_answers(platform, NIGHT, 40, manifest=SECOND, source="rules")
    log_answers(platform, NIGHT, 500, manifest=FIRST, arm="shadow")
    log_answers(platform, "2024-06-25", 2000, manifest=SECOND)
    log_answers(platform, "2024-05-10", 300, manifest=FIRST)
    log_answers(platform, "2024-01-05", 2, manifest=RARE)
    return platform


def kinds(drawn: Sample, night: str = NIGHT) -> Counter[tuple[str, str, str, str]]:
    """How many of each."""
    rows = drawn.rows.select(pl.col("received").dt.date(), "manifest", "arm", "source").rows()
    return Counter((age_of(day, date.fromisoformat(night)), *kind) for day, *kind in rows)


def test_every_age_version_arm_and_tier_has_its_part(logged: Platform) -> None:
    """What is rare is taken whole; the others share alike, whatever their numbers are."""
    drawn = draw(logged, DOMAIN, NIGHT, 200)
    assert (drawn.rows.height, drawn.kinds, drawn.logged) == (200, 6, 5842)
    found = kinds(drawn)
    assert found.pop(("year", RARE, "champion", "model")) == 2
    assert sorted(found) == [
        ("day", FIRST, "shadow", "model"),
        ("day", SECOND, "champion", "model"),
        ("day", SECOND, "champion", "rules"),
        ("quarter", FIRST, "champion", "model"),
        ("week", SECOND, "champion", "model"),
    ]
    assert set(found.values()) <= {39, 40}


def test_rows_are_those_of_the_log(logged: Platform) -> None:
    """Whole, with every column, and each once."""
    drawn = draw(logged, DOMAIN, NIGHT, 100).rows
    log = pl.scan_delta(log_table(logged, DOMAIN)).collect()
    assert drawn["request_id"].n_unique() == 100
    wanted = log.join(drawn.select("request_id"), on="request_id", how="semi").sort("received", "request_id", "arm")
    columns = [name for name in log.columns if name in drawn.columns]
    assert {"features", "views", "request", "scores"} <= set(columns)
    assert drawn.select(columns).equals(wanted.select(columns))


def test_each_night_draws_others_and_the_same_night_the_same(logged: Platform) -> None:
    """So that a fault of few is met some night, and what was met can be met again."""
    first, again = draw(logged, DOMAIN, NIGHT, 100), draw(logged, DOMAIN, NIGHT, 100)
    assert first.rows.equals(again.rows)
    other = draw(logged, DOMAIN, "2024-07-01", 100)
    common = set(first.rows["request_id"]) & set(other.rows["request_id"])
    assert len(common) < 30


def test_what_came_after_the_night_is_not_looked_at(logged: Platform) -> None:
    """A night that is made up for draws what it would have drawn."""
    drawn = draw(logged, DOMAIN, "2024-06-01", 1000)
    assert drawn.logged == drawn.rows.height == 302
    assert {age for age, *_ in kinds(drawn, "2024-06-01")} == {"month", "year"}


def test_nothing_was_logged(platform: Platform) -> None:
    """No rows, and no failure; the same before the first answer."""
    assert draw(platform, DOMAIN, NIGHT, 10).rows.is_empty()
    log_answers(platform, NIGHT, 3)
    found = draw(platform, DOMAIN, "2024-06-29", 10)
    assert (found.rows.height, found.logged, found.kinds) == (0, 0, 0)


@pytest.mark.parametrize("damage", ["short", "gone", "features"])
def test_a_file_that_cannot_be_read_costs_its_rows_alone(logged: Platform, damage: str) -> None:
    """They are drawn as others are, and cannot be given again; the file is named, though its ids may be readable."""
    (path,) = (each for each in _files(logged) if "2024-05-10" in str(each))
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        _spoil(path, "features")
    drawn = draw(logged, DOMAIN, NIGHT, 200)
    assert (drawn.rows.height + len(drawn.lost), drawn.kinds, drawn.logged) == (200, 6, 5842)
    assert ("quarter", FIRST, "champion", "model") not in kinds(drawn)
    assert len(drawn.lost) in (39, 40)
    for each in drawn.lost:
        assert (each.model, each.manifest, each.arm, each.source) == ("late_order", FIRST, "champion", "model")
        assert each.received.date() == date(2024, 5, 10)
        assert (each.verdict.outcome, each.verdict.cause) == ("impossible", "record")
        assert path.name in each.verdict.reason
    assert len({each.request_id for each in drawn.lost}) == len(drawn.lost)


def test_a_day_that_is_removed_meanwhile_is_left_out(logged: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed, and is no more when it is to be read: nothing is missing."""
    listed = [log_files(logged, DOMAIN, datetime(2000, 1, 1, tzinfo=UTC))]
    listed.append(listed[0].filter(~pl.col("path").str.contains("2024-05-10")))
    (path,) = (each for each in _files(logged) if "2024-05-10" in str(each))
    path.unlink()
    monkeypatch.setattr(coverage_sample, "log_files", lambda *_: listed.pop(0) if len(listed) > 1 else listed[0])
    drawn = draw(logged, DOMAIN, NIGHT, 200)
    assert (drawn.rows.height, drawn.lost, drawn.kinds) == (200, (), 5)


def test_a_log_of_damaged_files_alone(platform: Platform) -> None:
    """Nothing can be given again, and the night says so."""
    log_answers(platform, NIGHT, 3)
    (path,) = _files(platform)
    path.unlink()
    drawn = draw(platform, DOMAIN, NIGHT, 10)
    assert (drawn.rows.height, len(drawn.lost)) == (0, 3)
    found = coverage_of_night(platform, DOMAIN, NIGHT)
    assert (found.all.impossible, found.all.share, found.all.cause) == (3, 0.0, "record")
    keep_coverage(platform, DOMAIN, found, run_id="run")
    (summary,) = (each.summary for each in coverage_findings(DOMAIN, found))
    assert path.name in summary


def _files(platform: Platform) -> list[Path]:
    """Of the log."""
    return sorted(Path(log_table(platform, DOMAIN)).rglob("*.parquet"))


def _spoil(path: Path, column: str) -> None:
    """Overwrite the pages of a column; what else the file holds is read as before."""
    of_file = pq.ParquetFile(path).metadata.row_group(0)
    (chunk,) = (
        each for each in map(of_file.column, range(of_file.num_columns)) if each.path_in_schema.split(".")[0] == column
    )
    start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = bytes([255]) * chunk.total_compressed_size
    path.write_bytes(content)


def test_a_long_log_is_not_read_whole(platform: Platform) -> None:
    """Of many files of one kind some are opened, and each night others."""
    for minute in range(24):
        log_answers(platform, NIGHT, 5, name=str(minute))
    files = list(Path(log_table(platform, DOMAIN)).rglob("*.parquet"))
    assert len(files) == 24
    drawn = [draw(platform, DOMAIN, NIGHT, 20).rows, draw(platform, DOMAIN, "2024-07-01", 20).rows]
    met = [{name.rsplit("-", 1)[0] for name in each["request_id"]} for each in drawn]
    assert all(1 < len(each) <= 8 for each in met) and met[0] != met[1]


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200))
def test_parts_are_fair(sizes: list[int], at_most: int) -> None:
    """All that may be taken is taken; nothing has more than it is, or more than another that has some left."""
    taken = parts(sizes, at_most)
    assert sum(taken) == min(at_most, sum(sizes))
    assert all(0 <= one <= size for one, size in zip(taken, sizes, strict=True))
    left = [one for one, size in zip(taken, sizes, strict=True) if one < size]
    assert not left or max(taken) <= min(left) + 1
