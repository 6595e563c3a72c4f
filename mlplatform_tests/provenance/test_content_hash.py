"""The content hash sees values, names, types and order, and nothing of how they lie in memory."""

import math
import struct
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import DeclarationError
from mlplatform.provenance.content_hash import content_hash

# A slow example says nothing about the code here.
BUSY_MACHINE = settings(suppress_health_check=[HealthCheck.too_slow])
FEW_LETTERS = st.lists(st.text(alphabet="ab\0", max_size=3), max_size=4)
VALUES: dict[pl.DataType, st.SearchStrategy[object]] = {
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Float64(): st.floats(),
    pl.String(): st.text(max_size=4),
    pl.Binary(): st.binary(max_size=8),
    pl.Boolean(): st.booleans(),
    pl.Date(): st.dates(),
    pl.Datetime("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
}


@st.composite
def columns(draw: st.DrawFn) -> pl.Series:
    """Draw a column of any type, nulls included."""
    dtype = draw(st.sampled_from(list(VALUES)))
    return pl.Series("x", draw(st.lists(st.none() | VALUES[dtype], max_size=6)), dtype)


def canonical(value: object) -> object:
    """Give a value a form in which equal means equal to us: one NaN, one zero."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return value


@BUSY_MACHINE
@given(columns(), st.data())
def test_equal_columns_and_only_they_have_equal_hashes(left: pl.Series, data: st.DataObject) -> None:
    """Two columns hash alike exactly when nulls and values agree."""
    values = data.draw(st.permutations(left.to_list()))
    if data.draw(st.booleans()) and values:
        values[0] = data.draw(st.none() | VALUES[left.dtype])
    right = pl.Series("x", values, left.dtype)
    same = [*map(canonical, left)] == [*map(canonical, right)]
    assert (content_hash(left.to_frame()) == content_hash(right.to_frame())) == same


@BUSY_MACHINE
@given(columns(), st.data())
def test_chunks_do_not_show(column: pl.Series, data: st.DataObject) -> None:
    """A column in two chunks, or cut out of a longer one, hashes as in one piece."""
    cut = data.draw(st.integers(0, len(column)))
    pieces = pl.concat([column[:cut], column[cut:]], rechunk=False)
    longer = pl.concat([column, column, column], rechunk=True)[len(column) : 2 * len(column)]
    assert content_hash(pieces.to_frame()) == content_hash(longer.to_frame()) == content_hash(column.to_frame())


@BUSY_MACHINE
@given(FEW_LETTERS, FEW_LETTERS)
def test_strings_are_told_apart_at_their_borders(left: list[str], right: list[str]) -> None:
    """`ab, c` is not `a, bc`, and no byte can stand in for a border."""
    hashes = [content_hash(pl.DataFrame({"x": each}, schema={"x": pl.String()})) for each in (left, right)]
    assert (hashes[0] == hashes[1]) == (left == right)


@pytest.mark.parametrize("dtype", [pl.Float32(), pl.Float64()])
def test_zero_has_one_sign_and_nan_one_form(dtype: pl.DataType) -> None:
    """-0.0 hashes as 0.0, and every NaN as every other."""
    width, letter = (4, "<f") if dtype == pl.Float32() else (8, "<d")
    quiet = struct.pack(letter, math.nan)
    other_nan = bytes([7, *quiet[1 : width - 1], quiet[-1] | 0x80])
    odd = np.frombuffer(struct.pack(letter, -0.0) + other_nan, dtype=letter)
    plain = np.frombuffer(struct.pack(letter, 0.0) + quiet, dtype=letter)
    assert odd.tobytes() != plain.tobytes()
    assert content_hash(pl.DataFrame({"x": odd})) == content_hash(pl.DataFrame({"x": plain}))


def test_values_under_nulls_do_not_show() -> None:
    """What lies in memory where a value is null is not content."""
    values = pl.DataFrame({"x": [1, 2, 3]})
    masked = values.select(pl.when(pl.col("x") != 2).then("x"))
    assert content_hash(masked) == content_hash(pl.DataFrame({"x": [1, None, 3]}))


@pytest.mark.parametrize(
    "other",
    [
        pl.DataFrame({"y": [1, 2]}),
        pl.DataFrame({"x": [2, 1]}),
        pl.DataFrame({"x": [1.0, 2.0]}),
        pl.DataFrame({"x": [1, 2]}, schema={"x": pl.Int32()}),
        pl.DataFrame({"x": [1, 2, None]}, schema={"x": pl.Int64()}),
        pl.DataFrame({"x": [1, 2], "y": [1, 2]}),
        pl.DataFrame({"x": []}, schema={"x": pl.Int64()}),
    ],
    ids=["name", "order", "float", "width", "null", "column", "empty"],
)
def test_names_types_and_order_are_content(other: pl.DataFrame) -> None:
    """A renamed, reordered, retyped or longer column is other content."""
    assert content_hash(other) != content_hash(pl.DataFrame({"x": [1, 2]}))


def test_zero_is_not_null() -> None:
    """A null hashes unlike the zero that fills it."""
    assert content_hash(pl.DataFrame({"x": [0, None]})) != content_hash(pl.DataFrame({"x": [None, 0]}))
    assert content_hash(pl.DataFrame({"x": ["", None]})) != content_hash(pl.DataFrame({"x": [None, ""]}))


def test_large_integers_beside_a_null_keep_their_last_digit() -> None:
    """A null must not send integers through floats, where neighbours become one."""
    left, right = (pl.DataFrame({"x": [2**62 + last, None]}) for last in (0, 1))
    assert content_hash(left) != content_hash(right)


def test_unit_and_zone_are_content() -> None:
    """The same instant in another unit or zone is other content."""
    instant = pl.Series("x", [datetime(2013, 1, 1)], pl.Datetime("us"))
    kinds = [instant, instant.cast(pl.Datetime("ms")), instant.dt.replace_time_zone("UTC")]
    assert len({content_hash(each.to_frame()) for each in kinds}) == len(kinds)


def test_hashes_stay_as_they_are() -> None:
    """The hash of a known frame is pinned: stored revisions are compared with it for years."""
    frame = pl.DataFrame(
        {
            "carrier": ["UA", None, "é"],
            "delay": [1.5, None, -0.0],
            "flight": [1545, 1714, None],
            "day": [date(2013, 1, 1), None, date(2013, 1, 2)],
            "late": [True, None, False],
            "landed_at": [datetime(2013, 1, 1, 5, tzinfo=UTC), None, None],
        }
    )
    assert content_hash(frame) == "0bbc86563eb505fdb6f0081b9b32706e"


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [None]], ids=["list", "struct", "null"])
def test_a_column_without_a_canonical_form_is_refused_by_name(values: list[object]) -> None:
    """A nested or untyped column is named, not hashed by guess."""
    with pytest.raises(DeclarationError, match="'x'"):
        content_hash(pl.DataFrame({"x": values}))
