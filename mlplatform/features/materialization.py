"""Materializing partitions: which of them are pending, and their rows computed and appended.

A step of the pipeline says what a partition would be made from; here that is held against what its newest revision was
made from, so that a run costs nothing where nothing has changed. A partition whose data is wrong does not hold back the
others: they are appended, then the error is raised.

It refuses to make a partition of which an input is missing, and to call pending what failed when it was made from the
very same. Which partitions are wanted, and when, is not decided here (`chain`).
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import ChangedWhileRead, DataError, DeclarationError, MlplatformError, NonDeterministicStage
from mlplatform.features.pipeline import Plan, Step, rows_at_once, steps
from mlplatform.features.rules import Checked
from mlplatform.features.stage import Draft, Revision, Stage, Written
from mlplatform.features.tables import Tables, available_at
from mlplatform.provenance.platform import Platform

log = logging.getLogger(__name__)

partitions_at_once = 92
"""Partitions planned together: a day that is corrected meanwhile is seen by the next quarter of a year."""


@dataclass(frozen=True)
class Fault:
    """Why a table could not be computed for a partition, and from what that was tried."""

    table: str
    error: MlplatformError
    made_from: str


@dataclass
class Outcome:
    """What a run of some steps left behind."""

    revisions: dict[str, dict[str, Revision]] = field(default_factory=dict)
    """Current revision after the run, by partition and table."""

    new: int = 0
    """Revisions that this run appended."""

    failed: dict[str, MlplatformError] = field(default_factory=dict)
    """Partitions that lack a table now, and the first reason of each: nothing to make it from, or a fault."""

    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """By partition, what could not be computed although everything was there to compute it from, and stayed so."""

    found: dict[str, dict[str, Checked]] = field(default_factory=dict)
    """By source and partition, what its contract found (counts and verdicts; the rows are in the tables)."""


def pending(
    platform: Platform,
    domain: Domain,
    stage: str,
    partitions: Sequence[str],
    *,
    tried: Mapping[tuple[str, str], str] | None = None,
) -> list[str]:
    """Partitions of a stage whose newest revision was not made from today's inputs, code and environment.

    Nor was it confirmed by them: a run that gave the rows that were there appends no revision, but is remembered.

    Parameters
    ----------
    tried : by partition and table, what a failed attempt was made from (`Fault.made_from`): the same is not pending
    """
    found = set()
    for step in steps(platform, domain, stage):
        current = step.store.current(partitions)
        wanted = _wanted(platform, step, partitions)
        other = {each for each in wanted if each not in current or _made_from_of(current[each]) != wanted[each]}
        other = {each for each in other if (tried or {}).get((each, step.table)) != wanted[each]}
        confirmed = _confirmed(Tables(platform, domain).confirmations(step.stage, step.table), other & current.keys())
        found |= {
            each for each in other if each not in current or confirmed.get(each) != (current[each].number, wanted[each])
        }
    return sorted(found)


def made_from_now(
    platform: Platform, domain: Domain, stage: str, partitions: Sequence[str]
) -> dict[tuple[str, str], str]:
    """By partition and table, what it would be made from now; nothing for one that cannot be made."""
    return {
        (partition, step.table): made_from
        for step in steps(platform, domain, stage)
        for partition, made_from in _wanted(platform, step, partitions).items()
    }


def run(platform: Platform, domain: Domain, stage: str, partitions: Sequence[str], *, run_id: str) -> Outcome:
    """Compute and append partitions of every table of a stage.

    What could be made is appended, also where others failed: ask `raise_failures` of the outcome.
    """
    outcome = Outcome()
    for step in steps(platform, domain, stage):
        for chunk in _chunks(partitions):
            _run_step(platform, domain, step, chunk, run_id, outcome)
        outcome.found[step.table] = step.found
    return outcome


def raise_failures(outcome: Outcome) -> None:
    """Raise the first partition's error, if any failed; the others are noted on it.

    Raises
    ------
    MlplatformError
        A partition could not be made. The others are appended.
    """
    if not outcome.failed:
        return
    first, *others = sorted(outcome.failed)
    error = outcome.failed[first]
    for each in others[:5]:
        error.add_note(f"and {each}: {outcome.failed[each]}")
    if others[5:]:
        error.add_note(f"and {len(others) - 5} more partitions, the last one {others[-1]}")
    raise error


def _run_step(
    platform: Platform, domain: Domain, step: Step, partitions: Sequence[str], run_id: str, outcome: Outcome
) -> None:
    now = platform.clock()
    planned = step.plan(partitions)
    for partition, lacking in planned.missing.items():
        outcome.failed.setdefault(partition, lacking)
    before = step.store.current(partitions)
    rows_of = step.read(planned)
    written = Written(run_id=run_id, code_version=step.code_version, environment=platform.environment, known_at=now)
    confirmations = Tables(platform, domain).confirmations(step.stage, step.table)
    after: dict[str, Revision] = {}
    drafts: dict[str, Draft] = {}

    def fail(partition: str, error: MlplatformError) -> None:
        outcome.failed.setdefault(partition, error)
        made_from = _made_from(planned.inputs[partition], step.code_version, platform.environment)
        outcome.faults.setdefault(partition, []).append(Fault(step.table, error, made_from))

    def append() -> dict[str, Revision]:
        try:
            return _append(step.store, confirmations, drafts, written)
        except NonDeterministicStage as error:
            for partition in error.partitions:
                fail(partition, NonDeterministicStage(error.table, [partition]))
                del drafts[partition]
            return append()

    for partition, inputs in planned.inputs.items():
        try:
            rows = rows_of(partition)
            # Here, for `append` would refuse all partitions for one.
            step.store.refuse_undeclared(partition, rows)
        except ChangedWhileRead as error:
            # No fault of what it was to be made from: the very same may be there again, and is tried then.
            outcome.failed.setdefault(partition, error)
            continue
        except (DataError, DeclarationError) as error:
            fail(partition, error)
            continue
        drafts[partition] = Draft(rows=rows, inputs=inputs, first_known_at=_first_known_at(domain, partition, planned))
        if sum(draft.rows.height for draft in drafts.values()) >= rows_at_once:
            after |= append()
            drafts.clear()
    after |= append()
    for partition, revision in after.items():
        outcome.revisions.setdefault(partition, {})[step.table] = revision
        outcome.new += partition not in before or before[partition].number != revision.number
    log.info(
        "%s %s: %d partitions, %d rows", step.stage, step.table, len(after), sum(each.rows for each in after.values())
    )


def _append(store: Stage, confirmations: Stage, drafts: Mapping[str, Draft], written: Written) -> dict[str, Revision]:
    after = store.append(drafts, written)
    _confirm(confirmations, drafts, after, written)
    return after


def _confirm(store: Stage, drafts: Mapping[str, Draft], after: Mapping[str, Revision], written: Written) -> None:
    """Remember which revisions other inputs, code or libraries would give again, so that they are not run for ever."""
    told = {}
    for partition, revision in after.items():
        made_from = _made_from(drafts[partition].inputs, written.code_version, written.environment)
        if _made_from_of(revision) != made_from:
            rows = pl.DataFrame({"number": [revision.number], "made_from": [made_from]}, schema=store.schema)
            told[partition] = Draft(rows=rows)
    if told:
        store.append(told, written)


def _confirmed(store: Stage, partitions: Iterable[str]) -> dict[str, tuple[int, str]]:
    """By partition, the number of the revision that was confirmed last, and by what."""
    wanted = list(partitions)
    if not wanted:
        return {}
    numbers = {partition: each.number for partition, each in store.current(wanted).items()}
    rows = store.read(numbers=numbers, provenance=True)
    return {row["_partition"]: (row["number"], row["made_from"]) for row in rows.iter_rows(named=True)}


def _wanted(platform: Platform, step: Step, partitions: Sequence[str]) -> dict[str, str]:
    return {
        partition: _made_from(inputs, step.code_version, platform.environment)
        for partition, inputs in step.plan(partitions).inputs.items()
    }


def _made_from(inputs: Sequence[str], code: str, environment: str) -> str:
    return json.dumps([sorted(set(inputs)), code, environment])


def _made_from_of(revision: Revision) -> str:
    return _made_from(revision.inputs, revision.code_version, revision.environment)


def _first_known_at(domain: Domain, partition: str, planned: Plan) -> datetime | None:
    """When the first revision of a declared backfill counts as known; None where none is declared.

    That is when it was available, or when the newest of what it is made from became known, if that was later.
    """
    if domain.history_until is None or date.fromisoformat(partition) > domain.history_until:
        return None
    available = available_at(domain, partition)
    return max(available, planned.known_at.get(partition, available))


def _chunks(partitions: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(partitions), partitions_at_once):
        yield partitions[start : start + partitions_at_once]
