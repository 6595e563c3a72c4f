"""What a bundle says that its model was made from: whole, of the very revisions, and with the edits of its checkout."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domain.reproducibility import Reproducibility
from mlplatform.domains import registered
from mlplatform.errors import DataError, MissingPartition, RecordIncomplete, RemovedByPolicy
from mlplatform.provenance.checkout import Checkout, checkout_of
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.removed import mark_removed
from mlplatform.registry import candidate as candidate_room
from mlplatform.registry import origin as room
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.registry.candidate import bundle_of, load_candidate, make_candidate, version_named
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.origin import (
    DIFFS,
    Code,
    checkouts,
    input_stores,
    inputs_of,
    lacking,
    origin_of,
    record_files,
    require_whole,
    uncommitted,
)
from mlplatform.rollout.judge import judge_candidate, load_evaluation
from mlplatform.rollout.registration import register_candidate
from mlplatform_tests.fakes.git_repository import committed, edit, git, tracked
from mlplatform_tests.fakes.synthetic_home import COMMITTED, TrainedHome, platform_in
from mlplatform_tests.fakes.tiny_domain import bundle_of as tiny_bundle
from mlplatform_tests.fakes.tiny_domain import write_package

EDITED = Checkout(commit="beef" * 10, dirty=True, root=Path("/checkout"), changes=lambda: b"edits")
REFUSES = Reproducibility()
"""What a domain promises that declares nothing."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    return committed(tmp_path / "project")


def made_from(home: TrainedHome, checkout: Checkout, promise: Reproducibility | None = None) -> Bundle:
    """The home's model made anew by the code of a checkout, as if it had not been made before."""
    (home.folder / "model.json").unlink(missing_ok=True)
    return asked_again(home, checkout, promise)


def asked_again(home: TrainedHome, checkout: Checkout, promise: Reproducibility | None = None) -> Bundle:
    """The bundle that the asset `model` gives in a checkout."""
    platform = platform_in(home.platform.home, checkout=checkout)
    domain = home.domain if promise is None else replace(home.domain, reproducibility=promise)
    made = make_candidate(platform, domain, home.model, home.recipe)
    return bundle_of(platform, made.manifest)


def test_every_input_is_there_with_revision_and_content(trained: TrainedHome) -> None:
    """As the tables list them, table by table and day by day; the record holds the digests of just that."""
    bundle = bundle_of(trained.platform, trained.entry.to_manifest)
    origin, record = origin_of(bundle), bundle.manifest.record
    assert origin.recipe == trained.recipe
    stores = input_stores(trained.platform, trained.domain, trained.model)
    assert origin.inputs.keys() == stores.keys() == record.inputs.keys()
    for table, days in origin.inputs.items():
        listed = {(each.partition, each.number): each.content_hash for each in stores[table].revisions()}
        assert days == {day: (number, listed[day, number]) for day, (number, _) in days.items()}
        assert len(days) == 24
        assert record.inputs[table] == declaration_version({day: number for day, (number, _) in days.items()})
        assert record.contents is not None
        assert record.contents[table] == declaration_version({day: content for day, (_, content) in days.items()})
    assert origin.training_set["content_hash"] == record.training_set
    assert origin.said.rows == load_candidate(trained.folder).rows


def test_a_year_of_inputs_is_small(trained: TrainedHome) -> None:
    """What is told of 365 days and five tables is less than a booster takes."""
    days = {date.fromordinal(date(2024, 1, 1).toordinal() + each).isoformat(): (1, "f" * 32) for each in range(365)}
    inputs = {f"synthetic/view_{number}": days for number in range(5)}
    pins = {table: {day: number for day, (number, _) in each.items()} for table, each in inputs.items()}
    recipe = replace(trained.recipe, views=pins)
    said = origin_of(bundle_of(trained.platform, trained.entry.to_manifest)).said
    files = record_files(recipe, inputs=inputs, training_set=b"{}", said=said, code=Code(checkouts={}))
    assert sum(map(len, files.values())) < 200_000


