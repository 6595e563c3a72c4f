"""Landed days: which of a place's names are days of the domain, and their rows in the contract's columns."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Bucket, Folder, Landing, Query
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError, DeclarationError, MalformedFile
from mlplatform.features.landing.landing import days_landed_by_all, land, land_sample, landed, place_of, read_landed
from mlplatform.features.materialization import run
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.s3_endpoint import Held

ORDERS = DOMAIN.source("orders")
DAY = date(2024, 1, 2)


def landing_in(place: Landing | Folder | Bucket | str) -> Domain:
    """The synthetic domain with its orders landing there."""
    return replace(DOMAIN, sources=(replace(ORDERS, landing=place),))


def read(platform: Platform, domain: Domain = DOMAIN, day: str = "2024-01-02") -> pl.DataFrame:
    """The day as it lies there now."""
    source = domain.source("orders")
    return read_landed(platform, domain, source, day, landed(platform, domain, source).days[day])


def test_what_was_landed_is_read(platform: Platform) -> None:
    """Rows come back in the columns and types of the contract; a column that it does not declare is left out."""
    sent = rows(DAY, rows_per_day=10)
    widened = sent.with_columns(pl.col("items").cast(pl.Int64), tip=1.5).select(pl.all().reverse())
    land(platform, DOMAIN, ORDERS, DAY, widened)
    found = read(platform)
    assert found.schema == ORDERS.contract.schema
    assert found.reverse().equals(sent.select(ORDERS.contract.names))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_files_give_the_rows_of_the_parquet_file(platform: Platform, suffix: str) -> None:
    """The contract knows the types, whatever a reader would have guessed."""
    sent = rows(DAY, rows_per_day=10)
    text = sent.with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
    folder = platform.landing("synthetic") / "orders"
    folder.mkdir(parents=True)
    (folder / f"2024-01-02.{suffix}").write_text(text.write_csv() if suffix == "csv" else text.write_ndjson())
    assert read(platform).equals(sent.select(ORDERS.contract.names))


def test_a_lacking_column_is_malformed(platform: Platform) -> None:
    """The column is named, with the source and the day."""
    land(platform, DOMAIN, ORDERS, DAY, rows(DAY, rows_per_day=10).drop("courier"))
    with pytest.raises(MalformedFile, match=r"synthetic/orders of 2024-01-02: no column courier"):
        read(platform)


def test_what_is_no_day_of_the_domain_is_a_stranger(platform: Platform) -> None:
    """Each with its reason."""
    names = ["2024-13-01", "20240102", "2023-12-31", "2025-01-01", "2024-02-01", "2024-02-02", "2024-01-31", "total"]
    domain = landing_in(Shop(dict.fromkeys(names, rows(DAY, rows_per_day=1))))
    found = landed(platform, domain, domain.source("orders"))
    no_day = "its name is no day such as 2024-01-31 (of a file: 2024-01-31.parquet, .csv or .jsonl)"
    assert list(found.days) == ["2024-01-31"]
    assert found.strangers == {
        "2023-12-31": "it is before the first day of synthetic, 2024-01-01",
        "2024-02-01": "its day is not over; it is taken in after midnight UTC",
        "2024-02-02": "it is in the future: today is 2024-02-01 (UTC)",
        "2024-13-01": no_day,
        "20240102": no_day,
        "2025-01-01": "it is after the last day of synthetic, 2024-12-31",
        "total": no_day,
    }


def test_landing_the_same_rows_again_changes_nothing(platform: Platform) -> None:
    """The file stays the one it was; other rows are another version, and no draft is left behind."""
    sent = rows(DAY, rows_per_day=10)
    path = Path(land(platform, DOMAIN, ORDERS, DAY, sent))
    before, days = path.stat(), landed(platform, DOMAIN, ORDERS).days
    assert land(platform, DOMAIN, ORDERS, DAY, sent) == str(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert landed(platform, DOMAIN, ORDERS).days == days
    land(platform, DOMAIN, ORDERS, DAY, sent.head(9))
    assert landed(platform, DOMAIN, ORDERS).days != days
    assert [each.name for each in path.parent.iterdir()] == ["2024-01-02.parquet"]


def test_a_day_counts_when_every_source_has_landed_it_or_is_absent(platform: Platform) -> None:
    """Of two sources the days of both, and those that one of them is declared absent on."""
    returns = replace(ORDERS, name="returns", absent=frozenset({date(2024, 1, 2)}))
    domain = replace(DOMAIN, sources=(ORDERS, returns))
    for day in (1, 2, 3):
        land(platform, domain, ORDERS, date(2024, 1, day), rows(DAY, rows_per_day=1))
    land(platform, domain, returns, date(2024, 1, 1), rows(DAY, rows_per_day=1))
    assert days_landed_by_all(platform, domain) == ["2024-01-01", "2024-01-02"]


def test_a_source_may_land_in_a_folder_of_its_own(platform: Platform, tmp_path: Path) -> None:
    """By declaration; the platform's own place is not looked at."""
    domain = landing_in(Folder(path=tmp_path / "shop"))
    assert land(platform, domain, domain.source("orders"), DAY, rows(DAY, rows_per_day=10)) == str(
        tmp_path / "shop" / "2024-01-02.parquet"
    )
    assert read(platform, domain).height == 10
    assert landed(platform, DOMAIN, ORDERS).days == {}


