"""The sensor that has old answers replayed, once a night, when the day's log has settled."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.sensors import daily_sensor
from mlplatform.reproducibility.coverage.coverage import MONITOR, nights_due


def coverage_sensor(domain: Domain) -> dg.SensorDefinition:
    """The last nights, where nobody has replayed anything in them -> a run each."""
    return daily_sensor(
        domain,
        MONITOR,
        nights_due,
        f"Replays some of the old answers of {domain.name} each night, when the answers of the day are in the table.",
    )
