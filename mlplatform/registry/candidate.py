"""From a training set to a sealed bundle: search, fit, calibrate, and write down what it was made from.

A recipe has one model. Asked again, it gives the bundle that is there; it never makes a second one beside it.
"""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.registered import domain_package
from mlplatform.errors import DataError, PromotionRefused, RemovedByPolicy
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.removed import MARK, refuse_removed, removed_text
from mlplatform.registry.bundle import Bundle, load_bundle, write_bundle
from mlplatform.registry.ledger import MOVES, Ledger
from mlplatform.registry.manifest import MANIFEST_FILE, RECIPE, SHORT_DIGITS, Manifest
from mlplatform.registry.origin import (
    checkouts,
    code_now,
    inputs_of,
    lacking,
    record_files,
    record_of,
    uncommitted,
)
from mlplatform.training.dataset import SCORES_FILE, load_rows
from mlplatform.training.recipe import Recipe, require_current
from mlplatform.training.train import Said, train


@dataclass(frozen=True, kw_only=True)
class Candidate(Said):
    """A model that was made, and what the making said."""

    manifest: str
    """Digest of the manifest: the name of the bundle."""


def make_candidate(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe) -> Candidate:
    """Train the model of a recipe and write its bundle, unless both are there.

    Raises
    ------
    DataError
        There is no training set of that recipe, it does not suffice, or the recipe is no longer what would be built; or
        the checkout holds more uncommitted changes than a record does.
    RemovedByPolicy
        The recipe's model was made, and removed.
    """
    folder = platform.training(domain.name, model.name, recipe.key)
    _refuse_removed_model(platform, recipe, folder)
    if (folder / "model.json").exists() and not _worth_making_anew(platform, domain, load_candidate(folder)):
        return load_candidate(folder)
    require_current(platform, domain, model, recipe)
    rows = load_rows(folder)
    # Of now, before the training: what is edited meanwhile is not what trains.
    code = code_now(platform, domain)
    inputs = inputs_of(platform, domain, model, recipe)
    training_set = (folder / "training_set.json").read_bytes()
    made = train(domain, model, recipe, rows)
    scores = io.BytesIO()
    np.save(scores, made.scores)
    write_whole(folder / SCORES_FILE, scores.getvalue())
    bundle = write_bundle(
        platform.bundles,
        domain=domain,
        code=domain_package(domain.name),
        model=model,
        booster=made.booster,
        calibration=made.calibration,
        simple=made.simple,
        fitted=made.fitted,
        view_versions=recipe.view_versions,
        record=record_of(platform, model, recipe, inputs=inputs, training_set=training_set, code=code),
        model_version=recipe.key,
        rollback_target=Ledger(platform).champion(recipe.model),
        golden=made.golden,
        records=record_files(recipe, inputs=inputs, training_set=training_set, said=made.said, code=code),
    )
    candidate = Candidate(manifest=bundle.digest, **vars(made.said))
    write_whole(folder / "model.json", json.dumps(asdict(candidate), indent=1))
    return candidate


def load_candidate(folder: Path) -> Candidate:
    """What `make_candidate` said of a recipe's folder.

    Raises
    ------
    DataError
        The model was not made yet.
    """
    path = folder / "model.json"
    if not path.exists():
        raise DataError(f"there is no model of recipe {folder.name}. Materialise `model` of that recipe first")
    values = json.loads(path.read_text())
    return Candidate(**{**values, "trials": tuple(values["trials"])})


def bundle_of(platform: Platform, digest: str) -> Bundle:
    """The bundle of a manifest digest, from the bundle store.

    Raises
    ------
    RemovedByPolicy
        It was removed, and left a tombstone.
    BundleError
        It is not there for another reason, or is not what the manifest says.
    """
    refuse_removed(platform.bundles / digest)
    return load_bundle(platform.bundles / digest)


def named_bundle(platform: Platform, model: str, named: str) -> Bundle:
    """The bundle of `domain/model` by its manifest's digest, the beginning of it that people are shown, or its recipe.

    Raises
    ------
    DataError
        No bundle, or more than one, is named so, or it is one of another model.
    """
    bundle = bundle_of(platform, _digest_named(platform, named, f"of {model}"))
    if bundle.manifest.model != model:
        raise DataError(f"manifest {named} is of {bundle.manifest.model}, not of {model}. Name that model")
    return bundle


