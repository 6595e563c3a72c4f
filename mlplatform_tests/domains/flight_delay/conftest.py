"""Six weeks of real flights, computed once for all tests of the domain."""

from datetime import date

import pytest

from mlplatform_tests.fakes.flight_days import FlightDays, flight_days

LAST = date(2013, 2, 13)
"""A day after the wind of 1,048 mph, and long enough for a full window of 28 days."""


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> FlightDays:
    """1 January to 13 February 2013. For reading only."""
    return flight_days(tmp_path_factory.mktemp("flights") / "home", LAST)
