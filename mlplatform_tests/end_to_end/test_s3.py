"""Landing places, tables and ledger on S3, by settings alone: a real endpoint, the real commands."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import StaleRevision, Unavailable
from mlplatform.features.landing.landing import land, landed
from mlplatform.features.materialization import pending
from mlplatform.features.resources import platform_from_settings
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform_tests.fakes.s3_endpoint import Held
from mlplatform_tests.fakes.synthetic_home import backfill, platform_in

pytestmark = pytest.mark.end_to_end

DAYS = day_range("2024-01-01", "2024-01-05")
ORDERS = DOMAIN.source("orders")
NOW = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture
def on_s3(s3: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose tables and landing places are in a bucket, as the environment says."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPLATFORM_TABLES", f"s3://{s3.bucket}/lake")
    monkeypatch.setenv("MLPLATFORM_LANDING", f"s3://{s3.bucket}/incoming")
    return platform_from_settings()


def contents(platform: Platform) -> dict[str, list[tuple[str, int, str]]]:
    """Every revision of every table, by its content hash."""
    tables = Tables(platform, DOMAIN)
    return {
        store.name: [(each.partition, each.number, each.content_hash) for each in store.revisions()]
        for stage in stages
        for store in tables.of(stage).values()
    }


def test_the_commands_leave_the_same_tables_on_s3_as_on_disk(on_s3: Platform, s3: Held, tmp_path: Path) -> None:
    """Land and backfill, correct a day, backfill again: revision by revision what a folder would hold."""

    def mlplatform(*arguments: str) -> None:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("mlplatform")), *arguments],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    on_disk = platform_in(tmp_path / "disk")
    sample = DOMAIN.sample
    assert sample is not None
    for day in DAYS:
        land(on_disk, DOMAIN, ORDERS, date.fromisoformat(day), sample.read("orders", date.fromisoformat(day)))
    backfill(on_disk, DAYS)
    mlplatform("land", "synthetic", "--to", DAYS[-1])
    mlplatform("backfill", "synthetic")
    assert contents(on_s3) == contents(on_disk)
    corrected = rows(date.fromisoformat(DAYS[1]), rows_per_day=7)
    for platform in (on_s3, on_disk):
        land(platform, DOMAIN, ORDERS, date.fromisoformat(DAYS[1]), corrected)
        assert pending(platform, DOMAIN, "raw", DAYS) == [DAYS[1]]
        backfill(platform, DAYS)
        assert [day for stage in stages for day in pending(platform, DOMAIN, stage, DAYS)] == []
    assert contents(on_s3) == contents(on_disk)
    features = [Tables(platform, DOMAIN).features(DOMAIN.views[0]).read() for platform in (on_s3, on_disk)]
    assert features[0].equals(features[1])
    assert not (on_s3.home / "tables").exists() and not (on_s3.home / "landing").exists()
    assert {key.split("/")[0] for key in s3.holds()} == {"lake", "incoming"}


def test_a_day_without_rows_has_a_revision_on_s3_too(on_s3: Platform) -> None:
    """Landed empty, and emptied by a correction; an empty revision can be told from a missing one."""
    for day in DAYS[:2]:
        land(on_s3, DOMAIN, ORDERS, date.fromisoformat(day), rows(date.fromisoformat(day), rows_per_day=5))
    backfill(on_s3, DAYS[:2])
    land(on_s3, DOMAIN, ORDERS, date.fromisoformat(DAYS[1]), rows(date.fromisoformat(DAYS[1]), rows_per_day=5).clear())
    backfill(on_s3, DAYS[:2])
    base = Tables(on_s3, DOMAIN).base("orders")
    assert {day: (each.number, each.rows) for day, each in base.current(DAYS[:3]).items()} == {
        DAYS[0]: (1, 5),
        DAYS[1]: (2, 0),
    }
    assert base.read(DAYS[:2]).height == 5


def test_many_writers_lose_nothing_on_s3(on_s3: Platform) -> None:
    """Of one partition each gets a number of its own, in one order; of several each its own, with no lock between."""
    schema = {"writer": pl.Int64()}

    def write(writer: int) -> None:
        stage = Stage(f"{on_s3.tables}/raced", schema, name="raced", storage_options=on_s3.storage_options)
        draft = Draft(rows=pl.DataFrame({"writer": [writer]}, schema=schema))
        told = Written(run_id=str(writer), code_version="code", environment="lock", known_at=NOW)
        stage.append({"shared": draft, f"own-{writer}": draft}, told)

    with ThreadPoolExecutor(6) as writers:
        list(writers.map(write, range(6)))
    stage = Stage(f"{on_s3.tables}/raced", schema, name="raced", storage_options=on_s3.storage_options)
    assert [each.number for each in stage.revisions(["shared"])] == [1, 2, 3, 4, 5, 6]
    assert sorted(stage.history(["shared"])["writer"]) == list(range(6))
    assert stage.read([f"own-{writer}" for writer in range(6)])["writer"].to_list() == list(range(6))


def test_the_ledger_decides_on_s3_too(on_s3: Platform) -> None:
    """Of two promotions that have seen the same last event one is refused."""
    ledger, other = Ledger(on_s3), Ledger(on_s3)
    for number, each in enumerate((ledger, other)):
        entry = each.append(
            "synthetic/late_order",
            action="promote",
            alias="champion",
            to_manifest=f"manifest-{number}",
            actor="test",
            reason="first" if number == 0 else "second",
            evidence={},
            after=number,
        )
        assert entry.number == number + 1
    with pytest.raises(StaleRevision):
        other.append(
            "synthetic/late_order",
            action="promote",
            alias="champion",
            to_manifest="manifest-3",
            actor="test",
            reason="too late",
            evidence={},
            after=1,
        )
    assert ledger.champion("synthetic/late_order") == "manifest-1"
    assert not (on_s3.home / "ledger").exists()


def test_a_store_that_is_away_is_said_to_be(on_s3: Platform) -> None:
    """Neither an empty table nor an empty landing place, and no word about bad data."""
    elsewhere = replace(on_s3, tables="s3://no-such-bucket", landings="s3://no-such-bucket")
    with pytest.raises(
        Unavailable, match=r"s3://no-such-bucket/tables/synthetic/raw/orders .*whether the bucket is there"
    ):
        Tables(elsewhere, DOMAIN).raw("orders").current()
    with pytest.raises(Unavailable, match="s3://no-such-bucket/synthetic/orders cannot be reached"):
        landed(elsewhere, DOMAIN, ORDERS)
