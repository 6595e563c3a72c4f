"""Days that are over: when a monitor may judge one, and what it judged it from.

A monitor is an asset with a partition per day. Its data version begins with what the day was judged from, in words of
the monitor's own (how many answers there were, which labels), so that a sensor can tell what has changed since.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta

from mlplatform.domain.domain import Domain
from mlplatform.features.tables import partition_end
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.provenance.platform import Platform

Due = Callable[[Platform, Domain], Mapping[str, str]]
"""Gives the days that a monitor can judge, and of each what it would be judged from."""

log_settles = timedelta(minutes=5)
"""From the end of a day until its last answers are in the table: gateways finish a segment within half a minute, and a
run takes them. What comes later still has the day judged again."""


def judged_version(made_from: str, content_hash: str) -> str:
    """Data version of a day that was judged: from what, and what was found.

    Parameters
    ----------
    made_from : without a colon
    """
    return f"{made_from}:{content_hash}"


def judged_from(version: str) -> str:
    """What a day was judged from; empty: it never was.

    Examples
    --------
    >>> judged_from(judged_version("12", "ab")), judged_from("")
    ('12', '')
    """
    return version.partition(":")[0]


def answers_of_days_over(platform: Platform, domain: Domain) -> dict[str, str]:
    """ISO day -> how many rows the log has of it, for the days whose answers are all there."""
    now = platform.clock()
    return {
        day: str(rows)
        for day, rows in rows_by_day(platform, domain).items()
        # Where requests tell their own time they may tell one before the domain's first day, which has no partition.
        if day >= domain.start.isoformat() and now >= partition_end(day) + log_settles
    }
