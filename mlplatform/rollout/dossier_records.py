"""What a release dossier is made from: the records of one version, gathered and not interpreted.

Whatever is not there stays None, for the dossier to say so. A record that is about another manifest is no record of
this one. Tables are asked for their listings; no row of data is read.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, MlplatformError
from mlplatform.features.historical import view_stores
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import Candidate, bundle_of, load_candidate, named_bundle
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.registry.manifest import Manifest
from mlplatform.rollout.gate import Decision
from mlplatform.rollout.judge import load_decision, load_evaluation
from mlplatform.training.evaluation import Evaluation
from mlplatform.training.recipe import Recipe, facts_table, load_recipe

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class InputTable:
    """A table that the training set was made from."""

    name: str
    days: Mapping[str, int]
    """Day -> the revision of it that was used."""

    revisions: str
    """Digest of the days and their revisions, as the manifest's record names it; empty where it does not."""

    rows: int | None
    content: str | None
    """Digest of the content hashes of those revisions; None: the table does not hold them all any more."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the contract of a source let pass, and what it refused."""

    source: str
    days: int
    kept: int
    """Rows."""

    refused: int
    """Rows in quarantine."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that is recorded of one version of a model."""

    written_at: datetime
    manifest: Manifest
    domain: Domain
    """As the bundle holds it, not as it is declared today; so is `model`."""

    model: ModelSpec
    recipe: Recipe | None
    tables: tuple[InputTable, ...]
    contracts: tuple[Contract, ...]
    training_set: Mapping[str, Any] | None
    candidate: Candidate | None
    evaluation: Evaluation | None
    decision: Decision | None
    entries: tuple[Entry, ...]
    """The whole ledger of the model."""

    previous: str | None
    """Digest of the champion before this one; None: there was none."""

    previous_manifest: Manifest | None

    @property
    def passed(self) -> Entry | None:
        """The event that followed the gate's pass of this version: it became challenger, or champion at once."""
        made = [each for each in self.entries if each.action == "promote"]
        return next((each for each in reversed(made) if each.to_manifest == self.manifest.digest), None)

    @property
    def promotion(self) -> Entry | None:
        """The event that made this version champion last."""
        made = [each for each in self.entries if each.alias == "champion" and each.action in ("promote", "finish")]
        return next((each for each in reversed(made) if each.to_manifest == self.manifest.digest), None)


def gather(platform: Platform, model: str, manifest: str | None = None) -> Records:
    """What is recorded of a version of `domain/model`.

    Parameters
    ----------
    manifest : its digest, or the beginning of it that people are shown; None: the champion's

    Raises
    ------
    DataError
        There is no such manifest, or no champion.
    """
    ledger = Ledger(platform)
    entries = tuple(ledger.entries(model))
    named = manifest or ledger.champion(model)
    if named is None:
        raise DataError(f"{model} has no champion. Promote a version of it, or name one by `--manifest`")
    bundle = named_bundle(platform, model, named)
    domain, _, name = model.partition("/")
    folder = platform.training(domain, name, bundle.manifest.model_version)
    recipe = _recorded(partial(load_recipe, folder))
    candidate = _recorded(partial(load_candidate, folder))
    # What lies in the recipe's folder is about the candidate that was made of it, which need not be this bundle.
    ours = candidate is not None and candidate.manifest == bundle.digest
    decision = _recorded(partial(load_decision, folder)) if ours else None
    records = Records(
        written_at=platform.clock(),
        manifest=bundle.manifest,
        domain=bundle.domain,
        model=bundle.model,
        recipe=recipe,
        tables=tuple(_tables(platform, bundle, recipe)) if recipe else (),
        contracts=tuple(_contracts(platform, bundle, recipe, decision)) if recipe and decision else (),
        training_set=_recorded(partial(_training_set, folder)),
        candidate=candidate if ours else None,
        evaluation=_recorded(partial(load_evaluation, folder)) if ours else None,
        decision=decision if decision and decision.candidate == bundle.digest else None,
        entries=entries,
        previous=None,
        previous_manifest=None,
    )
    made = records.promotion
    previous = made.from_manifest if made else bundle.manifest.rollback_target
    before = _recorded(partial(bundle_of, platform, previous)) if previous else None
    return replace(records, previous=previous, previous_manifest=before.manifest if before else None)


def _tables(platform: Platform, bundle: Bundle, recipe: Recipe) -> Iterator[InputTable]:
    domain, inputs = bundle.domain, bundle.manifest.record.inputs
    facts = domain.requests.facts
    views = _recorded(partial(view_stores, platform, domain, bundle.model)) or {}
    yield _table(facts_table(domain), recipe.facts, inputs, Tables(platform, domain).facts(facts))
    for label, days in recipe.views.items():
        yield _table(label, days, inputs, views[label][1] if label in views else None)


def _table(name: str, days: Mapping[str, int], inputs: Mapping[str, str], store: Stage | None) -> InputTable:
    listed = _recorded(partial(store.revisions, days)) if store else None
    used = {each.partition: each for each in listed or () if days.get(each.partition) == each.number}
    complete = used.keys() == days.keys()
    return InputTable(
        name=name,
        days=days,
        revisions=inputs.get(name, ""),
        rows=sum(each.rows for each in used.values()) if complete else None,
        content=declaration_version({day: each.content_hash for day, each in used.items()}) if complete else None,
    )


def _contracts(platform: Platform, bundle: Bundle, recipe: Recipe, decision: Decision) -> Iterator[Contract]:
    """Of the days that were used, as was known when the gate decided."""
    tables = Tables(platform, bundle.domain)
    for source in (each.name for each in bundle.domain.sources):
        kept, refused = (
            _recorded(partial(store.current, recipe.facts, known_at=decision.decided_at))
            for store in (tables.validated(source), tables.quarantine(source))
        )
        if kept and refused is not None:
            yield Contract(
                source=source,
                days=len(kept),
                kept=sum(each.rows for each in kept.values()),
                refused=sum(each.rows for each in refused.values()),
            )


def _training_set(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "training_set.json").read_text())
    return described


def _recorded(look: Callable[[], Value]) -> Value | None:
    """What is recorded; None where it is not, or cannot be read."""
    try:
        return look()
    except (MlplatformError, OSError, ValueError):
        return None
