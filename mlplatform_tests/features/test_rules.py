"""The rules against a slow, obvious implementation that looks at one value of one row at a time."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.column import Column, Contract, Freshness, RowRule
from mlplatform.errors import DeclarationError, MalformedFile
from mlplatform.features.rules import cast_to_contract, check, extra_columns, rules

CONTRACT = Contract(
    columns=(
        Column(name="day", dtype=pl.Date(), meaning="scheduled day"),
        Column(name="carrier", dtype=pl.String(), meaning="airline", allowed=("UA", "B6"), nullable=True),
        Column(name="tailnum", dtype=pl.String(), meaning="airframe", pattern="N[0-9]+|X", severity="warning"),
        Column(name="delay", dtype=pl.Int16(), meaning="delay", unit="minutes", nullable=True, minimum=-60, maximum=90),
        Column(
            name="wind", dtype=pl.Float64(), meaning="wind", nullable=True, minimum=0, maximum=200, max_null_share=0.5
        ),
        Column(name="gates", dtype=pl.Int8(), meaning="gates", minimum=1, severity="blocking"),
    ),
    unique=("day", "carrier"),
    rules=(
        RowRule(
            name="calm is early",
            holds=lambda: (pl.col("wind") > 1) | (pl.col("delay") < 60),
            meaning="no long delay without wind",
        ),
    ),
    min_rows=2,
    max_rows=8,
    max_refused_share=0.5,
)

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "day": st.sampled_from([date(2013, 1, 1), date(2013, 1, 2), None]),
            "carrier": st.sampled_from(["UA", "B6", "ZZ", None]),
            "tailnum": st.sampled_from(["N1", "X", "N", "N1\n", "", None]),
            "delay": st.sampled_from([-61, -60, 0, 75, 90, 91, None]),
            "wind": st.sampled_from([-0.1, 0.0, 3.0, 200.0, 1048.0, math.nan, math.inf, -math.inf, None]),
            "gates": st.sampled_from([0, 1, 2, None]),
        }
    ),
    max_size=10,
)


def broken_by_eye(row: dict[str, Any]) -> Iterator[str]:
    """The rules a row breaks, the key apart, written out by hand."""
    if row["day"] is None:
        yield "day: not null"
    if row["carrier"] not in ("UA", "B6", None):
        yield "carrier: one of UA, B6"
    if row["tailnum"] is None:
        yield "tailnum: not null"
    elif not re.fullmatch("N[0-9]+|X", row["tailnum"]):
        yield "tailnum: matches N[0-9]+|X"
    delay, wind = row["delay"], row["wind"]
    if delay is not None and delay < -60:
        yield "delay: at least -60"
    if delay is not None and delay > 90:
        yield "delay: at most 90"
    if wind is not None and not math.isfinite(wind):
        yield "wind: finite"
    if wind is not None and wind < 0:
        yield "wind: at least 0"
    if wind is not None and wind > 200:
        yield "wind: at most 200"
    if row["gates"] is None:
        yield "gates: not null"
    elif row["gates"] < 1:
        yield "gates: at least 1"
    windy = None if wind is None else (wind > 1 or math.isnan(wind))  # Polars holds NaN for larger than all numbers
    if windy is False and delay is not None and delay >= 60:
        yield "calm is early"


@settings(max_examples=300)
@given(ROWS)
def test_every_row_is_kept_or_refused_with_the_rules_it_breaks(rows: list[dict[str, Any]]) -> None:
    """Whatever the rows, kept, refused, their reasons, all counts and verdicts equal those found row by row."""
    rows = [{name: row[name] for name in CONTRACT.names} for row in rows]
    counts = {rule.name: 0 for rule in rules(CONTRACT)}
    kept: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    seen = set()
    for row in rows:
        broken = list(broken_by_eye(row))
        taking = [name for name in broken if not name.startswith("tailnum")]
        key = (row["day"], row["carrier"])
        if not taking:
            if key in seen:
                taking = ["unique(day, carrier)"]
                broken += taking
            seen.add(key)
        for name in broken:
            counts[name] += 1
        if taking:
            refused.append({**row, "broken_rules": "; ".join(taking)})
        else:
            kept.append(row)
    counts["wind: at most 50 % null"] = int(sum(row["wind"] is None for row in rows) > len(rows) / 2)
    counts["rows: at least 2"] = int(len(rows) < 2)
    counts["rows: at most 8"] = int(len(rows) > 8)
    counts["refused rows: at most 50 %"] = int(len(refused) > len(rows) / 2)
    warning = ("tailnum: not null", "tailnum: matches N[0-9]+|X", "wind: at most 50 % null")
    blocking = ("gates: not null", "gates: at least 1", "rows: at least 2", "rows: at most 8")

    checked = check(pl.DataFrame(rows, schema=CONTRACT.schema, orient="row"), CONTRACT)

    assert repr(checked.kept.to_dicts()) == repr(kept)  # by repr, since NaN differs from itself
    assert repr(checked.refused.to_dicts()) == repr(refused)
    assert checked.counts == counts
    assert checked.warnings == tuple(name for name in warning if counts[name])
    assert checked.blocking == tuple(name for name in (*blocking, "refused rows: at most 50 %") if counts[name])


def test_a_contract_without_rules_keeps_all_and_carries_other_columns() -> None:
    """With nothing to break all rows are kept, columns of the pipeline's own included."""
    contract = Contract(columns=(Column(name="x", dtype=pl.String(), meaning="x", nullable=True),))
    checked = check(pl.DataFrame({"x": ["a", None], "landed_row": [1, 2]}), contract)
    assert checked.kept.columns == ["x", "landed_row"]
    assert (checked.kept.height, checked.refused.height) == (2, 0)
    assert checked.refused.columns == ["x", "landed_row", "broken_rules"]
    assert checked.blocking == ()


