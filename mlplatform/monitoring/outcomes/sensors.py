"""The sensors that have the days and weeks of a domain judged by what became of its answers."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.outcomes.outcomes import MONITOR, due
from mlplatform.monitoring.outcomes.weekly import MONITOR as WEEKLY
from mlplatform.monitoring.outcomes.weekly import weeks_due
from mlplatform.monitoring.sensors import daily_sensor


def outcomes_sensor(domain: Domain) -> dg.SensorDefinition:
    """Days that are over and have answers, labels or corrections that nobody has looked at -> a run each."""
    return daily_sensor(
        domain,
        MONITOR,
        due,
        f"Has the answers of {domain.name} judged by their labels: when a day is over, when its labels can be in, and "
        "whenever one comes or is corrected later.",
    )


def outcomes_weekly_sensor(domain: Domain) -> dg.SensorDefinition:
    """Weeks that are over and of which a day was judged since -> a run each."""
    return daily_sensor(domain, WEEKLY, weeks_due, f"Puts the judged days of {domain.name} together, week by week.")
