"""The monitors of a domain in Dagster: what they and their checks are called, and the partitions: a day of answers."""

import warnings

import dagster as dg

from mlplatform.domain.domain import Domain


def days_of_answers(domain: Domain) -> dg.DailyPartitionsDefinition:
    """One partition per UTC day, from the domain's first one to today: answers go on after its data has ended."""
    return dg.DailyPartitionsDefinition(start_date=domain.start.isoformat(), timezone="UTC", end_offset=1)


def monitor_key(domain: Domain, monitor: str) -> dg.AssetKey:
    """Key of a monitor's asset: `domain/monitor`."""
    return dg.AssetKey([domain.name, monitor])


def monitor_job_name(domain: Domain, monitor: str) -> str:
    """Name of the job that judges a day, and of the sensor that asks for it."""
    return f"{domain.name}_{monitor}"


def monitor_check(domain: Domain, monitor: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A check of a monitor's days, with a result for each of them as the asset has."""
    with warnings.catch_warnings():
        # Each command would say that Dagster calls partitioned checks a preview; the release is pinned and tested.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name, asset=monitor_key(domain, monitor), partitions_def=days_of_answers(domain), description=description
        )