def test_the_first_good_row_of_a_key_is_kept() -> None:
    """A bad row never displaces the good one that follows it under the same key."""
    contract = Contract(
        columns=(
            Column(name="id", dtype=pl.Int64(), meaning="id"),
            Column(name="x", dtype=pl.Int64(), meaning="x", maximum=9),
        ),
        unique=("id",),
        max_refused_share=1.0,
    )
    checked = check(pl.DataFrame({"id": [1, 1, 1], "x": [10, 5, 6]}), contract)
    assert checked.kept.rows() == [(1, 5)]
    assert checked.refused.rows() == [(1, 10, "x: at most 9"), (1, 6, "unique(id)")]


def test_a_rule_that_is_a_literal_holds_for_every_row() -> None:
    """A row rule may ignore the row; its verdict then counts for each."""
    contract = Contract(
        columns=(Column(name="x", dtype=pl.Int64(), meaning="x"),),
        rules=(RowRule(name="never", holds=lambda: pl.lit(value=False), meaning="nothing passes"),),
    )
    assert check(pl.DataFrame({"x": [1, 2, 3]}), contract).counts["never"] == 3


@pytest.mark.parametrize(
    "column",
    [
        Column(name="x", dtype=pl.String(), meaning="x", minimum=1),
        Column(name="x", dtype=pl.Int64(), meaning="x", pattern="[0-9]"),
        Column(name="x", dtype=pl.Date(), meaning="x", allowed=("2013-01-01",)),
    ],
)
def test_a_rule_that_does_not_fit_its_dtype_is_a_faulty_declaration(column: Column) -> None:
    """A bound on text or a pattern on a number is told when the rules are made, not when a value is compared."""
    with pytest.raises(DeclarationError, match="column x"):
        rules(Contract(columns=(column,)))


def test_two_rules_of_one_name_are_a_faulty_declaration() -> None:
    """Counts are kept by name, so that a row rule may not take the name of a column's rule."""
    contract = Contract(
        columns=(Column(name="x", dtype=pl.Int64(), meaning="x"),),
        rules=(RowRule(name="x: not null", holds=lambda: pl.col("x") > 0, meaning="x"),),
    )
    with pytest.raises(DeclarationError, match="two rules called x: not null"):
        rules(contract)


