"""The ledger: every promotion, rollout step and rollback, append-only.

"What served at T, to whom?" is a query on it (`standing`). It is the truth; the aliases in MLflow mirror it. Each model
is one partition of a stage table, each event one revision: the stage's sequence numbers order the events, and of two
writers that saw the same last event one is refused (`StaleRevision`). Its times never run backwards, whatever the
clocks do.

Each entry holds a hash of itself and of the one before it. So an entry that was changed, left out or put in between
shows, by `verify`, to whoever has the hash of a later one: it stands in the release dossier and in the plan.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import polars as pl

from mlplatform.errors import DataError, LedgerBroken, Unsigned
from mlplatform.features.integrity import altered
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.provenance.platform import Platform

Alias = Literal["challenger", "champion"]
Action = Literal["promote", "start", "advance", "pause", "resume", "approve", "roll_back", "override", "finish"]

MOVES: frozenset[Action] = frozenset({"promote", "start", "advance", "pause", "resume", "roll_back", "finish"})
"""Actions that say where an alias, or its traffic, stands. The others are said about a manifest and move nothing."""

_instant = pl.Datetime("us", "UTC")
_schema = {
    "event": pl.String(),
    "action": pl.String(),
    "alias": pl.String(),
    "from_manifest": pl.String(),
    "to_manifest": pl.String(),
    "actor": pl.String(),
    "reason": pl.String(),
    "evidence": pl.String(),
    "at": _instant,
    "hash": pl.String(),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One event of a model's life."""

    number: int
    """Place in the model's sequence, from 1."""

    action: Action
    alias: Alias
    from_manifest: str | None
    to_manifest: str
    actor: str
    reason: str
    evidence: Mapping[str, Any]
    at: datetime
    hash: str
    """Of this entry and, by the hash of the one before it, of all before it."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What served at an instant, and to whom."""

    champion: Entry | None
    """The event by which it is the champion; None before the first promotion."""

    challenger: Entry | None
    """The event that gave the challenger what traffic it has; None: there is no challenger."""

    mode: str
    """`full`, `shadow`, `canary`, `a/b`, as the event says. Empty: a challenger that was not started yet."""

    weight: int
    """Of the challenger, as the plan counts it."""


