"""The sensor of a domain: whatever lands, late, twice, corrected or out of order, goes through the stages by itself.

It keeps no list of what it has seen. Each tick asks which days are due (`chain.due`), so nothing is lost with a cursor,
and a daemon or a run that is killed at any point leaves the same days due. The cursor only spares work: while nothing
has landed and no run was started since a tick that found nothing to do, a tick is a look at file times.

Invariants:

* A domain has one features run at a time; the next tick after it finds what came meanwhile.
* A run that failed for no fault of a day (a full disk, a store that is away) is tried again after a wait that doubles
  each time, and at once when there is something else to do. So is one that succeeded and left the same due: this
  process holds older code than the run's, and only a reload of it helps.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES  # not exported
from dagster._core.storage.tags import MAX_RETRIES_TAG

from mlplatform.domain.domain import Domain
from mlplatform.features.assets import only_due_tag, untold
from mlplatform.features.chain import Due, due
from mlplatform.features.checks import without_evaluation
from mlplatform.features.landing.landing import Landed, landed
from mlplatform.features.pipeline import table_versions
from mlplatform.features.tables import stages
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import forget_run, is_announced, runs_without_process

range_start, range_end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

seconds_between_ticks = 5
"""A tick that finds nothing new costs 20 to 50 ms; features are to be published a minute after a file has landed, and
the launch of a run alone takes 10 to 25 s of it."""

first_wait, longest_wait = timedelta(seconds=30), timedelta(hours=1)
"""Back-off after a failed run: doubled each time. The first is a tick of most stores' own recovery; an hour is as long
as anybody should wait after mending something."""

silent_after_start = timedelta(minutes=2)
"""A run that has started announces itself with its first step, within a second or two."""

due_tag = "mlplatform/due"


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Why a sensor does nothing, and until when; kept in its cursor."""

    seen: str
    """Hash of what it has looked at: something else ends the rest."""

    until: float | None
    """Seconds since the epoch; None: until there is something else to see."""

    why: str

    @classmethod
    def of(cls, cursor: str | None) -> "Rest":
        """The rest that a cursor tells of; none is over already."""
        return cls(**json.loads(cursor)) if cursor else cls(seen="", until=0.0, why="")

    def as_cursor(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def features_job_name(domain: Domain) -> str:
    """Name of the job of the six stages."""
    return f"{domain.name}_features"


def features_sensor(domain: Domain) -> dg.SensorDefinition:
    """New, late and corrected days of one domain -> a run of its stages over the days that are due."""
    code = declaration_version({stage: table_versions(domain, stage) for stage in stages})

    @dg.sensor(
        name=features_job_name(domain),
        job_name=features_job_name(domain),
        minimum_interval_seconds=seconds_between_ticks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"What lands for {domain.name} goes through the six stages; days that are up to date do not.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        job = features_job_name(domain)
        if run := unfinished_run(context.instance, platform, job):
            return dg.SensorResult(skip_reason=f"run {run.run_id[:8]} is under way", cursor=context.cursor)
        # Listed once and handed on: where a source lands in a bucket or a database, each look is a request.
        listed = {source.name: landed(platform, domain, source) for source in domain.sources}
        seen = _seen(context.instance, platform, domain, code, listed)
        rest = Rest.of(context.cursor)
        if rest.seen == seen and (rest.until is None or platform.clock().timestamp() < rest.until):
            return skip(rest)
        found = due(platform, domain, listed)
        for source, place in listed.items():
            for name, why in place.strangers.items():
                context.log.warning("%s/%s/%s is not taken in: %s", domain.name, source, name, why)
        if not found.days:
            # Looked for only here: once after each run and each landing, not with each tick.
            found = _with_untold(context.instance, platform, domain, found)
        if not found.days:
            return skip(Rest(seen=seen, until=None, why=_nothing_due(found)))
        vain = runs_in_vain(context.instance, job, found.version)
        if vain and (until := retry_at(vain)) > platform.clock().timestamp():
            why = f"{_in_vain(vain[0].dagster_run)}; tried again at {_told(until)}"
            return skip(Rest(seen=seen, until=until, why=why))
        # What is due may have been cleared from the landing places since.
        newest = max((day for place in listed.values() for day in place.days), default=found.days[-1])
        first, last = found.first_range(domain, newest)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    # New for each run, the same for a tick that is repeated; a count comes again once a run is deleted.
                    run_key=f"{found.version}:{first}:{last}:{_newest_run(context.instance, job)}",
                    job_name=job,
                    tags={
                        range_start: first,
                        range_end: last,
                        only_due_tag: "true",
                        due_tag: found.version,
                        # This sensor is what tries again.
                        MAX_RETRIES_TAG: "0",
                    },
                )
            ]
        )

    return sensor