def test_a_revision_that_is_gone_is_no_input(trained: TrainedHome) -> None:
    """It is named, and nothing is trained."""
    recipe = replace(trained.recipe, facts={**trained.recipe.facts, "2024-01-05": 7})
    with pytest.raises(MissingPartition, match="2024-01-05@7"):
        inputs_of(trained.platform, trained.domain, trained.model, recipe)


def test_the_edits_are_kept_where_the_domain_says_so(own_trained: TrainedHome) -> None:
    """As a file of the bundle that its manifest lists, named in the record."""
    bundle = made_from(own_trained, EDITED)
    assert (bundle.manifest.record.commit, bundle.manifest.record.dirty) == (EDITED.commit, True)
    told = {"commit": EDITED.commit, "dirty": True, "diff": "uncommitted.diff"}
    assert bundle.manifest.record.checkouts == {"mlplatform": told}
    assert (bundle.folder / "uncommitted.diff").read_bytes() == EDITED.changes()
    assert "uncommitted.diff" in bundle.manifest.files
    assert (lacking(bundle), uncommitted(own_trained.domain, bundle)) == ([], "")


def test_from_commit_and_diff_the_code_comes_back(own_trained: TrainedHome, repository: Path, tmp_path: Path) -> None:
    """Of a real repository with edits: what the bundle holds, applied to the commit, gives every file."""
    edit(repository)
    (own_trained.folder / "model.json").unlink()
    platform = replace(own_trained.platform, checkout=lambda _folder: checkout_of(repository))
    made = make_candidate(platform, own_trained.domain, own_trained.model, own_trained.recipe)
    bundle = bundle_of(platform, made.manifest)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    git(clone, "checkout", "--quiet", str(bundle.manifest.record.commit))
    git(clone, "apply", str(bundle.folder / "uncommitted.diff"))
    assert tracked(clone) == tracked(repository)


def test_elsewhere_they_are_not_even_asked_for(own_trained: TrainedHome) -> None:
    """Trying things out in an edited checkout goes on, however much lies there."""

    def never() -> bytes:
        raise AssertionError

    bundle = made_from(own_trained, replace(EDITED, changes=never), REFUSES)
    assert set(DIFFS.values()).isdisjoint(bundle.manifest.files)
    refused = replace(own_trained.domain, reproducibility=REFUSES)
    assert "commit them, then `mlplatform train synthetic/late_order`" in uncommitted(refused, bundle)
    # A domain that lets them be stored from now on does not have those of then.
    assert "its bundle does not hold them" in uncommitted(own_trained.domain, bundle)


def test_after_the_commit_the_same_recipe_is_made_anew(own_trained: TrainedHome) -> None:
    """A commit changes no recipe. What could not be promoted gets a clean record; asked again, nothing more is made."""
    shutil.rmtree(own_trained.platform.home / "ledger")  # nothing of it has answered people
    dirty = made_from(own_trained, EDITED, REFUSES)
    assert asked_again(own_trained, EDITED, REFUSES).digest == dirty.digest
    clean = asked_again(own_trained, COMMITTED, REFUSES)
    assert clean.manifest.record.dirty is False
    assert clean.manifest.files["model.ubj"] == dirty.manifest.files["model.ubj"]
    assert asked_again(own_trained, EDITED, REFUSES).digest == clean.digest
    # The key of the recipe means the newer one; the older one has a name of its own still.
    assert version_named(own_trained.platform, own_trained.recipe.key).digest == clean.digest
    assert version_named(own_trained.platform, dirty.digest).digest == dirty.digest


