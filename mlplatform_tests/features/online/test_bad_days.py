"""What the online store serves when a day is not as it should be: code that raises, facts ahead, wrong clocks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.chain import run_chain
from mlplatform.features.online.publish import publish_values
from mlplatform.features.online.store import open_online_store
from mlplatform.features.tables import Tables, available_at
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.streamed_shop import FIRST, SECOND, THIRD, orders
from mlplatform_tests.fakes.synthetic_home import land_orders, platform_in

DAYS = [FIRST, SECOND, THIRD]
COURIER = DOMAIN.views[0]
COUNT = "courier_deliveries_3d"


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A day after the last one."""
    return platform_in(tmp_path, datetime(2024, 1, 4, 12, tzinfo=UTC))


def compute(platform: Platform, domain: Domain, days: list[str]) -> list[str]:
    """One run as the sensor starts it, publication and all; gives what has failed and why."""
    outcomes = [outcome for _, outcome in run_chain(platform, domain, days, run_id="test", only_due=True)]
    return [f"{day}: {error}" for outcome in outcomes for day, error in outcome.failed.items()]


def served(platform: Platform, at: datetime, view: str = "courier") -> dict[str, tuple[object, ...]]:
    """What every key is answered at an instant, without those of which nothing is known."""
    declared = next(each for each in DOMAIN.views if each.name == view)
    (key,) = declared.entity
    keys = orders(FIRST, 200)[key].unique().sort()
    asked = pl.Series([at] * len(keys), dtype=pl.Datetime("us", "UTC"))
    found = open_online_store(platform.online_store).lookup(f"synthetic/{view}", pl.DataFrame({key: keys}), asked)
    values = dict(zip(keys, found.values.rows(), strict=True))
    return {each: row for each, row in values.items() if any(value is not None for value in row)}


def published(
    platform: Platform, day: str, view: str = "courier", domain: Domain = DOMAIN
) -> dict[str, tuple[object, ...]]:
    """What the table has of a day, by key."""
    declared = next(each for each in domain.views if each.name == view)
    rows = Tables(platform, domain).features(declared).read([day])
    names = [feature.name for feature in declared.features]
    return dict(zip(rows[declared.entity[0]], rows.select(names).rows(), strict=True))


def raising(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The view of the couriers, to which one distance is a mystery."""
    if (facts["distance_km"] == 7.75).any():
        raise ZeroDivisionError(f"{facts.filter(distance_km=7.75)['courier'][0]} again")
    return COURIER.function(facts, at)


def test_a_view_that_raises_on_one_key_leaves_the_day_before(platform: Platform) -> None:
    """The day fails by its name, the other view goes on, and the corrected day is published like any other."""
    views = tuple(replace(view, function=raising) if view is COURIER else view for view in DOMAIN.views)
    domain = replace(DOMAIN, views=views)
    second = orders(SECOND)
    mystery = second.with_columns(
        distance_km=pl.when(pl.int_range(pl.len()) == 3).then(7.75).otherwise("distance_km").cast(pl.Float64)
    )
    land_orders(platform, [FIRST, SECOND], {SECOND: mystery})
    (told,) = compute(platform, domain, [FIRST, SECOND])
    assert told.startswith(f"{SECOND}: ") and f"{second['courier'][3]} again" in told and "courier" in told
    noon = datetime(2024, 1, 3, 12, tzinfo=UTC)
    first = published(platform, FIRST, domain=domain)
    assert served(platform, noon) == first
    assert served(platform, noon, "district") == published(platform, SECOND, "district")
    land_orders(platform, [SECOND], {SECOND: second})
    assert compute(platform, domain, [FIRST, SECOND]) == []
    assert served(platform, noon) == published(platform, SECOND, domain=domain) != first


def test_a_fact_dated_in_the_future_counts_from_then_on(platform: Platform) -> None:
    """It lands two days early: no value knows of it before its time, and those of its day do."""
    ahead = orders(THIRD)[:1]
    (courier,) = ahead["courier"]
    land_orders(platform, DAYS, {FIRST: pl.concat([orders(FIRST), ahead]), THIRD: orders(THIRD)[1:]})
    assert compute(platform, DOMAIN, DAYS) == []
    counted = {day: pl.concat([orders(each) for each in DAYS[: number + 1]]) for number, day in enumerate(DAYS)}
    place = [feature.name for feature in COURIER.features].index(COUNT)
    for day in DAYS:
        publish_values(platform, DOMAIN, as_of=day)
        noon = datetime.fromisoformat(f"{day}T12:00+00:00") + timedelta(days=1)
        assert served(platform, noon)[courier][place] == counted[day].filter(courier=courier).height


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_publisher_whose_clock_is_an_hour_off_changes_no_answer(platform: Platform, hours: int) -> None:
    """A day is served from the instant at which it is available on the clock of whoever asks."""
    land_orders(platform, DAYS)
    compute(platform, DOMAIN, DAYS)
    released = available_at(DOMAIN, SECOND)
    for day in (FIRST, SECOND):
        wrong = replace(platform, clock=lambda: released + timedelta(hours=hours))
        publish_values(wrong, DOMAIN, as_of=day)
    assert served(platform, released - timedelta(microseconds=1)) == published(platform, FIRST)
    assert served(platform, released) == published(platform, SECOND)