def version_named(platform: Platform, version: str) -> Bundle:
    """The bundle of a version as a command is told it, with or without its model in front.

    That is `2013-07-01-ab12cd34` (the key of its recipe), `5f1d8c0a9b3e` (the first twelve digits of its manifest's
    digest, or more), or either behind its model: `flight_delay/late_arrival@2013-07-01-ab12cd34`. Every command that
    takes a version asks here.

    Raises
    ------
    DataError
        As `named_bundle`.
    """
    model, separator, named = version.rpartition("@")
    return named_bundle(platform, model, named) if separator else bundle_of(platform, _digest_named(platform, named))


def _digest_named(platform: Platform, named: str, whose: str = "") -> str:
    if RECIPE.fullmatch(named):
        # Few manifests are parsed: that takes 20 ms each, and a registry has hundreds.
        holding = [each for each in platform.bundles.glob(f"*/{MANIFEST_FILE}") if named in each.read_text()]
        read = {each.parent.name: Manifest.from_yaml(each.read_text()) for each in holding}
        found = _that_counts(platform, {each: made.model for each, made in read.items() if made.model_version == named})
        found = found or [each.stem for each in platform.bundles.glob(f"*{MARK}") if named in each.read_text()]
    elif re.fullmatch(f"[0-9a-f]{{{SHORT_DIGITS},64}}", named):
        found = list({each.name.removesuffix(MARK) for each in platform.bundles.glob(f"{named}*")})
    else:
        found = []
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} bundles are called so ({', '.join(sorted(each[:SHORT_DIGITS] for each in found))})"
    told = several if found else "there is no such bundle"
    raise DataError(
        f"{named!r} is no manifest {whose}".rstrip() + f": {told}. Give the digest, or its first {SHORT_DIGITS} digits "
        "at least, as `mlplatform ledger show` and the asset `model` tell them, or the key of its recipe"
    )


def _that_counts(platform: Platform, found: Mapping[str, str]) -> list[str]:
    """Of several bundles of one recipe the one that was promoted, else the one that the recipe's folder names.

    Made anew after a commit, a model has two: both have the same booster, and people were answered by one at most.
    """
    if len(found) < 2:
        return list(found)
    ledger = Ledger(platform)
    promoted = [
        digest for digest, model in found.items() if digest in {each.to_manifest for each in ledger.entries(model)}
    ]
    if promoted:
        return promoted
    folders = {platform.home / "training" / model for model in found.values()}
    named = {load_candidate(path.parent).manifest for folder in folders for path in folder.glob("*/model.json")}
    return [digest for digest in found if digest in named] or list(found)


def promoted_bundle(platform: Platform, domain: Domain, model: ModelSpec, recipe: str) -> Path:
    """Folder of the recipe's bundle, if its model has been promoted.

    Raises
    ------
    PromotionRefused
        It was never promoted: what is not promoted is not deployed.
    """
    name = f"{domain.name}/{model.name}"
    digest = load_candidate(platform.training(domain.name, model.name, recipe)).manifest
    # An approval is an entry too, and moves nothing.
    if digest not in {entry.to_manifest for entry in Ledger(platform).entries(name) if entry.action in MOVES}:
        raise PromotionRefused(name, recipe, ["the ledger tells of no promotion; materialise `promotion` first"])
    return platform.bundles / digest


def _refuse_removed_model(platform: Platform, recipe: Recipe, folder: Path) -> None:
    """A model that was removed stays so: made anew from the same recipe it would be what was to go."""
    if not (folder / "model.json").exists():
        return
    text = removed_text(platform.bundles / load_candidate(folder).manifest)
    if text is not None:
        raise RemovedByPolicy(
            f"{text}. Its recipe {recipe.key} is not trained again; for another model name another day: `mlplatform "
            f"train {recipe.model} --as-of DAY`"
        )


def _worth_making_anew(platform: Platform, domain: Domain, made: Candidate) -> bool:
    """Whether a candidate cannot be promoted for its record alone, and would get a better one now.

    Its recipe is the same before and after a commit: without this, what was trained from edited code once could never
    be promoted, however often it is trained again.
    """
    name = made.manifest
    if not (platform.bundles / name).is_dir():
        return False
    bundle = bundle_of(platform, name)
    if not lacking(bundle) and not uncommitted(domain, bundle):
        return False
    if any(
        name in (entry.to_manifest, entry.from_manifest)
        for entry in Ledger(platform).entries(bundle.manifest.model)
        if entry.action in MOVES  # an approval is an entry too, and lets nobody be answered
    ):
        return False  # people were answered by it: it stays what it is
    stored = domain.reproducibility.dirty_tree == "stored"
    now = checkouts(platform, domain.name).values()
    return bool(lacking(bundle)) or all(not each.unknown and (stored or not each.dirty) for each in now)
