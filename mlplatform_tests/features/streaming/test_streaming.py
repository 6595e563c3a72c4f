"""Streaming: what is served follows the facts at once, and is to the bit what the tables give when the day is over."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive, Daily
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError, Unavailable
from mlplatform.features.checks import streamed_check, streamed_evaluations
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.online.publish import publish_values
from mlplatform.features.online.store import OnlineStore, ViewRecord
from mlplatform.features.streaming.check import compare_streamed
from mlplatform.features.streaming.fact_log import FactWriter, fact_folder
from mlplatform.features.streaming.record import values_record
from mlplatform.features.streaming.within_day import assumed_delay, history_within, values_at
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform_tests.fakes.streamed_shop import (
    FIRST,
    FOURTH,
    ORDERS,
    SECOND,
    SHOP,
    THIRD,
    StreamedShop,
    equal,
    expected,
    orders,
    streamed_shop,
)
from mlplatform_tests.fakes.synthetic_home import backfill
from mlplatform_tests.fakes.waiting import until

COURIER = SHOP.views[0]


@pytest.fixture
def shop(tmp_path: Path) -> StreamedShop:
    """Two days are in the tables, it is the third, and nothing of it has come."""
    made = streamed_shop(tmp_path)
    made.send("first", orders(FIRST))
    made.at(2, 1).send("second", orders(SECOND))
    made.at(3, 1)
    backfill(made.platform, [FIRST, SECOND], SHOP)
    return made


def sent_so_far(shop: StreamedShop, *parts: pl.DataFrame) -> pl.DataFrame:
    """The orders of the first two days and some more."""
    return pl.concat([orders(FIRST), orders(SECOND), *parts])


def calls(domain: Domain, function: Callable[[pl.DataFrame, datetime], pl.DataFrame]) -> Domain:
    """The domain with another function behind its couriers."""
    views = (replace(view, function=function) if view.name == "courier" else view for view in domain.views)
    return replace(domain, views=tuple(views))


def test_what_is_served_follows_the_facts(shop: StreamedShop) -> None:
    """A start publishes what is there; each fact then moves its own entities, and nobody else."""
    streaming = shop.streaming()
    assert streaming.step(0) == 13
    assert equal(shop.served(), expected(sent_so_far(shop), shop.clock()))
    third = orders(THIRD)
    shop.at(3, 23).send("one", third[:1])
    before = shop.served()
    assert streaming.step(0) == 2
    now = shop.served()
    (courier,) = third[:1]["courier"]
    assert now[courier] == expected(sent_so_far(shop, third[:1]), shop.clock())[courier] != before[courier]
    assert {key: values for key, values in now.items() if key != courier} == {
        key: values for key, values in before.items() if key != courier
    }
    assert streaming.step(0) == 0


@settings(max_examples=15)
@given(data=st.data())
def test_any_order_and_size_of_arrivals_gives_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Late, early, twice, in pieces of any size, with restarts in between: what counts is which facts are there."""
    sent = pl.concat([orders(FIRST, 12), orders(SECOND, 12)])
    order = data.draw(st.permutations(range(sent.height)))
    shop = streamed_shop(tmp_path_factory.mktemp("streamed")).at(2, 23, 59, 50)
    # A day of the window must be there before anything is published.
    shop.send("begin", orders(FIRST, 12)[:1])
    streaming = shop.streaming()
    start = 0
    while start < len(order):
        size = data.draw(st.integers(1, 10))
        for _ in range(data.draw(st.integers(1, 2))):
            shop.send(f"event {start}", sent[order[start : start + size]])
        start += size
        if data.draw(st.booleans()):
            streaming.step(0)
            shop.clock.now += timedelta(milliseconds=100)
        if data.draw(st.integers(0, 4)) == 0:
            streaming = shop.streaming()
    streaming.step(0)
    shop.clock.now += timedelta(milliseconds=100)
    for view in ("courier", "district"):
        assert equal(shop.served(view), expected(sent, shop.clock(), view))


