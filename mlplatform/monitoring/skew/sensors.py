"""The sensor that has the days of a domain compared, each once it is over."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.daily import answers_of_days_over
from mlplatform.monitoring.sensors import daily_sensor
from mlplatform.monitoring.skew.checks import MONITOR


def skew_sensor(domain: Domain) -> dg.SensorDefinition:
    """Days that are over and have answers that nobody has compared -> a run each."""
    return daily_sensor(
        domain,
        MONITOR,
        answers_of_days_over,
        f"Compares what the models of {domain.name} were served with what they were trained on, once a day is over.",
    )
