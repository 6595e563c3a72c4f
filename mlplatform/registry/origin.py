"""What a model was made from: gathered when it is trained, kept in its bundle, read again by whoever makes it anew.

Beside the record in the manifest, which holds digests, a bundle holds what the digests are of::

    recipe.json              the recipe: revisions, versions, cut-off, seed; its key is the model version
    inputs.json              table -> day -> revision and content hash of it
    training_set.json        what is known of the training set
    training.json            what the training said: parts, settings found, trials, calibration
    uncommitted.diff         what the checkout held beside its commit, where the domain lets it be stored
    uncommitted_domain.diff  the same of the domain's own repository, where it has one

A model without all this cannot be registered: `require_whole` names what is missing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.registered import domain_package
from mlplatform.errors import DataError, MissingPartition, RecordIncomplete
from mlplatform.features.historical import view_stores
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables
from mlplatform.provenance.checkout import Checkout
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.computing import computing
from mlplatform.provenance.environment import host_facts, recorded_versions
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import card_name
from mlplatform.training.recipe import Recipe, facts_table, input_pins, recipe_from_json, recipe_to_json
from mlplatform.training.train import Said

RECIPE_FILE = "recipe.json"
INPUTS_FILE = "inputs.json"
TRAINING_SET_FILE = "training_set.json"
TRAINING_FILE = "training.json"

DIFFS = {"mlplatform": "uncommitted.diff", "domain": "uncommitted_domain.diff"}
"""Whose checkout -> the file of what it held beside its commit."""

Inputs = Mapping[str, Mapping[str, tuple[int, str]]]
"""Table -> day -> revision and content hash."""

_package = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Code:
    """The checkouts whose code trains, as they stood when it began."""

    checkouts: Mapping[str, Checkout]
    """`mlplatform`, and `domain` where its package lies elsewhere."""

    diffs: Mapping[str, bytes] = field(default_factory=dict)
    """File in the bundle -> content."""

    @property
    def dirty(self) -> bool | None:
        """Whether any of them is; None: of one nobody knows, and none that is known is."""
        found = [each.dirty for each in self.checkouts.values()]
        return True if True in found else None if None in found else False

    def described(self) -> dict[str, dict[str, str | bool | None]]:
        """As the record says it."""
        return {
            name: {"commit": each.commit, "dirty": each.dirty}
            | ({"diff": DIFFS[name]} if DIFFS[name] in self.diffs else {})
            | ({"unknown": each.unknown} if each.unknown else {})
            for name, each in self.checkouts.items()
        }


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a bundle says that its model was made from."""

    recipe: Recipe
    inputs: Inputs
    training_set: Mapping[str, Any]
    said: Said


def checkouts(platform: Platform, domain: str) -> dict[str, Checkout]:
    """The checkout of this platform, and that of a domain's package where it is another."""
    own, package = platform.checkout(_package), domain_package(domain)
    if package is None or package.resolve().is_relative_to(_package):
        return {"mlplatform": own}
    its = platform.checkout(package)
    return {"mlplatform": own} if its.root is not None and its.root == own.root else {"mlplatform": own, "domain": its}


def code_now(platform: Platform, domain: Domain) -> Code:
    """The checkouts as they stand, with their uncommitted changes where the domain lets them be stored.

    Raises
    ------
    DataError
        There is more of them than a record holds.
    """
    found = checkouts(platform, domain.name)
    if domain.reproducibility.dirty_tree == "refused":
        return Code(checkouts=found)
    return Code(checkouts=found, diffs={DIFFS[name]: each.changes() for name, each in found.items() if each.dirty})


def input_stores(platform: Platform, domain: Domain, model: ModelSpec) -> dict[str, Stage]:
    """The table of each input of a model, by the name that its record gives it."""
    views = view_stores(platform, domain, model)
    return {
        facts_table(domain): Tables(platform, domain).facts(domain.requests.facts),
        **{label: store for label, (_, store, _) in views.items()},
    }


def inputs_of(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe) -> Inputs:
    """Revision and content hash of every day that a recipe reads.

    Raises
    ------
    MissingPartition
        A table has no such revision any more.
    """
    stores = input_stores(platform, domain, model)
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for table, pins in input_pins(domain, recipe).items():
        listed = {(each.partition, each.number): each.content_hash for each in stores[table].revisions(pins)}
        if missing := [f"{day}@{number}" for day, number in pins.items() if (day, number) not in listed]:
            raise MissingPartition(table, missing)
        found[table] = {day: (number, listed[day, number]) for day, number in sorted(pins.items())}
    return found


