"""What killed writers and old compactions have left is cleared away, and nothing else."""

import json
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from mlplatform.features import removal
from mlplatform.features.removal import remove_partitions
from mlplatform.monitoring.pickup import log_table, rows_by_day
from mlplatform.provenance.platform import wall_clock
from mlplatform.reproducibility.retention import needed, reproducible_until
from mlplatform.reproducibility.retention.holds import hold, release
from mlplatform.reproducibility.retention.retention import apply, is_due
from mlplatform_tests.fakes.kept_world import MODEL, KeptWorld

DAY = timedelta(days=1)


def aged(path: Path, days: float) -> Path:
    """The same, written so many days ago."""
    os.utime(path, ((wall_clock() - days * DAY).timestamp(),) * 2)
    return path


def files(uri: str) -> set[Path]:
    """Of the rows of a table."""
    return {path for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts}


def test_files_that_no_table_names_go_after_a_week(tmp_path: Path) -> None:
    """Of a writer who was killed before its commit, and removed ones that a checkpoint has forgotten."""
    world = KeptWorld(tmp_path, predictions=10 * DAY)
    world.land("2024-03-01")
    store = world.stage("raw/orders")
    (current,) = store.revisions()
    for days in (2, 9):
        action = store.write_file(replace(current, number=2), pl.DataFrame(schema=store.schema))
        aged(Path(store.uri, action.path), days)
    digest = world.train()
    world.answer(digest)
    uri = log_table(world.platform, world.domain)
    (forgotten,) = files(uri)
    table = DeltaTable(uri)
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    remove_partitions(uri, "day", ["2024-03-01"], None)
    DeltaTable(uri).create_checkpoint()
    aged(forgotten, 9)
    world.days(1)
    world.answer(digest)
    apply(world.platform, world.domain, actor="ada")
    assert not forgotten.exists()
    assert rows_by_day(world.platform, world.domain) == {"2024-03-02": 2}
    assert len(files(store.uri)) == 2
    assert store.read().height == 1


def test_drafts_go_after_a_day(tmp_path: Path) -> None:
    """Of bundles and of training sets; one that is being written stays."""
    world = KeptWorld(tmp_path)
    digest = world.train()
    folder = next(world.platform.training(world.domain.name, MODEL, "").glob("*"))
    bundles = [world.platform.bundles / f".draft-{days}" for days in (0, 2)]
    sets = [folder / f".training_set.{days}.parquet" for days in (0, 2)]
    for young, old in (bundles, sets):
        for each in (young, old):
            each.mkdir() if each.parent == world.platform.bundles else each.touch()
        aged(old, 2)
        assert is_due(world.platform, world.domain)
        apply(world.platform, world.domain, actor="ada")
        assert young.exists()
        assert not old.exists()
        assert not is_due(world.platform, world.domain)
    assert (world.platform.bundles / digest).is_dir()


def test_what_a_compaction_left_makes_a_run_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing has an age, and no other day is to be compacted."""
    world = KeptWorld(tmp_path)
    digest = world.train()
    for _ in range(4):
        world.answer(digest)
    world.days(1)
    apply(world.platform, world.domain, actor="ada")
    uri = log_table(world.platform, world.domain)
    assert len(files(uri)) == 5
    assert not is_due(world.platform, world.domain)
    real = removal._to_vacuum
    monkeypatch.setattr(removal, "_to_vacuum", lambda table, _hours, **asked: real(table, 0, **asked))
    assert is_due(world.platform, world.domain)
    monkeypatch.setattr(
        removal, "_to_vacuum",
        lambda table, hours, **asked: real(table, hours if asked["unknown"] else 0, **asked),
    )  # fmt: skip
    apply(world.platform, world.domain, actor="ada")
    assert len(files(uri)) == 1
    assert not is_due(world.platform, world.domain)


def test_a_removal_leaves_who_reads_a_compacted_day_its_files(tmp_path: Path) -> None:
    """A second run within the hour takes none of them."""
    world = KeptWorld(tmp_path, predictions=11 * DAY)
    digest = world.train()
    world.answer(digest)
    world.days(10)
    for _ in range(4):
        world.answer(digest)
    world.days(1)
    assert apply(world.platform, world.domain, actor="ada").compacted == ("2024-03-11",)
    read = files(log_table(world.platform, world.domain))
    world.days(1)
    assert [each.name for each in apply(world.platform, world.domain, actor="ada").goes] == ["2024-03-01"]
    assert read <= files(log_table(world.platform, world.domain))


def test_a_held_model_keeps_training_sets_of_which_nothing_was_trained(tmp_path: Path) -> None:
    """Until it is released."""
    world = KeptWorld(tmp_path, models=5 * DAY)
    world.train()
    (folder,) = world.platform.training(world.domain.name, MODEL, "").glob("*")
    (folder / "model.json").unlink()
    placed = hold(world.platform, world.domain, by="ada", reason="court", model=MODEL)
    world.days(100)
    found = apply(world.platform, world.domain, actor="ada")
    assert (found.goes, [each.why for each in found.stays]) == ((), [str(placed)])
    release(world.platform, world.domain, placed.name, by="ada", reason="settled")
    assert [each.kind for each in apply(world.platform, world.domain, actor="ada").goes] == ["training_set"]


def test_the_former_bundle_of_a_recipe_that_was_made_anew_goes(tmp_path: Path) -> None:
    """By its own age; those of other domains and other models' holds are left alone."""
    world = KeptWorld(tmp_path, models=5 * DAY)
    former, other = world.train(), "b" * 64
    (folder,) = world.platform.training(world.domain.name, MODEL, "").glob("*")
    new = world.train()
    (folder / "model.json").write_text(json.dumps({"manifest": new}))
    shutil.rmtree(next(each for each in folder.parent.iterdir() if each != folder))
    for digest, owner in ((former, "synthetic"), (other, "synthetic_two")):
        manifest = world.platform.bundles / digest / "manifest.yaml"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(f"features:\n- model\nmodel: {owner}/{MODEL}\nmodel_version: {folder.name}\n")
        os.utime(manifest, (world.clock().timestamp(),) * 2)
    os.utime(folder / "model.json", (world.clock().timestamp(),) * 2)
    placed = hold(world.platform, world.domain, by="ada", reason="court", model=MODEL)
    world.days(6)
    apply(world.platform, world.domain, actor="ada")
    assert (world.platform.bundles / former).is_dir()
    release(world.platform, world.domain, placed.name, by="ada", reason="settled")
    apply(world.platform, world.domain, actor="ada")
    left = {path.name for path in world.platform.bundles.iterdir() if path.is_dir()}
    assert left == {other}
    assert (world.platform.bundles / f"{former}.removed").exists()


def test_many_manifests_cost_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the log, the tables and the training folders."""
    world = KeptWorld(tmp_path, models=5 * DAY)
    world.land("2024-03-01")
    digests = [world.train() for _ in range(3)]
    looks: list[str] = []
    for name in ("window", "revisions_of", "made"):
        real = getattr(needed, name)

        def counted(*asked: object, real: object = real, name: str = name) -> object:
            looks.append(name)
            return real(*asked)  # type: ignore[operator]

        monkeypatch.setattr(reproducible_until, name, counted)
    found = reproducible_until.reproducible_until(world.platform, world.domain, digests)
    assert sorted(looks) == ["made", "revisions_of", "window"]
    assert {each.at for each in found.values()} == {world.clock() + 5 * DAY}
    assert found.keys() == set(digests)
