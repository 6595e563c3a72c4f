"""Requests as one version reads them, given to another."""

from datetime import UTC, datetime

import polars as pl
import pytest

from mlplatform.domain.column import Column
from serving.request_fit import RequestFit

CARRIER = Column(name="carrier", dtype=pl.String(), meaning="airline")
DISTANCE = Column(name="distance", dtype=pl.Float32(), meaning="distance")
GATE = Column(name="gate", dtype=pl.String(), meaning="gate", nullable=True)
ROWS = pl.DataFrame({"carrier": ["UA"], "distance": [1.5]}, schema_overrides={"distance": pl.Float32}).with_columns(
    at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).cast(pl.Datetime("us", "UTC"))
)


def test_the_same_columns_pass_as_they_are() -> None:
    """Nothing is copied."""
    fit = RequestFit((CARRIER, DISTANCE), (CARRIER, DISTANCE))
    values = ("UA", 1.5)
    assert fit.values(values) is values
    assert fit.rows(ROWS) is ROWS
    assert fit.fault == ""


def test_columns_that_came_are_null_and_those_that_went_are_passed_over() -> None:
    """As a caller who has not heard of them would ask."""
    fit = RequestFit((CARRIER, DISTANCE), (GATE, CARRIER))
    assert fit.fault == ""
    assert fit.values(("UA", 1.5)) == (None, "UA")
    assert fit.rows(ROWS).drop("at").to_dict(as_series=False) == {"gate": [None], "carrier": ["UA"]}
    assert fit.rows(ROWS).schema == {"gate": pl.String, "carrier": pl.String, "at": pl.Datetime("us", "UTC")}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Column(name="gate", dtype=pl.String(), meaning="gate"), "it needs gate"),
        (Column(name="distance", dtype=pl.Int64(), meaning="distance"), "it reads distance as Int64"),
    ],
    ids=["needed", "of another type"],
)
def test_what_cannot_be_told_does_not_fit(wanted: Column, told: str) -> None:
    """With the reason."""
    assert told in RequestFit((CARRIER, DISTANCE), (CARRIER, wanted)).fault


def test_a_column_that_may_be_left_out_does_not_fit_one_that_may_not() -> None:
    """A null would break what the version was promised."""
    assert "may leave out" in RequestFit((GATE,), (Column(name="gate", dtype=pl.String(), meaning="gate"),)).fault
