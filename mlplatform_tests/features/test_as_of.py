"""As of: what was seen at an instant, where it came from, and how it differs after a correction."""

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError
from mlplatform.features.as_of import AsOf, Told, ValueAsOf, as_of, parse_entity, parse_instant
from mlplatform.features.tables import day_range
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.streamed_shop import FIRST, SECOND, SHOP, orders, streamed_shop
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS, backfill, land_orders, platform_in

DAYS = day_range("2024-01-01", "2024-01-05")
AT = datetime(2024, 1, 5, 14, 47, tzinfo=UTC)
CORRECTED = AFTERWARDS + timedelta(days=30)
MODEL = DOMAIN.model("late_order")
ENTITY = {"courier": "c1", "district": "hill"}


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Five days, and a month later the fourth one once more, without the orders of courier c1 and with others."""
    home = tmp_path_factory.mktemp("as_of")
    before, after = platform_in(home), platform_in(home, CORRECTED)
    land_orders(before, DAYS)
    backfill(before, DAYS)
    fourth = rows(date(2024, 1, 4), rows_per_day=30).filter(pl.col("courier") != "c1")
    land_orders(after, ["2024-01-04"], {"2024-01-04": fourth})
    backfill(after, DAYS)
    return after


def told(found: AsOf, feature: str) -> tuple[object, object, bool]:
    """Value then, value now, and whether they differ."""
    (value,) = (each for each in found.values if each.feature == feature)
    return value.then.value, value.now.value, value.differs


def test_before_and_after_a_correction_other_values_are_told(corrected: Platform) -> None:
    """At one instant, as known before and after the correction: other values, of other revisions."""
    then = as_of(corrected, DOMAIN, ENTITY, AT, model=MODEL)
    still = as_of(corrected, DOMAIN, ENTITY, AT, known_at=CORRECTED - timedelta(seconds=1), model=MODEL)
    later = as_of(corrected, DOMAIN, ENTITY, AT, known_at=CORRECTED, model=MODEL)
    landed = pl.concat(rows(date.fromisoformat(day), rows_per_day=30) for day in DAYS[1:4])
    seen = landed.filter(pl.col("courier") == "c1", pl.col("delivered_at").dt.date() >= date(2024, 1, 2)).height
    removed = rows(date(2024, 1, 4), rows_per_day=30).filter(pl.col("courier") == "c1").height
    assert removed > 0
    assert told(then, "courier_deliveries_3d") == (seen, seen - removed, True)
    assert [each.then for each in still.values] == [each.then for each in then.values]
    assert told(later, "courier_deliveries_3d") == (seen - removed, seen - removed, False)
    revisions = [each.values[0].then.origin.revision for each in (then, later) if each.values[0].then.origin]
    assert revisions == [1, 2]


def test_a_value_is_followed_back_to_the_landed_files(corrected: Platform) -> None:
    """The row's revision names its run, its clocks, and the three days of its window as they had landed."""
    before, after = (
        as_of(corrected, DOMAIN, ENTITY, AT, known_at=known_at, model=MODEL).values[0].then.origin
        for known_at in (AT, CORRECTED)
    )
    assert before is not None
    assert after is not None
    assert (before.table, before.partition, before.run_id) == ("synthetic/feature_store/courier", "2024-01-04", "test")
    assert before.available_at == datetime(2024, 1, 5, 1, tzinfo=UTC)
    assert (before.known_at, after.known_at) == (before.available_at, CORRECTED)
    of_day = [{each.raw: each.version for each in origin.landings} for origin in (before, after)]
    assert sorted(of_day[0]) == [f"raw/orders/{day}@1" for day in DAYS[1:4]]
    assert sorted(of_day[1]) == [*(f"raw/orders/{day}@1" for day in DAYS[1:3]), "raw/orders/2024-01-04@2"]
    assert of_day[0]["raw/orders/2024-01-04@1"] != of_day[1]["raw/orders/2024-01-04@2"]
    assert {Path(each.file).name for each in after.landings} == {f"{day}.parquet" for day in DAYS[1:4]}


