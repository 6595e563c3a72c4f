"""Tombstones: what was removed by policy, when, by whom and why. The ledger of removal.

The table is append-only like every other, and is never removed from. A tombstone is written before what it stands for
is taken away: after a kill in between the thing is still there, and is what counts; the next removal writes another.

Who meets a gap need not look here: a revision says in the listing of its table that it was removed, and beside the
place of a bundle or a training set lies a mark (`provenance.removed`). Of a day of answers only this table tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

Kind = Literal["revision", "answers", "bundle", "training_set"]
"""`answers`: a day of the prediction log, and the rows of monitors that tell of single answers of it."""

_schema: Mapping[str, pl.DataType] = {
    "kind": pl.String(),
    "name": pl.String(),
    "content": pl.String(),
    "rows": pl.Int64(),
    "policy": pl.String(),
    "actor": pl.String(),
    "removed_at": instant,
}


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """One thing that is gone on purpose."""

    kind: Kind
    name: str
    """`domain/stage/table/day@revision`, the ISO day of the log, the manifest's digest, `domain/model/recipe`."""

    content: str
    """Its content hash, where it had one; of a bundle the recipe, `domain/model@recipe`."""

    rows: int
    policy: str
    """Which rule, and its age, such as `superseded revisions go after 30 days`."""

    actor: str
    removed_at: datetime

    def __str__(self) -> str:
        return f"{self.kind} {self.name} was removed by policy on {self.removed_at:%Y-%m-%d} ({self.policy})"


def tombstones_table(platform: Platform, domain: Domain) -> Stage:
    """The table `tombstones` of a domain: one partition for each removal."""
    uri = platform.table(domain.name, "", "tombstones")
    name = f"{domain.name}/tombstones"
    return Stage(uri, _schema, name=name, storage_options=platform.storage_options)


def tombstones(platform: Platform, domain: Domain) -> dict[tuple[Kind, str], Tombstone]:
    """Every tombstone of a domain by kind and name; of two for one name the last, by which it really went."""
    rows = tombstones_table(platform, domain).history().select(list(_schema))
    return {(each["kind"], each["name"]): Tombstone(**each) for each in rows.iter_rows(named=True)}


def bury(platform: Platform, domain: Domain, gone: Sequence[Tombstone]) -> None:
    """Write tombstones, all or none, and before anything is taken away."""
    if not gone:
        return
    now = platform.clock()
    name = f"{now:%Y-%m-%dT%H:%M:%S.%f}"
    rows = pl.DataFrame([asdict(each) for each in gone], schema=_schema)
    written = Written(run_id="", code_version="tombstones", environment=platform.environment, known_at=now)
    tombstones_table(platform, domain).append({name: Draft(rows=rows)}, written)
