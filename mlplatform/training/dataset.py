"""The training set: past requests with what they could have seen and what came of them.

It is made from a recipe and from nothing else: the same recipe gives the same rows, and their content hash is kept
beside them. A label counts only when it was available by the cut-off; how much that leaves out is reported.
"""

import json
import os
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.features.historical import historical_features, values_not_known_then
from mlplatform.features.tables import Tables
from mlplatform.provenance.content_hash import content_hash
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.removed import refuse_removed
from mlplatform.training.evaluation import Immaturity
from mlplatform.training.recipe import Recipe, require_current

ROWS_FILE = "training_set.parquet"
SCORES_FILE = "trained_scores.npy"
"""The candidate's scores of the evaluation rows, as it was trained."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Rows to train and evaluate on, and what is known about them."""

    rows: pl.DataFrame
    """(n, …) request columns, `at`, `label`, `label_available_at`, view features; sorted by time and identity."""

    content_hash: str
    unlabelled: int
    """Past requests that never get a label (for flights: cancelled and diverted ones)."""

    differing_values: int
    """Feature values that would be others if each row had seen only revisions known by then: corrections since."""

    immaturity: Immaturity


def build_training_set(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe) -> TrainingSet:
    """Join past requests with their features and labels.

    Raises
    ------
    DataError
        No labelled request is left, or the recipe is no longer what would be built.
    """
    require_current(platform, domain, model, recipe)
    asked, labelled, values = _joined(platform, domain, model, recipe)
    rows = labelled.hstack(values)
    return TrainingSet(
        rows=rows,
        content_hash=content_hash(rows),
        unlabelled=asked - labelled.height,
        differing_values=values_not_known_then(platform, domain, model, labelled, values, recipe.views),
        immaturity=immaturity(model, recipe.cut_off, labelled),
    )


def training_rows(platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe) -> pl.DataFrame:
    """The rows of a recipe's training set, built from the revisions that it pins by whatever code is handed in.

    It does not ask whether that code is what the recipe names: who makes an old model again says what differs.

    Parameters
    ----------
    domain, model : as declared now, or as a bundle holds them

    Raises
    ------
    DataError
        A revision is gone, or no labelled request is left.
    """
    _, labelled, values = _joined(platform, domain, model, recipe)
    return labelled.hstack(values)


def _joined(
    platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe
) -> tuple[int, pl.DataFrame, pl.DataFrame]:
    """How many requests there were, those with a label, and the values that they could have seen."""
    facts = Tables(platform, domain).facts(domain.requests.facts).read(numbers=recipe.facts)
    asked = domain.requests.of_facts(facts).with_columns(
        label=facts.select(model.label.value()).to_series(), label_available_at=facts["available_at"]
    )
    asked = asked.filter(pl.col("at").is_not_null(), pl.col("label_available_at") <= recipe.cut_off)
    labelled = asked.filter(pl.col("label").is_not_null())
    if labelled.is_empty():
        raise DataError(
            f"{recipe.model} has no labelled request before {recipe.as_of}. Backfill more days, or look at the label"
        )
    labelled = labelled.sort("at", *domain.requests.identity, maintain_order=True)
    return asked.height, labelled, historical_features(platform, domain, model, labelled, recipe.views)


def save_training_set(folder: Path, made: TrainingSet, recipe: Recipe) -> dict[str, object]:
    """Write rows and manifest; returns the manifest. Written once: a second, equal one changes nothing.

    Raises
    ------
    DataError
        The folder holds other rows for the same recipe.
    """
    path = folder / "training_set.json"
    described = {
        "recipe": recipe.key,
        "content_hash": made.content_hash,
        "rows": made.rows.height,
        "unlabelled": made.unlabelled,
        "differing_values": made.differing_values,
        "immaturity": asdict(made.immaturity),
        "view_versions": dict(recipe.view_versions),
        "label_cut_off": recipe.label_cut_off,
    }
    if path.exists():
        before: dict[str, object] = json.loads(path.read_text())
        if before["content_hash"] != made.content_hash:
            raise DataError(
                f"recipe {recipe.key} gave other rows before ({before['content_hash']}, now {made.content_hash}). "
                "A training set must follow from its recipe: look for a clock or a random number in the feature code"
            )
        return before
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".training_set.{uuid.uuid4().hex}.parquet"
    made.rows.write_parquet(draft)
    os.replace(draft, folder / ROWS_FILE)
    write_whole(path, json.dumps(described, indent=1))
    return described


def load_rows(folder: Path) -> pl.DataFrame:
    """Rows of a saved training set.

    Raises
    ------
    RemovedByPolicy
        They were removed, and left a tombstone.
    DataError
        There are none yet.
    """
    path = folder / ROWS_FILE
    refuse_removed(path)
    if not path.exists():
        raise DataError(f"there is no training set in {folder.name}. Materialise `training_set` of that recipe first")
    return pl.read_parquet(path)


def immaturity(model: ModelSpec, cut_off: datetime, labelled: pl.DataFrame) -> Immaturity:
    """How far the labels that are in early differ from all of them, seen on days that are mature by now.

    Had the cut-off been one label delay earlier, these of the last requests before it would have lacked their label.
    The requests asked within the label delay before the real cut-off are in that state today, and are not evaluated on.
    """
    edge = cut_off - model.label.delay
    asked = labelled.filter(pl.col("at") < edge, pl.col("at") >= edge - model.label.delay)
    early = asked.filter(pl.col("label_available_at") <= edge)
    return Immaturity(
        requests=asked.height, pending=asked.height - early.height, mean_early=_mean(early), mean_all=_mean(asked)
    )


def _mean(rows: pl.DataFrame) -> float | None:
    value = rows["label"].mean()
    return float(value) if isinstance(value, int | float) else None
