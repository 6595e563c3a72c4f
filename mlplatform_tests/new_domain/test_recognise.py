"""What a text column holds, and why it is thought to."""

import polars as pl
import pytest

from mlplatform.new_domain.recognise import Recognised, recognise


def held(*texts: str, decimal_comma: bool = False) -> Recognised:
    """What a column of texts holds."""
    return recognise(pl.Series("c", list(texts)), decimal_comma=decimal_comma, zone="UTC")


@pytest.mark.parametrize(
    ("texts", "values", "why"),
    [
        (("1", " 2 ", "NA", ""), [1, 2, None, None], "whole numbers"),
        (("1.5", "2", "nan"), [1.5, 2.0, None], "numbers"),
        (("$1,200.50", "$3"), [1200.5, 3.0], "the sign beside them is dropped"),
        (("12%", "3.5%"), [12.0, 3.5], "the sign beside them is dropped"),
        (("true", "FALSE", ""), [True, False, None], "true or false"),
        (("00123", "45678"), ["00123", "45678"], "text"),
        (("red", "n/a", "blue"), ["red", None, "blue"], "text"),
        (("1e3", "2"), [1000.0, 2.0], "numbers"),
    ],
)
def test_the_type_of_a_column(texts: tuple[str, ...], values: list[object], why: str) -> None:
    """Nulls are nulls, signs are dropped, and a number with leading zeros is a name."""
    found = held(*texts)
    assert found.values.to_list() == values
    assert why in found.why


def test_a_decimal_comma_counts_where_semicolons_part_the_fields() -> None:
    """The same text is three and a half here and text there; a point then groups thousands."""
    assert held("3,5", "1.000,25", decimal_comma=True).values.to_list() == [3.5, 1000.25]
    assert held("3,5", "4,5").values.dtype == pl.String()


def test_a_few_words_among_numbers_are_missing_values() -> None:
    """One word in forty numbers is told and read as missing; one in three makes the column text."""
    found = held(*map(str, range(39)), "err")
    assert found.values.dtype == pl.Int64()
    assert found.values[39] is None
    assert "'err' read as missing" in found.why
    assert held("1", "2", "err").values.dtype == pl.String()