def record_of(
    platform: Platform, model: ModelSpec, recipe: Recipe, *, inputs: Inputs, training_set: bytes, code: Code
) -> Record:
    """The reproducibility record of a model that is trained now.

    Parameters
    ----------
    training_set : content of `training_set.json`
    """
    here, device = computing(), model.settings.device
    host = host_facts() | {name: here[name] for name in ("machine", "libc") if name in here}
    return Record(
        inputs={
            table: declaration_version({day: number for day, (number, _) in days.items()})
            for table, days in inputs.items()
        },
        contents={
            table: declaration_version({day: content for day, (_, content) in days.items()})
            for table, days in inputs.items()
        },
        training_set=json.loads(training_set)["content_hash"],
        code={"training": recipe.code, **recipe.view_versions},
        commit=code.checkouts["mlplatform"].commit,
        dirty=code.dirty,
        checkouts=code.described(),
        lock=platform.environment,
        python=here["python"],
        versions=recorded_versions(),
        configuration=recipe.declaration,
        seeds={"booster": recipe.seed, "search": recipe.seed, "bootstrap": recipe.seed},
        threads=model.settings.threads,
        device=device,
        host=host | ({"gpu": card_name() or ""} if device == "cuda" else {}),
    )


def record_files(recipe: Recipe, *, inputs: Inputs, training_set: bytes, said: Said, code: Code) -> dict[str, bytes]:
    """The files of a bundle that say what its model was made from."""
    return {
        RECIPE_FILE: recipe_to_json(recipe).encode(),
        INPUTS_FILE: json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode(),
        TRAINING_SET_FILE: training_set,
        TRAINING_FILE: json.dumps(asdict(said), indent=1, sort_keys=True).encode(),
        **code.diffs,
    }


def origin_of(bundle: Bundle) -> Origin:
    """What the model of a bundle was made from.

    Raises
    ------
    DataError
        The bundle holds no such files, since an older version wrote it; or its recipe is not that of its model version.
    """
    if absent := [
        name
        for name in (RECIPE_FILE, INPUTS_FILE, TRAINING_SET_FILE, TRAINING_FILE)
        if name not in bundle.manifest.files
    ]:
        raise DataError(
            f"the bundle {bundle.manifest.short_digest} of {bundle.manifest.model} holds no {', '.join(absent)}: it "
            "was written before bundles said what they were made from. Train the model again to have one that does"
        )
    recipe = recipe_from_json((bundle.folder / RECIPE_FILE).read_text())
    if recipe.key != bundle.manifest.model_version:
        raise DataError(
            f"{RECIPE_FILE} of the bundle {bundle.manifest.short_digest} is the recipe {recipe.key}, but the manifest "
            f"says {bundle.manifest.model_version}. Do not serve it; train the model again"
        )
    said = json.loads((bundle.folder / TRAINING_FILE).read_text())
    inputs = json.loads((bundle.folder / INPUTS_FILE).read_text())
    return Origin(
        recipe=recipe,
        inputs={
            table: {day: (int(each[0]), str(each[1])) for day, each in days.items()} for table, days in inputs.items()
        },
        training_set=json.loads((bundle.folder / TRAINING_SET_FILE).read_text()),
        said=Said(**{**said, "trials": tuple(said["trials"])}),
    )


def lacking(bundle: Bundle) -> list[str]:
    """What a whole record says and that of a bundle does not; empty: it is whole."""
    record, files = bundle.manifest.record, bundle.manifest.files
    lacks = record.lacking()
    lacks += [f"code of {view}" for view in bundle.manifest.views if not record.code.get(view)]
    lacks += [name for name in (RECIPE_FILE, INPUTS_FILE, TRAINING_SET_FILE, TRAINING_FILE) if name not in files]
    if (
        RECIPE_FILE in files
        and recipe_from_json((bundle.folder / RECIPE_FILE).read_text()).key != bundle.manifest.model_version
    ):
        lacks.append(f"the recipe {bundle.manifest.model_version}: {RECIPE_FILE} is another one")
    return lacks


def require_whole(bundle: Bundle) -> None:
    """Refuse a model whose record does not say all that it was made from.

    Raises
    ------
    RecordIncomplete
        The record lacks something; the message names it.
    """
    if lacks := lacking(bundle):
        raise RecordIncomplete(bundle.manifest.model, bundle.manifest.model_version, lacks)


def uncommitted(domain: Domain, bundle: Bundle) -> str:
    """Why a model may not be promoted for the changes that its checkout held; empty: it may."""
    record = bundle.manifest.record
    for name, checkout in (record.checkouts or {}).items():
        if why := checkout.get("unknown"):
            # Also where the domain stores changes: there are none in the bundle, and nobody knows whether there were.
            return (
                f"nobody knows whether the checkout it was trained from ({name}) held changes that no commit holds: "
                f"{why}. Then `mlplatform train {bundle.manifest.model}` makes it anew"
            )
    # An older record does not say whose changes they were.
    whose = [
        name for name, each in (record.checkouts or {"mlplatform": {"dirty": record.dirty}}).items() if each["dirty"]
    ]
    if not whose:
        return ""
    again = f"commit them, then `mlplatform train {bundle.manifest.model}` makes it anew"
    held = f"it was trained from a checkout ({' and '.join(whose)}) with changes that no commit holds"
    if domain.reproducibility.dirty_tree == "refused":
        return (
            f'{held}: {again}. Or let domain {domain.name} declare `Reproducibility(dirty_tree="stored")`, which keeps '
            "the changes in the bundle, and train again"
        )
    if any(DIFFS[name] not in bundle.manifest.files for name in whose):
        return f"{held}, and its bundle does not hold them: {again}"
    return ""
