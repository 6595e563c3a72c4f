"""The dirt of real days: refused with its reason, or read as what it is; never repaired."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.sample import sent_on
from mlplatform.domains.flight_delay.sources import (
    flight_contract,
    flight_facts,
    flight_outcomes,
    plane_facts,
    weather_contract,
    weather_facts,
)
from mlplatform.domains.flight_delay.zones import zones
from mlplatform.features.rules import check
from mlplatform_tests.fakes.flight_days import FlightDays

BROKEN_WIND = datetime(2013, 2, 12, 8, tzinfo=UTC)


def flight(departs: datetime, sched_arr_time: int, dest: str, **changed: object) -> pl.DataFrame:
    """One landed flight, due at a wall-clock time of the destination."""
    row = {
        "year": departs.year,
        "month": departs.month,
        "day": departs.day,
        "carrier": "UA",
        "flight": 1,
        "tailnum": "N1",
        "origin": "JFK",
        "dest": dest,
        "sched_dep_time": departs.minute,
        "sched_arr_time": sched_arr_time,
        "dep_delay": 0,
        "arr_delay": 0,
        "distance": 1000,
        "time_hour": departs.replace(minute=0),
        "recorded_at": departs,
    }
    return pl.DataFrame([row | changed], schema=flight_contract.schema)


def arrival(departs: datetime, sched_arr_time: int, dest: str) -> datetime | None:
    """The scheduled arrival of such a flight."""
    found: datetime | None = flight_facts(flight(departs, sched_arr_time, dest))["scheduled_arrival"].item()
    return found


def utc(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    """An instant of 2013."""
    return datetime(2013, month, day, hour, minute, tzinfo=UTC)


class TestBrokenWind:
    def test_is_quarantined_with_its_reason(self, flights: FlightDays) -> None:
        """The 1,048 mph of Newark lie in quarantine, alone, and the row says why."""
        refused = flights.tables.quarantine("weather").read()
        assert refused.select("origin", "time_hour", "broken_rules").rows() == [
            ("EWR", BROKEN_WIND, "wind_speed: at most 150")
        ]
        assert refused["wind_speed"].item() > 1000

    def test_reaches_no_fact_and_no_feature(self, flights: FlightDays) -> None:
        """Neither the base table nor the weather features know of it; the other hours of that day are there."""
        reports = flights.tables.base("weather").read(["2013-02-12"]).filter(pl.col("origin") == "EWR")
        assert reports.height == 23
        strongest = flights.features("weather")["weather_wind_speed_maximum_24h"].max()
        assert isinstance(strongest, float)
        assert strongest < 60

    def test_leaves_its_day_standing(self, flights: FlightDays) -> None:
        """One row of seventy-two does not stop the partition."""
        found = check(sent_on("weather", date(2013, 2, 12)), weather_contract)
        assert (found.kept.height, found.refused.height, found.blocking) == (71, 1, ())


def test_no_flight_of_the_year_is_refused() -> None:
    """The flight contract describes the year: every day of it passes whole."""
    broken = {}
    for number in range(366):
        day = date(2013, 1, 1) + timedelta(days=number)
        found = check(sent_on("flights", day), flight_contract)
        if found.refused.height or found.blocking:
            broken[day] = (found.refused.height, found.blocking)
    assert broken == {}


class TestClockChange:
    def test_the_hour_that_comes_twice_is_two_reports(self) -> None:
        """1:00 on 3 November is reported twice at each airport: both are kept, as two instants."""
        found = check(sent_on("weather", date(2013, 11, 3)), weather_contract)
        local = pl.col("time_hour").dt.convert_time_zone("America/New_York")
        twice = found.kept.filter(local.dt.hour() == 1, local.dt.date() == date(2013, 11, 3))
        assert twice.group_by("origin").agg(pl.col("time_hour").sort()).sort("origin").rows() == [
            (origin, [utc(11, 3, 5), utc(11, 3, 6)]) for origin in ("EWR", "JFK", "LGA")
        ]
        assert weather_facts(twice).height == 6

    def test_an_ambiguous_arrival_takes_the_earlier_instant(self) -> None:
        """1:26 in Boston on the night of the autumn change was first 5:26 UTC, an hour later 6:26."""
        assert arrival(utc(11, 3, 3, 40), 126, "BOS") == utc(11, 3, 5, 26)

    def test_where_clocks_do_not_change_nothing_is_ambiguous(self) -> None:
        """The same time in Puerto Rico, which has no summer time, is 5:26 UTC and only that."""
        assert arrival(utc(11, 3, 0, 25), 126, "BQN") == utc(11, 3, 5, 26)

    @pytest.mark.parametrize(
        "departs",
        [
            pytest.param(utc(3, 10, 4, 40), id="left the evening before"),
            pytest.param(utc(3, 10, 6, 10), id="left an hour before"),
        ],
    )
    def test_an_arrival_in_the_skipped_hour_is_null(self, departs: datetime) -> None:
        """There was no 2:26 in Boston on 10 March: no instant is made up, that of the next day least of all."""
        assert arrival(departs, 226, "BOS") is None

    def test_the_night_after_the_skipped_hour_is_read_as_usual(self) -> None:
        """A flight that leaves on the evening of 10 March lands at 2:26 of the 11th, which exists."""
        assert arrival(utc(3, 11, 2, 30), 226, "BOS") == utc(3, 11, 6, 26)

    @pytest.mark.parametrize("day", [date(2013, 3, 10), date(2013, 3, 11), date(2013, 11, 3), date(2013, 11, 4)])
    def test_no_arrival_of_those_days_is_missing_or_odd(self, day: date) -> None:
        """Every real flight around the changes has an arrival, half an hour to thirteen hours after its departure."""
        facts = flight_facts(sent_on("flights", day))
        hours = facts.select((pl.col("scheduled_arrival") - pl.col("scheduled_departure")).dt.total_minutes() / 60)
        lengths = hours.to_series()
        assert lengths.null_count() == 0
        assert lengths.is_between(0.5, 13).all()


class TestArrival:
    def test_is_read_in_the_zone_of_the_destination(self) -> None:
        """Noon from New York, due 14:30 in Los Angeles: 21:30 UTC in summer."""
        assert arrival(utc(7, 1, 16), 1430, "LAX") == utc(7, 1, 21, 30)

    def test_is_on_the_next_day_when_the_clock_says_so(self) -> None:
        """Due at 0:20, a flight of the evening lands after midnight."""
        assert arrival(utc(7, 2, 1, 30), 20, "ORD") == utc(7, 2, 5, 20)

    def test_midnight_may_be_written_as_2400(self) -> None:
        """24:00 is the end of the day of departure."""
        assert arrival(utc(7, 2, 1, 30), 2400, "BOS") == utc(7, 2, 4)

    def test_is_null_in_an_unknown_zone(self) -> None:
        """An airport that the table does not list has no local time; the flight is kept."""
        facts = flight_facts(flight(utc(7, 1, 16), 1430, "XXX"))
        assert facts["scheduled_arrival"].to_list() == [None]
        assert facts["scheduled_departure"].to_list() == [utc(7, 1, 16)]

    @pytest.mark.parametrize("airport", ["SJU", "PSE", "BQN", "STT"])
    def test_is_known_for_the_airports_that_the_data_set_forgot(self, airport: str) -> None:
        """The Caribbean airports that the airports file lacks are four hours behind UTC, summer and winter."""
        assert arrival(utc(7, 1, 16), 1400, airport) == utc(7, 1, 18)
        assert arrival(utc(1, 15, 16), 1400, airport) == utc(1, 15, 18)

    def test_every_destination_of_the_year_has_a_zone(self) -> None:
        """The zone table leaves out no airport that is flown to."""
        flown = {dest for month in range(1, 13) for dest in sent_on("flights", date(2013, month, 21))["dest"]}
        assert len(flown) > 90
        assert flown <= set(zones)


class TestOutcomes:
    def test_only_a_flight_that_landed_has_labels(self, flights: FlightDays) -> None:
        """Cancelled and diverted flights are facts without a label; all others have both."""
        outcomes = flights.tables.derived("outcomes").read()
        without = pl.col("cancelled") | pl.col("diverted")
        labels = outcomes.select(
            without.alias("without"), *(model.label.value().alias(model.name) for model in DOMAIN.models)
        )
        assert labels["without"].sum() > 500
        for model in DOMAIN.models:
            assert labels.filter(pl.col("without") != pl.col(model.name).is_null()).is_empty()

    @pytest.mark.parametrize(
        ("dep_delay", "arr_delay", "told"),
        [
            pytest.param(0, 15, (False, False, False), id="fifteen minutes are not late"),
            pytest.param(0, 16, (True, False, False), id="sixteen are"),
            pytest.param(None, None, (None, True, False), id="cancelled"),
            pytest.param(3, None, (None, False, True), id="diverted"),
        ],
    )
    def test_each_fate(
        self, dep_delay: int | None, arr_delay: int | None, told: tuple[bool | None, bool, bool]
    ) -> None:
        """Late, cancelled and diverted are told apart by the delays that are there."""
        facts = flight_facts(flight(utc(7, 1, 16), 1430, "LAX", dep_delay=dep_delay, arr_delay=arr_delay))
        assert flight_outcomes({"flights": facts}).select("late", "cancelled", "diverted").row(0) == told

    def test_a_landing_without_a_departure_is_refused(self) -> None:
        """A row that contradicts itself is for the quarantine."""
        odd = flight(utc(7, 1, 16), 1430, "LAX", sched_dep_time=1200, dep_delay=None)
        refused = check(odd, flight_contract).refused
        assert refused["broken_rules"].to_list() == ["no landing without a departure"]


def test_what_is_not_measured_stays_null() -> None:
    """A report without a wind and a plane without a year keep their nulls."""
    reports = weather_facts(sent_on("weather", date(2013, 7, 4)))
    assert reports.filter(pl.col("wind_speed").is_null()).height == 1
    planes = plane_facts(sent_on("planes", date(2013, 1, 1)))
    assert planes["year"].null_count() == 70


def test_a_report_is_known_a_quarter_of_an_hour_after_its_stamp() -> None:
    """Who asks at the full hour does not see the report of that hour."""
    reports = sent_on("weather", date(2013, 7, 4))
    late_by = weather_facts(reports)["event_time"] - reports["time_hour"]
    assert late_by.dt.total_minutes().unique().to_list() == [15]
