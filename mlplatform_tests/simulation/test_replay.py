"""The replay of a day, on a real home, with a service and a daemon that only look at what they are given."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError
from mlplatform.features.landing.landing import landed
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.simulation.clock import SimulatedClock
from mlplatform.simulation.importance import important_column
from mlplatform.simulation.recorded import Recorded, one_day, parse_injection
from mlplatform.simulation.replay import Record, Replay, Replayed, closing, days_to_replay, injected_before
from mlplatform.simulation.traffic import request_ids
from mlplatform_tests.fakes.served_day import Gateway
from mlplatform_tests.fakes.synthetic_home import TrainedHome

DAYS = [date(2024, 1, 25), date(2024, 1, 26), date(2024, 1, 27)]
SHOP = replace(DOMAIN, sample=replace(DOMAIN.sample, end=DAYS[-1]))  # type: ignore[type-var]
MODEL = SHOP.model("late_order")


@dataclass
class Service:
    """Answers through the real predictor and log, in this process; it stops where a test says so."""

    gateway: Gateway
    bundle: Bundle
    clock: SimulatedClock
    folder: Path
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)
    """What time it was, and the latest time that was asked for."""

    stop_after: int | None = None

    def ask(self, requests: pl.DataFrame, ids: Sequence[str]) -> Counter[int]:
        """Answer each."""
        latest = requests["at"].max()
        assert isinstance(latest, datetime)
        self.asked.append((self.clock(), latest))
        if self.stop_after is not None and len(self.asked) > self.stop_after:
            raise KeyboardInterrupt
        self.gateway.serve(requests, self.folder, ids=ids)
        return Counter({200: requests.height})

    def manifest(self) -> str:
        """Of the one bundle."""
        return self.bundle.digest


@dataclass
class Daemon:
    """Notes when it was to do what."""

    platform: Platform
    ticks: list[tuple[datetime, str, int]] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)
    """Days that had landed at each tick."""

    def tick(self, *, answers: int, day: str) -> Iterator[Any]:
        """Nothing runs."""
        self.ticks.append((self.platform.clock(), day, answers))
        self.seen.append(list(landed(self.platform, SHOP, SHOP.source("orders")).days)[-2:])
        return iter(())

    def is_training(self, ran: Any) -> bool:
        """Nothing runs."""
        return False


@dataclass
class Shop:
    """A replay and all that is around it."""

    replay: Replay
    service: Service
    daemon: Daemon
    platform: Platform


def shop_in(home: TrainedHome, folder: Path, *inject: str, rows_per_day: int | None = None) -> Shop:
    """A shop on the first day, with nothing of it done."""
    clock = SimulatedClock(closing(DAYS[0] - one_day))
    platform = replace(home.platform, clock=clock)
    bundle = bundle_of(platform, home.entry.to_manifest)
    daemon = Daemon(platform)
    recorded = Recorded(SHOP, MODEL, [parse_injection(each, "distance_km") for each in inject])
    replay = Replay(
        platform=platform,
        clock=clock,
        domain=SHOP,
        model=MODEL,
        recorded=recorded,
        daemon=daemon,
        last=DAYS[-1],
        rows_per_day=rows_per_day,
    )
    gateway = Gateway(platform, bundle, request_time=True)
    return Shop(replay, Service(gateway, bundle, clock, folder), daemon, platform)


@pytest.fixture
def shop(own_trained: TrainedHome, tmp_path: Path) -> Shop:
    """Twenty-four days have landed; forty orders of a day are asked about."""
    return shop_in(own_trained, tmp_path / "metrics", rows_per_day=40)


def test_a_day_is_asked_in_its_order_and_lands_when_it_is_over(shop: Shop) -> None:
    """No request is asked before its hour has passed, and no file is there before the day is over."""
    told = shop.replay.replay(DAYS[0], shop.service)
    assert told.asked == 40 and told.sources == {"model": 40} and told.not_answered == 0
    assert all(latest < now <= latest + timedelta(hours=1) for now, latest in shop.service.asked)
    assert len(shop.service.asked) > 10
    assert shop.daemon.ticks == [(datetime(2024, 1, 26, 0, 10, tzinfo=UTC), "2024-01-25", 40)]
    assert shop.daemon.seen == [["2024-01-24", "2024-01-25"]]
    assert rows_by_day(shop.platform, SHOP) == {"2024-01-25": 40}


def test_a_day_that_was_stopped_before_it_landed_is_replayed(shop: Shop) -> None:
    """Though the first minutes of the next one were asked; what was asked later is of another world."""
    for minute in (9, 10):
        early = (
            shop.replay.recorded.requests(DAYS[1])
            .head(1)
            .with_columns(at=pl.lit(datetime(2024, 1, 26, 0, minute, tzinfo=UTC)).cast(pl.Datetime("us", "UTC")))
        )
        shop.service.gateway.serve(early, shop.service.folder, ids=[f"early-{minute}"])
        if minute == 9:
            assert days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1]) == DAYS
    with pytest.raises(DataError, match="has answers of 2024-01-26"):
        days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1])


def test_days_that_are_over_are_not_replayed_again(shop: Shop) -> None:
    """What has landed, whoever landed it, and what stands in the record though its feed was broken."""
    assert days_to_replay(shop.platform, SHOP, DAYS[0] - one_day, DAYS[-1]) == DAYS
    shop.replay.replay(DAYS[0], shop.service)
    assert days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1]) == DAYS[1:]
    Record(shop.platform, SHOP).add(Replayed(day="2024-01-26", injected={"break-feed@2024-01-26": ""}))
    assert days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1]) == DAYS[2:]


def test_a_day_that_was_interrupted_goes_on_where_it_was(own_trained: TrainedHome, shop: Shop, tmp_path: Path) -> None:
    """Nothing has landed; what was asked is not asked again, and the log has every request once."""
    shop.service.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        shop.replay.replay(DAYS[0], shop.service)
    assert days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1]) == DAYS
    done = rows_by_day(shop.platform, SHOP)["2024-01-25"]
    assert 0 < done < 40
    again = shop_in(own_trained, tmp_path / "again", rows_per_day=40)
    told = again.replay.replay(DAYS[0], again.service)
    assert (told.asked, told.sources) == (40 - done, {"model": 40})
    assert again.daemon.ticks[0][2] == 40


def test_a_home_with_later_answers_is_refused(shop: Shop) -> None:
    """Somebody has asked it as of now: its days would be mixed with those of the past."""
    shop.service.gateway.serve(Recorded(SHOP, MODEL).requests(DAYS[2]), shop.service.folder)
    assert days_to_replay(shop.platform, SHOP, DAYS[2], DAYS[2]) == [DAYS[2]]
    with pytest.raises(DataError, match=r"answers of 2024-01-27, which is after 2024-01-25.*MLPLATFORM_HOME"):
        days_to_replay(shop.platform, SHOP, DAYS[0], DAYS[-1])


def test_days_before_the_first_land_without_being_asked(shop: Shop) -> None:
    """Whoever begins in December has the months before it."""
    shop.replay.prepare(DAYS[2])
    assert shop.daemon.seen == [["2024-01-25", "2024-01-26"]]
    assert shop.daemon.ticks == [(datetime(2024, 1, 27, 0, 10, tzinfo=UTC), "2024-01-27", 0)]
    assert shop.service.asked == []


def test_the_requests_of_a_day_are_drawn_evenly(shop: Shop) -> None:
    """From morning to night, and the same each time."""
    shop.replay.replay(DAYS[0], shop.service)
    hours = {now.hour for now, _ in shop.service.asked}
    assert len(hours) > 15
    assert request_ids("2024-01-25", 2) == ["replay-2024-01-25-000000", "replay-2024-01-25-000001"]


def test_faults_stand_in_the_record_with_their_column(own_trained: TrainedHome, tmp_path: Path) -> None:
    """A retrained model may weigh another column most; the fault stays where it was."""
    shop = shop_in(own_trained, tmp_path / "metrics", "drift@2024-01-26", rows_per_day=10)
    for day in DAYS[:2]:
        shop.replay.replay(day, shop.service)
    lines = Record(shop.platform, SHOP).lines()
    assert [line["injected"] for line in lines] == [{}, {"drift@2024-01-26": "distance_km"}]
    assert injected_before(lines) == {"drift@2024-01-26": "distance_km"}


def test_a_torn_line_of_the_record_is_none(shop: Shop) -> None:
    """A kill in the middle of it costs one line, of a day that has landed anyway."""
    record = Record(shop.platform, SHOP)
    record.add(Replayed(day="2024-01-25"))
    with record.path.open("a") as file:
        file.write('{"day": "2024-01-2')
    assert [line["day"] for line in record.lines()] == ["2024-01-25"]
    record.add(Replayed(day="2024-01-27"))
    assert [line["day"] for line in record.lines()] == ["2024-01-25", "2024-01-27"]


def test_the_column_that_weighs_most_is_found(own_trained: TrainedHome) -> None:
    """Minutes follow from the distance; how many items there are means nothing."""
    bundle = bundle_of(own_trained.platform, own_trained.entry.to_manifest)
    assert important_column(bundle, ["items", "distance_km", "district"]) == "distance_km"
    assert important_column(bundle, []) == ""


def test_the_clock_never_goes_back() -> None:
    """It stays where it is instead."""
    clock = SimulatedClock(datetime(2024, 1, 2, tzinfo=UTC))
    clock.move_to(datetime(2024, 1, 1, tzinfo=UTC))
    assert clock() == datetime(2024, 1, 2, tzinfo=UTC)
