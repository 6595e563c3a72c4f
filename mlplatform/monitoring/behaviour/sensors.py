"""The sensor that has the days of a domain's models judged, each once it is over."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.behaviour.checks import MONITOR
from mlplatform.monitoring.behaviour.day import days_to_judge
from mlplatform.monitoring.sensors import daily_sensor


def behaviour_sensor(domain: Domain) -> dg.SensorDefinition:
    """Days that are over and that nobody has judged -> a run each; the silent ones after days with answers too."""
    return daily_sensor(
        domain,
        MONITOR,
        days_to_judge,
        f"Judges how the models of {domain.name} behaved on a day once it is over, and finds days without traffic.",
    )
