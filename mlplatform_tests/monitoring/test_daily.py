"""Days that are over: those that a monitor may judge."""

from datetime import UTC, datetime

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring import daily
from mlplatform.monitoring.daily import answers_of_days_over
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import Clock


def test_only_days_of_the_domain_that_are_over_are_judged(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests tell their own time they may tell any: a day before the domain's first has no partition."""
    counts = {"1970-01-01": 1, "2023-12-31": 2, "2024-01-01": 3, "2024-01-19": 4, "2024-01-20": 5}
    monkeypatch.setattr(daily, "rows_by_day", lambda *_: counts)
    clock = platform.clock
    assert isinstance(clock, Clock)
    clock.now = datetime(2024, 1, 20, 0, 5, tzinfo=UTC)
    assert answers_of_days_over(platform, DOMAIN) == {"2024-01-01": "3", "2024-01-19": "4"}
