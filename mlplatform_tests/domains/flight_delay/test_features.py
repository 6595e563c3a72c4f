"""The feature functions on real days: exact, blind to the future, and null where nothing is known."""

import random
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.features import MAKERS, aircraft, carrier_windows, flight_plan, weather_last
from mlplatform.domains.flight_delay.sample import sent_on
from mlplatform.domains.flight_delay.sources import weather_facts
from mlplatform.features.historical import historical_features
from mlplatform.features.tables import available_at, partition_end
from mlplatform.features.view import compute_view
from mlplatform_tests.fakes.flight_days import FlightDays, flight_days

LATE_ARRIVAL = DOMAIN.model("late_arrival")
WINDOWS = {
    "carrier": ("carrier", ["carrier"]),
    "route": ("route", ["origin", "dest"]),
    "origin": ("origin", ["origin"]),
    "destination": ("destination", ["dest"]),
    "tail_number": ("aircraft", ["tailnum"]),
}
"""View -> prefix of its columns, and its key."""

CUT = date(2013, 1, 20)


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> FlightDays:
    """A home whose sources fell silent after 20 January: every later fact is not there at all."""
    return flight_days(tmp_path_factory.mktemp("ending") / "home", CUT)


@pytest.fixture(scope="module")
def sent(flights: FlightDays) -> pl.DataFrame:
    """All flights as their source sent them, straight from the recorded file."""
    return pl.concat([sent_on("flights", date.fromisoformat(day)) for day in flights.days])


def by_hand(rows: pl.DataFrame, at: datetime, prefix: str) -> dict[str, float | int | None]:
    """The twelve values of one entity from its rows as sent, one flight after the other, in plain Python."""
    told: dict[str, float | int | None] = {}
    records = rows.select("dep_delay", "arr_delay", "recorded_at").rows()
    for days in (1, 7, 28):
        within = [row for row in records if at - timedelta(days=days) <= row[2] < at]
        landed = [row[1] for row in within if row[1] is not None]
        clipped = [min(180, max(-30, delay)) for delay in landed]
        told[f"{prefix}_flights_{days}d"] = len(within)
        told[f"{prefix}_late_share_{days}d"] = share(sum(delay > 15 for delay in landed), len(landed))
        told[f"{prefix}_mean_arrival_delay_{days}d"] = share(sum(clipped), len(landed))
        told[f"{prefix}_cancelled_share_{days}d"] = share(sum(row[0] is None for row in within), len(within))
    return told


def share(part: int, whole: int) -> float | None:
    """One division, rounded to Float32 as the features are."""
    return float(np.float32(part / whole)) if whole else None


class TestWindows:
    def test_300_random_windows_equal_plain_filtering(self, flights: FlightDays, sent: pl.DataFrame) -> None:
        """Published windows of random views, days and keys are those that filtering the sent rows gives, to the bit."""
        drawn = random.Random(300)
        published = {
            view: flights.features(view).drop("event_time", "available_at").partition_by("_partition", as_dict=True)
            for view in WINDOWS
        }
        absent = 0
        for _ in range(300):
            view = drawn.choice(list(WINDOWS))
            prefix, key = WINDOWS[view]
            day = drawn.choice(flights.days)
            entity = dict(zip(key, sent.select(key).drop_nulls().row(drawn.randrange(35_000)), strict=True))
            rows = sent.filter([pl.col(name) == value for name, value in entity.items()])
            expected = by_hand(rows, partition_end(day), prefix)
            found = published[view][(day,)].filter([pl.col(name) == value for name, value in entity.items()])
            if expected[f"{prefix}_flights_28d"] == 0:
                assert found.is_empty()
                absent += 1
            else:
                assert found.drop(*key, "_partition").rows(named=True) == [expected]
        assert 0 < absent < 100

    def test_every_entity_of_a_day_is_there_once(self, flights: FlightDays, sent: pl.DataFrame) -> None:
        """A view holds exactly the keys that had an outcome in the 28 days; flights without a key belong to nobody."""
        day = flights.days[-1]
        end = partition_end(day)
        seen = sent.filter(pl.col("recorded_at") >= end - timedelta(days=28), pl.col("recorded_at") < end)
        assert seen["tailnum"].null_count() > 0
        for view, (_, key) in WINDOWS.items():
            expected = seen.select(key).drop_nulls().unique().sort(key)
            assert flights.features(view, [day]).select(key).sort(key).equals(expected)

    def test_the_order_of_the_facts_means_nothing(self, flights: FlightDays) -> None:
        """The same facts in another order give the same bits."""
        facts = flights.tables.derived("outcomes").read()
        at = partition_end(flights.days[-1])
        shuffled = facts.sample(fraction=1, shuffle=True, seed=1)
        for view in WINDOWS:
            declared = next(each for each in DOMAIN.views if each.name == view)
            assert compute_view(declared, facts, at).equals(compute_view(declared, shuffled, at))

    def test_no_facts_give_no_rows(self, flights: FlightDays) -> None:
        """A window without a single flight is an empty frame of the declared columns."""
        facts = flights.tables.derived("outcomes").read()
        empty = carrier_windows(facts.clear(), partition_end(flights.days[-1]))
        assert empty.is_empty()
        assert empty.columns[:2] == ["carrier", "carrier_flights_1d"]


