"""Clearing a fact log: what is in `raw` may go, and nobody can tell that it is gone but by the size of the folder."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.column import Column
from mlplatform.domain.source import Stream
from mlplatform.errors import ChangedWhileRead
from mlplatform.features.chain import due, run_chain
from mlplatform.features.landing.clearing import clear_facts
from mlplatform.features.streaming.consumers import open_consumer, positions_file, read_positions
from mlplatform.features.tables import Tables
from mlplatform_tests.fakes.streamed_shop import FIRST, ORDERS, SECOND, SHOP, StreamedShop, orders, streamed_shop
from mlplatform_tests.fakes.synthetic_home import backfill

KEPT = replace(ORDERS, landing=Stream(time="reported_at", keep=timedelta(days=10)))
CLEARED = replace(SHOP, sources=(KEPT,))


@pytest.fixture
def shop(tmp_path: Path) -> StreamedShop:
    """Two days are in the tables, and a third file is being written, three weeks later."""
    made = streamed_shop(tmp_path, CLEARED).at(1, 23)
    made.send("first", orders(FIRST)[:20])
    made.at(2, 1).send("second", pl.concat([orders(FIRST)[20:29], orders(SECOND)]))
    made.at(3, 1)
    backfill(made.platform, [FIRST, SECOND], CLEARED)
    made.at(21).send("late", orders(FIRST)[29:])
    backfill(made.platform, [FIRST, SECOND], CLEARED)
    return made


def files(shop: StreamedShop) -> list[str]:
    """What lies in the folder of the log, by the day in its name and its kind."""
    folder = shop.platform.home / "facts" / "synthetic" / "orders"
    return sorted(f"{path.name[:10]} {path.suffix}" for path in folder.iterdir())


def raw(shop: StreamedShop, day: str) -> tuple[int, pl.DataFrame]:
    """The current revision of a day, and its rows."""
    table = Tables(shop.platform, CLEARED).raw("orders")
    rows = table.read([day])
    return table.current()[day].number, rows.sort(rows.columns)


def test_old_files_go_and_their_days_stay(shop: StreamedShop) -> None:
    """Listed in the same version, read from the table to the same rows, and no more is due; what is written stays."""
    before, due_before = shop.landing.list(), due(shop.platform, CLEARED).version
    of_first = shop.landing.read(FIRST, before[FIRST]).sort("order_id")
    assert clear_facts(shop.platform, CLEARED) > 0
    assert files(shop) == [f"{FIRST} .cleared", f"{SECOND} .cleared", "2024-01-21 .frames"]
    assert shop.landing.list() == before
    assert shop.landing.read(FIRST, before[FIRST]).sort("order_id").equals(of_first)
    assert shop.landing.read(SECOND, before[SECOND]).height == 30
    assert due(shop.platform, CLEARED).version == due_before
    assert clear_facts(shop.platform, CLEARED) == 0


def test_a_run_clears_what_may_go(shop: StreamedShop) -> None:
    """At its end, whatever it computed."""
    for _stage, _outcome in run_chain(shop.platform, CLEARED, [SECOND], run_id="any", only_due=True):
        assert "2024-01-01 .frames" in files(shop)
    assert files(shop) == [f"{FIRST} .cleared", f"{SECOND} .cleared", "2024-01-21 .frames"]


def test_what_comes_afterwards_is_told_apart(shop: StreamedShop) -> None:
    """A cleared event that is sent again is still known; a new one is a correction of all that was there."""
    clear_facts(shop.platform, CLEARED)
    before = shop.landing.list()
    shop.send("first", orders(FIRST)[:20])
    assert shop.landing.list() == before
    new = orders(FIRST, 31)[30:]
    shop.send("new", new)
    assert shop.landing.list()[FIRST] != before[FIRST]
    with pytest.raises(ChangedWhileRead):
        shop.landing.read(FIRST, before[FIRST])
    backfill(shop.platform, [FIRST, SECOND], CLEARED)
    number, rows = raw(shop, FIRST)
    wanted = pl.concat([orders(FIRST), new]).select(rows.columns)
    assert (number, rows.equals(wanted.sort(rows.columns))) == (3, True)
    # The file with the late ones goes as well, once nobody writes it.
    shop.at(22).send("the next file", orders("2024-01-21")[:1])
    assert clear_facts(shop.platform, CLEARED) > 0
    assert files(shop) == [f"{FIRST} .cleared", f"{SECOND} .cleared", "2024-01-22 .frames"]
    again = shop.landing.read(FIRST, shop.landing.list()[FIRST]).select(rows.columns)
    assert again.sort(rows.columns).equals(rows)


def test_another_environment_computes_cleared_days_again(shop: StreamedShop) -> None:
    """After a change of the lock file every day is made anew: from the table, to the same rows."""
    clear_facts(shop.platform, CLEARED)
    number, rows = raw(shop, FIRST)
    other = replace(shop.platform, environment="another lock")
    assert due(other, CLEARED).days == (FIRST, SECOND)
    for _stage, outcome in run_chain(other, CLEARED, [FIRST, SECOND], run_id="again", only_due=True):
        assert not outcome.failed
    assert (due(other, CLEARED).days, raw(shop, FIRST)[0]) == ((), number)
    assert raw(shop, FIRST)[1].equals(rows)


def test_a_column_that_is_declared_later_is_null_in_cleared_days(shop: StreamedShop) -> None:
    """The day is made anew from what the table has, in the columns of the contract of now."""
    clear_facts(shop.platform, CLEARED)
    note = Column(name="note", dtype=pl.String(), nullable=True, meaning="what the courier wrote")
    contract = replace(KEPT.contract, columns=(*KEPT.contract.columns, note))
    wider = replace(CLEARED, sources=(replace(KEPT, contract=contract),))
    for _stage, outcome in run_chain(shop.platform, wider, [FIRST, SECOND], run_id="wider", only_due=True):
        assert not outcome.failed
    rows = Tables(shop.platform, wider).raw("orders").read([FIRST])
    assert (rows.height, rows["note"].null_count()) == (30, 30)


def test_what_is_young_or_not_in_the_table_or_undeclared_stays(tmp_path: Path) -> None:
    """Not before its time, not before its day was materialised as it was sent, and nothing without a declaration."""
    shop = streamed_shop(tmp_path, CLEARED).at(1, 23)
    shop.send("first", orders(FIRST))
    shop.at(2, 1).send("second", orders(SECOND)[:29])
    shop.at(3, 1).send("a fact of the second", orders(SECOND)[29:])
    shop.at(4, 1)
    backfill(shop.platform, [FIRST], CLEARED)
    assert clear_facts(shop.at(11, 23).platform, CLEARED) == 0
    assert clear_facts(shop.at(12).platform, SHOP) == 0
    assert clear_facts(shop.platform, CLEARED) > 0
    assert files(shop) == [f"{FIRST} .cleared", f"{SECOND} .days", f"{SECOND} .frames", "2024-01-03 .frames"]
    assert clear_facts(shop.at(25).platform, CLEARED) == 0
    backfill(shop.platform, [SECOND], CLEARED)
    shop.send("a correction that is not computed yet", orders(SECOND, 31)[30:])
    assert clear_facts(shop.platform, CLEARED) == 0
    backfill(shop.platform, [SECOND], CLEARED)
    assert clear_facts(shop.platform, CLEARED) > 0


def test_no_window_loses_a_fact(tmp_path: Path) -> None:
    """However short a time is declared: the stream makes days of its windows anew from the log."""
    hasty = replace(SHOP, sources=(replace(ORDERS, landing=Stream(time="reported_at", keep=timedelta(0))),))
    shop = streamed_shop(tmp_path, hasty).at(1, 23)
    shop.send("first", orders(FIRST))
    shop.at(2, 1).send("second", orders(SECOND))
    shop.at(3, 1)
    backfill(shop.platform, [FIRST, SECOND], hasty)
    longest = max(view.look_back for view in hasty.views)
    shop.clock.now = datetime(2024, 1, 2, tzinfo=UTC) + longest + timedelta(days=2, seconds=-1)
    assert clear_facts(shop.platform, hasty) == 0
    shop.clock.now += timedelta(seconds=1)
    assert clear_facts(shop.platform, hasty) > 0


def test_a_run_that_dies_in_the_middle_loses_nothing(shop: StreamedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cleared is told before anything is removed; the next run goes on."""
    before = shop.landing.list()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self: (_ for _ in ()).throw(PermissionError(str(self))))
        with pytest.raises(PermissionError):
            clear_facts(shop.platform, CLEARED)
    assert shop.landing.list() == before
    assert shop.landing.read(FIRST, before[FIRST]).height == 30
    assert clear_facts(shop.platform, CLEARED) > 0
    assert shop.landing.list() == before