def test_a_recorded_day_of_a_stream_is_an_origin_of_its_own(tmp_path: Path) -> None:
    """It is named beside the landed days, and goes back to none."""
    shop = streamed_shop(tmp_path)
    shop.send("first", orders(FIRST))
    shop.at(2, 1)
    backfill(shop.platform, [FIRST], SHOP)
    shop.streaming().step(0)
    shop.send("second", orders(SECOND))
    shop.at(2, 23).streaming().step(0)
    shop.at(3, 1)
    backfill(shop.platform, [SECOND], SHOP)
    origin = as_of(shop.platform, SHOP, {"courier": "c1"}, shop.clock()).values[0].then.origin
    assert origin is not None
    assert [each.rpartition("@")[0] for each in origin.streamed] == [f"streamed/courier/{SECOND}"]
    assert {each.raw for each in origin.landings} == {f"raw/orders/{FIRST}@1", f"raw/orders/{SECOND}@1"}


def test_an_undefined_number_does_not_differ_from_itself() -> None:
    """It does from a number, and from none."""

    def of(then: float | None, now: float | None) -> bool:
        told = [Told(value=value, status="null" if value is None else "present", origin=None) for value in (then, now)]
        return ValueAsOf(view="shop/courier", feature="late", unit="", then=told[0], now=told[1]).differs

    # Two objects: one and the same is taken for equal in a tuple.
    assert not of(float("nan"), float("nan"))
    assert of(math.nan, 1.0)
    assert of(math.nan, None)
    assert not of(1.0, 1.0)


def test_what_there_is_not_is_said(corrected: Platform) -> None:
    """Nobody was told anything before the first publication, or of a courier whom nobody knows."""
    early = as_of(corrected, DOMAIN, ENTITY, datetime(2024, 1, 1, 12, tzinfo=UTC))
    unknown = as_of(corrected, DOMAIN, {"courier": "c99"}, AT)
    late = as_of(corrected, DOMAIN, {"courier": "c1"}, AT + timedelta(days=300))
    for found, status in ((early, "not_found"), (unknown, "not_found"), (late, "expired")):
        assert {(each.then.status, each.then.value, each.then.origin) for each in found.values} == {
            (status, None, None)
        }
    assert {each.view for each in unknown.values} == {"synthetic/courier"}


@pytest.mark.parametrize(
    ("entity", "model", "message"),
    [
        ({"courier": "c1"}, MODEL, r"reads synthetic/district, keyed by district. Give also district=…"),
        ({"couriers": "c1"}, None, r"no view of synthetic is keyed by 'couriers'. Is `courier` meant\?"),
        ({}, None, r"Its views want courier: courier=…; district: district=…"),
    ],
)
def test_an_entity_that_is_not_given_in_full_is_refused(
    corrected: Platform, entity: dict[str, str], model: None, message: str
) -> None:
    """It says which key is missing, or what was meant."""
    with pytest.raises(DataError, match=message):
        as_of(corrected, DOMAIN, entity, AT, model=model)


def test_a_time_without_a_zone_is_refused() -> None:
    """What to write is in the message."""
    with pytest.raises(DataError, match=r"--at 2013-03-15T14:47 says no zone. Write its offset"):
        parse_instant("2013-03-15T14:47", "--at")
    with pytest.raises(DataError, match=r"'half past two' is no time"):
        parse_instant("half past two", "--at")
    assert parse_instant("2013-03-15T14:47:00-04:00", "--at") == datetime(2013, 3, 15, 18, 47, tzinfo=UTC)


def test_an_entity_is_read_from_pairs() -> None:
    """Several options or one, parted by commas; what is no pair is refused."""
    assert parse_entity(["a=1,b=2", "c=x, y"]) == {"a": "1", "b": "2", "c": "x, y"}
    with pytest.raises(DataError, match="'UA' names no entity"):
        parse_entity(["UA"])
    with pytest.raises(DataError, match="'a' is given twice"):
        parse_entity(["a=1", "a=2"])