def test_what_was_streamed_is_what_the_tables_give(shop: StreamedShop) -> None:
    """Every instant of the day, with a late fact and a restart in between; one wrong bit is found, by name."""
    third = orders(THIRD).sort("reported_at")
    late, on_time = third[4:5], pl.concat([third[:4], third[5:]])
    streaming = shop.streaming()
    streaming.step(0)
    for start in range(0, on_time.height, 4):
        part = on_time[start : start + 4]
        shop.clock.now = max(part["reported_at"].to_list()) + timedelta(seconds=1)
        shop.send(f"part {start}", part)
        if start == 16:
            shop.send("late", late)
            streaming = shop.streaming()
        streaming.step(0)
    shop.at(4, 1)
    backfill(shop.platform, [THIRD], SHOP)
    compared = compare_streamed(shop.platform, SHOP, THIRD)
    assert (compared.instants, compared.differences) == (18, ())
    assert compared.values > 100
    # The table's own rows within the day are what was recorded.
    rows = Tables(shop.platform, SHOP).features(COURIER).read([THIRD])
    assert rows.filter(pl.col("available_at") < datetime(2024, 1, 4, 1, tzinfo=UTC)).height > 20
    other = calls(SHOP, slightly_other)
    views = shop.platform.home / "streamed" / "synthetic" / "views"
    ours, theirs = (f"courier@{view_version(SHOP, each.views[0])}" for each in (SHOP, other))
    shutil.copytree(views / ours, views / theirs)
    forged = compare_streamed(shop.platform, other, THIRD)
    assert {(each.view, each.feature, each.entity) for each in forged.differences} == {
        ("courier", "courier_late_share_3d", "c3")
    }
    assert "courier: courier_late_share_3d of c3 at 2024-01-03T" in str(forged.differences[0])
    checked = [next(iter(streamed_evaluations(shop.platform, each, [THIRD]))) for each in (SHOP, other)]
    assert [(each.passed, each.partition) for each in checked] == [(True, THIRD), (False, THIRD)]
    assert "courier_late_share_3d of c3 at 2024-01-03T" in str(checked[1].description)
    assert (len(streamed_check(SHOP)), streamed_check(DOMAIN)) == (1, [])


