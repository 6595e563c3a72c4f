"""Requests: what is taken, what is refused and by which name, and that nothing else ever comes out."""

import json
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.column import Column, Contract, RowRule, Severity
from mlplatform.errors import DeclarationError, InvalidRequest
from mlplatform.features.rules import cast_to_contract, check
from mlplatform.scoring.request import MAX_FAULTS, MAX_TEXT, parse_requests, refuse_broken_rules, request_schema

COLUMNS = (
    Column(name="carrier", dtype=pl.String(), meaning="airline", allowed=("UA", "B6")),
    Column(name="tailnum", dtype=pl.String(), meaning="airframe", pattern="N[0-9]+", nullable=True),
    Column(name="distance", dtype=pl.Int16(), meaning="distance", unit="miles", minimum=1),
    Column(name="share", dtype=pl.Float32(), meaning="share", maximum=1),
    Column(name="charter", dtype=pl.Boolean(), meaning="charter"),
    Column(name="departure", dtype=pl.Datetime("us", "UTC"), meaning="scheduled departure"),
    Column(name="day", dtype=pl.Date(), meaning="local day"),
)
REQUEST = {
    "carrier": "UA",
    "tailnum": "N1",
    "distance": 100,
    "share": 0.5,
    "charter": False,
    "departure": "2013-03-15T14:47:00-04:00",
    "day": "2013-03-15",
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(REQUEST.values())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ANY_REQUEST = st.dictionaries(st.sampled_from(list(REQUEST)) | st.text(max_size=3), ANY_JSON, max_size=8)


def faults(**changes: Any) -> dict[str, str]:
    """The faults of one request that differs from the good one by these fields."""
    with pytest.raises(InvalidRequest) as caught:
        parse_requests([{**REQUEST, **changes}], COLUMNS)
    return caught.value.fields


def parsed_or_refused(rows: Any) -> pl.DataFrame | dict[str, str]:
    """The frame, or the fields at fault; any other exception goes through."""
    try:
        return parse_requests(rows, COLUMNS)
    except InvalidRequest as refused:
        return refused.fields


def test_a_good_request_is_typed() -> None:
    """Values arrive in the declared dtypes and order, timestamps as instants, whatever the order of the fields."""
    frame = parse_requests([dict(reversed(REQUEST.items()))], COLUMNS)
    assert frame.schema == {column.name: column.dtype for column in COLUMNS}
    assert frame.row(0) == ("UA", "N1", 100, 0.5, False, datetime(2013, 3, 15, 18, 47, tzinfo=UTC), date(2013, 3, 15))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("carrier", None, "must not be null"),
        ("carrier", 7, "expected text, got a number"),
        ("carrier", "ZZ", "'ZZ' is not one of UA, B6"),
        ("tailnum", "1N", "'1N' does not match N[0-9]+"),
        ("tailnum", "N1\n", r"'N1\n' does not match N[0-9]+"),
        ("tailnum", "N" * (MAX_TEXT + 1), f"is longer than {MAX_TEXT} characters"),
        ("tailnum", "N1\ud800", "holds half a surrogate pair, which is no character"),
        ("distance", "100", "expected a whole number, got text"),
        ("distance", True, "expected a whole number, got true or false"),
        ("distance", 1.5, "expected a whole number, got a number with a fraction or beyond 2^53"),
        ("distance", float("inf"), "expected a whole number, got a number with a fraction or beyond 2^53"),
        ("distance", 2**15, "is beyond Int16 (-32768 to 32767)"),
        pytest.param("distance", 10**5000, "is beyond Int16 (-32768 to 32767)", id="too many digits to print"),
        ("distance", 0, "0 is below the minimum of 1"),
        ("share", 1.5, "1.5 is above the maximum of 1"),
        ("share", float("nan"), "must not be NaN or infinite"),
        ("share", float("-inf"), "must not be NaN or infinite"),
        ("share", -1e300, "is beyond Float32"),
        ("share", -(10**400), "is beyond Float32"),
        ("share", False, "expected a number, got true or false"),
        ("share", [0.5], "expected a number, got a list"),
        ("charter", 0, "expected true or false, got a number"),
        ("charter", {}, "expected true or false, got an object"),
        ("departure", 1363358820, "expected a timestamp such as 2013-03-15T14:47:00Z, got a number"),
        ("departure", "15.3.2013", "'15.3.2013' is not ISO 8601: expected a timestamp such as 2013-03-15T14:47:00Z"),
        (
            "departure",
            "2013-03-15T14:47:00",
            "'2013-03-15T14:47:00' has no time zone: append Z or an offset such as -05:00",
        ),
        ("day", "2013-02-30", "'2013-02-30' is no day: expected YYYY-MM-DD"),
        ("day", "20130315", "'20130315' is no day: expected YYYY-MM-DD"),
        ("gate", "A3", "is no field of a request"),
    ],
)
def test_a_fault_is_named_with_its_reason(name: str, value: Any, reason: str) -> None:
    """One wrong field is refused under its own name, and no other with it."""
    assert faults(**{name: value}) == {name: reason}


