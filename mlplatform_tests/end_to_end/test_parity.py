"""Training–serving parity on real flights: what is answered over HTTP is what is scored offline, to the bit."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.model import ModelSpec
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.historical import historical_features
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import Tables
from mlplatform.operations.servers import champion_tag
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import bento_home
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform_tests.fakes.bento_server import serving

DAYS = [date(2013, 3, 10), date(2013, 4, 1), date(2013, 4, 11), date(2013, 4, 18), date(2013, 4, 30)]
"""Asked about: the night of the spring change, ordinary days, and the last day there is."""


def asked_on(platform: Platform, day: date, flights: int) -> pl.DataFrame:
    """Requests of a day (UTC), drawn by a fixed seed, in the order in which they were asked.

    Those before the day's snapshot is available are all among them: they must be answered from the one before.
    """
    facts = Tables(platform, DOMAIN).facts(DOMAIN.requests.facts).read()
    requests = DOMAIN.requests.of_facts(facts).filter(pl.col("at").dt.date() == day)
    early = pl.col("at").dt.hour() == 0
    drawn = requests.filter(~early).sample(flights - requests.filter(early).height, seed=day.toordinal())
    return pl.concat([requests.filter(early), drawn]).sort("at", *DOMAIN.requests.identity)


def as_json(row: dict[str, Any]) -> str:
    """A request as a caller writes it."""
    return json.dumps({name: each.isoformat() if isinstance(each, datetime) else each for name, each in row.items()})


def answers_over_http(url: str, requests: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """One POST per request, all on one connection."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)) as connection:
        for row in requests.iter_rows(named=True):
            # On a machine where other tests run a deadline may pass; it is not what is looked at here.
            for _ in range(ATTEMPTS):
                connection.request("POST", "/predict", as_json(row), {"Content-Type": "application/json"})
                response = connection.getresponse()
                body = response.read().decode()
                assert response.status == 200, body
                if (answer := json.loads(body))["source"] == "model":
                    break
            yield answer


def bits(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Some fields of each row, floats written so that two are equal only to the last bit."""
    return [{name: row[name].hex() if isinstance(row[name], float) else row[name] for name in names} for row in rows]


ATTEMPTS = 20


@pytest.mark.end_to_end
@pytest.mark.parametrize(("name", "flights"), [("late_arrival", 1000), ("arrival_delay", 200)])
def test_served_answers_equal_offline_scores(
    own_flight_home: Platform, tmp_path: Path, name: str, flights: int
) -> None:
    """Flights of several days, each asked after its day's publication, get the offline answer in every bit."""
    platform, model = own_flight_home, DOMAIN.model(name)
    environment = {
        "BENTOML_HOME": str(bento_home(platform.home)),
        "MLPLATFORM_HOME": str(platform.home),
        "MLPLATFORM_CLOCK": "request",
    }
    requests: list[pl.DataFrame] = []
    answered: list[dict[str, Any]] = []
    with serving(champion_tag(platform, DOMAIN, model), folder=tmp_path, environment=environment) as server:
        server.wait_until_ready()
        for day in DAYS:
            publish_values(platform, DOMAIN, as_of=(day - timedelta(days=1)).isoformat())
            requests.append(asked_on(platform, day, flights // len(DAYS)))
            answered += answers_over_http(server.url, requests[-1])
    assert len(answered) == flights
    assert {(each["source"], each["degraded"]) for each in answered} == {("model", False)}
    expected = offline(platform, model, pl.concat(requests))
    compared = list(expected[0])
    assert bits(answered, compared) == bits(expected, compared)
    assert (
        len({each["prediction" if each["probability"] is None else "probability"] for each in expected}) > flights / 2
    )


def offline(platform: Platform, model: ModelSpec, requests: pl.DataFrame) -> list[dict[str, Any]]:
    """What the champion says of the same requests, from historical features and in one batch."""
    champion = Ledger(platform).champion(f"{DOMAIN.name}/{model.name}")
    assert champion is not None
    bundle = bundle_of(platform, champion)
    values = historical_features(platform, DOMAIN, model, requests)
    return bundle.answers(bundle.scores(bundle.features(requests, values))).rows(named=True)
