"""Legal holds: what must be kept whatever the policy says, who said so and why.

A hold is a partition of an append-only table: its first revision places it, its second one releases it. Nothing is ever
taken out, so it can be told later what was held when. Each names one thing: a model, a manifest, days of answers, or a
request. What that refers to in turn (bundles, revisions, whole days of the log) is worked out where things are removed
(`needed`).

It refuses a hold of what there is not, and one that nobody signs.
"""

import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal, cast

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, Unsigned
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.view import instant
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import named_bundle
from mlplatform.reproducibility.replay.find import find

Kind = Literal["model", "manifest", "answers", "request"]

_schema = {
    "kind": pl.String(),
    "subject": pl.String(),
    "first": pl.Date(),
    "last": pl.Date(),
    "action": pl.String(),
    "actor": pl.String(),
    "reason": pl.String(),
    "at": instant,
}


@dataclass(frozen=True, kw_only=True)
class Hold:
    """One hold, placed and perhaps released."""

    name: str
    """Eight hexadecimal digits."""

    kind: Kind
    subject: str
    """Name of the model in its domain, digest of the manifest, id of the request; empty: all answers of the days."""

    first: date | None
    """First day of answers that is held, UTC; None: a model or a manifest is held, of whatever days."""

    last: date | None
    actor: str
    reason: str
    at: datetime
    released_by: str = ""
    """Empty: it is in force."""

    released_for: str = ""
    released_at: datetime | None = None

    @property
    def in_force(self) -> bool:
        """Whether it still holds."""
        return not self.released_by

    @property
    def what(self) -> str:
        """What is held, in words."""
        days = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        match self.kind:
            case "answers":
                return f"answers of {days}"
            case "request":
                return f"request {self.subject} of {days}"
        return f"{self.kind} {self.subject[:12] if self.kind == 'manifest' else self.subject}"

    def __str__(self) -> str:
        return f"legal hold {self.name} on {self.what} ({self.actor}: {self.reason})"


def hold(
    platform: Platform,
    domain: Domain,
    *,
    by: str,
    reason: str,
    model: str = "",
    manifest: str = "",
    days: tuple[date, date] | None = None,
    request_id: str = "",
) -> Hold:
    """Place a hold on one thing.

    Parameters
    ----------
    by, reason : who, and why; neither may be empty
    model : its name in the domain: its bundles and training sets, and every day on which it answered
    manifest : digest, the beginning of one, or a recipe's key, of `model`: the same of that one version
    days : first and last day of answers, UTC, both included
    request_id : the day on which that request came

    Raises
    ------
    DataError
        Not one thing is named, or there is no such thing.
    Unsigned
        Nobody is named, or no reason.
    """
    if not by.strip() or not reason.strip():
        raise Unsigned(domain.name, "hold")
    named = [bool(model or manifest), days is not None, bool(request_id)]
    if sum(named) != 1 or (manifest and not model):
        raise DataError(
            "a hold is of one thing. Name a model, a model and a manifest of it, days of answers, or a request"
        )
    name = uuid.uuid4().hex[:8]
    with removal_lock(platform, domain):
        row: dict[str, Any] = {"kind": "request", "subject": request_id, "first": None, "last": None}
        if manifest:
            digest = named_bundle(platform, f"{domain.name}/{model}", manifest).digest
            row |= {"kind": "manifest", "subject": digest}
        elif model:
            row |= {"kind": "model", "subject": domain.model(model).name}
        elif days is not None:
            if days[1] < days[0]:
                raise DataError(f"{days[0]} to {days[1]} is no range of days. Give the earlier day first")
            row |= {"kind": "answers", "first": days[0], "last": days[1]}
        else:
            came = find(platform, domain, request_id)["received"].dt.date().sort()
            row |= {"first": came[0], "last": came[-1]}
        _append(platform, domain, name, row | {"action": "hold", "actor": by, "reason": reason}, after=0)
    return _named(platform, domain, name)


def release(platform: Platform, domain: Domain, name: str, *, by: str, reason: str) -> Hold:
    """End a hold; what it held goes by the policy again.

    Raises
    ------
    DataError
        There is no such hold, or it was released already.
    Unsigned
        Nobody is named, or no reason.
    """
    if not by.strip() or not reason.strip():
        raise Unsigned(domain.name, "release")
    found = _named(platform, domain, name)
    if not found.in_force:
        raise DataError(f"{found} was released already, on {found.released_at:%Y-%m-%d} by {found.released_by}")
    row = {"kind": found.kind, "subject": found.subject, "first": found.first, "last": found.last}
    with removal_lock(platform, domain):
        _append(platform, domain, name, row | {"action": "release", "actor": by, "reason": reason}, after=1)
    return _named(platform, domain, name)


def holds(platform: Platform, domain: Domain) -> list[Hold]:
    """Every hold of a domain, released or not, in the order in which they were placed."""
    found: dict[str, Hold] = {}
    for row in _table(platform, domain).history().sort("_partition", "_revision").iter_rows(named=True):
        name = row["_partition"]
        if row["action"] == "hold":
            found[name] = Hold(
                name=name,
                kind=cast(Kind, row["kind"]),
                **{each: row[each] for each in ("subject", "first", "last", "actor", "reason", "at")},
            )
        else:
            placed = found[name]
            found[name] = replace(placed, released_by=row["actor"], released_for=row["reason"], released_at=row["at"])
    return sorted(found.values(), key=lambda each: (each.at, each.name))


def removal_lock(platform: Platform, domain: Domain) -> AbstractContextManager[None]:
    """Between who places a hold and who removes: what was held before a removal began is seen by it."""
    return alone(platform.home / "retention" / f"{domain.name}.lock")


def _named(platform: Platform, domain: Domain, name: str) -> Hold:
    for each in holds(platform, domain):
        if each.name == name:
            return each
    raise DataError(f"{domain.name} has no hold {name!r}. `mlplatform retention holds {domain.name}` lists them")


def _append(platform: Platform, domain: Domain, name: str, row: dict[str, Any], *, after: int) -> None:
    now = platform.clock()
    draft = Draft(rows=pl.DataFrame([row | {"at": now}], schema=_schema))
    written = Written(run_id="", code_version="holds", environment=platform.environment, known_at=now)
    _table(platform, domain).append({name: draft}, written, expect={name: after})


def _table(platform: Platform, domain: Domain) -> Stage:
    return Stage(
        platform.table(domain.name, "", "legal_holds"),
        _schema,
        name=f"{domain.name}/legal_holds",
        storage_options=platform.storage_options,
    )
