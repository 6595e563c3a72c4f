"""Finding a logged answer: wherever it lies, by its id alone, and with a word of what to do where it is not there."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import RemovedByPolicy, UnknownRequest
from mlplatform.features.tombstones import Tombstone, bury
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder, schema
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.reproducibility.replay.find import days_answered, find, find_in_any, sample
from mlplatform_tests.fakes.answered import DAY, NOON, answered
from mlplatform_tests.fakes.s3_endpoint import Held
from mlplatform_tests.fakes.synthetic_home import platform_in


def segments(platform: Platform) -> Segments:
    """A gateway's open segment."""
    return Segments(log_folder(platform.home, DOMAIN.name), size=1 << 16, spares=1)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Three days of ten answers, the last with shadows and with five rows that came as one request."""
    platform = platform_in(tmp_path_factory.mktemp("find"))
    for day in range(3):
        writer = segments(platform)
        came = [NOON + day * DAY + row for row in range(10)]
        names = [f"day{day}-{row}" for row in range(10)]
        assert writer.append(encode(answered(10, request_id=names, received=came)), 10)
        if day == 2:
            shadow = answered(10, request_id=names, received=came, arm=["shadow"] * 10, manifest="other")
            assert writer.append(encode(shadow), 10)
            rows = [f"bulk:{row}" for row in (0, 1, 2, 9, 10)]
            assert writer.append(encode(answered(5, request_id=rows, received=[came[0]] * 5)), 5)
        # A caller that gives every day the same id.
        assert writer.append(encode(answered(1, request_id=["again"], received=came[:1])), 1)
        writer.close()
        pick_up(platform, DOMAIN)
    return platform


def test_an_answer_is_found_by_its_id_alone(logged: Platform) -> None:
    """Of any day, with the row of the shadow behind it, and with its digest."""
    for name, arms in (("day0-3", ["champion"]), ("day2-7", ["champion", "shadow"]), ("bulk:9", ["champion"])):
        rows = find(logged, DOMAIN, name)
        assert (rows["request_id"].unique().to_list(), rows["arm"].to_list()) == ([name], arms)
        assert rows["digest"].null_count() == 0
        assert list(rows.schema) == list(schema)
    assert find(logged, DOMAIN, "day1-0", day="2024-01-02").height == 1


def test_an_id_that_was_given_again_is_that_of_the_newest_day(logged: Platform) -> None:
    """Unless the day is said."""
    assert find(logged, DOMAIN, "again")["received"].dt.date().cast(str).to_list() == ["2024-01-03"]
    assert find(logged, DOMAIN, "again", day="2024-01-01")["received"].dt.day().to_list() == [1]


def test_an_id_that_many_rows_had_later_is_still_found(tmp_path: Path) -> None:
    """The answer of that very id is meant, however new the request of many rows is."""
    platform = platform_in(tmp_path)
    for day, names in enumerate((["asked"], ["asked:0", "asked:1"])):
        writer = segments(platform)
        came = [NOON + day * DAY] * len(names)
        assert writer.append(encode(answered(len(names), request_id=names, received=came)), len(names))
        writer.close()
        pick_up(platform, DOMAIN)
    assert find(platform, DOMAIN, "asked")["received"].dt.day().to_list() == [1]
    with pytest.raises(UnknownRequest, match=r"asked:0 to asked:1$"):
        find(platform, DOMAIN, "asked", day="2024-01-02")


def test_what_no_pick_up_has_taken_is_found(tmp_path: Path) -> None:
    """In a segment that is still written to, in one that is finished, and in the table once it is there."""
    platform = platform_in(tmp_path)
    writer = segments(platform)
    assert writer.append(encode(answered(40)), 40)
    open_row = find(platform, DOMAIN, "r17")
    assert (open_row.height, open_row["digest"].null_count()) == (1, 1)
    with pytest.raises(UnknownRequest):
        find(platform, DOMAIN, "r17", day="2024-01-02")
    writer.close()
    assert find(platform, DOMAIN, "r17").equals(open_row)
    pick_up(platform, DOMAIN)
    # A shadow's row comes a moment later.
    late = segments(platform)
    assert late.append(encode(answered(40, arm=["shadow"] * 40, manifest="other")), 40)
    both = find(platform, DOMAIN, "r17")
    assert (both["arm"].to_list(), both["digest"].is_null().to_list()) == (["champion", "shadow"], [False, True])
    late.close()


def test_what_is_picked_up_this_moment_is_found_once(tmp_path: Path) -> None:
    """In the table and in its segment still: the row is that of the table, with its digest."""
    platform = platform_in(tmp_path)
    writer = segments(platform)
    assert writer.append(encode(answered(3)), 3)
    writer.close()
    (path,) = log_folder(platform.home, DOMAIN.name).glob("*.segment")
    held = path.read_bytes()
    pick_up(platform, DOMAIN)
    path.write_bytes(held)
    rows = find(platform, DOMAIN, "r1")
    assert (rows.height, rows["digest"].null_count()) == (1, 0)


def test_the_log_may_lie_on_s3(platform: Platform, s3: Held) -> None:
    """By the platform's settings alone."""
    away = replace(platform, tables=f"s3://{s3.bucket}/lake", storage_options={"aws_allow_http": "true"})
    for first in (0, 5):
        writer = segments(away)
        assert writer.append(encode(answered(5, first=first)), 5)
        writer.close()
        pick_up(away, DOMAIN)
    assert find(away, DOMAIN, "r7")["request_id"].to_list() == ["r7"]
    assert sample(away, DOMAIN, "2024-01-01", 4).height == 4


