"""What the domain itself knows of a flight when no model can answer: the rules of thumb.

Figures are those of January to June 2013 in the data that ships with the domain. They never raise: what a rule needs
and the request lacks is left out.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

late_share_by_hours = ((0, 6, 0.12), (6, 10, 0.17), (10, 14, 0.21), (14, 17, 0.29), (17, 21, 0.38), (21, 24, 0.33))
"""(from local hour, before local hour, share of flights late): delays pile up through the day."""

usual_delay_by_hours = ((0, 6, -2.0), (6, 10, 0.0), (10, 14, 4.0), (14, 17, 11.0), (17, 21, 20.0), (21, 24, 15.0))
"""The same for the mean arrival delay, minutes."""

new_york_behind_utc_hours = 4
"""Summer time; an hour off in winter, which these coarse bands forgive."""


def late_by_hour(request: Mapping[str, Any]) -> float | None:
    """Share of flights that were late at this hour; None without a departure time."""
    return _band(late_share_by_hours, request)


def delay_by_hour(request: Mapping[str, Any]) -> float | None:
    """Mean arrival delay at this hour, minutes; None without a departure time."""
    return _band(usual_delay_by_hours, request)


def _band(bands: tuple[tuple[int, int, float], ...], request: Mapping[str, Any]) -> float | None:
    departure = request.get("scheduled_departure")
    if not isinstance(departure, datetime):
        return None
    hour = (departure.hour - new_york_behind_utc_hours) % 24
    return next((share for low, high, share in bands if low <= hour < high), None)
