"""Retention: what goes by a domain's policy, what stays although it has the age and why, and the removal itself.

By default nothing goes. What a live manifest, an answer that is kept or a legal hold refers to stays, and so does the
current revision of a partition (`needed`).

Invariants:

* Tombstones are written first, for all that goes. Killed at any line, the next `apply` finds what is left, and goes on.
* What refers goes before what it refers to: rows that tell of answers, answers, bundles and training sets, then
  revisions. So whatever is still there after a kill has all that it needs.
* A hold is placed before a removal begins or after it has ended, on one machine: both take one lock.

Days of the log that are over are also compacted here. That takes no row away, needs no policy and leaves no tombstone.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlplatform.domain.domain import Domain
from mlplatform.errors import Unsigned
from mlplatform.features.removal import (
    compact,
    crowded,
    remove_partitions,
    remove_revisions,
)
from mlplatform.features.stage import Revision
from mlplatform.features.tables import Tables, partition_end, stages
from mlplatform.features.tombstones import Kind, Tombstone, bury
from mlplatform.monitoring.pickup import log_options, log_table
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.removed import mark_removed
from mlplatform.registry.ledger import Ledger
from mlplatform.reproducibility.retention.answer_rows import remove_answer_rows, why_removed
from mlplatform.reproducibility.retention.holds import removal_lock
from mlplatform.reproducibility.retention.leftovers import LEAVING, anything_left, close_tables, sweep_all
from mlplatform.reproducibility.retention.needed import (
    Made,
    Needed,
    Window,
    made,
    needed,
    revisions_of,
    superseded_at,
    window,
)
from mlplatform.training.dataset import ROWS_FILE, SCORES_FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Going:
    """One thing that has its age, and that nothing needs."""

    kind: Kind
    name: str
    """As in its tombstone."""

    content: str
    rows: int
    policy: str


@dataclass(frozen=True, kw_only=True)
class Staying:
    """One thing that has its age, and stays."""

    kind: Kind
    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a removal would do now, or has done."""

    domain: str
    at: datetime
    goes: tuple[Going, ...]
    """Those that refer before what they refer to."""

    stays: tuple[Staying, ...]
    compacted: tuple[str, ...]
    """Days of the log whose many files become one."""


def plan(platform: Platform, domain: Domain) -> Plan:
    """What `apply` would remove now. It removes nothing; it closes what a removal that was killed has left open."""
    with removal_lock(platform, domain):
        close_tables(platform, domain)
        return _planned(platform, domain)


def is_due(platform: Platform, domain: Domain) -> bool:
    """Whether there may be something to do; cheap, and true wherever the policy gives anything an age."""
    policy = domain.reproducibility.retention
    aged = any((policy.predictions, policy.superseded, policy.models))
    return aged or bool(_crowded(platform, domain)) or anything_left(platform, domain)


def apply(platform: Platform, domain: Domain, *, actor: str) -> Plan:
    """Remove what the policy lets go, and compact the log; gives what was done.

    Raises
    ------
    Unsigned
        Nobody is named.
    Unavailable
        A table cannot be written. What was removed has its tombstone; the next run goes on.
    """
    if not actor.strip():
        raise Unsigned(domain.name, "retention apply")
    options = log_options(platform)
    with removal_lock(platform, domain):
        sweep_all(platform, domain)
        found = _planned(platform, domain)
        texts = _bury(platform, domain, found, actor)
        _remove_answer_rows(platform, domain, found)
        remove_partitions(log_table(platform, domain), "day", [each.name for each in _of(found, "answers")], options)
        folders = {
            f"{domain.name}/{each.model}/{each.recipe}": each
            for each in made(platform, domain)
            if each.rows is not None
        }
        for each in _of(found, "bundle"):
            _remove_bundle(platform, domain, each, texts["bundle", each.name])
        for each in _of(found, "training_set"):
            _remove_training_set(folders[each.name], texts["training_set", each.name])
        _remove_revisions(platform, domain, found, texts)
        for day in found.compacted:
            compact(log_table(platform, domain), "day", day, by="request_id", options=options)
    log.info("%s: %d removed, %d stay, %d days compacted", domain.name, len(found.goes), len(found.stays),
             len(found.compacted))  # fmt: skip
    return found


def _planned(platform: Platform, domain: Domain) -> Plan:
    seen = window(platform, domain)
    listed = revisions_of(platform, domain)
    stay = needed(platform, domain, seen, listed)
    goes: list[Going] = []
    stays: list[Staying] = []
    for each in (
        *_answers(domain, seen),
        *_models(platform, domain, seen, stay),
        *_superseded(platform, domain, listed, stay),
    ):
        (goes if isinstance(each, Going) else stays).append(each)  # type: ignore[arg-type]
    gone = {each.name for each in goes if each.kind == "answers"}
    return Plan(
        domain=domain.name,
        at=platform.clock(),
        goes=tuple(goes),
        stays=tuple(stays),
        compacted=tuple(day for day in _crowded(platform, domain) if day not in gone),
    )


def _crowded(platform: Platform, domain: Domain) -> list[str]:
    """Days of the log that are over and lie in many files."""
    today = platform.clock().date().isoformat()
    days = crowded(log_table(platform, domain), "day", log_options(platform))
    return [day for day in days if day < today]