def slightly_other(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """One feature of one courier, one bit off."""
    late = pl.col("courier_late_share_3d")
    off = pl.when(pl.col("courier") == "c3").then(late + 2**-24).otherwise(late).cast(pl.Float32)
    return COURIER.function(facts, at).with_columns(off.alias("courier_late_share_3d"))


def test_history_and_stream_are_one_function(shop: StreamedShop) -> None:
    """Where nobody recorded arrivals, each instant of the cadence has the values of those with new facts since."""
    facts = (
        Tables(shop.platform, SHOP).facts("deliveries").read([FIRST, SECOND]).drop("available_at").sort("event_time")
    )
    end = datetime(2024, 1, 3, tzinfo=UTC)
    found = history_within(COURIER, facts, end)
    for hour in range(1, 25):
        at = end - timedelta(days=1) + timedelta(hours=hour)
        new = facts.filter(pl.col("event_time").is_between(at - timedelta(hours=1), at, closed="left"))
        rows = found.filter(pl.col("event_time") == at)
        assert set(rows["courier"]) == set(new["courier"])
        assert (rows["available_at"] == at + assumed_delay).all()
        wanted = values_at(COURIER, facts.sample(fraction=1, shuffle=True, seed=hour), rows.select("courier"), at)
        assert rows.drop("available_at").equals(wanted)


def test_the_historical_join_honours_the_schedule(tmp_path: Path) -> None:
    """The same facts: a daily view knows yesterday's at noon, one that follows facts this morning's too."""
    at = datetime(2024, 1, 2, 12, tzinfo=UTC)
    asked = pl.DataFrame({"courier": ["c1"], "at": [at]}, schema_overrides={"at": pl.Datetime("us", "UTC")})
    found = {}
    for schedule in (Daily(), AsFactsArrive(every=timedelta(hours=1))):
        views = tuple(replace(view, schedule=schedule) for view in SHOP.views)
        domain = replace(SHOP, views=views)
        shop = streamed_shop(tmp_path / type(schedule).__name__, domain)
        shop.send("both", pl.concat([orders(FIRST), orders(SECOND)]))
        shop.at(4, 1)
        backfill(shop.platform, [FIRST, SECOND], domain)
        told = FeatureStore(shop.platform, domain).get_historical_features(asked, ["courier:courier_deliveries_3d"])
        found[type(schedule)] = told["courier_deliveries_3d"][0]
    both = pl.concat([orders(FIRST), orders(SECOND)]).filter(courier="c1")
    # Of this morning's, those known by the last full hour with news of this courier.
    assert found[Daily] == orders(FIRST).filter(courier="c1").height
    assert found[AsFactsArrive] == both.filter(pl.col("reported_at") < at).height > found[Daily]


def test_the_schedule_is_part_of_the_version() -> None:
    """A cadence that changes is another view; one that does not part a day is none."""
    versions = {
        view_version(DOMAIN, replace(DOMAIN.views[0], schedule=schedule))
        for schedule in (Daily(), AsFactsArrive(every=timedelta(hours=1)), AsFactsArrive(every=timedelta(minutes=15)))
    }
    assert len(versions) == 3
    for every in (timedelta(0), timedelta(hours=7), timedelta(days=2)):
        with pytest.raises(DeclarationError, match="does not part a day evenly"):
            AsFactsArrive(every=every)


def test_a_request_of_the_day_is_told_what_it_was_served(shop: StreamedShop) -> None:
    """As known then: each answer of the store within the day, also though the day was computed after it."""
    streaming = shop.streaming()
    streaming.step(0)
    publish_values(shop.platform, SHOP)
    third = orders(THIRD).sort("reported_at")
    asked: list[tuple[str, datetime]] = []
    served = []
    for row in range(0, 30, 5):
        shop.clock.now = third["reported_at"][row + 4] + timedelta(seconds=10)
        shop.send(f"part {row}", third[row : row + 5])
        streaming.step(0)
        for after in (timedelta(milliseconds=20), timedelta(minutes=1)):
            found = shop.served(at=shop.clock() + after)
            asked += [(courier, shop.clock() + after) for courier in found]
            served += list(found.values())
    shop.at(4, 1)
    backfill(shop.platform, [THIRD], SHOP)
    requests = pl.DataFrame(asked, schema={"courier": pl.String(), "at": pl.Datetime("us", "UTC")}, orient="row")
    live = replace(SHOP, history_until=None)
    for known_by in ("then", None):
        told = FeatureStore(shop.platform, live).get_historical_features(requests, ["courier:*"], known_by=known_by)
        names = [feature.name for feature in COURIER.features]
        assert told.select(names).rows() == served


def test_a_fact_of_the_future_is_held_until_its_time(shop: StreamedShop) -> None:
    """A sender whose clock is an hour ahead changes nothing sooner than its clock says."""
    streaming = shop.streaming()
    streaming.step(0)
    before = shop.served()
    fact = orders(THIRD)[10:11]
    (courier,), (when,) = fact["courier"], fact["reported_at"]
    shop.clock.now = when - timedelta(hours=1)
    shop.send("ahead", fact)
    assert (streaming.step(0), streaming.held) == (0, 1)
    assert shop.served(at=shop.clock())[courier] == before[courier]
    # Also where the stream was restarted meanwhile.
    streaming = shop.streaming()
    assert streaming.held == 1
    shop.clock.now = when + timedelta(microseconds=1)
    assert (streaming.step(0), streaming.held) == (2, 0)
    assert shop.served()[courier] != before[courier]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_gateway_whose_clock_is_an_hour_off_loses_nothing(shop: StreamedShop, hours: int) -> None:
    """Its files bear another hour, over midnight another day; what counts is what the facts say and when they come."""
    streaming = shop.streaming()
    streaming.step(0)
    third = orders(THIRD).sort("reported_at")
    clocks_differ = timedelta(hours=hours)
    gateway = FactWriter(fact_folder(shop.platform.home, "synthetic", "orders"), lambda: shop.clock.now + clocks_differ)
    for row, restart in ((0, False), (10, True), (20, False)):
        part = third[row : row + 10]
        shop.clock.now = max(*part["reported_at"], shop.clock.now) + timedelta(seconds=1)
        gateway.append(f"part {row}", part)
        if restart:
            streaming = shop.streaming()
        streaming.step(0)
        now = expected(sent_so_far(shop, third[: row + 10]), shop.clock())
        served = shop.served()
        assert {key: served[key] for key in part["courier"]} == {key: now[key] for key in part["courier"]}
    shop.at(4, 0, 30)
    gateway.append("past midnight", orders(FOURTH)[:1])
    shop.at(4, 2)
    backfill(shop.platform, [THIRD], SHOP)
    assert Tables(shop.platform, SHOP).raw("orders").read([THIRD]).height == 30
    assert compare_streamed(shop.platform, SHOP, THIRD).differences == ()


@pytest.mark.parametrize("restart", [False, True])
def test_a_stream_whose_clock_was_an_hour_ahead_gets_right_again(shop: StreamedShop, restart: bool) -> None:
    """With the right time, what it serves follows the facts: at once, and when the wrong hour has passed too."""
    third = orders(THIRD).sort("reported_at")
    early, meanwhile = third[:14], third[14:15]
    (courier,) = meanwhile["courier"]
    begun = early["reported_at"][-1] + timedelta(seconds=1)
    ahead = meanwhile["reported_at"][0] + timedelta(hours=1)
    shop.clock.now = ahead
    shop.send("early", early)
    streaming = shop.streaming()
    streaming.step(0)
    shop.clock.now = begun
    for _ in range(2):
        streaming = shop.streaming() if restart else streaming
        streaming.step(0)
    shop.clock.now = meanwhile["reported_at"][0] + timedelta(seconds=1)
    shop.send("meanwhile", meanwhile)
    streaming.step(0)
    sent = sent_so_far(shop, early, meanwhile)
    for at in (shop.clock(), ahead + timedelta(seconds=1)):
        shop.clock.now = at
        streaming.step(0)
        assert shop.served()[courier] == expected(sent, at)[courier]


def test_a_value_is_held_back_until_it_counts_as_available(shop: StreamedShop) -> None:
    """What the record says was available is what a request at that instant was served, to the microsecond."""
    streaming = shop.streaming()
    streaming.step(0)
    shop.at(3, 12).send("morning", orders(THIRD).filter(pl.col("reported_at") < datetime(2024, 1, 3, 12, tzinfo=UTC)))
    before = shop.served()
    streaming.step(0)
    day = shop.clock().date()
    record = values_record(shop.platform.home, SHOP, COURIER, shop.clock).rows(day, day)
    last = record.filter(pl.col("_instant") == record["_instant"].max())
    (available,) = last["available_at"].unique()
    for row in last.iter_rows(named=True):
        values = tuple(row[feature.name] for feature in COURIER.features)
        assert shop.served(at=available)[row["courier"]] == values
        assert shop.served(at=available - timedelta(microseconds=1))[row["courier"]] == before[row["courier"]]


def test_one_entity_on_which_a_function_raises_costs_the_others_nothing(
    shop: StreamedShop, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and told once, with its name, and the other views go on."""

    def raising(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
        if "c5" in facts["courier"]:
            raise ZeroDivisionError("c5 again")
        return COURIER.function(facts, at)

    broken = replace(shop, domain=calls(SHOP, raising))
    streaming = broken.streaming()
    with caplog.at_level(logging.WARNING):
        assert streaming.step(0) == 12
        shop.at(3, 20).send("more", orders(THIRD).filter(courier="c5")[:1])
        streaming.step(0)
    assert streaming.failed == 2
    assert [each.message.count("c5 again") for each in caplog.records if "c5" in each.message] == [1]
    wanted = expected(sent_so_far(shop), datetime(2024, 1, 3, 1, tzinfo=UTC))
    assert equal(shop.served(), {key: values for key, values in wanted.items() if key != "c5"})


def test_a_window_that_lacks_a_day_is_not_computed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It waits and says for what, as the tables do; when the day is there, it goes on."""
    shop = streamed_shop(tmp_path).at(3, 12)
    shop.send("first", orders(FIRST))
    streaming = shop.streaming()
    shop.send("third", orders(THIRD)[:9])
    with caplog.at_level(logging.WARNING):
        assert streaming.step(0) == 0
    assert "synthetic/courier waits for 2024-01-02, which its window needs" in caplog.text
    shop.send("second", orders(SECOND))
    assert streaming.step(0) > 0


def test_what_waits_for_a_day_is_not_forgotten_by_a_restart(tmp_path: Path) -> None:
    """Facts that were taken in while a window lacked a day: their entities are published when it is there."""
    shop = streamed_shop(tmp_path).at(3, 12)
    shop.send("first", orders(FIRST))
    assert shop.streaming().step(0) == 0
    shop.send("second", orders(SECOND)[:1])
    shop.streaming().step(0)
    assert equal(shop.served(), expected(pl.concat([orders(FIRST), orders(SECOND)[:1]]), shop.clock()))


class Away:
    """A store that is away while it is told to be."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self.away = False

    def put(self, view: ViewRecord, rows: pl.DataFrame, *, content: str | None, now: datetime) -> int:
        """Not while it is away."""
        if self.away:
            raise Unavailable("the store is away")
        return self._store.put(view, rows, content=content, now=now)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_a_store_that_is_away_gets_what_it_missed(shop: StreamedShop) -> None:
    """Nothing is acknowledged meanwhile; also a stream that is started anew publishes it."""
    store = Away(shop.store)
    streaming = shop.streaming(store)  # type: ignore[arg-type]
    streaming.step(0)
    third = orders(THIRD)
    for number, restart in enumerate((False, True)):
        store.away = True
        part = third[number * 10 : number * 10 + 10]
        shop.at(3, 23, number).send(f"part {number}", part)
        assert streaming.step(0) == 0
        shop.clock.now += timedelta(seconds=1)
        store.away = False
        if restart:
            streaming = shop.streaming(store)  # type: ignore[arg-type]
        assert streaming.step(0) > 0
        now = expected(sent_so_far(shop, third[: number * 10 + 10]), shop.clock())
        touched = set(part["courier"])
        served = shop.served()
        assert {key: served[key] for key in touched} == {key: now[key] for key in touched}


def test_a_record_that_cannot_be_written_holds_back_what_it_lacks(shop: StreamedShop) -> None:
    """Nothing is served of facts whose arrival is not on record; when there is room, all of it is."""
    streaming = shop.streaming()
    streaming.step(0)
    before = shop.served()
    place = shop.platform.home / "streamed" / "synthetic" / "facts" / "deliveries"
    shop.at(4, 0, 1).send("third", orders(THIRD))
    place.rename(place.with_name("away"))
    place.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        streaming.step(0)
    assert shop.served() == before
    place.unlink()
    place.with_name("away").rename(place)
    assert streaming.step(0) == 13
    wanted = expected(sent_so_far(shop, orders(THIRD)), shop.clock())
    assert equal(shop.served(), wanted)
    shop.at(4, 1)
    backfill(shop.platform, [THIRD], SHOP)
    assert compare_streamed(shop.platform, SHOP, THIRD).differences == ()


def test_a_rebuild_of_the_store_loses_nothing_of_today(shop: StreamedShop) -> None:
    """The tables do not have it yet; the record has."""
    streaming = shop.streaming()
    streaming.step(0)
    shop.at(3, 22).send("today", orders(THIRD).filter(pl.col("reported_at") < datetime(2024, 1, 3, 22, tzinfo=UTC)))
    streaming.step(0)
    before = shop.served()
    publish_values(shop.platform, SHOP, full=True)
    assert shop.served() != before
    shop.clock.now += timedelta(seconds=10)
    streaming.step(0)
    assert shop.served() == before


def test_the_day_after_takes_over_without_a_jump(shop: StreamedShop) -> None:
    """Published by the tables, the day's values are the streamed ones; those of new facts stand above them."""
    streaming = shop.streaming()
    streaming.step(0)
    shop.at(3, 23, 59).send("third", orders(THIRD))
    streaming.step(0)
    fourth = orders(FOURTH)
    shop.at(4, 4).send("fourth", fourth[:2])
    streaming.step(0)
    after_midnight = {each: shop.served()[each] for each in fourth[:2]["courier"]}
    backfill(shop.platform, [THIRD], SHOP)
    publish_values(shop.platform, SHOP)
    # The first publication builds the store anew; the stream looks for that every few seconds.
    shop.clock.now += timedelta(seconds=10)
    streaming.step(0)
    served = shop.served()
    wanted = expected(sent_so_far(shop, orders(THIRD)), datetime(2024, 1, 4, tzinfo=UTC))
    assert served == {**wanted, **after_midnight}


def test_only_what_can_be_streamed_is(shop: StreamedShop) -> None:
    """Nothing declared, and a source that lands whole days, are refused with what to declare."""
    views = tuple(replace(view, schedule=Daily()) for view in SHOP.views)
    with pytest.raises(DeclarationError, match="no view of synthetic is published as facts arrive"):
        replace(shop, domain=replace(SHOP, views=views)).streaming()
    files = replace(SHOP, sources=(replace(ORDERS, landing=None),))
    with pytest.raises(
        DeclarationError, match="synthetic/courier is published as facts arrive, but orders lands whole"
    ):
        shop.streaming().__class__(shop.platform, files, shop.store, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(2))
def test_a_stream_that_is_killed_at_any_time_publishes_everything(tmp_path: Path, seed: int) -> None:
    """SIGKILL at random moments while facts come; afterwards values, raw rows and record are as if nothing had been."""
    shop = streamed_shop(tmp_path).at(3, 0, 1)
    shop.send("before", pl.concat([orders(FIRST), orders(SECOND)]))
    began, chance = time.time(), random.Random(seed)
    start = datetime(2024, 1, 3, 23, 50, tzinfo=UTC)
    shop.at(3, 23, 50)
    module = "mlplatform_tests.fakes.streamed_shop"
    command = [sys.executable, "-m", module, str(tmp_path), start.isoformat(), str(began)]
    parts = [orders(THIRD)[row : row + 2] for row in range(0, 30, 2)]
    for life in range(5):
        child = started(command, tmp_path)
        for number in range(3 * life, 3 * life + 3):
            shop.send(f"part {number}", parts[number])
            time_to_live(child, chance.uniform(0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    child = started(command, tmp_path)
    sent = sent_so_far(shop, orders(THIRD))
    try:
        until(
            lambda: equal(shop.served(at=start + timedelta(hours=1)), expected(sent, start)), seconds=60, what="values"
        )
    finally:
        child.terminate()
        assert child.wait(20) == 0
    shop.at(4, 1)
    backfill(shop.platform, [FIRST, SECOND, THIRD], SHOP)
    assert Tables(shop.platform, SHOP).raw("orders").read().height == sent.height
    compared = compare_streamed(shop.platform, SHOP, THIRD)
    assert (compared.differences, compared.instants > 2) == ((), True)


def started(command: Iterable[str], folder: Path) -> "subprocess.Popen[bytes]":
    """A consumer process that has begun, with its words in a file."""
    log = folder / "stream.log"
    log.touch()
    before = log.read_text().count("streaming synthetic")
    with log.open("ab") as told:
        child = subprocess.Popen([*command], stdout=told, stderr=told)
    until(lambda: log.read_text().count("streaming synthetic") > before, seconds=60, what="a stream that has begun")
    return child


def time_to_live(child: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Let a child run for so long; it must not end by itself."""
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(seconds)
