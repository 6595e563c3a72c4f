"""How what is kept of a domain's answers is partitioned: by day."""

import dagster as dg

from mlplatform.domain.domain import Domain


def days_of_answers(domain: Domain) -> dg.DailyPartitionsDefinition:
    """One partition per UTC day, from the domain's first one to today: answers go on after its data has ended."""
    return dg.DailyPartitionsDefinition(start_date=domain.start.isoformat(), timezone="UTC", end_offset=1)
