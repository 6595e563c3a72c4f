"""The pick-up: each answer reaches the table exactly once, whatever is killed, raced or damaged."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import Unavailable
from mlplatform.monitoring import pickup
from mlplatform.monitoring.pickup import Picked, gaps_table, log_table, pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments, finished
from mlplatform_tests.fakes.answered import DAY, NOON, answered
from mlplatform_tests.fakes.killed import Killed, killed_at
from mlplatform_tests.fakes.s3_endpoint import Held


def log(platform: Platform, *batches: int, first: int = 0, dropped: int = 0, received: int = NOON) -> None:
    """One segment with batches of so many rows, and so many rows that could not be written."""
    segments = Segments(log_folder(platform.home, DOMAIN.name), size=1 << 16, spares=1)
    for rows in batches:
        assert segments.append(encode(answered(rows, first=first, received=[received] * rows)), rows)
        first += rows
    if dropped:
        segments.append(bytes(1 << 17), rows=dropped)
    segments.close()


def logged(platform: Platform) -> list[str]:
    """Request ids in the table, in order of their numbers."""
    rows = pl.read_delta(log_table(platform, DOMAIN), storage_options=dict(platform.storage_options or {}))
    return sorted(rows["request_id"].to_list(), key=lambda each: int(each[1:]))


def lost(platform: Platform) -> int:
    """Rows that the table of gaps counts."""
    rows = pl.read_delta(gaps_table(platform, DOMAIN), storage_options=dict(platform.storage_options or {}))
    return int(rows["rows"].sum())


def numbered(count: int) -> list[str]:
    """`r0` and following."""
    return [f"r{number}" for number in range(count)]


def test_nothing_logged_is_nothing_done(platform: Platform) -> None:
    """No folder, no table."""
    assert pick_up(platform, DOMAIN) == Picked()
    assert not Path(log_table(platform, DOMAIN)).exists()


def test_every_answer_stands_in_the_partition_of_its_day(platform: Platform) -> None:
    """Logged or counted; the segments are gone; again: nothing."""
    log(platform, 3, 2, dropped=4)
    log(platform, 5, first=5, received=NOON + DAY, dropped=1)
    log(platform, dropped=2)
    picked = pick_up(platform, DOMAIN)
    assert picked == Picked(segments=3, rows=10, dropped=7, days={"2024-01-01": 5, "2024-01-02": 5})
    assert logged(platform) == numbered(10)
    assert lost(platform) == 7
    assert finished(log_folder(platform.home, DOMAIN.name)) == []
    assert {each.name for each in Path(log_table(platform, DOMAIN)).iterdir()} >= {"day=2024-01-01", "day=2024-01-02"}
    assert pick_up(platform, DOMAIN) == Picked()
    assert logged(platform) == numbered(10)


def test_a_pick_up_that_is_killed_at_any_line_is_made_good_by_the_next(platform: Platform) -> None:
    """Between commit and unlink, before, after, wherever: no row twice, none lost, none counted twice."""
    line, rows = 0, 0
    while True:
        log(platform, 2, first=rows, dropped=1)
        rows += 2
        line += 1
        try:
            with killed_at(line, pickup):
                pick_up(platform, DOMAIN)
        except Killed:
            pick_up(platform, DOMAIN)
        else:
            break
    assert line > 50
    assert logged(platform) == numbered(rows)
    assert lost(platform) == rows // 2
    assert finished(log_folder(platform.home, DOMAIN.name)) == []


def test_two_pick_ups_at_once_take_each_segment_once(platform: Platform) -> None:
    """One waits for the other."""
    for number in range(12):
        log(platform, 4, first=4 * number)
    with ThreadPoolExecutor(4) as pool:
        picked = list(pool.map(lambda _: pick_up(platform, DOMAIN), range(4)))
    assert sum(each.rows for each in picked) == 48
    assert logged(platform) == numbered(48)


def test_the_table_itself_refuses_a_segment_twice(platform: Platform) -> None:
    """Without the lock, as from two machines: of those who append the same segments, one does."""
    for number in range(6):
        log(platform, 4, first=4 * number, dropped=1)
    segments = [pickup._read(path) for path in finished(log_folder(platform.home, DOMAIN.name))]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: pickup.append(platform, DOMAIN, segments), range(6)))
    assert sorted(map(len, done)) == [0, 0, 0, 0, 0, 6]
    assert logged(platform) == numbered(24)
    assert lost(platform) == 6


def test_a_table_that_is_away_leaves_the_segments(platform: Platform, tmp_path: Path) -> None:
    """The pick-up fails; once the table is there, the next one takes them."""
    log(platform, 3)
    (tmp_path / "place").write_text("a file where a folder should be")
    away = replace(platform, tables=str(tmp_path / "place"))
    with pytest.raises(Unavailable, match="cannot be appended to"):
        pick_up(away, DOMAIN)
    assert pick_up(platform, DOMAIN).rows == 3


def test_what_cannot_be_read_is_set_aside_with_its_reason(platform: Platform) -> None:
    """No segment, or whole frames that hold no answers; the others go through."""
    folder = log_folder(platform.home, DOMAIN.name)
    log(platform, 3)
    segments = Segments(folder, size=1 << 16)
    segments.append(b"whole, but no batch")
    segments.close()
    (folder / "1-1-1.segment").write_bytes(b"garbage")
    picked = pick_up(platform, DOMAIN)
    assert (picked.rows, picked.unreadable) == (3, 2)
    assert logged(platform) == numbered(3)
    aside = folder / "unreadable"
    assert "does not begin like a segment" in (aside / "1-1-1.txt").read_text()
    assert (aside / "1-1-1.segment").read_bytes() == b"garbage"
    assert len(list(aside.iterdir())) == 4
    assert pick_up(platform, DOMAIN) == Picked()


def test_a_damaged_batch_costs_itself_alone_and_is_kept(platform: Platform) -> None:
    """A flipped bit on the disk: the batches after it reach the table too, and the segment is not thrown away."""
    log(platform, 3, 2)
    (path,) = finished(log_folder(platform.home, DOMAIN.name))
    path.write_bytes(path.read_bytes().replace(b"r1", b"q1", 1))
    picked = pick_up(platform, DOMAIN)
    assert (picked.rows, picked.unreadable) == (2, 1)
    assert logged(platform) == ["r3", "r4"]
    aside = path.parent / "unreadable"
    assert "1 of its batches are not as they were written" in (aside / f"{path.stem}.txt").read_text()
    assert (aside / path.name).is_file()
    assert pick_up(platform, DOMAIN) == Picked()


def test_the_table_may_lie_on_s3(platform: Platform, s3: Held) -> None:
    """By the platform's settings alone."""
    away = replace(platform, tables=f"s3://{s3.bucket}/lake", storage_options={"aws_allow_http": "true"})
    log(away, 3, dropped=2)
    assert pick_up(away, DOMAIN).rows == 3
    log(away, 2, first=3)
    assert pick_up(away, DOMAIN).rows == 2
    assert logged(away) == numbered(5)
    assert lost(away) == 2


def test_a_table_of_an_earlier_version_gets_the_columns_that_came_since(platform: Platform) -> None:
    """Nobody has to move a table away after an update; what it held reads null there."""
    log(platform, 2)
    pick_up(platform, DOMAIN)
    table = log_table(platform, DOMAIN)
    earlier = pl.read_delta(table)
    views = pl.element().struct.field("view", "version", "revision", "status")
    old = earlier.drop("reason").with_columns(pl.col("views").list.eval(pl.struct(views)))
    shutil.rmtree(table)
    old.write_delta(table, delta_write_options={"partition_by": ["day"]})
    log(platform, 3, first=2)
    pick_up(platform, DOMAIN)
    rows = pl.read_delta(table).sort("request_id")
    assert logged(platform) == ["r0", "r1", "r2", "r3", "r4"]
    assert dict(rows.schema) == dict(earlier.schema)
    assert rows["views"].list.first().struct.field("version").to_list() == ["v1"] * 5