class TestPointInTime:
    def test_no_earlier_row_changes_without_the_later_facts(self, flights: FlightDays, ending: FlightDays) -> None:
        """Every published row of every view up to that day is the same, to the bit, with and without the future."""
        for view in DOMAIN.views:
            table, silent = flights.tables.features(view), ending.tables.features(view)
            assert silent.read().height > 0
            assert table.read(ending.days).equals(silent.read())
            hashes = {day: each.content_hash for day, each in table.current().items() if day <= CUT.isoformat()}
            assert hashes == {day: each.content_hash for day, each in silent.current().items()}

    def test_no_earlier_request_sees_another_value(self, flights: FlightDays, ending: FlightDays) -> None:
        """Requests asked before the next publication get the same features from both homes."""
        requests = asked(flights).filter(pl.col("at") < available_at(DOMAIN, (CUT + timedelta(days=1)).isoformat()))
        assert requests.height > 15_000
        seen = historical_features(flights.platform, DOMAIN, LATE_ARRIVAL, requests)
        alone = historical_features(ending.platform, DOMAIN, LATE_ARRIVAL, requests)
        assert seen.equals(alone)

    def test_facts_of_the_future_are_not_looked_at(self, flights: FlightDays) -> None:
        """Also handed all facts there are, a view of an earlier instant gives what it gives without the later ones."""
        for view in DOMAIN.views:
            facts = flights.tables.facts(view.facts).read()
            for day in ("2013-01-05", "2013-01-29"):
                at = partition_end(day)
                past = facts.filter(pl.col("event_time") < at)
                assert past.height > 0
                assert view.facts == "planes" or past.height < facts.height
                assert compute_view(view, facts, at).equals(compute_view(view, past, at))

    def test_a_request_sees_what_was_published_and_no_more(self, flights: FlightDays) -> None:
        """Before 1:00 UTC yesterday's outcomes are not published yet: the value is that of the day before."""
        moments = [datetime(2013, 2, 10, 0, 59, tzinfo=UTC), datetime(2013, 2, 10, 1, 0, tzinfo=UTC)]
        requests = (
            asked(flights)
            .head(2)
            .with_columns(carrier=pl.lit("UA"), at=pl.Series(moments, dtype=pl.Datetime("us", "UTC")))
        )
        told = historical_features(flights.platform, DOMAIN, LATE_ARRIVAL, requests)["carrier_flights_1d"].to_list()
        published = flights.features("carrier", ["2013-02-08", "2013-02-09"]).filter(pl.col("carrier") == "UA")
        assert told == published.sort("_partition")["carrier_flights_1d"].to_list()
        assert told[0] != told[1]


def asked(flights: FlightDays) -> pl.DataFrame:
    """The past requests of a home."""
    return DOMAIN.requests.of_facts(flights.tables.derived("outcomes").read())


