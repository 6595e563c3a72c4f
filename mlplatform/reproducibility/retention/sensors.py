"""The sensor that has removed what goes by policy, once a night."""

from datetime import timedelta

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features.sensors import unfinished_run
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.retention.retention import is_due

begins_after = timedelta(hours=4)
"""Midnight UTC and so much: the day before is picked up and judged by then, and the nightly replays have been made, so
that what they find cannot have been removed a moment before."""


def retention_job_name(domain: Domain) -> str:
    """Name of the job that removes, and of the sensor that asks for it."""
    return f"{domain.name}_retention"


def retention_sensor(domain: Domain) -> dg.SensorDefinition:
    """One run each night. One that fails is made good for by the next: it finds all that is left."""
    job = retention_job_name(domain)

    @dg.sensor(
        name=job,
        job_name=job,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Removes each night what the policy of {domain.name} lets go, and compacts its prediction log.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.RunRequest | dg.SkipReason:
        if run := unfinished_run(context.instance, platform, job):
            return dg.SkipReason(f"run {run.run_id[:8]} is under way")
        if not is_due(platform, domain):
            return dg.SkipReason(
                "nothing has an age by policy, no day of the log lies in many files, and nothing is left over"
            )
        night = (platform.clock() - begins_after).date().isoformat()
        # Dagster launches one run of a key, however often it is asked for.
        return dg.RunRequest(run_key=night, job_name=job)

    return sensor
