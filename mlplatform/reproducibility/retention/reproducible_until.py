"""Until when answers can be given again and models be made again, by policy and holds as they stand."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Revision
from mlplatform.features.tables import partition_end
from mlplatform.features.tombstones import Kind, Tombstone, tombstones
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.removed import removed_text
from mlplatform.reproducibility.retention.needed import (
    Made,
    Window,
    live,
    made,
    pins,
    revisions_of,
    superseded_at,
    window,
)
from mlplatform.reproducibility.retention.retention import last_served, rule_of


@dataclass(frozen=True, kw_only=True)
class Until:
    """Until when the answers of a manifest can be given again, and its model be made again."""

    at: datetime | None
    """None: no end can be told. Past: something is gone already."""

    why: str


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """What is asked of once for all manifests."""

    platform: Platform
    domain: Domain
    log: Window
    live: Mapping[str, str]
    revisions: Mapping[str, Revision]
    superseded: Mapping[str, datetime]
    made: Collection[Made]
    gone: Mapping[tuple[Kind, str], Tombstone]


def reproducible_until(platform: Platform, domain: Domain, manifests: Collection[str]) -> dict[str, Until]:
    """Until when answers of each manifest can be replayed and its model be made again.

    Parameters
    ----------
    manifests : digests; the log and the tables are looked through once for all of them
    """
    if not manifests:
        return {}
    log, listed = window(platform, domain), revisions_of(platform, domain)
    standing = _Standing(
        platform=platform,
        domain=domain,
        log=log,
        live=live(platform, domain, log),
        revisions=listed,
        superseded=superseded_at(listed),
        made=made(platform, domain),
        gone=tombstones(platform, domain),
    )
    return {manifest: _gone(standing, manifest) or _until(standing, manifest) for manifest in manifests}


def _gone(now: _Standing, manifest: str) -> Until | None:
    """Since when something is gone."""
    if (text := removed_text(now.platform.bundles / manifest)) is not None:
        stone = now.gone.get(("bundle", manifest))
        return Until(at=stone.removed_at if stone else None, why=text)
    stones = [now.gone.get(("revision", f"{now.domain.name}/{name}")) for name in _pinned(now, manifest)
              if now.revisions[name].removed]  # fmt: skip
    first = min((each for each in stones if each), key=lambda each: each.removed_at, default=None)
    return Until(at=first.removed_at, why=str(first)) if first else None


def _until(now: _Standing, manifest: str) -> Until:
    policy = now.domain.reproducibility.retention
    why = now.live.get(manifest, "")
    answers = now.log.kept.filter(now.log.kept["manifest"] == manifest).get_column("day")
    newest = str(answers.max()) if len(answers) else ""
    if why and why != f"answers of {newest}":
        return Until(at=None, why=f"{why}: its time is counted from when that ends")
    if newest and (policy.predictions is None or newest in now.log.held):
        return Until(at=None, why=now.log.held.get(newest, f"{why}, and answers are kept for ever"))
    earliest = datetime.min.replace(tzinfo=UTC)
    if newest and policy.predictions:
        earliest = partition_end(newest) + policy.predictions
    ends: list[tuple[datetime, str]] = []
    made_of_it = [each for each in now.made if each.manifest == manifest]
    if policy.models is not None and made_of_it:
        last = last_served(now.platform, now.domain, made_of_it[0], now.log)
        ends.append((max(earliest, last + policy.models), rule_of("models", policy.models)))
    if policy.superseded is not None:
        over = [now.superseded[name] + policy.superseded for name in _pinned(now, manifest) if name in now.superseded]
        ends += [(max(earliest, each), rule_of("superseded revisions", policy.superseded)) for each in over]
    if not ends:
        return Until(at=None, why="no rule removes what it is made of")
    return Until(at=min(ends)[0], why=min(ends)[1])


def _pinned(now: _Standing, manifest: str) -> list[str]:
    told = pins(now.platform, now.domain, now.domain, manifest) or ()
    return [name for name in told if name in now.revisions]
