"""The ledger: every promotion, rollout step and rollback, append-only.

"Which version served at T?" is a query on it. It is the truth; the aliases in MLflow mirror it. Each model is one
partition of a stage table, each event one revision: the stage's sequence numbers order the events, and of two writers
that saw the same last event one is refused (`StaleRevision`).
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import polars as pl

from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.provenance.platform import Platform

Alias = Literal["challenger", "champion"]
Action = Literal["promote", "roll_back"]

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


class Ledger:
    """Reads and appends the events of all models."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stage = Stage(
            platform.ledger, _schema, name="ledger", sort_by=("event",), storage_options=platform.storage_options
        )

    def entries(self, model: str) -> list[Entry]:
        """Events of `domain/model`, oldest first."""
        rows = self._stage.history([model]).sort("_revision")
        return [
            Entry(
                number=row["_revision"],
                action=row["action"],
                alias=row["alias"],
                from_manifest=row["from_manifest"],
                to_manifest=row["to_manifest"],
                actor=row["actor"],
                reason=row["reason"],
                evidence=json.loads(row["evidence"]),
                at=row["at"],
            )
            for row in rows.iter_rows(named=True)
        ]

    def champion(self, model: str, *, at: datetime | None = None) -> str | None:
        """Digest of the manifest that was champion at an instant (default: now); None before the first promotion."""
        moves = [entry for entry in self.entries(model) if entry.alias == "champion" and (at is None or entry.at <= at)]
        return moves[-1].to_manifest if moves else None

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
        after : number of the last event that the caller has decided on, 0 for none; None: the last one there is

        Raises
        ------
        StaleRevision
            Somebody else recorded an event since the last one was read.
        """
        before = self.entries(model)
        now = self._platform.clock()
        event = uuid.uuid4().hex
        row = {
            "event": event,
            "action": action,
            "alias": alias,
            "from_manifest": next((entry.to_manifest for entry in reversed(before) if entry.alias == alias), None),
            "to_manifest": to_manifest,
            "actor": actor,
            "reason": reason,
            "evidence": json.dumps(evidence, sort_keys=True),
            "at": now,
        }
        draft = Draft(rows=pl.DataFrame([row], schema=_schema), inputs=(event,))
        written = Written(run_id=event, code_version="ledger", environment=self._platform.environment, known_at=now)
        last = len(before) if after is None else after
        self._stage.append({model: draft}, written, expect={model: last})
        return self.entries(model)[last]
