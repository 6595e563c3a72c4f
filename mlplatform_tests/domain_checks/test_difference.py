"""A difference is found, and named so that a person finds it too."""

import polars as pl
import pytest

from mlplatform.domain_checks.difference import difference, row_name

FRAME = pl.DataFrame({"courier": ["c1", "c2"], "share": [0.5, None]}, schema_overrides={"share": pl.Float32})


def test_equal_frames_have_no_difference() -> None:
    """Nulls and NaN are equal to themselves, and the order of columns does not count."""
    nan = FRAME.with_columns(share=pl.Series([float("nan"), None], dtype=pl.Float32))
    assert difference(FRAME, FRAME.select("share", "courier")) is None
    assert difference(nan, nan.clone()) is None


@pytest.mark.parametrize(
    ("found", "column", "told"),
    [
        (FRAME.with_columns(share=pl.Series([0.5, 0.0], dtype=pl.Float32)), "share", "None became 0.0"),
        (FRAME.with_columns(pl.col("share").cast(pl.Float64)), "share", "Float32 became Float64"),
        (FRAME.drop("share"), "share", "Float32 became nothing"),
        (FRAME.with_columns(more=pl.lit(1)), "more", "nothing became Int32"),
        (FRAME.head(1), "courier", "2 rows became 1"),
    ],
)
def test_the_first_difference_is_named(found: pl.DataFrame, column: str, told: str) -> None:
    """Column, and what became of what."""
    differs = difference(FRAME, found, keys=["courier"])
    assert differs is not None
    assert (differs.column, differs.told) == (column, told)


def test_rounding_is_forgiven_only_where_it_is_asked_for() -> None:
    """A sum in another order differs in the last digits; half a percent is no rounding."""
    near = FRAME.with_columns(share=pl.Series([0.5000001, None], dtype=pl.Float32))
    far = FRAME.with_columns(share=pl.Series([0.5025, None], dtype=pl.Float32))
    assert difference(FRAME, near) is not None
    assert difference(FRAME, near, rounding=True) is None
    assert difference(FRAME, far, rounding=True) is not None


def test_a_row_is_named_by_its_keys_or_its_first_columns() -> None:
    """A number alone would find no row in a sorted table."""
    assert row_name(FRAME, 1, ["courier"]) == "courier=c2"
    assert row_name(FRAME, 1) == "courier=c2, share=None"