def test_the_stream_forgets_files_that_are_gone(shop: StreamedShop) -> None:
    """And goes on with those that are there, without giving anything twice."""
    kept = positions_file(shop.platform.home, CLEARED)
    consumer = open_consumer(None, CLEARED, shop.platform.home, shop.clock)
    assert len(consumer.poll(0)["orders"]) == 3
    consumer.acknowledge()
    assert len(read_positions(kept)["orders"]) == 3
    clear_facts(shop.platform, CLEARED)
    consumer = open_consumer(None, CLEARED, shop.platform.home, shop.clock)
    assert consumer.poll(0) == {}
    consumer.acknowledge()
    assert len(read_positions(kept)["orders"]) == 1


@settings(max_examples=10)
@given(data=st.data())
def test_whenever_it_is_cleared_the_tables_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Facts in any order over three weeks, some sent twice, cleared and computed at any time in between."""
    sent = pl.concat([orders(FIRST, 8), orders(SECOND, 8)])
    order, start, day = data.draw(st.permutations(range(sent.height))), 0, 3
    shop = streamed_shop(tmp_path_factory.mktemp("cleared"), CLEARED).at(3)
    earlier: list[tuple[str, pl.DataFrame]] = []
    while start < len(order):
        size = data.draw(st.integers(2, 8))
        earlier.append((f"event {start}", sent[order[start : start + size]]))
        shop.send(*earlier[-1])
        if data.draw(st.booleans()):
            shop.send(*data.draw(st.sampled_from(earlier)))
        start += size
        day = min(day + data.draw(st.integers(0, 9)), 30)
        shop.at(day, 1)
        there = sorted(shop.landing.list())
        if there == [FIRST, SECOND] and data.draw(st.booleans()):
            backfill(shop.platform, there, CLEARED)
        clear_facts(shop.platform, CLEARED)
    shop.at(31)
    backfill(shop.platform, [FIRST, SECOND], CLEARED)
    clear_facts(shop.platform, CLEARED)
    backfill(shop.platform, [FIRST, SECOND], CLEARED)
    for each in (FIRST, SECOND):
        _, rows = raw(shop, each)
        assert rows.equals(orders(each, 8).select(rows.columns).sort(rows.columns))