def test_an_approval_does_not_keep_it_from_being_made_anew(own_trained: TrainedHome) -> None:
    """It lets nobody be answered: what was approved while its checkout was edited gets a clean record all the same."""
    shutil.rmtree(own_trained.platform.home / "ledger")
    dirty = made_from(own_trained, EDITED, REFUSES)
    entry = {"action": "approve", "alias": "challenger", "actor": "test", "reason": "test", "evidence": {}}
    Ledger(own_trained.platform).append(dirty.manifest.model, to_manifest=dirty.digest, **entry)  # type: ignore[arg-type]  # texts
    assert asked_again(own_trained, COMMITTED, REFUSES).manifest.record.dirty is False


@pytest.mark.parametrize("promise", [REFUSES, Reproducibility(dirty_tree="stored")])
def test_an_unknown_checkout_is_not_promoted(own_trained: TrainedHome, promise: Reproducibility) -> None:
    """Not even where edits may be stored: none were. It is not made anew before git can be asked."""
    shutil.rmtree(own_trained.platform.home / "ledger")
    unknown = Checkout(commit=None, dirty=None, root=Path("/checkout"), unknown="install git")
    bundle = made_from(own_trained, unknown, promise)
    told = {"commit": None, "dirty": None, "unknown": "install git"}
    assert bundle.manifest.record.checkouts == {"mlplatform": told}
    domain = replace(own_trained.domain, reproducibility=promise)
    assert "nobody knows whether the checkout" in uncommitted(domain, bundle)
    assert "install git" in uncommitted(domain, bundle)
    assert asked_again(own_trained, unknown, promise).digest == bundle.digest
    assert uncommitted(domain, asked_again(own_trained, COMMITTED, promise)) == ""


def test_a_model_that_was_removed_is_not_made_anew(own_trained: TrainedHome) -> None:
    """It was to go. What to do for another one is told."""
    folder = own_trained.platform.bundles / load_candidate(own_trained.folder).manifest
    mark_removed(folder, "the bundle was removed by policy on 2030-01-01")
    shutil.rmtree(folder)
    with pytest.raises(RemovedByPolicy, match=r"removed by policy.*`mlplatform train synthetic/late_order --as-of"):
        asked_again(own_trained, COMMITTED)


def test_of_two_bundles_of_a_recipe_the_promoted_one_is_meant(own_trained: TrainedHome) -> None:
    """It is what answered under that name, whatever was made anew since; of two that were promoted both are told."""
    platform, first = own_trained.platform, own_trained.entry.to_manifest
    second = made_from(own_trained, EDITED)
    assert second.digest != first
    assert version_named(platform, own_trained.recipe.key).digest == first
    entry = {"action": "promote", "alias": "champion", "actor": "test", "reason": "test", "evidence": {}}
    Ledger(platform).append(second.manifest.model, to_manifest=second.digest, **entry)  # type: ignore[arg-type]  # texts
    with pytest.raises(DataError, match=r"2 bundles are called so \(.*Give the digest") as raised:
        version_named(platform, own_trained.recipe.key)
    assert first[:12] in str(raised.value) and second.digest[:12] in str(raised.value)