def unfinished_run(instance: dg.DagsterInstance, platform: Platform, job: str) -> dg.DagsterRun | None:
    """A run of a job that is queued or being executed; those whose process is gone are recorded as failed first."""
    gone = runs_without_process(platform.home)
    # Dagster does not count a run that waits for its turn as one in progress.
    statuses = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.QUEUED]
    for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=statuses)):
        run = record.dagster_run
        if run.run_id in gone or _never_announced(platform, record):
            instance.report_run_failed(run, "Its process is gone: killed, or lost with its machine")
        else:
            return run
    for run_id in gone:
        over = instance.get_run_by_id(run_id)
        if over is None or over.is_finished:
            forget_run(platform.home, run_id)
    return None


def failures_in_a_row(instance: dg.DagsterInstance, job: str, tags: dict[str, str]) -> list[dg.RunRecord]:
    """The failed runs with these tags since the last one that did not fail, newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job, tags=tags), limit=20)
    failed = []
    for record in records:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failed.append(record)
    return failed


def runs_in_vain(instance: dg.DagsterInstance, job: str, version: str) -> list[dg.RunRecord]:
    """The newest runs that were to do what is due still, however they ended, newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=20)
    return list(takewhile(lambda record: record.dagster_run.tags.get(due_tag) == version, records))


def retry_at(failed: list[dg.RunRecord]) -> float:
    """When to try again after these runs, the newest first: seconds since the epoch."""
    ended: float = failed[0].end_time or failed[0].update_timestamp.timestamp()
    wait = min(first_wait * float(2 ** (len(failed) - 1)), longest_wait)
    return ended + wait.total_seconds()


def skip(rest: Rest) -> dg.SensorResult:
    """Do nothing, say why, and remember until when."""
    return dg.SensorResult(skip_reason=rest.why, cursor=rest.as_cursor())


def _seen(
    instance: dg.DagsterInstance, platform: Platform, domain: Domain, code: str, listed: Mapping[str, Landed]
) -> str:
    """Hash of what lies in the landing places, of the last run, and of code and environment."""
    return declaration_version(
        {source: dict(place.days) for source, place in listed.items()},
        code,
        platform.environment,
        _newest_run(instance, features_job_name(domain)),
    )


def _with_untold(instance: dg.DagsterInstance, platform: Platform, domain: Domain, found: Due) -> Due:
    """With the days as due that a killed run has made and not told Dagster of."""
    lost = untold(instance, platform, domain)
    unjudged = sorted(without_evaluation(instance, platform, domain))
    days = tuple(sorted(set(unjudged).union(*lost.values())))
    return replace(found, days=days, version=declaration_version(lost, unjudged))


def _newest_run(instance: dg.DagsterInstance, job: str) -> str:
    newest = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    return newest[0].dagster_run.run_id if newest else ""


def _never_announced(platform: Platform, record: dg.RunRecord) -> bool:
    if record.start_time is None or is_announced(platform.home, record.dagster_run.run_id):
        return False
    return platform.clock().timestamp() - record.start_time > silent_after_start.total_seconds()


def _nothing_due(found: Due) -> str:
    told = [f"{len(found.waiting)} days wait for others"] if found.waiting else []
    told += [f"{len(found.failures)} tables of days have failed and are unchanged"] if found.failures else []
    return f"nothing is due; {' and '.join(told)}: see `mlplatform status`" if told else "everything is up to date"


def _in_vain(run: dg.DagsterRun) -> str:
    if run.status is dg.DagsterRunStatus.SUCCESS:
        told = "the same is due still: reload the code location, it holds older code or another lock file"
        return f"run {run.run_id[:8]} succeeded and {told}"
    return f"run {run.run_id[:8]} {'failed' if run.status is dg.DagsterRunStatus.FAILURE else 'was canceled'}"


def _told(instant: float) -> str:
    return f"{datetime.fromtimestamp(instant, UTC):%H:%M:%S} UTC"
