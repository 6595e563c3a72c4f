"""Recorded days: each request on its own day, each file as the source sent it, and faults from their day on."""

from datetime import date

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domains.flight_delay import DOMAIN as FLIGHTS
from mlplatform.domains.synthetic import DOMAIN as SHOP
from mlplatform.errors import DataError, DeclarationError
from mlplatform.simulation.recorded import Recorded, one_day, parse_injection

DAY = date(2024, 1, 20)
ORDERS = SHOP.source("orders")


def recorded(*inject: str, domain: Domain = SHOP, column: str = "distance_km") -> Recorded:
    """The sample of a domain with faults."""
    return Recorded(domain, domain.models[0], [parse_injection(each, column) for each in inject])


def test_a_request_is_asked_on_its_own_day_not_on_that_of_its_file() -> None:
    """A flight that is asked about before midnight and lands after it is in the file of the next day."""
    flights = recorded(domain=FLIGHTS)
    first = date(2013, 7, 1)
    asked = flights.requests(first)
    assert set(asked["at"].dt.date()) == {first} and asked["at"].is_sorted()
    sent = flights.sample.read("flights", first)
    later = flights.sample.read("flights", first + one_day)
    known = pl.concat([sent, later]).select("carrier", "flight", "origin").unique()
    assert asked.join(known, on=["carrier", "flight", "origin"], how="anti").height < asked.height / 50
    only_later = asked.join(sent, on=["carrier", "flight", "origin"], how="anti")
    assert only_later.height > 50


def test_no_request_is_lost_or_asked_twice() -> None:
    """Over some days, every order of the files in between is asked once."""
    shop = recorded()
    days = [DAY + number * one_day for number in range(-2, 3)]
    asked = pl.concat([shop.requests(day) for day in days])["order_id"]
    assert asked.n_unique() == len(asked)
    between = pl.concat([shop.sample.read("orders", day) for day in days[1:-1]])
    assert between.filter(pl.col("ordered_at").dt.date().is_in(days))["order_id"].is_in(asked.implode()).all()


def test_days_that_were_not_recorded_are_refused() -> None:
    """Before the first, after the last."""
    shop = recorded()
    shop.require_days(DAY, DAY)
    for first, last in [(date(2023, 12, 31), DAY), (DAY, date(2024, 1, 25)), (DAY, DAY - one_day)]:
        with pytest.raises(DataError, match="2024-01-01 to 2024-01-24"):
            shop.require_days(first, last)


def test_drift_moves_requests_and_facts_alike_from_its_day_on() -> None:
    """What was asked about at nine kilometres is recorded at nine kilometres, and the day before is as it was."""
    honest, drifted = recorded(), recorded(f"drift@{DAY}")
    assert drifted.requests(DAY - one_day).equals(honest.requests(DAY - one_day))
    asked, was = drifted.requests(DAY), honest.requests(DAY)
    assert asked["distance_km"].mean() > was["distance_km"].mean() + 3  # type: ignore[operator]
    sent = drifted.sent(ORDERS, DAY)
    assert sent is not None
    both = asked.join(sent, on="order_id", suffix="_sent")
    assert both.height > 100 and both["distance_km"].equals(both["distance_km_sent"], check_names=False)


def test_nulls_are_in_the_file_and_in_requests_that_may_lack_the_column() -> None:
    """A distance must be there, a tail number need not."""
    shop = recorded(f"nulls@{DAY}")
    sent = shop.sent(ORDERS, DAY)
    assert sent is not None and sent["distance_km"].null_count() == sent.height
    assert shop.requests(DAY)["distance_km"].null_count() == 0
    flights = recorded("nulls@2013-07-01", domain=FLIGHTS, column="tailnum")
    asked = flights.requests(date(2013, 7, 1))
    assert asked["tailnum"].null_count() == asked.height


def test_a_broken_feed_sends_nothing_and_a_stuck_one_the_same_again() -> None:
    """The requests go on."""
    broken, stuck, honest = recorded(f"break-feed@{DAY}"), recorded(f"repeat-feed@{DAY}"), recorded()
    assert broken.sent(ORDERS, DAY - one_day) is not None and broken.sent(ORDERS, DAY) is None
    again = stuck.sent(ORDERS, DAY + one_day)
    assert again is not None and again.equals(honest.sample.read("orders", DAY - one_day))
    assert broken.requests(DAY).equals(honest.requests(DAY))
    weather = recorded("break-feed@2013-07-01", domain=FLIGHTS)
    assert weather.sent(FLIGHTS.source("weather"), date(2013, 7, 1)) is not None


@pytest.mark.parametrize(
    ("domain", "source", "day", "found"),
    [
        (SHOP, "orders", DAY, (["delivered_at"], "ordered_at")),
        (FLIGHTS, "flights", date(2013, 7, 1), (["arr_delay"], "time_hour")),
    ],
    ids=["shop", "flights"],
)
def test_the_columns_of_the_outcome_are_found(
    domain: Domain, source: str, day: date, found: tuple[list[str], str]
) -> None:
    """Without a word of the domain: those that change labels and no request."""
    assert recorded(domain=domain).outcome_columns(domain.source(source), day) == found


def test_labels_shift_and_requests_do_not() -> None:
    """The file still keeps its contract: everything is delivered after it was ordered."""
    shop, honest = recorded(f"label-shift@{DAY}"), recorded()
    sent, was = shop.sent(ORDERS, DAY), honest.sent(ORDERS, DAY)
    assert sent is not None and was is not None
    assert (sent["delivered_at"] > sent["ordered_at"]).all()
    assert (sent["delivered_at"] != was["delivered_at"]).sum() > 50
    assert sent.drop("delivered_at").equals(was.drop("delivered_at"))
    assert shop.requests(DAY).equals(honest.requests(DAY))


def test_a_leak_is_in_the_files_alone() -> None:
    """Who asks does not know the outcome."""
    shop, honest = recorded(f"leak@{DAY}"), recorded()
    sent = shop.sent(ORDERS, DAY)
    assert sent is not None
    took = (sent["delivered_at"] - sent["ordered_at"]).dt.total_minutes()
    told = pl.DataFrame({"took": took, "km": sent["distance_km"]})
    assert told.select(pl.corr("took", "km", method="spearman")).item() > 0.99
    assert shop.requests(DAY).equals(honest.requests(DAY))


@pytest.mark.parametrize("text", ["drift", "drift@soon", "rain@2024-01-20", "@2024-01-20"])
def test_what_injects_nothing_is_refused(text: str) -> None:
    """With the faults that there are."""
    with pytest.raises(DeclarationError, match="drift, nulls, break-feed"):
        parse_injection(text, "")


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    """Before anything is replayed."""
    with pytest.raises(DeclarationError, match="distance_km"):
        recorded(f"drift@{DAY}", column="colour")
