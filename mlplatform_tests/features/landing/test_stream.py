"""The landing stream: a day is the rows of its events, each once, whatever way they came."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.source import Stream
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import ChangedWhileRead, DeclarationError
from mlplatform.features.landing.landing import landed, landing_stream
from mlplatform.features.streaming.fact_log import FactWriter, fact_folder
from mlplatform.features.tables import Tables
from mlplatform_tests.fakes.streamed_shop import FIRST, ORDERS, SECOND, SHOP, THIRD, orders, streamed_shop
from mlplatform_tests.fakes.synthetic_home import backfill


def same_rows(found: pl.DataFrame, wanted: pl.DataFrame) -> bool:
    """Whatever their order."""
    return found.sort(found.columns).equals(wanted.select(found.columns).sort(found.columns))


def test_a_day_counts_when_it_is_over_and_its_grace_is(tmp_path: Path) -> None:
    """Not a minute sooner; the days of the log are listed with a version each."""
    shop = streamed_shop(tmp_path)
    shop.send("a", pl.concat([orders(FIRST), orders(SECOND)]))
    assert list(shop.at(2, 0, 4).landing.list()) == []
    assert list(shop.at(2, 0, 5).landing.list()) == [FIRST]
    assert list(shop.at(3, 1).landing.list()) == [FIRST, SECOND]
    assert same_rows(shop.landing.read(FIRST, shop.landing.list()[FIRST]), orders(FIRST))


def test_a_late_fact_is_a_correction_of_its_day(tmp_path: Path) -> None:
    """Its version changes, whoever reads the old one is told, and the tables get a second revision."""
    shop = streamed_shop(tmp_path)
    sent = orders(FIRST)
    shop.send("a", sent[:20])
    shop.at(2, 1)
    before = shop.landing.list()[FIRST]
    assert backfill(shop.platform, [FIRST], SHOP) == 7
    shop.send("b", sent[20:])
    assert shop.landing.list()[FIRST] != before
    with pytest.raises(ChangedWhileRead, match="got more facts"):
        shop.landing.read(FIRST, before)
    assert backfill(shop.platform, [FIRST], SHOP) == 6
    assert Tables(shop.platform, SHOP).raw("orders").current()[FIRST].number == 2
    assert Tables(shop.platform, SHOP).raw("orders").read([FIRST]).height == 30


def test_an_event_counts_once_and_two_events_of_one_id_both_count(tmp_path: Path) -> None:
    """What is sent again under its id is the same; other rows under that id are other facts, and none is lost."""
    shop = streamed_shop(tmp_path)
    sent = orders(FIRST)
    for name, rows in (("a", sent[:3]), ("a", sent[:3]), ("a", sent[3:5]), ("b", sent[:3])):
        shop.send(name, rows)
    other = FactWriter(fact_folder(tmp_path, "synthetic", "orders"), shop.clock)
    other.append("a", sent[:3])
    shop.at(3, 1)
    read = shop.landing.read(FIRST, shop.landing.list()[FIRST])
    # `b` sent the same rows as an event of its own: the contract's key tells them apart later.
    assert same_rows(read, pl.concat([sent[:5], sent[:3]]))


def test_what_a_closed_file_holds_is_not_read_again(tmp_path: Path) -> None:
    """It is kept beside the file; a file that still grows is read on from where it was."""
    shop = streamed_shop(tmp_path)
    shop.send("a", orders(FIRST))
    shop.at(2, 0, 1).send("b", orders(SECOND))
    shop.at(3, 1)
    first = shop.landing.list()
    closed, growing = sorted(tmp_path.glob("facts/synthetic/orders/*.frames"))
    kept = list(tmp_path.glob("facts/synthetic/orders/*.days"))
    assert [each.name.partition(".")[0] for each in kept] == [closed.stem]
    closed.write_bytes(b"nobody looks at this to list days")
    assert shop.landing.list() == first
    shop.writer.append("c", orders(SECOND)[:1])
    changed = shop.landing.list()
    assert (changed[FIRST], changed[SECOND] != first[SECOND]) == (first[FIRST], True)
    assert growing.exists()


def test_a_silent_day_is_to_come_unless_declared(tmp_path: Path) -> None:
    """Declared, it lands without rows; before the first fact there was no stream."""
    always = replace(SHOP, sources=(replace(ORDERS, landing=Stream(time="reported_at", empty_days=True)),))
    for domain, listed in ((SHOP, [FIRST, THIRD]), (always, [FIRST, SECOND, THIRD])):
        shop = streamed_shop(tmp_path / str(len(listed)), domain)
        shop.send("a", pl.concat([orders(FIRST), orders(THIRD)]))
        shop.at(4, 1)
        assert sorted(shop.landing.list()) == listed
    assert shop.landing.read(SECOND, shop.landing.list()[SECOND]).height == 0


def test_a_day_before_the_stream_is_left_as_it_landed(tmp_path: Path) -> None:
    """A late fact would be all there is of it; it is told as a stranger, and changes no table."""
    since = replace(SHOP, sources=(replace(ORDERS, landing=Stream(time="reported_at", since=date(2024, 1, 2))),))
    shop = streamed_shop(tmp_path, since)
    shop.send("a", pl.concat([orders(FIRST)[:1], orders(SECOND)]))
    shop.at(3, 1)
    found = landed(shop.platform, since, since.source("orders"))
    assert (list(found.days), list(found.strangers)) == ([SECOND], [f"{FIRST} (before the stream)"])
    streaming = shop.streaming()
    streaming.step(0)
    assert streaming.published == 0


def test_a_stream_is_declared_by_a_time_of_its_contract(tmp_path: Path) -> None:
    """Another column is refused when the domain is loaded, another landing when it is asked for as a stream."""
    with pytest.raises(DeclarationError, match="orders is streamed by 'items', which is no column of type"):
        replace(ORDERS, landing=Stream(time="items"))
    shop = streamed_shop(tmp_path)
    with pytest.raises(DeclarationError, match="To send its facts as they happen, declare `landing=Stream"):
        landing_stream(shop.platform, DOMAIN, DOMAIN.source("orders"))


@settings(max_examples=25)
@given(data=st.data())
def test_every_way_of_sending_gives_the_same_days(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any order, any sizes, any writer, some sent twice, over midnights: the same rows in the same days."""
    sent = pl.concat([orders(FIRST, 12), orders(SECOND, 12)])
    order = data.draw(st.permutations(range(sent.height)))
    shop = streamed_shop(tmp_path_factory.mktemp("sent"))
    writers = [FactWriter(fact_folder(shop.platform.home, "synthetic", "orders"), shop.clock) for _ in range(2)]
    start = 0
    while start < len(order):
        size = data.draw(st.integers(1, 8))
        event = sent[order[start : start + size]]
        shop.clock.now = datetime(2024, 1, 2, tzinfo=UTC) + timedelta(hours=data.draw(st.integers(0, 30)))
        for _ in range(data.draw(st.integers(1, 2))):
            data.draw(st.sampled_from(writers)).append(f"event {start}", event)
        start += size
    landing = shop.at(5).landing
    days = landing.list()
    assert sorted(days) == [FIRST, SECOND]
    for day in (FIRST, SECOND):
        assert same_rows(landing.read(day, days[day]), orders(day, 12))
