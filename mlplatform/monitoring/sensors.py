"""The sensors of what gateways write: answers -> a run that picks them up, and then one that judges each day.

Of the prediction log it keeps no list: each tick looks into the folder, so that nothing is lost with a cursor or a
killed run. One run at a time; after a failed one (a table that is away, a full disk) a wait that doubles each time.
Nothing is lost meanwhile: segments wait on the gateways' disk.

Each transition of a breaker is observed once, on the Bento that was served: the cursor says how far each file was read,
and what a tick has told that died before its cursor was kept is found among the newest observations.

A day is judged when it is over, and again when there is more to judge it from: what that was is told by the data
version.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # not exported
from dagster._core.storage.tags import MAX_RETRIES_TAG, PARTITION_NAME_TAG

from mlplatform.domain.domain import Domain
from mlplatform.features.sensors import failures_in_a_row, retry_at, unfinished_run
from mlplatform.monitoring.breaker_log import BreakerTransition, breaker_folder, files, read, remove_abandoned
from mlplatform.monitoring.daily import Due, judged_from
from mlplatform.monitoring.partitions import monitor_job_name, monitor_key
from mlplatform.monitoring.prediction_log import log_folder
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import finished

seconds_between_ticks = 30
"""A row is to be in the table within the minute or so; a tick that finds nothing is a look into two folders."""

seconds_between_days = 300
"""Whether a day is over and was judged: a look into the metadata of a table."""

days_at_once = 10
"""Requested by one tick, so that a platform that was off for a week is not flooded with runs."""

transitions_at_once = 200
"""Told by one tick, which has a minute; a breaker that goes to and fro has a few a minute."""


def pickup_job_name(domain: Domain) -> str:
    """Name of the job that picks the segments up."""
    return f"{domain.name}_prediction_log"


def prediction_log_sensor(domain: Domain) -> dg.SensorDefinition:
    """Finished segments of a domain -> a run of its pick-up; transitions of its breakers -> observations."""
    job = pickup_job_name(domain)

    @dg.sensor(
        name=job,
        job_name=job,
        minimum_interval_seconds=seconds_between_ticks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Takes what the gateways of this machine have logged of {domain.name} into `prediction_log`, and tells of "
            "the transitions of their circuit breakers as observations of the Bento."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        read_to: dict[str, int] = json.loads(context.cursor or "{}")
        observations = _observations(context, breaker_folder(platform.home, domain.name), read_to)
        due = _due(context.instance, platform, domain)
        return dg.SensorResult(
            run_requests=[due] if isinstance(due, dg.RunRequest) else None,
            skip_reason=due if isinstance(due, str) else None,
            asset_events=observations,
            cursor=json.dumps(read_to),
        )

    return sensor


def _due(instance: dg.DagsterInstance, platform: Platform, domain: Domain) -> dg.RunRequest | str:
    """The run that picks up what waits, or why there is none."""
    job = pickup_job_name(domain)
    if run := unfinished_run(instance, platform, job):
        return f"run {run.run_id[:8]} is under way"
    waiting = finished(log_folder(platform.home, domain.name))
    if not waiting:
        return "no finished segment waits"
    failed = failures_in_a_row(instance, job, {})
    if failed and (until := retry_at(failed)) > platform.clock().timestamp():
        told = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
        return f"run {failed[0].dagster_run.run_id[:8]} failed; tried again at {told}"
    runs = instance.get_runs_count(dg.RunsFilter(job_name=job))
    return dg.RunRequest(
        # New for each run, and the same for a tick that is repeated.
        run_key=f"{waiting[0].stem}:{runs}",
        job_name=job,
        partition_key=f"{platform.clock():%Y-%m-%d}",
        # This sensor is what tries again.
        tags={MAX_RETRIES_TAG: "0"},
    )


def _observations(
    context: dg.SensorEvaluationContext, folder: Path, read_to: dict[str, int]
) -> list[dg.AssetObservation]:
    """What the breakers did since. Moves `read_to` on, and removes files that are told of and that nobody writes."""
    found: dict[str, BreakerTransition] = {}
    paths = files(folder)
    for gone in read_to.keys() - {path.name for path in paths}:
        del read_to[gone]
    for path in paths:
        start = read_to.get(path.name, 0)
        try:
            lines = read(path, start)[: transitions_at_once - len(found)]
            # Only here, where the cursor that was kept says that all is told.
            if not lines and remove_abandoned(path, start):
                read_to.pop(path.name, None)
        except OSError as error:
            context.log.warning(f"{path} cannot be read ({error}); the transitions in it are not shown")
            continue
        found |= {f"{path.name}:{line.start}": line.transition for line in lines if line.transition is not None}
        if lines:
            read_to[path.name] = lines[-1].end
    return _untold(context.instance, found)


def _untold(instance: dg.DagsterInstance, found: Mapping[str, BreakerTransition]) -> list[dg.AssetObservation]:
    """Observations of those that are none yet."""
    bentos = {each.model: dg.AssetKey([*each.model.split("/"), "bento"]) for each in found.values()}
    newest = [
        record.asset_observation
        for bento in bentos.values()
        for record in instance.fetch_observations(bento, limit=5 * transitions_at_once).records
    ]
    told = {each.metadata["line"].value for each in newest if each is not None and "line" in each.metadata}
    return [
        dg.AssetObservation(
            bentos[each.model],
            partition=each.model_version,
            description=f"breaker of {each.breaker}: {each.before} -> {each.after}: {each.reason}",
            metadata={
                "model": each.model,
                "manifest": each.manifest,
                "gateway": each.gateway,
                "breaker": each.breaker,
                "from": each.before,
                "to": each.after,
                "reason": each.reason,
                "at": dg.MetadataValue.timestamp(datetime.fromtimestamp(each.at / 1e9, UTC)),
                "line": line,
            },
        )
        for line, each in found.items()
        if line not in told
    ]


def daily_sensor(domain: Domain, monitor: str, due: Due, description: str) -> dg.SensorDefinition:
    """Days that a monitor has not judged from what there is now -> a run each.

    Parameters
    ----------
    due : which days could be judged
    """
    job = monitor_job_name(domain, monitor)

    @dg.sensor(
        name=job,
        job_name=job,
        minimum_interval_seconds=seconds_between_days,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        if run := unfinished_run(context.instance, platform, job):
            return dg.SensorResult(skip_reason=f"run {run.run_id[:8]} is under way")
        told = context.instance.event_log_storage.get_latest_tags_by_partition(
            monitor_key(domain, monitor), dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        could_be = due(platform, domain)
        unjudged = {
            day: made_from
            for day, made_from in could_be.items()
            if judged_from(told.get(day, {}).get(DATA_VERSION_TAG, "")) != made_from
        }
        requests = []
        runs = context.instance.get_runs_count(dg.RunsFilter(job_name=job))
        for day, made_from in unjudged.items():
            failed = failures_in_a_row(context.instance, job, {PARTITION_NAME_TAG: day})
            if not failed or retry_at(failed) <= platform.clock().timestamp():
                requests.append(
                    dg.RunRequest(
                        run_key=f"{day}:{made_from}:{runs}",
                        job_name=job,
                        partition_key=day,
                        # This sensor is what tries again.
                        tags={MAX_RETRIES_TAG: "0"},
                    )
                )
        if requests:
            return dg.SensorResult(run_requests=requests[:days_at_once])
        if unjudged:
            return dg.SensorResult(skip_reason=f"{', '.join(unjudged)} failed; tried again later")
        judged = "every day that is over was judged" if could_be else "no day with something to judge is over yet"
        return dg.SensorResult(skip_reason=judged)

    return sensor
