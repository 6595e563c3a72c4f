"""The quick way to a request takes what the long way takes, gives the same values, and never takes more."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlplatform.domain.column import Column
from mlplatform.domains.registered import registered_domains
from mlplatform.errors import InvalidRequest, MalformedBody
from mlplatform.scoring.request import FEW_ROWS, parse_requests, read_request, request_frame
from mlplatform.scoring.request_decoder import RequestDecoder
from serving.json_body import decode_object

COLUMNS = (
    Column(name="number", dtype=pl.Float64(), meaning="bounded", minimum=-1.5, maximum=2.5),
    Column(name="single", dtype=pl.Float32(), meaning="bounded, in float32", minimum=0.1, nullable=True),
    Column(name="whole", dtype=pl.Int16(), meaning="bounded by its type", maximum=300),
    Column(name="large", dtype=pl.Int64(), meaning="beyond what floats hold", nullable=True),
    Column(name="yes", dtype=pl.Boolean(), meaning="one or the other"),
    Column(name="code", dtype=pl.String(), meaning="patterned", pattern="[A-Z:]{1,4}"),
    Column(name="place", dtype=pl.String(), meaning="one of a few", allowed=("north", "south"), nullable=True),
    Column(name="when", dtype=pl.Datetime("us", "UTC"), meaning="an instant"),
    Column(name="day", dtype=pl.Date(), meaning="a day", nullable=True),
    Column(name="loose", dtype=pl.Float64(), meaning="only a warning", maximum=1, severity="warning"),
)
GOOD = {
    "number": 1.0,
    "single": 0.5,
    "whole": 3,
    "large": 2**53 - 1,
    "yes": True,
    "code": "A:B",
    "place": "north",
    "when": "2024-05-01T12:00:00Z",
    "day": "2024-05-01",
    "loose": 7.0,
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.sampled_from([0.1, 1e17, 3.0, 2**53, -0.0, 300, 301, 1e400]),
    st.text(max_size=6),
    st.sampled_from(["A:B", "north", "null", "2024-05-01T12:00:00+02:00", "2024-05-01", "\ud800", "a\\b", ":"]),
    st.lists(st.integers(), max_size=2),
)
NAMES = st.one_of(st.sampled_from(list(GOOD)), st.text(max_size=4))


def long_way(body: bytes) -> tuple[Any, ...] | None:
    """What the checks of one field after the other give; None where they refuse."""
    try:
        return read_request(decode_object(body), COLUMNS)
    except (MalformedBody, InvalidRequest):
        return None


def written(pairs: list[tuple[str, Any]]) -> bytes:
    """A JSON object with these names in this order, also twice."""
    inside = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs)
    return f"{{{inside}}}".encode()


@settings(max_examples=600)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.lists(st.tuples(NAMES, VALUES), max_size=2))
@example({}, [("number", 2.0)])
@example({"place": None}, [("place", "north")])
@example({"code": "A"}, [("code", ":")])
@example({"when": None}, [])
def test_it_takes_nothing_that_the_long_way_refuses(changed: dict[str, Any], added: list[tuple[str, Any]]) -> None:
    """Whatever stands in a body, once or twice: the same values, or None for the long way to decide."""
    decode = RequestDecoder(COLUMNS)
    body = written([*{**GOOD, **changed}.items(), *added])
    for _ in range(2):  # the second time a text is known that the first time was matched
        quick, expected = decode(body), long_way(body)
        assert quick is None or (quick == expected and list(map(type, quick)) == list(map(type, expected or ())))


def test_it_takes_what_is_as_it_should_be() -> None:
    """Once its texts have been seen; else the quick way would be of no use."""
    decode, body = RequestDecoder(COLUMNS), json.dumps({**GOOD, "code": "QZQZ"}).encode()
    assert decode(body) is None
    expected = long_way(body)
    assert expected is not None
    assert decode(body) == expected


@pytest.mark.parametrize("domain", registered_domains().values(), ids=registered_domains())
def test_the_examples_of_the_domains_go_the_quick_way(domain: Any) -> None:
    """Each domain's own example, with nulls written out left to the long way."""
    columns = domain.requests.columns
    asked = {name: value for name, value in domain.requests.example.items() if name != "at" and value is not None}
    body, decode = json.dumps(asked).encode(), RequestDecoder(columns)
    expected = read_request(asked, columns)
    assert decode(body) == expected


@pytest.mark.parametrize("count", [1, FEW_ROWS - 1, FEW_ROWS, 40])
def test_a_frame_of_few_rows_is_that_of_many(count: int) -> None:
    """Built row by row or column by column: the same as of parsed requests, nulls and dtypes too."""
    rows = [{**GOOD, "number": index / 100, "single": None if index % 3 else 0.5} for index in range(count)]
    assert request_frame([read_request(row, COLUMNS) for row in rows], COLUMNS).equals(
        parse_requests(rows, COLUMNS), null_equal=True
    )


def test_a_frame_of_numbers_keeps_its_nulls() -> None:
    """Numbers alone go through numpy, which has NaN for a null."""
    columns = tuple(Column(name=name, dtype=pl.Float64(), meaning="x", nullable=True) for name in ("first", "second"))
    rows: list[dict[str, Any]] = [{"first": None if index % 2 else 1.5, "second": float(index)} for index in range(20)]
    made = request_frame([read_request(row, columns) for row in rows], columns)
    assert made.equals(parse_requests(rows, columns), null_equal=True)
    assert made["first"].null_count() == 10
