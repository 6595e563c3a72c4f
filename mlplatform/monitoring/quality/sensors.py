"""The sensor that has the data of a domain's days judged, each once it is over."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.quality.checks import MONITOR
from mlplatform.monitoring.quality.quality import days_to_judge
from mlplatform.monitoring.sensors import daily_sensor


def quality_sensor(domain: Domain) -> dg.SensorDefinition:
    """Days that are over and were not judged from the answers and source partitions that there are -> a run each."""
    return daily_sensor(
        domain,
        MONITOR,
        days_to_judge,
        f"Holds what the models of {domain.name} were served to their training sets, once a day is over; and again "
        "when the day's sources have come.",
    )
