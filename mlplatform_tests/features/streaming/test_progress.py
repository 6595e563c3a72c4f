"""How far a stream has come, as it is seen from outside."""

import errno
import fcntl
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import Unavailable
from mlplatform.features.streaming import process, progress
from mlplatform.features.streaming.process import stream
from mlplatform.features.streaming.progress import (
    StreamStatus,
    lock_file,
    stream_status,
    streamed_views,
    write_progress,
)
from mlplatform_tests.fakes.streamed_shop import FIRST, SECOND, SHOP, StreamedShop, orders, streamed_shop


@pytest.fixture
def shop(tmp_path: Path) -> StreamedShop:
    """An empty shop, on its first evening."""
    return streamed_shop(tmp_path / "home").at(1, 23)


def seen(shop: StreamedShop) -> StreamStatus:
    """How the stream of the shop stands."""
    return stream_status(shop.platform, SHOP)


def test_before_it_ever_ran_what_waits_is_counted(shop: StreamedShop) -> None:
    """An empty home stays empty; of a domain that declares nothing as streamed nothing is."""
    assert streamed_views(DOMAIN) == ()
    found = seen(shop)
    assert (found.views, found.running, found.last_step, found.waiting_events) == (
        ("courier", "district"),
        False,
        None,
        0,
    )
    assert not shop.platform.home.exists()
    for number in range(3):
        shop.send(f"order {number}", orders(FIRST)[number : number + 1])
    assert (seen(shop).waiting_events, seen(shop).more_wait) == (3, False)


def test_after_a_step_it_says_how_new_what_it_has_is(shop: StreamedShop) -> None:
    """Not what is dated later than now. What came since waits, and the time of the last step stands still."""
    sent = orders(FIRST)
    shop.send("early", sent[:10])
    shop.at(1, 12).send("ahead", orders(SECOND)[:1])
    stream(shop.platform, SHOP, once=True)
    newest = max(each for each in sent[:10]["reported_at"] if each <= shop.clock())
    found = seen(shop)
    assert (found.running, found.last_step, found.newest_fact) == (False, shop.clock(), newest)
    assert (found.waiting_events, found.blocked) == (0, "")
    last = shop.clock()
    shop.at(1, 23).send("more", sent[10:])
    found = seen(shop)
    assert (found.last_step, found.waiting_events) == (last, 1)
    assert found.newest_fact_age_seconds == (shop.clock() - newest).total_seconds()


def test_of_very_many_that_wait_some_are_counted(shop: StreamedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look must stay cheap where nobody has streamed for a month."""
    monkeypatch.setattr(progress, "counted_bytes", 1)
    shop.send("today", orders(FIRST)[:1])
    assert (seen(shop).waiting_events, seen(shop).more_wait) == (1, False)
    shop.at(2, 1).send("another file", orders(SECOND)[:1])
    assert (seen(shop).waiting_events, seen(shop).more_wait) == (1, True)


def test_it_says_why_values_are_not_in_the_store(shop: StreamedShop) -> None:
    """A window that lacks a day; when the day is there, nothing is in the way any more."""
    shop.at(3, 12).send("first", orders(FIRST))
    streaming = shop.streaming()
    streaming.step(0)
    write_progress(shop.platform, SHOP, streaming)
    assert seen(shop).blocked == "synthetic/courier waits for 2024-01-02, which its window needs"
    shop.send("second", orders(SECOND))
    streaming.step(0)
    write_progress(shop.platform, SHOP, streaming)
    assert seen(shop).blocked == ""


def test_one_process_at_a_time_and_a_look_does_not_hinder_it(
    shop: StreamedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one is refused; whoever only looks holds the lock for a moment, which is waited for."""
    shop.send("first", orders(FIRST)[:1])
    lock = lock_file(shop.platform.home, SHOP)
    lock.parent.mkdir(parents=True)
    monkeypatch.setattr(process, "patience_seconds", 0.0)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert seen(shop).running
        with pytest.raises(Unavailable, match="streamed by another process already"):
            stream(shop.platform, SHOP, once=True)
    assert not seen(shop).running
    monkeypatch.setattr(process, "patience_seconds", 60.0)
    looks = lock.open()
    fcntl.flock(looks, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _: looks.close())
    assert stream(shop.platform, SHOP, once=True).published > 0


def test_a_full_disk_is_waited_for(shop: StreamedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process goes on when there is room again, and has lost nothing."""
    told: list[int] = []

    def full_at_first(*given: Any) -> None:
        told.append(1)
        if len(told) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_progress(*given)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(process, "write_progress", full_at_first)
    monkeypatch.setattr("time.sleep", lambda _: None)
    shop.send("first", orders(FIRST)[:1])
    assert stream(shop.platform, SHOP).published > 0
    assert (len(told), seen(shop).waiting_events) == (2, 0)


def test_a_damaged_file_of_progress_is_as_none(shop: StreamedShop) -> None:
    """The next step writes it anew."""
    shop.send("first", orders(FIRST)[:1])
    stream(shop.platform, SHOP, once=True)
    file = shop.platform.home / "streamed" / "synthetic" / "progress.json"
    file.write_bytes(file.read_bytes()[:10])
    assert seen(shop).last_step is None
    shop.clock.now += timedelta(seconds=1)
    stream(shop.platform, SHOP, once=True)
    assert seen(shop).last_step == datetime(2024, 1, 1, 23, 0, 1, tzinfo=UTC)
