"""Reproduce: a model made again from its pinned data is the same to the bit, or the first difference is named."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from mlplatform.errors import BundleCorrupt, DataError
from mlplatform.features.revision import Revision
from mlplatform.features.stage import Stage
from mlplatform.operations.reproduce_view import as_json, show
from mlplatform.provenance.checkout import Checkout
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of, make_candidate, version_named
from mlplatform.registry.origin import Origin, input_stores, origin_of
from mlplatform.reproducibility.conditions import Step, conditions
from mlplatform.reproducibility.reproduce import Reproduced, reproduce
from mlplatform.rollout.promotion import promote
from mlplatform.training.dataset import training_rows
from mlplatform_tests.docs.page import ROOT
from mlplatform_tests.fakes.synthetic_home import (
    ALL_DAYS,
    COMMITTED,
    TrainedHome,
    backfill,
    land_orders,
    platform_in,
    train,
)

NAME = "synthetic/late_order"
STAGES = [
    "bundle",
    "table synthetic/courier",
    "table synthetic/derived/deliveries",
    "table synthetic/district",
    "training set",
    "split",
    "search",
    "fitted values",
    "booster",
    "calibration",
    "simple model",
    "golden rows",
    "golden scores",
]


def again(home: TrainedHome, recipe: str | None = None) -> Reproduced:
    """Make a version again."""
    return reproduce(home.platform, NAME, recipe or home.recipe.key)


def stages(made: Reproduced) -> list[str]:
    """The parts that were compared, in order."""
    return [each.name for each in made.steps if not each.condition]


def first(made: Reproduced) -> Step:
    """The first difference, which there must be."""
    assert made.first_difference is not None, made
    assert not made.exact
    return made.first_difference


def store_of(home: TrainedHome, table: str) -> Stage:
    """An input table."""
    return input_stores(home.platform, home.domain, home.model)[table]


def pinned(home: TrainedHome, table: str, day: str) -> Revision:
    """The revision of a day that the model was made from."""
    number, _ = origin_of(bundle_of(home.platform, home.entry.to_manifest)).inputs[table][day]
    return next(each for each in store_of(home, table).revisions([day]) if each.number == number)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def told(made: Reproduced) -> str:
    """What a person sees."""
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        show(made, console)
    return captured.get()


def test_it_is_made_again_to_the_bit_and_leaves_nothing(trained: TrainedHome) -> None:
    """Every part is compared and the same, under the very conditions; no file of the home is touched."""
    before = files(trained.platform.home)
    made = again(trained)
    assert (made.exact, made.first_difference, made.other_conditions) == (True, None, ())
    assert stages(made) == STAGES
    assert files(trained.platform.home) == before
    assert told(made).endswith("reproduced to the bit\n")
    assert json.loads(as_json(made))["exact"] is True


@pytest.mark.parametrize("named", ["digest", "short", "behind its model"])
def test_a_version_is_named_as_people_see_it(trained: TrainedHome, named: str) -> None:
    """By the digest of its manifest, or by twelve digits of it, with its model or without."""
    digest = trained.entry.to_manifest
    model, name = {"digest": ("", digest), "short": ("", digest[:12]), "behind its model": (NAME, digest)}[named]
    assert reproduce(trained.platform, model, name).model_version == trained.recipe.key


def test_a_version_that_is_not_there_is_refused(trained: TrainedHome) -> None:
    """With what can be given."""
    with pytest.raises(DataError, match="there is no such bundle"):
        reproduce(trained.platform, NAME, "2024-01-25-00000000")


def test_what_came_since_makes_no_difference(own_trained: TrainedHome) -> None:
    """Old days corrected, another version promoted, another checkout: the same model, and the checkout is told."""
    platform = own_trained.platform
    land_orders(platform, ALL_DAYS[3:6], rows_per_day=180)
    assert backfill(platform, ALL_DAYS) > 0
    model = replace(own_trained.model, settings=replace(own_trained.model.settings, rounds=25))
    later = train(platform, model)
    promote(platform, own_trained.domain, model, later.key, actor="test")
    elsewhere = Checkout(commit="beef" * 10, dirty=False, root=Path("/clone"))
    made = again(replace(own_trained, platform=platform_in(platform.home, checkout=elsewhere)))
    assert made.exact
    assert [each.name for each in made.other_conditions] == ["checkout"]
    assert made.other_conditions[0].note == f"`git checkout {COMMITTED.commit}`"
    assert "reproduced to the bit, though not under what is recorded" in told(made)


def test_edits_are_told_apart(own_trained: TrainedHome) -> None:
    """Made again under the edits that the bundle holds, the checkout is the same; under others it is not."""
    home = own_trained.platform.home
    edited = Checkout(commit="beef" * 10, dirty=True, root=Path("/checkout"), changes=lambda: b"edits")
    (own_trained.folder / "model.json").unlink()
    mine = platform_in(home, checkout=edited)
    digest = make_candidate(mine, own_trained.domain, own_trained.model, own_trained.recipe).manifest
    assert reproduce(mine, NAME, digest).other_conditions == ()
    others = reproduce(platform_in(home, checkout=replace(edited, changes=lambda: b"others")), NAME, digest)
    assert [each.name for each in others.other_conditions] == ["checkout"]
    note = "commit or stash the edits, then `git apply` the bundle's uncommitted.diff"
    assert others.other_conditions[0].note == note
    assert others.exact
    clean = reproduce(platform_in(home, checkout=replace(edited, dirty=False, changes=bytes)), NAME, digest)
    assert clean.other_conditions[0].note == "`git apply` the bundle's uncommitted.diff"


def test_an_edited_checkout_of_the_same_commit_names_the_files(trained: TrainedHome) -> None:
    """The advice is not to go to the commit that is checked out; of many files some are named."""
    diff = b"".join(b"diff --git a/%s.py b/%s.py\n+x = 1\n" % (name, name) for name in (b"a", b"b c", b"d", b"e", b"f"))
    edited = replace(COMMITTED, dirty=True, changes=lambda: diff)
    made = again(replace(trained, platform=platform_in(trained.platform.home, checkout=edited)))
    (step,) = made.other_conditions
    assert step.note == "commit or stash the edits of a.py, b c.py, d.py and 2 more"
    elsewhere = replace(edited, commit="beef" * 10)
    (step,) = again(replace(trained, platform=platform_in(trained.platform.home, checkout=elsewhere))).other_conditions
    assert step.note.endswith(f"and 2 more, then `git checkout {COMMITTED.commit}`")


def test_an_unknown_checkout_is_not_none(own_trained: TrainedHome) -> None:
    """Where no checkout is recorded and git cannot be asked now, nobody knows whether both are the same."""
    home, none = own_trained.platform.home, Checkout(commit=None, dirty=None)
    (own_trained.folder / "model.json").unlink()
    mine = platform_in(home, checkout=none)
    digest = make_candidate(mine, own_trained.domain, own_trained.model, own_trained.recipe).manifest
    bundle = version_named(mine, digest)
    unknown = platform_in(home, checkout=replace(none, unknown="install git"))
    then, now = (
        next(each for each in conditions(platform, bundle, origin_of(bundle)) if each.name == "checkout")
        for platform in (mine, unknown)
    )
    assert then.same
    assert (now.same, now.note) == (False, "install git")


def test_a_file_that_was_altered_is_named(own_trained: TrainedHome) -> None:
    """One bit of a revision that the model was made from: that table is the first difference; nothing is trained."""
    table, day = "synthetic/courier", ALL_DAYS[7]
    revision = pinned(own_trained, table, day)
    path = Path(store_of(own_trained, table).address(revision))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    made = again(own_trained)
    assert first(made).name == f"table {table}"
    assert path.name in first(made).note
    assert stages(made)[-1] == "table synthetic/district"


def test_a_revision_that_is_gone_is_named(own_trained: TrainedHome) -> None:
    """Its file was deleted, with nothing that says why."""
    table, day = "synthetic/derived/deliveries", ALL_DAYS[7]
    Path(store_of(own_trained, table).address(pinned(own_trained, table, day))).unlink()
    assert first(again(own_trained)).name == f"table {table}"
    assert f"revision 1 of {day}: the file" in first(again(own_trained)).note
    assert "is gone" in first(again(own_trained)).note


def test_a_revision_that_was_removed_by_policy_says_so(
    own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone is the reason."""
    table, day = "synthetic/courier", ALL_DAYS[2]
    tombstone = f"revision {table}/{day}@1 was removed by policy on 2025-01-01 (superseded revisions go after 30 days)"
    listed = Stage.revisions

    def with_tombstone(store: Stage, partitions: Any = None) -> list[Revision]:
        gone = store.name.endswith("feature_store/courier")
        return [
            replace(each, removed=tombstone) if gone and each.partition == day else each
            for each in listed(store, partitions)
        ]

    monkeypatch.setattr(Stage, "revisions", with_tombstone)
    assert first(again(own_trained)).note == tombstone


