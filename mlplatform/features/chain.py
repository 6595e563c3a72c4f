"""The chain of a day: its six stages one after the other, and which days are due for it.

What is due is asked of the tables and of the landing places alone: a day is due when some table of it would be made
from something else than it was. No cursor and no message says so, hence none can be lost: whatever was killed, the next
look finds the same days due, until they are computed. A day that has failed is due again when its file, its code or the
environment has changed, and not before. What landed need not stay: stages after `raw` are made from `raw`.

Good days go on where others fail: a day that fails in one stage is left out of the stages after it, and told at the
end.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source
from mlplatform.errors import IncompleteWindow
from mlplatform.features.failures import Failure, open_failures, record_failures
from mlplatform.features.landing.clearing import clear_facts
from mlplatform.features.landing.landing import Landed, days_landed_by_all, landed
from mlplatform.features.materialization import Outcome, made_from_now, pending, run
from mlplatform.features.online.publish import publish_values, unpublished
from mlplatform.features.pipeline import steps, table_versions
from mlplatform.features.tables import Tables, is_of, online_store, stages
from mlplatform.features.view import look_back_days
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform

days_at_once = 366
"""Days of one run. A run that is killed repeats its days: a year of them takes a minute or two."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """What there is to do for a domain."""

    days: tuple[str, ...]
    """Days with something new in them, in order."""

    waiting: Mapping[str, str]
    """Day -> what it waits for: a source that has not landed it, a day that its windows lack."""

    failures: tuple[Failure, ...]
    version: str
    """Hash of the days, of what is new in them, and of code and environment: the same things are due again exactly when
    it is the same."""

    def first_range(self, domain: Domain, last_landed: str) -> tuple[str, str]:
        """First and last day of one run: the oldest days due, and those after them whose windows reach back to them.

        Days that are far apart are not put into one run: each day in between would be planned for nothing.
        """
        reach = max((look_back_days(view) for view in domain.views), default=1) - 1
        first = last = self.days[0]
        for day in self.days:
            if day > _after(last, reach + 1) or day > _after(first, days_at_once - 1):
                break
            last = day
        return first, max(last, min(_after(last, reach), last_landed))


def due(platform: Platform, domain: Domain, places: Mapping[str, Landed] | None = None) -> Due:
    """What a run would change now, and what waits or has failed. Reads listings only, never a row.

    Parameters
    ----------
    places : what each source has landed, where the caller has looked already
    """
    places = places or {source.name: landed(platform, domain, source) for source in domain.sources}
    listed = {source: place.days for source, place in places.items()}
    waiting = {}
    complete = []
    for day in sorted(set().union(*listed.values())):
        lacking = [source.name for source in domain.sources if not _has(source, listed[source.name], day)]
        if lacking:
            waiting[day] = f"{', '.join(lacking)} to land"
        else:
            complete.append(day)
    kept = open_failures(platform, domain)
    over = _over(platform, domain, kept)
    failures = [each for each in kept if each not in over]
    tried = _tried(failures)
    # A run closes those that are over, also where it has nothing to compute. A domain may have been cut since.
    found = {each.day for each in over if is_of(domain, each.day)}
    held = _held(platform, domain)
    for stage in stages:
        if of_stage := complete if stage == "raw" else held:
            found |= set(pending(platform, domain, stage, of_stage, tried=tried.get(stage)))
    if held:
        failed = {each.day for each in failures}
        waiting |= _windows_that_wait(platform, domain, [day for day in held if day not in found | failed])
        if not found and unpublished(platform, domain):
            # A run that was killed before its last act; the next one finds nothing to compute, and publishes.
            found = set([day for day in held if day not in failed][-1:])
    days = tuple(sorted(found))
    new = {day: {name: versions.get(day) for name, versions in listed.items()} for day in days}
    code = {stage: table_versions(domain, stage) for stage in stages}
    return Due(
        days=days,
        waiting=waiting,
        failures=tuple(failures),
        version=declaration_version(new, code, platform.environment),
    )


def run_chain(
    platform: Platform,
    domain: Domain,
    days: Sequence[str],
    *,
    run_id: str,
    selected: Sequence[str] = (*stages, online_store),
    only_due: bool = False,
) -> Generator[tuple[str, Outcome]]:
    """Take days through the selected stages; gives each stage's outcome as soon as it is there.

    With `online_store` selected the newest values are published, after the last stage is given. Facts that need not
    stay any longer are cleared then.

    What fails is kept as an open failure, what is made good is closed, also when whoever iterates stops early.

    Parameters
    ----------
    only_due : leave out what is up to date, what has failed and is unchanged, and what has not landed; otherwise
        everything is computed, and what cannot be is in the outcomes
    """
    stopped: dict[str, str] = {}
    for stage in stages:
        if stage not in selected:
            continue
        todo = [day for day in days if day not in stopped or _goes_on(stage, stopped[day])]
        if only_due:
            tried = _tried(open_failures(platform, domain, todo))
            there = set(days_landed_by_all(platform, domain) if stage == "raw" else _held(platform, domain))
            todo = pending(platform, domain, stage, [day for day in todo if day in there], tried=tried.get(stage))
        outcome = run(platform, domain, stage, todo, run_id=run_id)
        _record(platform, domain, stage, days, outcome, run_id)
        for day in outcome.failed:
            stopped.setdefault(day, stage)
        yield stage, outcome
    if online_store in selected:
        publish_values(platform, domain)
    clear_facts(platform, domain)


def _record(platform: Platform, domain: Domain, stage: str, days: Sequence[str], outcome: Outcome, run_id: str) -> None:
    now = platform.clock()
    failed = [
        Failure(day=day, stage=stage, table=fault.table, reason=str(fault.error), made_from=fault.made_from, at=now)
        for day, faults in outcome.faults.items()
        for fault in faults
    ]
    closed = {day: [(stage, table) for table in tables] for day, tables in outcome.revisions.items()}
    tried_now = {each.of for each in failed}
    before = [each for each in open_failures(platform, domain, days) if each.stage == stage]
    for each in _over(platform, domain, before):
        if each.of not in tried_now:
            closed.setdefault(each.day, []).append((stage, each.table))
    record_failures(platform, domain, failed, closed=closed, run_id=run_id)


def _over(platform: Platform, domain: Domain, failures: Sequence[Failure]) -> list[Failure]:
    """Failures of a table that would be made from something else now, or from nothing: a file was put back or away."""
    found = []
    for stage in stages:
        of_stage = [each for each in failures if each.stage == stage]
        if of_stage:
            wanted = made_from_now(platform, domain, stage, sorted({each.day for each in of_stage}))
            found += [each for each in of_stage if wanted.get((each.day, each.table)) != each.made_from]
    return found


def _held(platform: Platform, domain: Domain) -> list[str]:
    """Days that `raw` has of every source, or that are declared absent there, in order."""
    tables = Tables(platform, domain)
    raw = {source.name: tables.raw(source.name).current().keys() for source in domain.sources}
    return [
        day
        for day in sorted(set().union(*raw.values()))
        if is_of(domain, day)
        and all(day in raw[source.name] or date.fromisoformat(day) in source.absent for source in domain.sources)
    ]


def _tried(failures: Sequence[Failure]) -> dict[str, dict[tuple[str, str], str]]:
    """By stage, and by day and table, what the last failed attempt was made from."""
    tried: dict[str, dict[tuple[str, str], str]] = {}
    for each in failures:
        tried.setdefault(each.stage, {})[each.day, each.table] = each.made_from
    return tried


def _has(source: Source, days: Mapping[str, str], day: str) -> bool:
    return day in days or date.fromisoformat(day) in source.absent


def _windows_that_wait(platform: Platform, domain: Domain, days: Sequence[str]) -> dict[str, str]:
    """Days whose windows lack a day, and which."""
    told: dict[str, str] = {}
    for step in steps(platform, domain, "feature_store"):
        for day, error in step.plan(days).missing.items():
            if isinstance(error, IncompleteWindow):
                told.setdefault(day, f"{', '.join(error.missing[:3])} in the window of {step.table}")
    return told


def _goes_on(stage: str, failed: str) -> bool:
    """Whether a stage is not made from the one that failed."""
    return failed == "quarantine" or (stage == "quarantine" and failed == "validated")


def _after(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()
