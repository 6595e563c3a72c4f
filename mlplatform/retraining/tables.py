"""The table `retrain_decisions`: every decision on every model of a domain, append-only.

A partition is a day of one model, a revision what was decided at one moment: what was refused, if anything, and then
whether to train. How far the events were read stands in the same revision, so an event is decided on exactly when its
decision is there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.events import Positions
from mlplatform.retraining.policy import Kind, Outcome

table_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "at": instant,
    "outcome": pl.String(),
    "kind": pl.String(),
    "reason": pl.String(),
    "recipe": pl.String(),
    "inputs": pl.String(),
    "events": pl.String(),
    "trained_at": instant,
    "reached": pl.String(),
}
"""One row per decision; `inputs`, `events` and `reached` as JSON."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A decision as it was kept."""

    model: str
    """`domain/model`."""

    at: datetime
    outcome: Outcome
    kind: Kind
    reason: str
    recipe: str
    """Key of the recipe to train by; empty unless the outcome is `train`."""

    inputs: Mapping[str, Mapping[str, Any]]
    """Input -> `value` and `threshold`."""

    events: Sequence[Mapping[str, Any]]
    """What was said to have come, and was decided on with it."""

    trained_at: datetime | None
    """When a training was last decided, this one included; None: never."""

    reached: Positions
    """How far the events were read."""

    name: str = ""
    """Of the record, once it is kept: day, model, revision and outcome."""


@dataclass(frozen=True, kw_only=True)
class Trail:
    """The newest records of a model, and where the next one goes."""

    records: Sequence[Recorded]
    """Newest first."""

    partition: str
    number: int
    """Of the last revision of that partition; 0: none."""

    @property
    def weighed(self) -> Recorded | None:
        """The last one that says whether to train."""
        return next((each for each in self.records if each.outcome != "refuse"), None)


def decisions_table(platform: Platform, domain: Domain) -> Stage:
    """The table of a domain."""
    return Stage(
        platform.table(domain.name, "retraining", "retrain_decisions"),
        table_schema,
        name=f"{domain.name}/retraining/retrain_decisions",
        storage_options=platform.storage_options,
    )


def trail(platform: Platform, domain: Domain, model: str, *, at_least: int = 2) -> Trail:
    """The newest records of a model, from a listing and some small files.

    Parameters
    ----------
    model : its name within the domain
    at_least : records, if there are as many
    """
    table = decisions_table(platform, domain)
    of_model = {day: each for day, each in table.current().items() if day.endswith(f" {model}")}
    chosen: list[str] = []
    held = 0
    for day in sorted(of_model, reverse=True):
        if held >= at_least:
            break
        chosen.append(day)
        # Revisions hold one record or two.
        held += of_model[day].number
    rows = table.history(chosen) if chosen else pl.DataFrame()
    records = [_recorded(row) for row in rows.iter_rows(named=True)]
    # A clock that was set back must not have its decisions after midnight written before those of yesterday.
    day = max([f"{platform.clock().astimezone(UTC):%Y-%m-%d} {model}", *chosen])
    return Trail(records=records[::-1], partition=day, number=of_model[day].number if day in of_model else 0)


def reached_by_models(platform: Platform, domain: Domain) -> list[Positions]:
    """How far the events were decided on for each model; nowhere for one without any record."""
    trails = (trail(platform, domain, each.name, at_least=1) for each in domain.models)
    return [each.records[0].reached if each.records else {} for each in trails]


def record(platform: Platform, domain: Domain, before: Trail, decided: Sequence[Recorded]) -> None:
    """Keep what was decided at one moment.

    Raises
    ------
    StaleRevision
        Somebody else has decided since `before` was read.
    """
    rows = pl.DataFrame([_row(each) for each in decided], schema=table_schema)
    written = Written(run_id="", code_version="", environment=platform.environment, known_at=platform.clock())
    table = decisions_table(platform, domain)
    table.append({before.partition: Draft(rows=rows)}, written, expect={before.partition: before.number})


def _row(each: Recorded) -> dict[str, Any]:
    as_json = {name: json.dumps(getattr(each, name), sort_keys=True) for name in ("inputs", "events", "reached")}
    return {name: getattr(each, name) for name in table_schema} | as_json


def _recorded(row: Mapping[str, Any]) -> Recorded:
    return Recorded(
        model=row["model"],
        at=row["at"],
        outcome=cast(Outcome, row["outcome"]),
        kind=cast(Kind, row["kind"]),
        reason=row["reason"],
        recipe=row["recipe"],
        inputs=json.loads(row["inputs"]),
        events=json.loads(row["events"]),
        trained_at=row["trained_at"],
        reached=json.loads(row["reached"]),
        name=f"{row['_partition']}@{row['_revision']} {row['outcome']}",
    )
