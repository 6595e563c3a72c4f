"""From a training set to a sealed bundle: search, fit, calibrate, and write down what it was made from.

A recipe has one model. Asked again, it gives the bundle that is there; it never makes a second one beside it.
"""

import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.registered import domain_package
from mlplatform.errors import DataError, PromotionRefused
from mlplatform.features.view import fit_values
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.environment import git_state, installed_versions
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle, load_bundle, write_bundle
from mlplatform.registry.ledger import MOVES, Ledger
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.calibrate import fit_calibration
from mlplatform.training.dataset import load_rows
from mlplatform.training.examples import examples
from mlplatform.training.fit import fit, fit_simple, importance
from mlplatform.training.recipe import Recipe, require_current
from mlplatform.training.search import search

golden_rows = 16
"""Rows kept in the bundle with their scores: enough to meet a wrong column or device, quick enough for readiness."""

recorded = ("xgboost", "xgboost-cpu", "polars", "numpy", "deltalake", "optuna")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that was made, and what the making said."""

    manifest: str
    """Digest of the manifest: the name of the bundle."""

    settings: Mapping[str, Any]
    """What was fitted with: the declared settings, or the best of the search."""

    trials: tuple[Mapping[str, Any], ...]
    importance: Mapping[str, float]
    """Feature -> share of the total gain."""

    calibrated: bool
    calibration_reason: str
    rows: Mapping[str, int]
    """Rows by part."""

    windows: Mapping[str, str]
    """Window of request times by part."""


def make_candidate(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe) -> Candidate:
    """Train the model of a recipe and write its bundle, unless both are there.

    Raises
    ------
    DataError
        There is no training set of that recipe, it does not suffice, or the recipe is no longer what would be built.
    """
    folder = platform.training(domain.name, model.name, recipe.key)
    if (folder / "model.json").exists():
        return load_candidate(folder)
    require_current(platform, domain, model, recipe)
    rows = load_rows(folder)
    cut = examples(domain, model, recipe, rows)
    train, parts = cut.parts.train, cut.parts
    fitted = fit_values(domain, model, cut.requests[train], cut.view_values[train])
    features = cut.features(domain, model, fitted)
    found = search(features[train], cut.labels[train], cut.requests["at"].gather(train), model)
    booster = fit(features[train], cut.labels[train], model, found.settings)
    raw = raw_scores(booster, matrix(features[parts.calibration]))
    calibration = fit_calibration(
        model, raw, cut.labels[parts.calibration], cut.requests["at"].gather(parts.calibration)
    )
    trained = calibration.calibration.apply(raw_scores(booster, matrix(features[parts.evaluation])))
    scores = io.BytesIO()
    np.save(scores, trained)
    write_whole(folder / "trained_scores.npy", scores.getvalue())
    golden = parts.evaluation[:golden_rows]
    bundle = write_bundle(
        platform.bundles,
        domain=domain,
        code=domain_package(domain.name),
        model=model,
        booster=booster,
        calibration=calibration.calibration,
        simple=fit_simple(features[train], cut.labels[train], model),
        fitted=fitted,
        view_versions=recipe.view_versions,
        record=_record(platform, domain, model, recipe, folder),
        model_version=recipe.key,
        rollback_target=Ledger(platform).champion(recipe.model),
        golden=(pl.concat([cut.requests[golden], cut.view_values[golden]], how="horizontal"), trained[:golden_rows]),
    )
    made = Candidate(
        manifest=bundle.digest,
        settings=asdict(found.settings),
        trials=found.trials,
        importance=importance(booster),
        calibrated=calibration.kept,
        calibration_reason=calibration.reason,
        rows={"train": len(train), "calibration": len(parts.calibration), "evaluation": len(parts.evaluation)},
        windows={part: str(window) for part, window in vars(parts.windows).items()},
    )
    write_whole(folder / "model.json", json.dumps(asdict(made), indent=1))
    return made


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
    """The bundle of a manifest digest, from the bundle store."""
    return load_bundle(platform.bundles / digest)


def named_bundle(platform: Platform, model: str, named: str) -> Bundle:
    """The bundle of `domain/model` by its manifest's digest, or by the beginning of it that people are shown.

    Raises
    ------
    DataError
        No bundle, or more than one, is named so, or it is one of another model.
    """
    is_digest = re.fullmatch(f"[0-9a-f]{{{SHORT_DIGITS},64}}", named)
    found = [each.name for each in platform.bundles.glob(f"{named}*")] if is_digest else []
    if len(found) != 1:
        told = f"{len(found)} bundles begin with it" if found else "there is no such bundle"
        raise DataError(
            f"{named!r} is no manifest of {model}: {told}. Give the digest, or its first {SHORT_DIGITS} digits at "
            "least, as `mlplatform ledger show` and the asset `model` tell them"
        )
    bundle = bundle_of(platform, found[0])
    if bundle.manifest.model != model:
        raise DataError(f"manifest {named} is of {bundle.manifest.model}, not of {model}. Name that model")
    return bundle


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


def _record(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe, folder: Path) -> Record:
    described = json.loads((folder / "training_set.json").read_text())
    state = git_state(Path(__file__).parents[2])
    return Record(
        inputs={
            f"{domain.name}/derived/{domain.requests.facts}": declaration_version(dict(recipe.facts)),
            **{label: declaration_version(dict(days)) for label, days in recipe.views.items()},
        },
        training_set=described["content_hash"],
        code={"training": recipe.code, **recipe.view_versions},
        commit=state.commit,
        dirty=state.dirty,
        lock=platform.environment,
        python=".".join(map(str, sys.version_info[:3])),
        versions=installed_versions(recorded),
        configuration=recipe.declaration,
        seeds={"booster": recipe.seed, "search": recipe.seed, "bootstrap": recipe.seed},
        threads=model.settings.threads,
        device=model.settings.device,
    )