def one(dtype: pl.DataType) -> Contract:
    """A contract of one column, `x`."""
    return Contract(columns=(Column(name="x", dtype=dtype, meaning="x", nullable=True),))


def ruled(holds: Callable[[], pl.Expr]) -> Contract:
    """A contract of one column, `x`, and after a good rule another one, `mine`."""
    good = RowRule(name="good", holds=lambda: pl.col("x").is_not_null(), meaning="good")
    return replace(one(pl.String()), rules=(good, RowRule(name="mine", holds=holds, meaning="mine")))


limits: Mapping[str, int] = {"y": 1}
NOON = datetime(2013, 3, 15, 12, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")


@pytest.mark.parametrize(
    ("landed", "dtype", "expected"),
    [
        (pl.Series([1, None], dtype=pl.Int64()), pl.Int8(), [1, None]),
        (pl.Series([1.0, None]), pl.Int16(), [1, None]),
        (pl.Series([1, 2]), pl.Float32(), [1.0, 2.0]),
        (pl.Series(["12", None]), pl.Int32(), [12, None]),
        (pl.Series(["1.5"]), pl.Float64(), [1.5]),
        (pl.Series([None, None]), pl.String(), [None, None]),
        (pl.Series(["UA"], dtype=pl.Categorical()), pl.String(), ["UA"]),
        (pl.Series(["2013-03-15"]), pl.Date(), [date(2013, 3, 15)]),
        (pl.Series([datetime(2013, 3, 15)]), pl.Date(), [date(2013, 3, 15)]),
        (pl.Series(["2013-03-15T12:00:00Z", "2013-03-15 07:00:00.000-05:00"]), UTC_TIME, [NOON, NOON]),
        (pl.Series([NOON]).dt.convert_time_zone("America/New_York"), UTC_TIME, [NOON]),
        (pl.Series([NOON]).dt.cast_time_unit("ns"), UTC_TIME, [NOON]),
    ],
)
def test_a_value_with_an_exact_counterpart_is_taken(landed: pl.Series, dtype: pl.DataType, expected: list[Any]) -> None:
    """Other widths, units and spellings of the same values are brought to the declared dtype."""
    cast = cast_to_contract(landed.alias("x").to_frame(), one(dtype), path="x.parquet")
    assert cast.schema == {"x": dtype}
    assert cast.get_column("x").to_list() == expected


@pytest.mark.parametrize(
    ("landed", "dtype", "reason"),
    [
        (pl.Series([1, 300, 400]), pl.Int8(), r"row 2 holds 300 \(and 1 more rows are at fault\), which is no Int8"),
        (pl.Series([1.0, 3.7]), pl.Int16(), "row 2 holds 3.7, which is no Int16"),
        (pl.Series([math.nan]), pl.Int16(), "row 1 holds nan"),
        (pl.Series([2**53 + 1]), pl.Float64(), "row 1 holds 9007199254740993, which is no Float64"),
        (pl.Series([1e300]), pl.Float32(), "which is no Float32"),
        (pl.Series([None, "abc"]), pl.Float64(), "row 2 holds 'abc', which is no Float64"),
        (pl.Series([1545]), pl.String(), "is Int64, declared String; row 1 holds 1545"),
        (pl.Series([True]), pl.Int8(), "is Boolean, declared Int8"),
        (pl.Series([datetime(2013, 3, 15, 12)]), UTC_TIME, "carries no time zone.*row 1 holds 2013-03-15 12"),
        (pl.Series([NOON]), pl.Datetime("us"), "declared Datetime"),
        (pl.Series(["2013-03-15T12:00:00"]), UTC_TIME, "row 1 holds '2013-03-15T12:00:00', which is no Datetime"),
        (pl.Series([datetime(2013, 3, 15, 12)]), pl.Date(), "which is no Date"),
        (pl.Series([[1]]), pl.Int64(), "declared Int64"),
    ],
)
def test_a_value_without_an_exact_counterpart_is_refused_by_name(
    landed: pl.Series, dtype: pl.DataType, reason: str
) -> None:
    """The column, the first value at fault and its row are in the message; nothing is rounded or guessed."""
    with pytest.raises(MalformedFile, match=f"flights.parquet: column x: .*{reason}"):
        cast_to_contract(landed.alias("x").to_frame(), one(dtype), path="flights.parquet")


@settings(max_examples=100)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.sampled_from([pl.Int8(), pl.UInt16(), pl.Int32(), pl.UInt64()]))
def test_integers_survive_or_are_refused(values: list[int], dtype: pl.DataType) -> None:
    """No integer becomes another one on its way into a narrower column."""
    frame = pl.DataFrame({"x": values}, schema={"x": pl.Int64()})
    low, high = pl.select(dtype.min(), dtype.max().alias("max")).row(0)  # type: ignore[attr-defined]  # integers only
    if all(low <= value <= high for value in values):
        assert cast_to_contract(frame, one(dtype), path="x").get_column("x").to_list() == values
    else:
        with pytest.raises(MalformedFile):
            cast_to_contract(frame, one(dtype), path="x")