def test_what_was_promoted_is_not_made_anew(own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has answered people: it stays what it is, whatever its record lacks."""
    monkeypatch.setattr(candidate_room, "lacking", lambda _bundle: ["something"])
    before = load_candidate(own_trained.folder)
    assert asked_again(own_trained, COMMITTED).digest == before.manifest


def test_two_repositories_both_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That of a domain's own package beside that of the platform; one checkout around both is told once."""
    package = tmp_path / "desk"
    monkeypatch.setattr(room, "domain_package", lambda _name: package)
    its = Checkout(commit="d" * 40, dirty=True, root=tmp_path, changes=lambda: b"its")
    at = {package: its}
    platform = replace(platform_in(tmp_path), checkout=lambda folder: at.get(folder, COMMITTED))
    found = checkouts(platform, "desk")
    assert found == {"mlplatform": COMMITTED, "domain": its}
    code = Code(checkouts=found, diffs={DIFFS["domain"]: b"its"})
    assert code.dirty is True
    assert code.described()["domain"] == {"commit": "d" * 40, "dirty": True, "diff": "uncommitted_domain.diff"}
    at[package] = replace(its, root=COMMITTED.root)
    assert checkouts(platform, "desk").keys() == {"mlplatform"}
    # Two that nobody knows are not one.
    nobody = replace(platform, checkout=lambda _folder: Checkout(commit=None, dirty=None))
    assert checkouts(nobody, "desk").keys() == {"mlplatform", "domain"}


def test_a_domain_of_this_tree_is_of_the_platforms_checkout(trained: TrainedHome) -> None:
    """One look at git, not two."""
    assert registered.domain_package("synthetic") is not None
    assert checkouts(trained.platform, "synthetic") == {"mlplatform": COMMITTED}


def test_an_unknown_commit_is_told_and_enough(own_trained: TrainedHome) -> None:
    """An installed package has none: its version, the code versions and the code in the bundle name the code."""
    bundle = made_from(own_trained, Checkout(commit=None, dirty=None))
    assert bundle.manifest.record.checkouts == {"mlplatform": {"commit": None, "dirty": None}}
    assert (lacking(bundle), uncommitted(own_trained.domain, bundle)) == ([], "")


def test_a_bundle_of_before_says_what_to_do(tmp_path: Path) -> None:
    """It holds no such files: it serves, and cannot be made again."""
    bundle = tiny_bundle(tmp_path / "bundles", write_package(tmp_path))
    with pytest.raises(DataError, match=r"holds no recipe\.json, inputs\.json.*Train the model again"):
        origin_of(bundle)
    with pytest.raises(RecordIncomplete, match=r"contents of harbour/calls.*recipe\.json"):
        require_whole(bundle)


def without(name: str) -> Callable[..., Bundle]:
    """A training step that forgets to hand over one part."""

    def forgetful(root: Path, **given: Any) -> Bundle:
        if name in given["records"]:
            given["records"] = {each: told for each, told in given["records"].items() if each != name}
        else:
            given["record"] = replace(given["record"], **{name: None})
        return write_bundle(root, **given)

    return forgetful


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("recipe.json", "recipe.json"),
        ("inputs.json", "inputs.json"),
        ("training_set.json", "training_set.json"),
        ("training.json", "training.json"),
        ("contents", "contents of synthetic/courier"),
        ("host", "host: machine"),
        ("checkouts", "checkouts"),
    ],
)
def test_what_trains_without_a_whole_record_is_not_registered(
    own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch, part: str, named: str
) -> None:
    """Nor evaluated before; the part that was left out is named."""
    figures = load_evaluation(own_trained.folder)
    (own_trained.folder / "model.json").unlink()
    monkeypatch.setattr(candidate_room, "write_bundle", without(part))
    make_candidate(own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe)
    platform, domain, model = own_trained.platform, own_trained.domain, own_trained.model
    with pytest.raises(RecordIncomplete, match=named):
        judge_candidate(platform, domain, model, own_trained.recipe)
    with pytest.raises(RecordIncomplete, match=named):
        register_candidate(platform, domain, model, own_trained.recipe.key, figures)


def test_a_recipe_of_another_version_is_no_record(own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is the model version, so a recipe that was swapped or edited before it was hashed shows."""

    def swapped(root: Path, **given: Any) -> Bundle:
        recipe = json.loads(given["records"]["recipe.json"])
        given["records"] = {**given["records"], "recipe.json": json.dumps({**recipe, "seed": 1}).encode()}
        return write_bundle(root, **given)

    (own_trained.folder / "model.json").unlink()
    monkeypatch.setattr(candidate_room, "write_bundle", swapped)
    made = make_candidate(own_trained.platform, own_trained.domain, own_trained.model, own_trained.recipe)
    bundle = bundle_of(own_trained.platform, made.manifest)
    with pytest.raises(RecordIncomplete, match=f"the recipe {own_trained.recipe.key}"):
        require_whole(bundle)
    with pytest.raises(DataError, match="but the manifest says"):
        origin_of(bundle)
