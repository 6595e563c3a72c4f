"""The landing folder: a file counts when it bears its final name, and is what its source declares."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError, MalformedFile
from mlplatform.features.landing import (
    days_landed_by_all,
    file_version,
    land,
    land_sample,
    landed_days,
    read_landed,
)

ORDERS = DOMAIN.source("orders")
DAY = date(2024, 1, 2)


def test_what_was_landed_is_read(tmp_path: Path) -> None:
    """Rows come back in the columns and types of the contract; a column that it does not declare is left out."""
    sent = rows(DAY, rows_per_day=10)
    land(tmp_path, ORDERS, DAY, sent.with_columns(pl.col("items").cast(pl.Int64), tip=1.5).select(pl.all().reverse()))
    read = read_landed(tmp_path, ORDERS, "2024-01-02")
    assert read.schema == ORDERS.contract.schema
    assert read.reverse().equals(sent.select(ORDERS.contract.names))


def test_only_days_under_their_final_name_count(tmp_path: Path) -> None:
    """Drafts, other files and dates that are none are left alone; the days are in order."""
    for day in (date(2024, 1, 3), date(2024, 1, 1)):
        land(tmp_path, ORDERS, day, rows(day, rows_per_day=1))
    for name in (".2024-01-02.parquet.draft", "2024-01-02.csv", "2024-13-01.parquet", "20240102.parquet", "x.parquet"):
        (tmp_path / "orders" / name).write_bytes(b"")
    assert landed_days(tmp_path, ORDERS) == ["2024-01-01", "2024-01-03"]
    assert landed_days(tmp_path / "elsewhere", ORDERS) == []


def test_landing_the_same_rows_again_changes_nothing(tmp_path: Path) -> None:
    """The file stays the one it was; other rows are another version, and no draft is left behind."""
    sent = rows(DAY, rows_per_day=10)
    path = land(tmp_path, ORDERS, DAY, sent)
    before, version = path.stat(), file_version(tmp_path, ORDERS, "2024-01-02")
    assert land(tmp_path, ORDERS, DAY, sent) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert file_version(tmp_path, ORDERS, "2024-01-02") == version
    assert version.startswith("landing/orders/2024-01-02@")
    land(tmp_path, ORDERS, DAY, sent.head(9))
    assert file_version(tmp_path, ORDERS, "2024-01-02") != version
    assert [each.name for each in path.parent.iterdir()] == ["2024-01-02.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"order_id,courier\n1,c1\n"])
def test_what_is_no_parquet_is_malformed(tmp_path: Path, content: bytes) -> None:
    """Half a file and a file of another kind are refused with their path, never with another error."""
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "2024-01-02.parquet").write_bytes(content)
    with pytest.raises(MalformedFile, match=r"orders/2024-01-02\.parquet: not a readable Parquet file"):
        read_landed(tmp_path, ORDERS, "2024-01-02")


def test_a_file_without_a_declared_column_is_malformed(tmp_path: Path) -> None:
    """The message names the column that is missing."""
    land(tmp_path, ORDERS, DAY, rows(DAY, rows_per_day=3).rename({"items": "pieces"}))
    with pytest.raises(MalformedFile, match="no column items"):
        read_landed(tmp_path, ORDERS, "2024-01-02")


def test_a_day_is_complete_when_every_source_has_sent(tmp_path: Path) -> None:
    """A source that is declared absent on a day is not waited for; a day that no source sent is none."""
    returns = replace(ORDERS, name="returns", absent=frozenset({date(2024, 1, 2), date(2024, 1, 9)}))
    for source, days in ((ORDERS, (1, 2, 3)), (returns, (1, 4))):
        for day in days:
            land(tmp_path, source, date(2024, 1, day), rows(date(2024, 1, day), rows_per_day=1))
    assert days_landed_by_all(tmp_path, [ORDERS, returns]) == ["2024-01-01", "2024-01-02"]
    assert days_landed_by_all(tmp_path, []) == []


def test_a_file_landed_again_while_it_is_read_is_not_taken_for_the_first(tmp_path: Path) -> None:
    """The rows that are taken in are those of the version that was planned, or none."""
    first = date(2024, 1, 1)
    land(tmp_path, ORDERS, first, rows(first, rows_per_day=5))
    planned = file_version(tmp_path, ORDERS, first.isoformat())
    land(tmp_path, ORDERS, first, rows(first, rows_per_day=6))
    with pytest.raises(DataError, match="was landed again while it was being read"):
        read_landed(tmp_path, ORDERS, first.isoformat(), version=planned)


def test_the_sample_lands_its_own_days_only(tmp_path: Path) -> None:
    """A day outside of it is refused, and no empty file is put there."""
    assert land_sample(tmp_path, DOMAIN, date(2024, 1, 1), date(2024, 1, 2)) == 2
    with pytest.raises(DataError, match=r"holds 2024-01-01 to .*, not 2023-12-31"):
        land_sample(tmp_path, DOMAIN, date(2023, 12, 31), date(2024, 1, 2))
    assert landed_days(tmp_path, ORDERS) == ["2024-01-01", "2024-01-02"]
