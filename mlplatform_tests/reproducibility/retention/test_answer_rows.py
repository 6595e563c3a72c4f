"""Rows of monitors that tell of single answers go with these, and only they."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.errors import RemovedByPolicy
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.monitoring.outcomes.tables import labels_table
from mlplatform.monitoring.skew.tables import skew_rows
from mlplatform.reproducibility.coverage.tables import coverage_rows
from mlplatform.reproducibility.retention.holds import hold
from mlplatform.reproducibility.retention.retention import apply
from mlplatform_tests.fakes.kept_world import KeptWorld

DAYS = ("2024-03-01", "2024-03-02")


def add(world: KeptWorld, store: Stage, partition: str, *told: dict[str, Any]) -> None:
    """A revision with some rows."""
    rows = pl.DataFrame([dict.fromkeys(store.schema) | each for each in told], schema=store.schema)
    written = Written(run_id="", code_version="", environment="", known_at=world.clock())
    store.append({partition: Draft(rows=rows)}, written)


def texts(store: Stage) -> str:
    """All that the files of a table hold."""
    found = [pl.read_parquet(path, hive_partitioning=False) for path in Path(store.uri).rglob("[0-9]*-*-*.parquet")]
    return " ".join(str(each.to_dicts()) for each in found)


@pytest.fixture
def world(tmp_path: Path) -> KeptWorld:
    """Two days of answers, and what monitors said of single ones: each day twice, and a night of both."""
    made = KeptWorld(tmp_path, predictions=timedelta(days=10))
    digest = made.train()
    for day in DAYS:
        made.answer(digest)
        came = datetime.fromisoformat(f"{day}T12:00+00:00").astimezone(UTC)
        for number in (1, 2):
            skewed = {"received": came, "request": f"Jane of {day}", "request_id": f"r{number}"}
            add(made, skew_rows(made.platform, made.domain), day, skewed)
            add(made, labels_table(made.platform, made.domain), day, {"request_id": f"Jane of {day}", "label": number})
        made.days(1)
    both = [
        {"received": datetime.fromisoformat(f"{day}T12:00+00:00"), "request_id": f"Jane of {day}", "notes": "odd"}
        for day in DAYS
    ]
    add(made, coverage_rows(made.platform, made.domain), "2024-03-03", *both)
    return made


def stores(world: KeptWorld) -> list[Stage]:
    """The tables of single answers."""
    return [table(world.platform, world.domain) for table in (skew_rows, labels_table, coverage_rows)]


def test_rows_of_answers_go_with_the_answers(world: KeptWorld) -> None:
    """Every revision of the day, the current one too; those of the next day stay, also within the same night."""
    world.days(8)
    apply(world.platform, world.domain, actor="ada")
    assert all("Jane of 2024-03-01" in texts(store) for store in stores(world))
    world.days(1)
    assert [each.name for each in apply(world.platform, world.domain, actor="ada").goes] == ["2024-03-01"]
    for store in stores(world):
        assert "Jane of 2024-03-01" not in texts(store)
        assert "Jane of 2024-03-02" in texts(store)
    rows = skew_rows(world.platform, world.domain)
    assert rows.read(["2024-03-01"]).is_empty()
    assert [each.rows for each in rows.revisions(["2024-03-02"])] == [1, 1]
    with pytest.raises(RemovedByPolicy, match=r"^rows of answers were removed by policy on 2024-03-12 \(answers go"):
        rows.read(numbers={"2024-03-01": 2})
    night = coverage_rows(world.platform, world.domain).read(["2024-03-03"])
    assert night["request_id"].to_list() == ["Jane of 2024-03-02"]
    before = [store.revisions() for store in stores(world)]
    apply(world.platform, world.domain, actor="ada")
    assert [store.revisions() for store in stores(world)] == before
    world.days(1)
    apply(world.platform, world.domain, actor="ada")
    assert not any("Jane" in texts(store) for store in stores(world))


def test_rows_that_come_after_their_answers_went_go_too(world: KeptWorld) -> None:
    """A day that is judged again, by a run that had read it before."""
    world.days(9)
    apply(world.platform, world.domain, actor="ada")
    store = labels_table(world.platform, world.domain)
    add(world, store, "2024-03-01", {"request_id": "Jane of 2024-03-01"})
    apply(world.platform, world.domain, actor="ada")
    assert "Jane of 2024-03-01" not in texts(store)


def test_rows_of_held_answers_stay(world: KeptWorld) -> None:
    """As the answers do."""
    hold(world.platform, world.domain, by="ada", reason="why", days=(date(2024, 3, 1), date(2024, 3, 1)))
    world.days(50)
    apply(world.platform, world.domain, actor="ada")
    for store in stores(world):
        assert "Jane of 2024-03-01" in texts(store)
        assert "Jane of 2024-03-02" not in texts(store)