def test_all_sources_may_land_in_a_bucket_by_settings_alone(platform: Platform, s3: Held) -> None:
    """Each below its domain and its name; the sample goes there too."""
    platform = replace(platform, landings=f"s3://{s3.bucket}/in/coming", s3=lambda: s3.client)
    assert land_sample(platform, DOMAIN, date(2024, 1, 1), date(2024, 1, 2)) == 2
    assert s3.holds() == [f"in/coming/synthetic/orders/2024-01-0{day}.parquet" for day in (1, 2)]
    assert days_landed_by_all(platform, DOMAIN) == ["2024-01-01", "2024-01-02"]
    assert read(platform).schema == ORDERS.contract.schema
    assert str(place_of(platform, DOMAIN, ORDERS)) == f"s3://{s3.bucket}/in/coming/synthetic/orders"


def test_a_place_is_told_without_what_is_secret() -> None:
    """As a path, an address, or the variable that names a database."""
    query = Query(url_variable="SHOP_URL", watermark="", select="")
    places = [Folder(path=Path("/data/shop")), Bucket(bucket="shop"), Bucket(bucket="shop", prefix="/a/b/"), query]
    assert [str(place) for place in places] == [
        "/data/shop",
        "s3://shop",
        "s3://shop/a/b",
        "the database that SHOP_URL names",
    ]


class Shop:
    """A landing of somebody's own: nothing is inherited, nothing registered."""

    def __init__(self, sent: Mapping[str, pl.DataFrame]) -> None:
        self._sent = sent

    def list(self) -> Mapping[str, str]:
        """Every day, with an odd version."""
        return {day: f"rows@{frame.height}/{day}" for day, frame in self._sent.items()}

    def read(self, day: str, version: str) -> pl.DataFrame:
        """The rows of a day."""
        if version != self.list()[day]:
            raise DataError(f"the shop has changed {day}")
        return self._sent[day]


def test_a_landing_of_ones_own_needs_list_and_read(platform: Platform) -> None:
    """Any text is a version; its refusals are failures of their day, and the days beside it are made."""
    domain = landing_in(Shop({"2024-01-02": rows(DAY, rows_per_day=10), "2024-01-03": pl.DataFrame({"order_id": [1]})}))
    assert read(platform, domain).height == 10
    with pytest.raises(DataError, match="the shop has changed"):
        read_landed(platform, domain, domain.source("orders"), "2024-01-02", "11")
    outcome = run(platform, domain, "raw", ["2024-01-02", "2024-01-03"], run_id="test")
    assert list(outcome.revisions) == ["2024-01-02"] and list(outcome.failed) == ["2024-01-03"]
    with pytest.raises(DeclarationError, match="lands in a place of its own"):
        land(platform, domain, domain.source("orders"), DAY, rows(DAY, rows_per_day=1))


def test_what_breaks_in_a_landing_of_ones_own_is_not_taken_for_bad_data(platform: Platform) -> None:
    """A server that is away says nothing of a day: it fails the run, which is tried again, and marks no day."""

    class Away(Shop):
        def read(self, day: str, version: str) -> pl.DataFrame:
            raise ConnectionError("no route to the shop")

    domain = landing_in(Away({"2024-01-02": rows(DAY, rows_per_day=1)}))
    with pytest.raises(ConnectionError, match="no route"):
        run(platform, domain, "raw", ["2024-01-02"], run_id="test")


def test_a_landing_that_needs_other_libraries_is_named(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module is imported when it is asked, and not where the domain's code is only served."""
    domain = landing_in("shop_feed:LANDING")
    with pytest.raises(DeclarationError, match=r"synthetic/orders lands in 'shop_feed:LANDING', which cannot be imp"):
        landed(platform, domain, domain.source("orders"))
    feed = ModuleType("shop_feed")
    feed.LANDING = Shop({"2024-01-02": rows(DAY, rows_per_day=10)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_feed", feed)
    assert read(platform, domain).height == 10


def test_the_sample_is_landed_day_by_day(platform: Platform) -> None:
    """One file for each source and day; days that it does not hold are refused before anything is written."""
    assert land_sample(platform, DOMAIN, date(2024, 1, 1), date(2024, 1, 2)) == 2
    with pytest.raises(DataError, match="holds 2024-01-01 to"):
        land_sample(platform, DOMAIN, date(2023, 12, 31), date(2024, 1, 2))
    assert list(landed(platform, DOMAIN, ORDERS).days) == ["2024-01-01", "2024-01-02"]
    with pytest.raises(DeclarationError, match=r"synthetic has no sample. Let its sources land in .*synthetic/orders"):
        land_sample(platform, replace(DOMAIN, sample=None), date(2024, 1, 1), date(2024, 1, 2))
