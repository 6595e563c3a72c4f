"""The two models as they are declared: every number with its reason, every request of the past a request of today."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta

import polars as pl
import pytest

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.models import asked
from mlplatform.features.view import feature_names
from mlplatform.scoring.request import parse_requests
from mlplatform_tests.fakes.flight_days import FlightDays


def thresholds(declared: object, path: str) -> Iterator[tuple[str, Threshold]]:
    """Every threshold below a declaration, with the path to it."""
    if isinstance(declared, Threshold):
        yield path, declared
    elif is_dataclass(declared):
        for each in fields(declared):
            yield from thresholds(getattr(declared, each.name), f"{path}.{each.name}")
    elif isinstance(declared, Mapping):
        for name, value in declared.items():
            yield from thresholds(value, f"{path}[{name}]")
    elif isinstance(declared, tuple):
        for number, value in enumerate(declared):
            yield from thresholds(value, f"{path}[{number}]")


FOUND = [each for model in DOMAIN.models for each in thresholds(model, model.name)]


@pytest.mark.parametrize(("path", "threshold"), FOUND, ids=[path for path, _ in FOUND])
def test_a_threshold_has_a_reason(path: str, threshold: Threshold) -> None:
    """A number that decides says why it is that number, in more than a word."""
    assert len(threshold.reason.split()) >= 5, path


def test_all_thresholds_were_found() -> None:
    """The search above looks into gates, objectives and mappings."""
    paths = {path for path, _ in FOUND}
    assert {"late_arrival.gate.too_good[auc]", "late_arrival.decision", "arrival_delay.objectives.p99_ms"} <= paths


class TestRequests:
    def test_past_requests_keep_the_contract_of_requests(self, flights: FlightDays) -> None:
        """What is trained on could have been asked over HTTP: past requests pass the check of the service."""
        facts = flights.tables.derived("outcomes").read(["2013-02-01"])
        past = asked(facts).drop("at")
        rows = [
            {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
            for row in past.iter_rows(named=True)
        ]
        assert len(rows) > 500
        assert parse_requests(rows, DOMAIN.requests.columns).equals(past)

    def test_are_asked_two_hours_before_the_schedule(self, flights: FlightDays) -> None:
        """The moment of the request is known before the flight leaves, and so before any of its outcomes."""
        facts = flights.tables.derived("outcomes").read(["2013-02-01"])
        requests = asked(facts)
        ahead = (requests["scheduled_departure"] - requests["at"]).unique().to_list()
        assert ahead == [timedelta(hours=2)]
        assert (requests["at"] < facts["event_time"]).all()

    def test_the_label_delay_covers_the_year(self, flights: FlightDays) -> None:
        """No label of these days comes later after its request than the declared delay."""
        facts = flights.tables.derived("outcomes").read()
        longest = (facts["event_time"] - asked(facts)["at"]).max()
        for model in DOMAIN.models:
            assert isinstance(longest, timedelta)
            assert longest <= model.label.delay

    def test_no_request_holds_its_outcome(self) -> None:
        """Delay, cancellation and diversion are no fields of a request, and no input of a model."""
        told = {column.name for column in DOMAIN.requests.columns}
        for model in DOMAIN.models:
            assert not {"late", "arrival_delay", "departure_delay", "cancelled", "diverted"} & (
                told | set(feature_names(DOMAIN, model))
            )


@pytest.mark.parametrize("model", DOMAIN.models, ids=lambda model: str(model.name))
def test_the_rising_features_are_inputs(model: ModelSpec) -> None:
    """A constraint on a feature that the model does not read would be refused by XGBoost, or worse, ignored."""
    constrained = model.settings.more["monotone_constraints"]
    assert set(constrained) <= set(feature_names(DOMAIN, model))


def test_identity_names_one_flight(flights: FlightDays) -> None:
    """No two requests share the columns that name a case."""
    requests = asked(flights.tables.derived("outcomes").read())
    assert not requests.select(pl.struct(DOMAIN.requests.identity).is_duplicated().any()).item()
