"""The point-in-time join against a slow and obvious one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.features.point_in_time import point_in_time_join

INSTANT = pl.Datetime("us", "UTC")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
ENTITIES = {"courier": pl.String(), "district": pl.String(), "at": INSTANT}
FACTS = {
    "courier": pl.String(),
    "district": pl.String(),
    "value": pl.Int64(),
    "event_time": INSTANT,
    "available_at": INSTANT,
    "_revision": pl.Int32(),
}

# Few keys and few instants, so that equal ones and near ones are the rule.
courier = st.sampled_from(["c1", "c2", None])
district = st.sampled_from(["hill", None])
instants = st.integers(0, 12).map(lambda hour: FIRST + timedelta(hours=hour))
asked = st.lists(st.tuples(courier, district, instants), max_size=12)
ttls = st.integers(0, 12).map(lambda hours: timedelta(hours=hours))
facts = st.lists(
    st.tuples(courier, district, st.integers(0, 3) | st.none(), instants, instants, st.integers(1, 3)), max_size=25
)


def obvious(row: Sequence[Any], histories: Sequence[Sequence[Any]], ttl: timedelta) -> tuple[set[int | None], str]:
    """Every value that is right for one entity row (equal facts may be told apart by nothing), and its status."""
    courier, district, at = row
    seen = [
        fact
        for fact in histories
        if None not in (courier, district)
        and tuple(fact[:2]) == (courier, district)
        and fact[3] <= at
        and fact[4] <= at
    ]
    if not seen:
        return {None}, "not_found"
    newest = max((fact[3], fact[5]) for fact in seen)
    if newest[0] < at - ttl:
        return {None}, "expired"
    return {fact[2] for fact in seen if (fact[3], fact[5]) == newest}, "present"


def join(
    rows: Sequence[Sequence[Any]], histories: Sequence[Sequence[Any]], ttl: timedelta, drop: Sequence[str] = ()
) -> pl.DataFrame:
    """The join under test."""
    entities = pl.DataFrame(rows, schema=ENTITIES, orient="row")
    frame = pl.DataFrame(histories, schema=FACTS, orient="row").drop(drop)
    return point_in_time_join(entities, frame, keys=["courier", "district"], values=["value"], ttl=ttl)


@settings(max_examples=150)
@given(asked, facts, ttls)
def test_it_gives_what_could_have_been_known(
    rows: list[Sequence[Any]], histories: list[Sequence[Any]], ttl: timedelta
) -> None:
    """For each entity row, in its place, the newest fact by event time and revision that was available by then."""
    joined = join(rows, histories, ttl)
    assert joined.height == len(rows)
    for row, (value, status) in zip(rows, joined.iter_rows(), strict=True):
        right, expected = obvious(row, histories, ttl)
        assert status == expected, row
        assert value in right, row


@settings(max_examples=50)
@given(asked, facts, ttls, instants)
def test_what_becomes_available_later_changes_no_earlier_answer(
    rows: list[Sequence[Any]], histories: list[Sequence[Any]], ttl: timedelta, now: datetime
) -> None:
    """An answer for an instant is the same whether or not later facts are there."""
    past = [row for row in rows if row[2] <= now]
    distinct = list({(*fact[:2], *fact[3:]): fact for fact in histories}.values())
    known = [fact for fact in distinct if fact[4] <= now]
    assert join(past, distinct, ttl).equals(join(past, known, ttl))


@settings(max_examples=50)
@given(asked, facts, ttls)
def test_facts_without_revisions_are_ordered_by_event_time_alone(
    rows: list[Sequence[Any]], histories: list[Sequence[Any]], ttl: timedelta
) -> None:
    """The column `_revision` may be missing."""
    level = [(*fact[:5], 1) for fact in histories]
    for row, (value, status) in zip(rows, join(rows, level, ttl, drop=["_revision"]).iter_rows(), strict=True):
        right, expected = obvious(row, level, ttl)
        assert (status, value in right) == (expected, True)


def test_the_time_to_live_is_inclusive() -> None:
    """A fact exactly as old as its time to live is there; a microsecond older, and it has expired."""
    at = FIRST + timedelta(days=2)
    history = [("c1", "hill", 7, FIRST, FIRST, 1)]
    row = [("c1", "hill", at)]
    assert join(row, history, timedelta(days=2)).rows() == [(7, "present")]
    assert join(row, history, timedelta(days=2, microseconds=-1)).rows() == [(None, "expired")]


def test_a_fact_without_its_clocks_is_never_seen() -> None:
    """Nobody can say that it was available, so it answers nothing."""
    row = [("c1", "hill", FIRST + timedelta(hours=5))]
    for clocks in ((FIRST, None), (None, FIRST), (None, None)):
        assert join(row, [("c1", "hill", 7, *clocks, 1)], timedelta(days=1)).rows() == [(None, "not_found")]


def test_a_late_correction_is_seen_from_when_it_is_known() -> None:
    """Before it became available the first revision answers, from then on the second."""
    hour = timedelta(hours=1)
    history = [("c1", "hill", 1, FIRST, FIRST + hour, 1), ("c1", "hill", 2, FIRST, FIRST + 5 * hour, 2)]
    rows = [("c1", "hill", FIRST + number * hour) for number in (0, 1, 4, 5)]
    assert join(rows, history, timedelta(days=1))["value"].to_list() == [None, 1, 1, 2]
