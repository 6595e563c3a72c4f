"""A model as it serves: its champion, how old that is, what it was judged on, and how the last training ended.

Read from the ledger and from the small files that a training leaves; no model is loaded.

It does not judge: a champion without figures, or an attempt that nobody decided on, is told as it is.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.judge import load_decision, load_evaluation


@dataclass(frozen=True, kw_only=True)
class Training:
    """The last attempt to make a model."""

    recipe: str
    outcome: Literal["pass", "fail", "inconclusive", "unfinished"]
    """What the gate said; `unfinished`: it was not asked yet."""

    reasons: tuple[str, ...]
    """Why it is no pass."""

    decided_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """One model as it serves."""

    model: str
    champion: str | None
    """Digest of the manifest; None: nothing was promoted."""

    model_version: str | None
    since: datetime | None
    age_seconds: float | None
    metrics: dict[str, float]
    last_training: Training | None


def unknown_model(model: str) -> ModelStatus:
    """A model of which nothing is known: none was made, or nothing could be read."""
    return ModelStatus(
        model=model, champion=None, model_version=None, since=None, age_seconds=None, metrics={}, last_training=None
    )


def model_status(platform: Platform, domain: Domain, name: str) -> ModelStatus:
    """How a model stands.

    Raises
    ------
    DataError
        What a training left behind cannot be read.
    """
    told = replace(unknown_model(name), last_training=_last_training(platform, domain, name))
    moves = [entry for entry in Ledger(platform).entries(f"{domain.name}/{name}") if entry.alias == "champion"]
    if not moves:
        return told
    recipe = str(moves[-1].evidence.get("recipe", ""))
    try:
        figures = load_evaluation(platform.training(domain.name, name, recipe)).metrics["candidate"]
    except DataError:
        figures = {}
    return replace(
        told,
        champion=moves[-1].to_manifest,
        model_version=recipe,
        since=moves[-1].at,
        age_seconds=(platform.clock() - moves[-1].at).total_seconds(),
        metrics={metric: each.point for metric, each in figures.items() if each.point is not None},
    )


def _last_training(platform: Platform, domain: Domain, name: str) -> Training | None:
    """The recipe that was made or decided on last, and what the gate said of it."""
    attempts = platform.training(domain.name, name, "none").parent.glob("*/recipe.json")
    folder = max((path.parent for path in attempts), key=_touched, default=None)
    if folder is None:
        return None
    if not (folder / "decision.json").exists():
        return Training(recipe=folder.name, outcome="unfinished", reasons=(), decided_at=None)
    decision = load_decision(folder)
    return Training(
        recipe=folder.name, outcome=decision.outcome, reasons=decision.reasons, decided_at=decision.decided_at
    )


def _touched(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in (folder / "recipe.json", folder / "decision.json") if path.exists())