class Ledger:
    """Reads and appends the events of all models."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stage = Stage(
            platform.ledger, _schema, name="ledger", sort_by=("event",), storage_options=platform.storage_options
        )

    def models(self) -> list[str]:
        """Every `domain/model` that has events."""
        return sorted(self._stage.current())

    def entries(self, model: str) -> list[Entry]:
        """Events of `domain/model`, oldest first.

        Raises
        ------
        LedgerBroken
            An event lacks what every event has: the table was written to by something else.
        """
        rows = self._stage.history([model]).sort("_revision")
        return [_entry(model, row) for row in rows.iter_rows(named=True)]

    def altered(self, model: str) -> dict[int, str]:
        """Number of an event -> what is wrong with its file, by name; nothing where all are what was written."""
        faults = altered(self._stage, self._stage.revisions([model]))
        return {number: fault for (_, number), fault in faults.items()}

    def first_unreadable(self, model: str) -> int | None:
        """Number of the first event whose file is gone or cannot be read; None: all can be."""
        for revision in self._stage.revisions([model]):
            try:
                self._stage.read(numbers={model: revision.number})
            except (DataError, OSError, pl.exceptions.PolarsError):
                return revision.number
        return None

    def champion(self, model: str, *, at: datetime | None = None) -> str | None:
        """Digest of the manifest that was champion at an instant (default: now); None before the first promotion."""
        made = standing(self.entries(model), at).champion
        return made.to_manifest if made else None

    def append(
        self,
        model: str,
        *,
        action: Action,
        alias: Alias,
        to_manifest: str,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
        after: int | None = None,
    ) -> Entry:
        """Record that an alias moves.

        Parameters
        ----------
        actor, reason : who, and why; neither may be empty
        after : number of the last event that the caller has decided on, 0 for none; None: the last one there is

        Raises
        ------
        Unsigned
            Nobody is named, or no reason. Nothing was recorded.
        StaleRevision
            Somebody else recorded an event since the last one was read.
        """
        if not actor.strip() or not reason.strip():
            raise Unsigned(model, action)
        before = self.entries(model)
        # A clock that was put back must not put this event before the last one: an instant has one answer.
        now = max([self._platform.clock(), *(entry.at for entry in before[-1:])])
        moves = [entry for entry in before if entry.alias == alias and entry.action in MOVES]
        event = uuid.uuid4().hex
        row: dict[str, Any] = {
            "event": event,
            "action": action,
            "alias": alias,
            "from_manifest": moves[-1].to_manifest if moves else None,
            "to_manifest": to_manifest,
            "actor": actor,
            "reason": reason,
            "evidence": json.dumps(evidence, sort_keys=True),
            "at": now,
        }
        row["hash"] = _hash(before[-1].hash if before else "", row)
        draft = Draft(rows=pl.DataFrame([row], schema=_schema), inputs=(event,))
        written = Written(run_id=event, code_version="ledger", environment=self._platform.environment, known_at=now)
        last = len(before) if after is None else after
        self._stage.append({model: draft}, written, expect={model: last})
        return self.entries(model)[last]


def broken_at(entries: Sequence[Entry]) -> int | None:
    """Number of the first entry of a model that does not follow from those before it; None: all do.

    Parameters
    ----------
    entries : all of one model, in order
    """
    before = ""
    for place, entry in enumerate(entries, 1):
        row = {name: getattr(entry, name) for name in _hashed}
        row["evidence"] = json.dumps(entry.evidence, sort_keys=True)
        if entry.number != place or entry.hash != _hash(before, row):
            return place
        before = entry.hash
    return None


def standing(entries: Sequence[Entry], at: datetime | None = None) -> Standing:
    """What served at an instant.

    Parameters
    ----------
    entries : of one model, in order
    at : inclusive; None: after the last of them
    """
    champion = challenger = None
    mode, weight = "full", 0
    for entry in entries:
        if entry.action not in MOVES or (at is not None and entry.at > at):
            continue
        if entry.alias == "champion":
            champion = entry
        if entry.alias == "champion" or entry.action in ("roll_back", "finish"):
            challenger, mode, weight = None, "full", 0
            continue
        challenger = entry
        if entry.action == "promote":
            mode, weight = "", 0
        mode, weight = str(entry.evidence.get("mode", mode)), int(entry.evidence.get("weight", weight))
    return Standing(champion=champion, challenger=challenger, mode=mode, weight=weight)


def rolled_back(entry: Entry) -> str | None:
    """Digest of the manifest that an event sends back; None: it is no rollback."""
    if entry.action != "roll_back":
        return None
    # The alias leaves what is sent back; the one of a challenger may stay where nobody is answered by it.
    return entry.to_manifest if entry.from_manifest in (None, entry.to_manifest) else entry.from_manifest


_hashed = ("action", "alias", "from_manifest", "to_manifest", "actor", "reason", "evidence", "at")


def _hash(before: str, row: Mapping[str, Any]) -> str:
    """SHA-256 of the hash of the entry before, and of all that an entry says."""
    said = [before, *(row[name] for name in _hashed[:-1]), row["at"].isoformat()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _entry(model: str, row: Mapping[str, Any]) -> Entry:
    try:
        evidence = json.loads(row["evidence"])
    except (TypeError, ValueError) as error:
        raise LedgerBroken(model, row["_revision"], "its evidence is no JSON") from error
    if row["at"] is None:
        raise LedgerBroken(model, row["_revision"], "it has no time")
    names = ("action", "alias", "from_manifest", "to_manifest", "actor", "reason", "at", "hash")
    return Entry(number=row["_revision"], evidence=evidence, **{name: row[name] for name in names})