def test_other_settings_are_named(own_trained: TrainedHome) -> None:
    """The bundle's code declares others than the model was trained with: the recipe shows it, and the search."""
    model = replace(own_trained.model, settings=replace(own_trained.model.settings, rounds=25))
    later = train(own_trained.platform, model)
    made = again(own_trained, later.key)
    assert first(made).name == "search"
    assert first(made).note == f"rounds was 25, is {own_trained.model.settings.rounds}"
    assert [each.name for each in made.other_conditions] == ["feature code"]
    why = "It was not made under what is recorded (feature code): look there first"
    assert told(made).endswith(f"first difference: search: {first(made).note}. {why}\n")


def test_other_rows_are_named_by_their_column(own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data is the same and the rows are not, the join is to blame: the column and row are told."""

    def skewed(*asked: Any) -> pl.DataFrame:
        rows = training_rows(*asked)
        return rows.with_columns(rows["distance_km"] + 1)

    monkeypatch.setattr("mlplatform.reproducibility.reproduce.training_rows", skewed)
    made = again(own_trained)
    assert first(made).name == "training set" == stages(made)[-1]
    assert first(made).note.startswith("distance_km differs in ")


def test_a_bundle_that_was_altered_is_refused_by_name(own_trained: TrainedHome) -> None:
    """One bit in each of its files: what the model was made from, what it learned, its code, its manifest."""
    digest = own_trained.entry.to_manifest
    bundle = own_trained.platform.bundles / digest
    names = [*bundle_of(own_trained.platform, digest).manifest.files, "manifest.yaml"]
    assert {"recipe.json", "inputs.json", "training_set.json", "training.json", "model.ubj"} <= set(names)
    for name in names:
        path = bundle / name
        kept = path.read_bytes()
        place = len(kept) // 2
        path.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
        with pytest.raises(BundleCorrupt, match=name):
            again(own_trained, digest)
        path.write_bytes(kept)
    assert again(own_trained, digest).exact


def test_what_the_log_of_a_table_says_is_held_against_the_record(
    own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision under the same number with another content is no longer what was read."""

    def other(bundle: Bundle) -> Origin:
        origin = origin_of(bundle)
        days = dict(origin.inputs["synthetic/courier"])
        days[ALL_DAYS[1]] = (1, "0" * 32)
        return replace(origin, inputs={**origin.inputs, "synthetic/courier": days})

    monkeypatch.setattr("mlplatform.reproducibility.reproduce.origin_of", other)
    made = again(own_trained)
    assert first(made).name == "table synthetic/courier"
    assert first(made).note.startswith(f"revision 1 of {ALL_DAYS[1]} has the content ")


def copied_project(folder: Path, edits: Mapping[str, tuple[str, str]]) -> Path:
    """The packages of this project in another folder, with some text replaced."""
    for name in ("mlplatform", "serving"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copytree(ROOT / "mlplatform/domains", folder / "mlplatform/domains", dirs_exist_ok=True)
    for path, (old, new) in edits.items():
        text = (folder / path).read_text()
        assert old in text, f"{old!r} is not in {path}"
        (folder / path).write_text(text.replace(old, new))
    return folder


def asked_in(project: Path, home: Path, version: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of the command, run by the code of another folder."""
    done = subprocess.run(
        [sys.executable, "-m", "mlplatform", "reproduce", version, "--json"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "MLPLATFORM_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_in_a_clone_with_other_features_it_is_the_same(own_trained: TrainedHome, tmp_path: Path) -> None:
    """The feature code of the bundle counts, not that of the checkout in which it is made again."""
    edits = {"mlplatform/domains/synthetic/views.py": ("cast(pl.Int64).sum() / pl.len()", "cast(pl.Int64).max()")}
    project = copied_project(tmp_path / "clone", edits)
    code, made = asked_in(project, own_trained.platform.home, own_trained.recipe.key)
    assert (code, made["exact"], made["first_difference"]) == (0, True, None)
    conditions = {each["name"]: each["same"] for each in made["steps"] if each["condition"]}
    assert conditions["training code"] and conditions["feature code"]
    # There is no repository around the copy, and the record names the lock of the tests.
    assert not conditions["checkout"] and not conditions["lock file"]


def test_other_training_code_is_told_before_what_it_makes(own_trained: TrainedHome, tmp_path: Path) -> None:
    """Its trees are not so deep: the code is said to differ, and the booster is the first difference."""
    project = copied_project(
        tmp_path / "clone", {"mlplatform/training/fit.py": ('"max_depth": settings.max_depth', '"max_depth": 2')}
    )
    code, made = asked_in(project, own_trained.platform.home, f"{NAME}@{own_trained.recipe.key}")
    assert (code, made["exact"]) == (1, False)
    (training,) = (each for each in made["steps"] if each["name"] == "training code")
    assert not training["same"]
    assert f"check out commit {COMMITTED.commit}" in training["note"]
    assert made["first_difference"] == "booster"
