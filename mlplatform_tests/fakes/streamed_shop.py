"""The shop of the synthetic domain, whose orders are sent as they are reported and whose views follow them at once."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Stream
from mlplatform.domain.view import AsFactsArrive
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.landing.landing import landing_stream
from mlplatform.features.landing.stream import LandingStream
from mlplatform.features.online.store import OnlineStore, open_online_store
from mlplatform.features.streaming.consumers import open_consumer
from mlplatform.features.streaming.fact_log import FactWriter, fact_folder
from mlplatform.features.streaming.process import stream
from mlplatform.features.streaming.streaming import Streaming
from mlplatform.features.view import compute_view
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import Clock, platform_in

SHOP = replace(
    DOMAIN,
    sources=(replace(DOMAIN.source("orders"), landing=Stream(time="reported_at")),),
    views=tuple(replace(view, schedule=AsFactsArrive(every=timedelta(hours=1))) for view in DOMAIN.views),
)
ORDERS = SHOP.source("orders")
FIRST, SECOND, THIRD, FOURTH = ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04")


def orders(day: str, count: int = 30) -> pl.DataFrame:
    """What is reported on a day, in the order of the reports."""
    return rows(date.fromisoformat(day), rows_per_day=count)


@dataclass
class StreamedShop:
    """A home of the shop, its clock, and what is written to and read from it."""

    platform: Platform
    clock: Clock
    domain: Domain

    def __post_init__(self) -> None:
        self.writer = FactWriter(fact_folder(self.platform.home, self.domain.name, "orders"), self.clock)

    @property
    def store(self) -> OnlineStore:
        """The online store."""
        return open_online_store(self.platform.online_store)

    @property
    def landing(self) -> LandingStream:
        """Where the days land."""
        return landing_stream(self.platform, self.domain, self.domain.source("orders"))

    def send(self, name: str, sent: pl.DataFrame) -> None:
        """Append an event."""
        self.writer.append(name, sent)

    def streaming(self, store: OnlineStore | None = None) -> Streaming:
        """A stream, as it is after a start."""
        consumer = open_consumer(None, self.domain, self.platform.home, self.clock)
        return Streaming(self.platform, self.domain, store or self.store, consumer)

    def at(self, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> "StreamedShop":
        """The same at another time of January 2024."""
        self.clock.now = datetime(2024, 1, day, hour, minute, second, tzinfo=UTC)
        return self

    def served(self, view: str = "courier", *, at: datetime | None = None) -> dict[str, tuple[object, ...]]:
        """What the store says of every key, a second from now."""
        declared = next(each for each in self.domain.views if each.name == view)
        (key,) = declared.entity
        keys = sorted(orders(FIRST, 200)[key].unique().to_list())
        instant = at or self.clock() + timedelta(seconds=1)
        asked = pl.Series([instant] * len(keys), dtype=pl.Datetime("us", "UTC"))
        found = self.store.lookup(f"{self.domain.name}/{view}", pl.DataFrame({key: keys}), asked)
        return dict(zip(keys, found.values.rows(), strict=True))


def streamed_shop(home: Path, domain: Domain = SHOP, *, now: datetime | None = None) -> StreamedShop:
    """A shop in an empty home."""
    clock = Clock(now or datetime(2024, 1, 1, tzinfo=UTC))
    return StreamedShop(replace(platform_in(home), clock=clock), clock, domain)


def expected(sent: pl.DataFrame, at: datetime, view: str = "courier") -> dict[str, tuple[object, ...]]:
    """Slow and obvious: the view over all orders that were sent, as of an instant."""
    declared = next(each for each in SHOP.views if each.name == view)
    base = ORDERS.base(sent)
    facts = SHOP.derived[0].function({"orders": base}).sort("event_time", *(set(base.columns) - {"event_time"}))
    computed = compute_view(declared, facts, at)
    (key,) = declared.entity
    names = [feature.name for feature in declared.features]
    return {row[key]: tuple(row[name] for name in names) for row in computed.iter_rows(named=True)}


def moving(start: datetime, began: float) -> Callable[[], datetime]:
    """A clock that goes on from `start`, through restarts too: `began` is the wall's time at the first one."""
    return lambda: start + timedelta(seconds=time.time() - began)


def equal(found: Mapping[str, tuple[object, ...]], wanted: Mapping[str, tuple[object, ...]]) -> bool:
    """Whether every entity that is expected is served so, and nobody else is."""
    there = {key: values for key, values in found.items() if any(value is not None for value in values)}
    return there == dict(wanted)


if __name__ == "__main__":
    # A consumer process of its own, to be killed: home, ISO time that it began at, the wall's time then.
    home, start, began = sys.argv[1:4]
    logging.basicConfig(level=logging.INFO)
    clock = moving(datetime.fromisoformat(start), float(began))
    stream(replace(platform_in(Path(home)), clock=clock), SHOP, address=sys.argv[4] if sys.argv[4:] else None)
