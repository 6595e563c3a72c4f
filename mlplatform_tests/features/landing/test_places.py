"""What every landing place owes the platform, asked of each of them in the same words."""

from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import ChangedWhileRead, MalformedFile
from mlplatform.features.landing.landing import landed, read_landed
from mlplatform.features.materialization import pending, raise_failures, run
from mlplatform.features.pipeline import table_versions
from mlplatform.features.resources import s3_client
from mlplatform.features.tables import Tables, stages
from mlplatform.provenance.platform import Platform
from mlplatform.settings import settings
from mlplatform_tests.fakes.shops import BucketShop, DatabaseShop, FolderShop, Shop
from mlplatform_tests.fakes.synthetic_home import platform_in

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
PLACES = ["folder", "bucket", "database"]


@pytest.fixture
def open_platform(tmp_path: Path) -> Platform:
    """A platform that can reach S3 where the environment names one."""
    return replace(platform_in(tmp_path / "home"), s3=cache(lambda: s3_client(settings())))


@pytest.fixture(params=PLACES)
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop that has not sent anything yet."""
    match request.param:
        case "folder":
            return FolderShop(tmp_path / "shop")
        case "bucket":
            return BucketShop(request.getfixturevalue("s3"))
    database = DatabaseShop(tmp_path / "shop.db")
    monkeypatch.setenv(DatabaseShop.variable, database.url)
    return database


def sent(day: str, count: int = 10) -> pl.DataFrame:
    """What the shop has to tell of a day."""
    return rows(date.fromisoformat(day), rows_per_day=count)


def days(platform: Platform, domain: Domain) -> dict[str, str]:
    """Days and versions that are there."""
    return dict(landed(platform, domain, domain.source("orders")).days)


def read(platform: Platform, domain: Domain, day: str, version: str) -> pl.DataFrame:
    """A day's rows by its number, since a database has no order of its own."""
    found = read_landed(platform, domain, domain.source("orders"), day, version)
    return found.sort("order_id")


def test_nothing_has_landed_at_first(open_platform: Platform, shop: Shop) -> None:
    """No day and no stranger, and no error."""
    found = landed(open_platform, shop.domain, shop.domain.source("orders"))
    assert (found.days, found.strangers) == ({}, {})


def test_days_are_listed_in_order_and_read_as_they_were_sent(open_platform: Platform, shop: Shop) -> None:
    """Out of order, and each with its own rows in the contract's columns and types."""
    for day in reversed(DAYS):
        shop.send(day, sent(day))
    versions = days(open_platform, shop.domain)
    assert list(versions) == DAYS
    assert len(set(versions.values())) == 3
    for day in DAYS:
        expected = sent(day).select(DOMAIN.source("orders").contract.names).sort("order_id")
        assert read(open_platform, shop.domain, day, versions[day]).equals(expected)


def test_a_correction_is_another_version_of_its_day_alone(open_platform: Platform, shop: Shop) -> None:
    """The day that was sent again has changed, the others have not."""
    for day in DAYS:
        shop.send(day, sent(day))
    before = days(open_platform, shop.domain)
    shop.send(DAYS[1], sent(DAYS[1], 9))
    after = days(open_platform, shop.domain)
    assert {day for day in DAYS if before[day] != after[day]} == {DAYS[1]}
    assert read(open_platform, shop.domain, DAYS[1], after[DAYS[1]]).height == 9
    assert days(open_platform, shop.domain) == after


def test_a_version_that_is_no_longer_there_is_not_read(open_platform: Platform, shop: Shop) -> None:
    """Corrected or withdrawn since it was listed: refused, for what is read must be what was planned."""
    shop.send(DAYS[0], sent(DAYS[0]))
    planned = days(open_platform, shop.domain)[DAYS[0]]
    shop.send(DAYS[0], sent(DAYS[0], 9))
    with pytest.raises(ChangedWhileRead, match="while it was being read"):
        read(open_platform, shop.domain, DAYS[0], planned)
    shop.withdraw(DAYS[0])
    with pytest.raises(ChangedWhileRead, match="while it was being read"):
        read(open_platform, shop.domain, DAYS[0], planned)
    assert days(open_platform, shop.domain) == {}


def test_what_cannot_be_read_is_malformed(open_platform: Platform, shop: Shop) -> None:
    """It is listed like any other day, and reading it says which day of which place is at fault."""
    shop.send_nonsense(DAYS[0])
    version = days(open_platform, shop.domain)[DAYS[0]]
    with pytest.raises(MalformedFile, match=rf"{DAYS[0]}.*(not a readable Parquet file|which is no Int16)"):
        read(open_platform, shop.domain, DAYS[0], version)


def test_a_stranger_is_told_and_hides_nothing(open_platform: Platform, shop: Shop) -> None:
    """What is no day has a reason, and the days beside it are there."""
    name = shop.send_stranger()
    shop.send(DAYS[0], sent(DAYS[0]))
    found = landed(open_platform, shop.domain, shop.domain.source("orders"))
    assert list(found.days) == [DAYS[0]]
    assert list(found.strangers) == [name] and found.strangers[name].startswith("its name is no day")


def test_a_day_that_is_not_over_waits(open_platform: Platform, shop: Shop) -> None:
    """Today and later belong to nobody's partition yet; whatever the place, they are not taken in."""
    for day in ("2024-01-31", "2024-02-01", "2024-02-02"):
        shop.send(day, sent(day))
    assert list(days(open_platform, shop.domain)) == ["2024-01-31"]


def test_a_day_outside_of_the_domain_is_not_taken_in(open_platform: Platform, shop: Shop) -> None:
    """Neither before its start nor after its end."""
    for day in ("2023-12-31", "2024-01-01", "2024-01-02"):
        shop.send(day, sent(day))
    assert list(days(open_platform, replace(shop.domain, end=date(2024, 1, 1)))) == ["2024-01-01"]


def test_the_raw_stage_takes_in_each_version_once(open_platform: Platform, shop: Shop) -> None:
    """New days, then nothing, then the corrected day alone; the place is not part of any table's version."""
    for day in DAYS:
        shop.send(day, sent(day))

    def take_in(wanted: list[str]) -> int:
        outcome = run(open_platform, shop.domain, "raw", wanted, run_id="test")
        raise_failures(outcome)
        return outcome.new

    assert take_in(DAYS) == 3
    assert pending(open_platform, shop.domain, "raw", DAYS) == []
    shop.send(DAYS[2], sent(DAYS[2], 9))
    assert pending(open_platform, shop.domain, "raw", DAYS) == [DAYS[2]]
    assert take_in([DAYS[2]]) == 1
    assert Tables(open_platform, shop.domain).raw("orders").read([DAYS[2]]).height == 9
    for stage in stages:
        assert table_versions(shop.domain, stage) == table_versions(DOMAIN, stage)