def test_columns_come_in_declared_order_and_an_added_one_is_left_out() -> None:
    """A source that adds a column breaks no promise: the day goes on, and the column can be told."""
    contract = Contract(columns=tuple(Column(name=name, dtype=pl.Int64(), meaning=name) for name in ("a", "b")))
    landed = pl.DataFrame({"new": [0], "b": [2], "a": [1]})
    assert cast_to_contract(landed, contract, path="x").to_dicts() == [{"a": 1, "b": 2}]
    assert extra_columns(landed, contract) == ("new",)


def test_all_missing_and_faulty_columns_are_named_at_once() -> None:
    """A renamed column shows up as missing beside the name it may have now, with the other faults of the file."""
    contract = Contract(columns=tuple(Column(name=name, dtype=pl.Int64(), meaning=name) for name in ("a", "b")))
    with pytest.raises(MalformedFile, match=r"no column a \(it has A, which .*; column b: row 1 holds 'x'"):
        cast_to_contract(pl.DataFrame({"A": [0], "b": ["x"]}), contract, path="x")


def test_an_empty_file_with_the_right_columns_is_a_frame() -> None:
    """No rows is not malformed; `min_rows` is what judges it."""
    landed = pl.DataFrame(schema={"x": pl.String()})
    assert cast_to_contract(landed, one(UTC_TIME), path="x").schema == {"x": UTC_TIME}


FRESH = Contract(
    columns=(Column(name="at", dtype=pl.Datetime("us", "UTC"), meaning="when", nullable=True),),
    freshness=Freshness(column="at", within=timedelta(hours=2)),
)
END = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("newest", "broken"),
    [
        (END - timedelta(hours=2), 0),
        (END - timedelta(hours=2, microseconds=1), 1),
        (END + timedelta(hours=9), 0),
        (None, 1),
    ],
)
def test_a_day_whose_newest_row_is_too_old_is_stopped(newest: datetime | None, broken: int) -> None:
    """Half a day's export is no quiet day; no row with a time is none either; the bound itself is kept."""
    frame = pl.DataFrame({"at": [newest, END - timedelta(days=3)][: 1 if newest is None else 2]}, FRESH.schema)
    found = check(frame, FRESH, end=END)
    assert found.counts["at: newest within 2:00:00 of the day's end"] == broken
    assert found.blocking == (("at: newest within 2:00:00 of the day's end",) if broken else ())
    assert found.refused.is_empty()


def test_rows_dated_after_the_day_are_refused_and_do_not_make_it_fresh() -> None:
    """How far ahead is declared, the bound itself is kept; a mistyped year would otherwise hide a broken export."""
    contract = replace(FRESH, freshness=Freshness(column="at", within=timedelta(hours=2), ahead=timedelta(hours=1)))
    late = [END + timedelta(hours=1, microseconds=1), END.replace(year=2042)]
    found = check(pl.DataFrame({"at": [END - timedelta(hours=9), None, *late]}, contract.schema), contract, end=END)
    assert found.refused["at"].to_list() == late
    assert found.counts["at: at most 1:00:00 after the day's end"] == 2
    assert "at: newest within 2:00:00 of the day's end" in found.blocking
    on_the_bound = check(pl.DataFrame({"at": [END + timedelta(hours=1)]}, contract.schema), contract, end=END)
    assert (on_the_bound.kept.height, on_the_bound.blocking) == (1, ())