def test_a_request_of_many_rows_is_none_of_them(logged: Platform) -> None:
    """The refusal names the first and the last."""
    with pytest.raises(UnknownRequest, match=r"name one, bulk:0 to bulk:10$"):
        find(logged, DOMAIN, "bulk")
    with pytest.raises(UnknownRequest, match=r"bulk:0 to bulk:10$"):
        find_in_any(logged, [DOMAIN], "bulk")


def test_an_unknown_id_is_told_what_to_do(logged: Platform) -> None:
    """Which days there are, and that a day that was given may be the wrong one."""
    with pytest.raises(
        UnknownRequest, match=r"'nobody' in the log of synthetic \(2024-01-01 to 2024-01-03\)\. .*writes"
    ):
        find(logged, DOMAIN, "nobody")
    with pytest.raises(UnknownRequest, match=r"synthetic on 2024-01-01\. Leave --day out"):
        find(logged, DOMAIN, "day2-7", day="2024-01-01")
    assert find_in_any(logged, [DOMAIN], "day2-7")[0] is DOMAIN


def test_a_day_that_was_removed_is_told_as_that(tmp_path: Path) -> None:
    """By which rule and when, where the day is given; that there are such days, where it is not."""
    platform = platform_in(tmp_path)
    gone = Tombstone(
        kind="answers",
        name="2023-01-05",
        content="",
        rows=7,
        policy="answers go after 30 days",
        actor="retention",
        removed_at=datetime(2023, 3, 1, tzinfo=UTC),
    )
    bury(platform, DOMAIN, [gone])
    with pytest.raises(RemovedByPolicy, match="removed by policy on 2023-03-01"):
        find(platform, DOMAIN, "r1", day="2023-01-05")
    with pytest.raises(RemovedByPolicy, match="removed by policy on 2023-03-01"):
        sample(platform, DOMAIN, "2023-01-05", 5)
    with pytest.raises(UnknownRequest, match=r"1 days up to 2023-01-05 were removed by policy"):
        find(platform, DOMAIN, "r1")
    with pytest.raises(UnknownRequest, match=r"of any domain.* 1 days up to 2023-01-05 were removed by policy"):
        find_in_any(platform, [DOMAIN, replace(DOMAIN, name="other")], "r1")


def test_a_sample_holds_what_no_pick_up_has_taken(tmp_path: Path) -> None:
    """The same rows before and after it, and each once where it comes in between."""
    platform = platform_in(tmp_path)
    writer = segments(platform)
    assert writer.append(encode(answered(40)), 40)
    (day,) = days_answered(platform, DOMAIN)
    before = sample(platform, DOMAIN, day, 10)
    assert before["request_id"].n_unique() == before.height == 10
    assert sample(platform, DOMAIN, "2024-01-02", 10).is_empty()
    writer.close()
    pick_up(platform, DOMAIN)
    assert days_answered(platform, DOMAIN) == {day}
    assert sample(platform, DOMAIN, day, 10).drop("digest").equals(before.drop("digest"))


def test_a_sample_is_the_same_each_time(logged: Platform) -> None:
    """So many requests of the day, with their shadows."""
    some, more = sample(logged, DOMAIN, "2024-01-03", 4), sample(logged, DOMAIN, "2024-01-03", 8)
    assert some["request_id"].n_unique() == 4
    assert some.equals(sample(logged, DOMAIN, "2024-01-03", 4))
    assert sample(logged, DOMAIN, "2024-01-03", 1000)["request_id"].n_unique() == 16
    assert sample(logged, DOMAIN, "2024-01-03", 1000).height == 26
    assert more["request_id"].n_unique() == 8
    assert sample(logged, DOMAIN, "2024-02-01", 4).is_empty()
