"""The rules of thumb answer anything without a fault, and roughly right."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domains.flight_delay.fallback import delay_by_hour, late_by_hour
from mlplatform_tests.fakes.flight_days import FlightDays

Rule = Callable[[Mapping[str, Any]], float | None]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
names = st.text(max_size=8) | st.sampled_from(["carrier", "flight", "tailnum", "scheduled_departure", "distance"])


@pytest.mark.parametrize("rule", [late_by_hour, delay_by_hour])
class TestRules:
    @given(request=st.dictionaries(names, anything, max_size=6))
    def test_an_arbitrary_request_raises_nothing(self, rule: Rule, request: dict[str, Any]) -> None:
        """Whatever a request holds, there is a number or None."""
        answer = rule(request)
        assert answer is None or isinstance(answer, float)

    @given(departure=st.datetimes(timezones=st.timezones() | st.none()))
    def test_a_departure_time_has_an_answer(self, rule: Rule, departure: datetime) -> None:
        """The bands cover all hours of the day."""
        assert rule({"scheduled_departure": departure}) is not None

    def test_without_a_departure_time_there_is_no_answer(self, rule: Rule) -> None:
        """A rule does not guess what it was not told."""
        assert rule({}) is None
        assert rule({"scheduled_departure": None}) is None
        assert rule({"scheduled_departure": "2013-07-01T21:15:00Z"}) is None

    def test_an_evening_is_worse_than_a_morning(self, rule: Rule) -> None:
        """Delays pile up through the day: 18:00 in New York is worse than 7:00."""
        morning, evening = (rule({"scheduled_departure": datetime(2013, 6, 3, hour, tzinfo=UTC)}) for hour in (11, 22))
        assert morning is not None and evening is not None
        assert morning < evening


def test_the_shares_rank_real_days(flights: FlightDays) -> None:
    """On the first six weeks of flights, those that the rule calls riskier were late more often."""
    landed = flights.tables.derived("outcomes").read().filter(pl.col("late").is_not_null())
    told = [late_by_hour({"scheduled_departure": each}) for each in landed["scheduled_departure"]]
    shares = landed.select("late", told=pl.Series(told)).select(
        morning=pl.col("late").filter(pl.col("told") <= 0.17).mean(),
        evening=pl.col("late").filter(pl.col("told") >= 0.29).mean(),
    )
    morning, evening = shares.row(0)
    assert morning < 0.2 < 0.25 < evening
