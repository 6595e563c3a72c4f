"""The sensor of a domain's prediction log: finished segments -> one run that picks them up.

It keeps no list: each tick looks into the folder, so that nothing is lost with a cursor or a killed run. One run at a
time; after a failed one (a table that is away, a full disk) a wait that doubles each time. Nothing is lost meanwhile:
segments wait on the gateways' disk.
"""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG

from mlplatform.domain.domain import Domain
from mlplatform.features.sensors import failures_in_a_row, retry_at, unfinished_run
from mlplatform.monitoring.prediction_log import finished, log_folder
from mlplatform.provenance.platform import Platform

seconds_between_ticks = 30
"""A row is to be in the table within the minute or so; a tick that finds nothing is a look into one folder."""


def pickup_job_name(domain: Domain) -> str:
    """Name of the job that picks the segments up."""
    return f"{domain.name}_prediction_log"


def prediction_log_sensor(domain: Domain) -> dg.SensorDefinition:
    """Finished segments of a domain -> a run of its pick-up."""
    job = pickup_job_name(domain)

    @dg.sensor(
        name=job,
        job_name=job,
        minimum_interval_seconds=seconds_between_ticks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Takes what the gateways of this machine have logged of {domain.name} into `prediction_log`.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        if run := unfinished_run(context.instance, platform, job):
            return dg.SensorResult(skip_reason=f"run {run.run_id[:8]} is under way")
        waiting = finished(log_folder(platform.home, domain.name))
        if not waiting:
            return dg.SensorResult(skip_reason="no finished segment waits")
        failed = failures_in_a_row(context.instance, job, {})
        if failed and (until := retry_at(failed)) > platform.clock().timestamp():
            told = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
            why = f"run {failed[0].dagster_run.run_id[:8]} failed; tried again at {told}"
            return dg.SensorResult(skip_reason=why)
        runs = context.instance.get_runs_count(dg.RunsFilter(job_name=job))
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    # New for each run, and the same for a tick that is repeated.
                    run_key=f"{waiting[0].stem}:{runs}",
                    job_name=job,
                    partition_key=f"{platform.clock():%Y-%m-%d}",
                    # This sensor is what tries again.
                    tags={MAX_RETRIES_TAG: "0"},
                )
            ]
        )

    return sensor
