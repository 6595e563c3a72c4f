"""What there is: per domain the newest partition of every stage, per model its champion and figures."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError
from mlplatform.features.tables import Tables, stages
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.judge import load_evaluation


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """One model as it serves."""

    model: str
    champion: str | None
    """Digest of the manifest; None: nothing was promoted."""

    model_version: str | None
    since: datetime | None
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DomainStatus:
    """One domain as it stands."""

    domain: str
    newest: dict[str, str | None]
    """Stage -> newest partition that all its tables have."""

    partitions: dict[str, int]
    quarantined_rows: int
    models: tuple[ModelStatus, ...]


def status(platform: Platform, domains: Iterable[Domain]) -> list[DomainStatus]:
    """Read tables and ledger; nothing is computed."""
    return [_domain(platform, domain) for domain in domains]


def as_json(found: list[DomainStatus]) -> str:
    """For scripts."""
    return json.dumps([asdict(each) for each in found], indent=1, default=str)


def _domain(platform: Platform, domain: Domain) -> DomainStatus:
    tables = Tables(platform, domain)
    newest: dict[str, str | None] = {}
    counts = {}
    refused = 0
    for stage in stages:
        current = [store.current() for store in tables.of(stage).values()]
        complete = set.intersection(*(set(days) for days in current)) if current else set()
        newest[stage] = max(complete, default=None)
        counts[stage] = len(complete)
        if stage == "quarantine":
            refused = sum(revision.rows for days in current for revision in days.values())
    models = tuple(_model(platform, domain, model.name) for model in domain.models)
    return DomainStatus(domain=domain.name, newest=newest, partitions=counts, quarantined_rows=refused, models=models)


def _model(platform: Platform, domain: Domain, name: str) -> ModelStatus:
    moves = [entry for entry in Ledger(platform).entries(f"{domain.name}/{name}") if entry.alias == "champion"]
    if not moves:
        return ModelStatus(model=name, champion=None, model_version=None, since=None, metrics={})
    recipe = str(moves[-1].evidence.get("recipe", ""))
    try:
        figures = load_evaluation(platform.training(domain.name, name, recipe)).metrics["candidate"]
    except DataError:
        figures = {}
    return ModelStatus(
        model=name,
        champion=moves[-1].to_manifest,
        model_version=recipe,
        since=moves[-1].at,
        metrics={metric: each.point for metric, each in figures.items() if each.point is not None},
    )
