"""What the views declare is what real days give: types, ranges, and codes that never guess."""

from datetime import date, timedelta

import polars as pl
import pytest

from mlplatform.domain.view import Feature, OnDemand
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.sample import sent_on
from mlplatform.domains.flight_delay.sources import flight_facts, flight_outcomes
from mlplatform.domains.flight_delay.views import fitted
from mlplatform_tests.fakes.flight_days import FlightDays


@pytest.fixture(scope="module")
def requests() -> pl.DataFrame:
    """The requests of every fifth day of the year: all seasons and both clock changes."""
    days = [date(2013, 1, 1) + timedelta(days=number) for number in range(0, 366, 5)]
    days += [date(2013, 3, 10), date(2013, 11, 3)]
    facts = pl.concat([flight_facts(sent_on("flights", day)) for day in days])
    return DOMAIN.requests.of_facts(flight_outcomes({"flights": facts}))


def within(feature: Feature, values: pl.Series) -> None:
    """Assert the declared type and range."""
    assert values.dtype == feature.dtype, feature.name
    if feature.minimum is not None or feature.maximum is not None:
        low, high = values.min(), values.max()
        assert isinstance(low, int | float) and isinstance(high, int | float)
        assert feature.minimum is None or low >= feature.minimum, (feature.name, low)
        assert feature.maximum is None or high <= feature.maximum, (feature.name, high)


@pytest.mark.parametrize("view", [view.name for view in DOMAIN.views])
def test_published_values_are_in_their_declared_range(flights: FlightDays, view: str) -> None:
    """Each feature of each view has its type and stays in its range on six weeks of real days."""
    rows = flights.features(view)
    for feature in DOMAIN.view(view)[1].features:
        assert rows[feature.name].count() > 0, feature.name
        within(feature, rows[feature.name])


@pytest.mark.parametrize("each", DOMAIN.on_demand, ids=lambda each: str(each.name))
def test_on_demand_values_are_in_their_declared_range(requests: pl.DataFrame, each: OnDemand) -> None:
    """Each on-demand feature stays in its range on requests of the whole year, one row per request."""
    computed = each.function(requests)
    assert computed.height == requests.height
    for feature in each.features:
        within(feature, computed[feature.name])
        assert computed[feature.name].null_count() == 0


def test_the_local_hour_follows_the_clock_change(requests: pl.DataFrame) -> None:
    """No flight leaves New York between 1:00 and 4:59 by the clock on the wall, whatever the season."""
    local = next(each for each in DOMAIN.on_demand if each.name == "local_departure")
    hours = local.function(requests)["departure_hour"]
    assert not hours.is_between(2, 4).any()
    assert hours.is_between(5, 23).all()


class TestFittedValues:
    @pytest.mark.parametrize("name", ["carrier_codes", "origin_codes", "dest_codes"])
    def test_codes_are_ranks_of_frequency(self, requests: pl.DataFrame, name: str) -> None:
        """0 is the most frequent value; each known value has its own number."""
        value = next(each for each in fitted if each.name == name)
        column = name.removesuffix("_codes")
        learned = value.fit(requests)
        counts = dict(requests.group_by(column).len().iter_rows())
        assert [counts[each] for each in learned] == sorted((counts[each] for each in learned), reverse=True)
        assert min(counts[each] for each in learned) >= 100
        codes = value.apply(requests, learned)[f"{column}_code"]
        within(value.features[0], codes)
        assert set(codes.drop_nulls()) == set(range(len(learned)))

    def test_a_rare_or_unseen_value_is_null(self, requests: pl.DataFrame) -> None:
        """An airport of a few flights, an unknown one and a missing one have no code; none of them is 0."""
        value = next(each for each in fitted if each.name == "dest_codes")
        learned = value.fit(requests)
        rare = requests.group_by("dest").len().filter(pl.col("len") < 100)["dest"][0]
        asked = pl.DataFrame({"dest": [rare, "XXX", None, learned[0]]})
        assert value.apply(asked, learned)["dest_code"].to_list() == [None, None, None, 0]


def test_every_feature_says_what_it_means() -> None:
    """No feature is declared without a meaning, none twice."""
    features = [feature for view in DOMAIN.views for feature in view.features]
    features += [feature for each in DOMAIN.on_demand for feature in each.features]
    features += [feature for value in DOMAIN.fitted for feature in value.features]
    assert all(feature.meaning for feature in features)
    assert len({feature.name for feature in features}) == len(features)


def test_a_value_of_the_windows_outlives_two_missed_publications() -> None:
    """Windows are served for three days after they were computed, the register for years."""
    lives = {view.name: view.ttl for view in DOMAIN.views}
    assert lives["carrier"] == lives["tail_number"] == timedelta(days=3)
    assert lives["weather"] < lives["carrier"] < lives["aircraft"]
