"""What a function refers to beside its arguments is found, through the functions that it calls."""

from functools import cache, partial

import polars as pl

from mlplatform.domain_checks.reach import frames_in_reach, in_reach

REGISTER = pl.DataFrame({"courier": ["c1"]})
SHELF = {"orders": pl.LazyFrame({"order_id": [1, 2]})}


def reads_the_register(rows: pl.DataFrame) -> pl.DataFrame:
    """Reads a frame of its module."""
    return rows.join(REGISTER, on="courier")


@cache
def from_the_shelf() -> pl.LazyFrame:
    """Behind a decorator."""
    return SHELF["orders"]


def through_another(rows: pl.DataFrame) -> pl.DataFrame:
    """Reads nothing itself."""
    return reads_the_register(rows).join(from_the_shelf().collect(), how="cross")


def test_a_frame_is_found_through_calls_decorators_and_mappings() -> None:
    """However it is wrapped."""
    assert set(frames_in_reach(partial(through_another))) == {"REGISTER", "SHELF"}
    assert frames_in_reach(through_another)["SHELF"].height == 2
    assert {each.__name__ for each in in_reach(through_another)} >= {"reads_the_register", "from_the_shelf"}


def test_a_function_of_its_arguments_has_nothing_in_reach() -> None:
    """Nor do functions of other packages lead anywhere."""
    assert frames_in_reach(lambda rows: rows.select(pl.col("courier").str.len_chars())) == {}
    assert frames_in_reach(len) == {}