class TestAircraft:
    def test_an_unmatched_aircraft_has_nulls(self, flights: FlightDays) -> None:
        """A tail number that the register does not know, or none at all, gives nulls, and keeps its row."""
        registered = sent_on("planes", date(2013, 1, 1))["tailnum"].to_list()
        requests = asked(flights).filter(pl.col("at") > datetime(2013, 2, 1, tzinfo=UTC))
        unknown = requests.filter(~pl.col("tailnum").is_in(registered) | pl.col("tailnum").is_null())
        assert unknown["tailnum"].null_count() > 0
        values = historical_features(flights.platform, DOMAIN, LATE_ARRIVAL, unknown)
        assert values.height == unknown.height > 1000
        names = [feature.name for feature in DOMAIN.view("aircraft")[1].features]
        assert all(values[name].null_count() == values.height for name in names)
        assert values["carrier_flights_28d"].null_count() == 0

    def test_a_known_aircraft_without_a_year_keeps_its_seats(self, flights: FlightDays) -> None:
        """What the register does not know of a plane is null, never a year 0."""
        unknown_year = flights.features("aircraft", ["2013-01-01"]).filter(pl.col("aircraft_built").is_null())
        assert unknown_year.height == 70
        assert unknown_year["aircraft_seats"].null_count() == 0

    def test_the_spellings_of_a_maker_are_one(self) -> None:
        """AIRBUS and AIRBUS INDUSTRIE are one maker; a maker of a few planes is OTHER, an unknown one null."""
        entries = pl.DataFrame(
            {
                "tailnum": ["N1", "N2", "N3", "N4"],
                "event_time": [datetime(2013, 1, 1, tzinfo=UTC)] * 4,
                "year": [2000] * 4,
                "seats": [100] * 4,
                "engines": [2] * 4,
                "manufacturer": ["AIRBUS", MAKERS["AIRBUS"][1], "CESSNA", None],
            }
        )
        made_by = aircraft(entries, datetime(2013, 2, 1, tzinfo=UTC))["aircraft_maker"].to_list()
        assert made_by == ["AIRBUS", "AIRBUS", "OTHER", None]


class TestWeather:
    def test_a_day_without_reports_has_no_row(self) -> None:
        """The reports end on 30 December: on the last day of the year nothing is known, and that is not zero."""
        reports = pl.concat([weather_facts(sent_on("weather", date(2013, 12, day))) for day in (29, 30, 31)])
        view = DOMAIN.view("weather")[1]
        assert compute_view(view, reports, datetime(2013, 12, 31, tzinfo=UTC)).height == 3  # type: ignore[arg-type]
        assert compute_view(view, reports, datetime(2014, 1, 1, tzinfo=UTC)).is_empty()  # type: ignore[arg-type]

    def test_a_missing_hour_is_left_out_of_the_sum(self, flights: FlightDays) -> None:
        """Of a window with a missing hour the others count: values equal those of plain filtering."""
        rows = pl.concat([sent_on("weather", date(2013, 1, day)) for day in range(1, 7)])
        stamps = rows.filter(pl.col("origin") == "LGA")["time_hour"].to_list()
        assert datetime(2013, 1, 6, 11, tzinfo=UTC) not in stamps
        for day in ("2013-01-02", "2013-01-06"):
            end = partition_end(day)
            for origin in ("EWR", "JFK", "LGA"):
                known = [
                    row
                    for row in rows.filter(pl.col("origin") == origin).sort("time_hour").rows(named=True)
                    if end - timedelta(days=1) <= row["time_hour"] + timedelta(minutes=15) < end
                ]
                found = flights.features("weather", [day]).filter(pl.col("origin") == origin).row(0, named=True)
                hundredths = sum(round(row["precip"] * 100) for row in known)
                assert found["weather_precipitation_24h"] == np.float32(hundredths / 100)
                assert found["weather_wind_speed_maximum_24h"] == np.float32(max(row["wind_speed"] for row in known))
                assert found["weather_visibility_minimum_24h"] == np.float32(min(row["visib"] for row in known))
                assert found["weather_temperature"] == np.float32(known[-1]["temp"])

    def test_what_was_not_measured_is_null_not_zero(self) -> None:
        """Reports without a single measurement give a row of nulls: no rain is another thing than no gauge."""
        at = datetime(2013, 3, 2, tzinfo=UTC)
        measured = ["temp", "wind_speed", "precip", "pressure", "visib"]
        reports = pl.DataFrame(
            {"origin": ["JFK"], "event_time": [at - timedelta(hours=1)]} | {name: [None] for name in measured},
            schema_overrides=dict.fromkeys(measured, pl.Float64()),
        )
        assert weather_last(reports, at).drop("origin").row(0) == (None,) * 7


def test_a_flight_without_an_arrival_has_no_speed() -> None:
    """No scheduled arrival (an unknown zone, a skipped hour): its features are null, the distance stays."""
    request = pl.DataFrame(
        {"scheduled_departure": [datetime(2013, 7, 1, tzinfo=UTC)], "scheduled_arrival": [None], "distance": [500]},
        schema_overrides={"scheduled_arrival": pl.Datetime("us", "UTC")},
    )
    assert flight_plan(request).row(0) == (500, None, None)