def test_freshness_is_not_judged_without_the_end_of_the_day() -> None:
    """It is left out of the counts, so nobody can take it for kept."""
    contract = replace(FRESH, freshness=Freshness(column="at", within=timedelta(hours=2), ahead=timedelta(0)))
    found = check(pl.DataFrame({"at": [None]}, contract.schema), contract)
    assert {rule.name for rule in rules(contract)} - set(found.counts) == {
        "at: at most 0:00:00 after the day's end",
        "at: newest within 2:00:00 of the day's end",
    }


def test_freshness_looks_at_a_time_with_a_zone() -> None:
    """A naive time or a missing column is a fault of the declaration, found at once."""
    for column in (
        Column(name="at", dtype=pl.Datetime("us"), meaning="when"),
        Column(name="b", dtype=pl.Date(), meaning="d"),
    ):
        with pytest.raises(DeclarationError, match="freshness looks at 'at'"):
            Contract(columns=(column,), freshness=Freshness(column="at", within=timedelta(hours=1)))


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: Column(name="x", dtype=pl.Int8(), meaning="x", max_null_share=5), "share from 0 to 1, not 5"),
        (lambda: Column(name="x", dtype=pl.Int8(), meaning="x", minimum=2, maximum=1), "minimum 2 is above maximum 1"),
        (lambda: Contract(columns=(), min_rows=9, max_rows=8), "min_rows 9 is above max_rows 8"),
        (lambda: Contract(columns=(), max_refused_share=20), "max_refused_share is a share from 0 to 1, not 20"),
    ],
)
def test_a_bound_that_nothing_can_keep_is_a_faulty_declaration(declare: Callable[[], object], told: str) -> None:
    """A percentage for a share, bounds the wrong way round: found before any data."""
    with pytest.raises(DeclarationError, match=told):
        declare()


@pytest.mark.parametrize("frame", [pl.DataFrame(schema={"x": pl.String()}), pl.DataFrame({"x": ["a"]})])
@pytest.mark.parametrize(
    ("contract", "told"),
    [
        (
            Contract(columns=(Column(name="x", dtype=pl.String(), meaning="x", pattern="(["),)),
            r"the rule 'x: matches \(\[' cannot be computed: regex error",
        ),
        (ruled(lambda: pl.col("y") > 1), "the rule 'mine' cannot be computed: .*y"),
        (ruled(lambda: pl.col("x") > 1), "the rule 'mine' cannot be computed: "),
        (ruled(lambda: pl.col("x").str.len_chars()), "the rule 'mine' is UInt32"),
        (ruled(lambda: pl.col("x") > limits["x"]), r"the rule 'mine' raises KeyError\('x'\)"),
    ],
)
def test_a_rule_that_cannot_be_computed_is_named(frame: pl.DataFrame, contract: Contract, told: str) -> None:
    """By its own name and not by the first of the contract, and on a frame without rows already."""
    with pytest.raises(DeclarationError, match=told):
        check(frame, contract)


def test_the_rules_over_a_partition_may_warn_or_block() -> None:
    """Row counts and null shares do as their severity says; a key that only warns keeps every row."""
    key = Column(name="key", dtype=pl.Int64(), meaning="key", nullable=True, max_null_share=0.1)
    strict = replace(key, null_share_severity="blocking")
    frame = pl.DataFrame({"key": [1, 1, None]})
    lenient = check(
        frame,
        Contract(columns=(key,), unique=("key",), unique_severity="warning", max_rows=2, row_count_severity="warning"),
    )
    assert lenient.kept.height == 3
    assert set(lenient.warnings) == {"unique(key)", "rows: at most 2", "key: at most 10 % null"}
    assert lenient.blocking == ()
    assert "key: at most 10 % null" in check(frame, Contract(columns=(strict,))).blocking