def _answers(domain: Domain, seen: Window) -> Iterator[Going | Staying]:
    age = domain.reproducibility.retention.predictions
    if age is None:
        return
    for day in seen.goes:
        rows = int(seen.answered.filter(seen.answered["day"] == day).get_column("rows").sum())
        yield Going(kind="answers", name=day, content="", rows=rows, policy=rule_of("answers", age))
    for day, why in seen.held.items():
        yield Staying(kind="answers", name=day, why=why)


def _models(platform: Platform, domain: Domain, seen: Window, stay: Needed) -> Iterator[Going | Staying]:
    age = domain.reproducibility.retention.models
    if age is None:
        return
    rule = rule_of("models", age)
    for each in made(platform, domain):
        if last_served(platform, domain, each, seen) + age > platform.clock():
            continue
        recipe = f"{domain.name}/{each.model}/{each.recipe}"
        why = stay.bundles.get(each.manifest) or stay.models.get(each.model, "")
        if each.manifest and (platform.bundles / each.manifest).is_dir():
            yield (
                Staying(kind="bundle", name=each.manifest, why=why)
                if why
                else Going(kind="bundle", name=each.manifest, content=recipe, rows=0, policy=rule)
            )
        if each.rows is not None:
            yield (
                Staying(kind="training_set", name=recipe, why=why)
                if why
                else Going(kind="training_set", name=recipe, content=each.manifest, rows=each.rows, policy=rule)
            )


def _superseded(
    platform: Platform, domain: Domain, listed: Mapping[str, Revision], stay: Needed
) -> Iterator[Going | Staying]:
    age = domain.reproducibility.retention.superseded
    if age is None:
        return
    for name, since in superseded_at(listed).items():
        each = listed[name]
        if each.removed or since + age > platform.clock():
            continue
        full = f"{domain.name}/{name}"
        if why := stay.revisions.get(name) or stay.every_revision:
            yield Staying(kind="revision", name=full, why=why)
        else:
            rule = rule_of("superseded revisions", age)
            yield Going(kind="revision", name=full, content=each.content_hash, rows=each.rows, policy=rule)


def last_served(platform: Platform, domain: Domain, each: Made, seen: Window) -> datetime:
    """When a model was last heard of: made, named in the ledger, or in an answer."""
    entries = Ledger(platform).entries(f"{domain.name}/{each.model}") if each.manifest else []
    named = [entry.at for entry in entries if each.manifest in (entry.to_manifest, entry.from_manifest)]
    days = seen.answered.filter(seen.answered["manifest"] == each.manifest).get_column("day")
    return max([each.at, *named, *(partition_end(str(day)) for day in days)])


def _remove_answer_rows(platform: Platform, domain: Domain, found: Plan) -> None:
    age = domain.reproducibility.retention.predictions
    if age is None:
        return
    held = {each.name for each in found.stays if each.kind == "answers"}

    def has_gone(day: str) -> bool:
        return day not in held and partition_end(day) + age <= found.at

    remove_answer_rows(platform, domain, has_gone, why_removed(platform, age))


def _bury(platform: Platform, domain: Domain, found: Plan, actor: str) -> dict[tuple[Kind, str], str]:
    """Write the tombstones; gives their texts."""
    gone = [
        Tombstone(
            kind=each.kind,
            name=each.name,
            content=each.content,
            rows=each.rows,
            policy=each.policy,
            actor=actor,
            removed_at=found.at,
        )
        for each in found.goes
    ]
    bury(platform, domain, gone)
    return {(each.kind, each.name): str(each) for each in gone}


def _remove_bundle(platform: Platform, domain: Domain, each: Going, text: str) -> None:
    folder = platform.bundles / each.name
    mark_removed(folder, text, also_called=each.content)
    # Gone for everybody at once; what is left of it after a kill is swept away.
    leaving = platform.bundles / f"{LEAVING}{domain.name}-{each.name}"
    os.rename(folder, leaving)
    shutil.rmtree(leaving)


def _remove_training_set(each: Made, text: str) -> None:
    mark_removed(each.folder / ROWS_FILE, text)
    (each.folder / SCORES_FILE).unlink(missing_ok=True)
    # The last, for by it a removal that was killed finds that it was not done.
    (each.folder / ROWS_FILE).unlink()


def _remove_revisions(platform: Platform, domain: Domain, found: Plan, texts: Mapping[tuple[Kind, str], str]) -> None:
    gone: dict[tuple[str, str], dict[tuple[str, int], str]] = {}
    for each in _of(found, "revision"):
        _, stage, table, revision = each.name.split("/", 3)
        day, _, number = revision.rpartition("@")
        gone.setdefault((stage, table), {})[day, int(number)] = texts["revision", each.name]
    # From the last stage to the first: what was made from something goes before it.
    for stage in reversed(stages):
        for table, store in Tables(platform, domain).of(stage).items():
            if (stage, table) in gone:
                remove_revisions(store, gone[stage, table])


def _of(found: Plan, kind: Kind) -> Iterable[Going]:
    return [each for each in found.goes if each.kind == kind]


def rule_of(what: str, age: timedelta) -> str:
    """A rule in words, as tombstones tell it."""
    return f"{what} go after {age.days} days"