def test_every_field_at_fault_is_named_at_once() -> None:
    """A caller mends the request in one go."""
    with pytest.raises(InvalidRequest) as caught:
        parse_requests([{"carrier": 1, "tailnum": "x", "gate": 1}], COLUMNS)
    assert set(caught.value.fields) == {*REQUEST, "gate"}
    assert caught.value.fields["distance"] == "is missing"


def test_a_batch_names_the_row() -> None:
    """In a batch each fault carries its row, also behind a row that is no object, and in a batch of one when asked."""
    rows: list[Any] = [REQUEST, 7, {**REQUEST, "carrier": "ZZ"}, {**REQUEST, "tailnum": "x"}]
    with pytest.raises(InvalidRequest) as caught:
        parse_requests(rows, COLUMNS)
    assert set(caught.value.fields) == {"rows[1]", "rows[2].carrier", "rows[3].tailnum"}
    with pytest.raises(InvalidRequest) as caught:
        parse_requests([{**REQUEST, "carrier": "ZZ"}], COLUMNS, batch=True)
    assert set(caught.value.fields) == {"rows[0].carrier"}


def test_a_nullable_field_may_be_left_out() -> None:
    """A nullable column that is added later does not break the callers there are."""
    request = {name: value for name, value in REQUEST.items() if name != "tailnum"}
    assert parse_requests([request], COLUMNS)["tailnum"].to_list() == [None]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON has one kind of number: 100.0 is the integer 100."""
    assert parse_requests([{**REQUEST, "distance": 100.0}], COLUMNS)["distance"].to_list() == [100]


def test_warning_rules_are_not_held_against_a_caller() -> None:
    """A rule that only marks a partition refuses no request, and the schema does not claim it."""
    column = Column(name="x", dtype=pl.Int64(), meaning="x", maximum=1, severity="warning")
    assert parse_requests([{"x": 2}], (column,))["x"].to_list() == [2]
    assert request_schema((column,))["properties"]["x"]["maximum"] == 2**63 - 1


def test_an_enum_knows_its_words() -> None:
    """The categories of an Enum are its allowed set."""
    columns = (Column(name="x", dtype=pl.Enum(["a", "b"]), meaning="x"),)
    assert parse_requests([{"x": "b"}], columns)["x"].to_list() == ["b"]
    with pytest.raises(InvalidRequest, match="x: 'c' is not one of a, b"):
        parse_requests([{"x": "c"}], columns)


def test_faults_are_told_up_to_a_bound() -> None:
    """A batch of nothing but faults gives a bounded refusal that says so."""
    with pytest.raises(InvalidRequest) as caught:
        parse_requests([{}] * 10_000, COLUMNS)
    assert len(caught.value.fields) == MAX_FAULTS
    assert "there may be more" in caught.value.fields["rows"]


def test_a_rule_over_several_fields_is_named_when_it_is_broken() -> None:
    """A request may be right field by field and wrong as a whole; a null counts as right."""
    rule = RowRule(
        name="low before high", holds=lambda: pl.col("low") < pl.col("high"), meaning="the range is not empty"
    )
    refuse_broken_rules(pl.DataFrame({"low": [1, None], "high": [2, 3]}), [rule])
    with pytest.raises(InvalidRequest) as refused:
        refuse_broken_rules(pl.DataFrame({"low": [3], "high": [2]}), [rule])
    assert refused.value.fields == {"low before high": "broken: the range is not empty"}


def test_no_rows_are_an_empty_frame() -> None:
    """An empty batch is answered by an empty one, typed all the same."""
    assert parse_requests([], COLUMNS).schema == parse_requests([REQUEST], COLUMNS).schema


def test_a_dtype_that_json_cannot_hold_is_a_faulty_declaration() -> None:
    """It is told by the columns, not by the first caller."""
    with pytest.raises(DeclarationError, match="column x"):
        request_schema((Column(name="x", dtype=pl.List(pl.Int64()), meaning="x"),))


@settings(max_examples=250)
@given(st.lists(ANY_REQUEST | st.just(REQUEST) | ANY_JSON, max_size=3) | ANY_JSON)
def test_any_json_gives_a_frame_or_an_invalid_request(rows: Any) -> None:
    """Whatever a stranger sends, the answer is a typed frame of as many rows or a refusal fit to be sent back."""
    parsed = parsed_or_refused(rows)
    if isinstance(parsed, pl.DataFrame):
        assert parsed.height == len(rows)
        assert parsed.schema == {column.name: column.dtype for column in COLUMNS}
    else:
        assert parsed
        json.dumps(parsed, ensure_ascii=False).encode()


@settings(max_examples=300)
@given(st.sampled_from(list(REQUEST)), ANY_JSON)
def test_one_changed_field_is_the_only_one_at_fault(name: str, value: Any) -> None:
    """Faults do not spread: with one field replaced by anything, that one is refused or none."""
    parsed = parsed_or_refused([{**REQUEST, name: value}])
    assert isinstance(parsed, pl.DataFrame) or set(parsed) == {name}


@settings(max_examples=200)
@given(
    st.sampled_from(["UA", "B6", "ZZ", None]),
    st.sampled_from(["N1", "N", "1N1", "N1\n", "", None]) | st.text("N1٣", max_size=4),
    st.integers(-3, 3) | st.none(),
    st.sampled_from([0.0, 1.0, 1.25, -1.0, None]),
)
def test_the_pipeline_and_the_gateway_refuse_the_same_values(
    carrier: str | None, tailnum: str | None, distance: int | None, share: float | None
) -> None:
    """A value is right in a request exactly when the same columns hold it for right in a table."""
    request = {**REQUEST, "carrier": carrier, "tailnum": tailnum, "distance": distance, "share": share}
    row = {**request, "departure": datetime(2013, 3, 15, 18, 47, tzinfo=UTC), "day": date(2013, 3, 15)}
    contract = Contract(columns=COLUMNS)
    broken = check(pl.DataFrame([row], schema=contract.schema, orient="row"), contract).counts
    told = {name.split(": ")[0] for name, count in broken.items() if count} - {"refused rows"}
    parsed = parsed_or_refused([request])
    assert (set() if isinstance(parsed, pl.DataFrame) else set(parsed)) == told


@settings(max_examples=200)
@given(
    st.sampled_from(["quarantine", "blocking", "warning"]),
    st.sampled_from(["quarantine", "warning"]),
    st.sampled_from(["N1", "N", None]),
    st.sampled_from([0.1, 0.1 - 1e-12, 0.09, 0.7, 0.7 + 1e-12, 0.71, None]),
    st.sampled_from([0, 1, 2, 3, None]),
)
def test_a_request_is_refused_exactly_when_the_pipeline_takes_the_row_out(
    severity: Severity, rule_severity: Severity, tailnum: str | None, share: float | None, stops: int | None
) -> None:
    """Of the same columns and row rules, at the bounds of a Float32 too: what only warns there is taken here."""
    columns = (
        Column(name="tailnum", dtype=pl.String(), meaning="airframe", pattern="N[0-9]+", severity=severity),
        Column(name="share", dtype=pl.Float32(), meaning="share", minimum=0.1, maximum=0.7, severity=severity),
        Column(name="stops", dtype=pl.Int8(), meaning="stops", nullable=True, minimum=1),
    )
    direct = RowRule(
        name="direct",
        holds=lambda: (pl.col("stops") < 3) | (pl.col("share") < 0.5),
        meaning="few stops where many share",
        severity=rule_severity,
    )
    contract = Contract(columns=columns, rules=(direct,))
    request = {"tailnum": tailnum, "share": share, "stops": stops}
    row = pl.DataFrame([request], schema={**contract.schema, "share": pl.Float64()}, orient="row")
    taken_out = check(cast_to_contract(row, contract, path="x"), contract).refused.height
    try:
        refuse_broken_rules(parse_requests([request], columns), contract.rules)
        refused = 0
    except InvalidRequest:
        refused = 1
    assert refused == taken_out


def test_a_missing_field_is_refused_where_a_null_is_only_a_warning() -> None:
    """As in a landed file: a null may pass with a warning, a file without the column is not what was declared."""
    columns = (Column(name="x", dtype=pl.Int8(), meaning="x", severity="warning"),)
    assert parse_requests([{"x": None}], columns)["x"].to_list() == [None]
    with pytest.raises(InvalidRequest, match="x: is missing"):
        parse_requests([{}], columns)
    schema = request_schema(columns)
    assert schema["required"] == ["x"]
    assert schema["properties"]["x"]["type"] == ["integer", "null"]


def test_the_schema_says_what_is_checked() -> None:
    """Type, range, set, pattern, format and length are those of the check."""
    schema = request_schema(COLUMNS)
    assert schema["additionalProperties"] is False
    assert schema["required"] == [name for name in REQUEST if name != "tailnum"]
    assert json.loads(json.dumps(schema))["properties"] == {
        "carrier": {"type": "string", "description": "airline", "maxLength": 256, "enum": ["UA", "B6"]},
        "tailnum": {
            "type": ["string", "null"],
            "description": "airframe",
            "maxLength": 256,
            "pattern": "^(?:N[0-9]+)$",
        },
        "distance": {"type": "integer", "description": "distance (miles)", "minimum": 1, "maximum": 32767},
        "share": {"type": "number", "description": "share", "maximum": 1},
        "charter": {"type": "boolean", "description": "charter"},
        "departure": {"type": "string", "description": "scheduled departure", "format": "date-time"},
        "day": {"type": "string", "description": "local day", "format": "date"},
    }
