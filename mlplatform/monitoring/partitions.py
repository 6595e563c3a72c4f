"""The monitors of a domain in Dagster: what they are called, and their partitions, one per day of answers."""

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
