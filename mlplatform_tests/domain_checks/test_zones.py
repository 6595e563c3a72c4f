"""Another time zone is really another one, is left again, and clock changes are found in the calendar."""

import os
import time
from datetime import date, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from mlplatform.domain_checks.evidence import Evidence, days_of
from mlplatform.domain_checks.zones import days_of_clock_changes
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.settings import local_zone


def test_a_process_is_put_into_another_zone_and_back() -> None:
    """Also when what runs inside raises."""
    before = time.tzname, os.environ.get("TZ")
    with local_zone("Asia/Kolkata"):
        assert datetime.fromtimestamp(0).hour == 5  # noqa: DTZ006 - the zone of the process is what is tested
    with pytest.raises(ZoneInfoNotFoundError), local_zone("Asia/Kolkata"):
        ZoneInfo("Nowhere/At_all")
    assert (time.tzname, os.environ.get("TZ")) == before


def test_clock_changes_are_the_sundays_of_the_calendar() -> None:
    """Of the United States and of Europe, 2024."""
    evidence = Evidence(DOMAIN, lambda _source, _day: None, days_of(date(2024, 1, 1), date(2024, 12, 31)))  # type: ignore[arg-type, return-value]
    assert list(days_of_clock_changes(evidence)) == ["2024-03-10", "2024-03-31", "2024-10-27", "2024-11-03"]
