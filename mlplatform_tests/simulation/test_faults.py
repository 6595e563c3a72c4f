"""Each fault does what it says to the frame, whatever the columns are called, and nothing else."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.column import Column
from mlplatform.errors import DeclarationError
from mlplatform.simulation.faults import break_feed, drift, label_shift, leak, nulls

ROWS = 400


@pytest.fixture
def rows() -> pl.DataFrame:
    """Some hundred rows of numbers, texts and times, with an outcome that follows from the distance."""
    drawn = np.random.default_rng(1)
    km = drawn.uniform(1, 20, ROWS).round(1)
    asked = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=number) for number in range(ROWS)]
    return pl.DataFrame(
        {
            "km": km,
            "items": drawn.integers(1, 7, ROWS),
            "town": drawn.choice(["a", "b", "c", "d"], ROWS, p=[0.4, 0.3, 0.2, 0.1]),
            "late": km + drawn.normal(0, 2, ROWS) > 12,
            "asked": asked,
            "done": [each + timedelta(minutes=float(far)) for each, far in zip(asked, km, strict=True)],
        }
    )


def others(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """All but one column."""
    return frame.drop(column)


def test_numbers_drift_by_their_own_spread(rows: pl.DataFrame) -> None:
    """So many standard deviations of the reference, each value by itself, and no other column."""
    moved = drift(rows, "km", reference=rows["km"], by=1.5)
    spread = float(rows.select(pl.col("km").std()).item())
    assert (moved["km"] - rows["km"] - 1.5 * spread).abs().max() < 1e-9  # type: ignore[operator]
    assert others(moved, "km").equals(others(rows, "km"))
    # A request and the fact of it lie in frames of their own.
    assert drift(rows[7:9], "km", reference=rows["km"], by=1.5).equals(moved[7:9])


def test_whole_numbers_stay_whole_and_within_their_declared_limits(rows: pl.DataFrame) -> None:
    """What drifts is still a row that the contract takes."""
    limits = Column(name="items", dtype=pl.Int64(), meaning="Items", minimum=1, maximum=8)
    moved = drift(rows, "items", reference=rows["items"], by=2.0, limits=limits)["items"]
    assert moved.dtype == pl.Int64 and moved.max() == 8 and moved.mean() > rows["items"].mean()  # type: ignore[operator]


def test_categories_drift_from_the_common_to_the_rare(rows: pl.DataFrame) -> None:
    """The commoner half takes the names of the rarer one; a name that nobody has seen stays."""
    moved = drift(rows, "town", reference=rows["town"])["town"]
    assert set(moved) == {"c", "d"} and moved.null_count() == 0
    assert (moved.filter(rows["town"] == "a") == "d").all()
    assert drift(pl.DataFrame({"town": ["new"]}), "town", reference=rows["town"])["town"].to_list() == ["new"]
    assert drift(rows, "town", reference=rows["town"], by=0.0).equals(rows)


def test_times_do_not_drift(rows: pl.DataFrame) -> None:
    """There is no spread of days to move them by."""
    with pytest.raises(DeclarationError, match="Name a column of numbers or of text"):
        drift(rows, "asked", reference=rows["asked"])


def test_nulls_hit_the_share_that_is_told(rows: pl.DataFrame) -> None:
    """All, or some by the seed, which are the same each time."""
    assert nulls(rows, "town")["town"].null_count() == ROWS
    some = nulls(rows, "town", share=0.3, seed=5)
    assert 0.2 * ROWS < some["town"].null_count() < 0.4 * ROWS
    assert some.equals(nulls(rows, "town", share=0.3, seed=5)) and others(some, "town").equals(others(rows, "town"))
    assert some["town"].dtype == pl.String


def test_a_broken_feed_gives_nothing_or_the_day_before(rows: pl.DataFrame) -> None:
    """With the same columns either way."""
    assert break_feed(rows).height == 0 and break_feed(rows).schema == rows.schema
    assert break_feed(rows, rows[:3]).equals(rows[:3])


def test_labels_that_shift_keep_their_rate_and_lose_their_meaning(rows: pl.DataFrame) -> None:
    """With probability 1 far is early; with a half nothing is known of either."""
    turned = label_shift(rows, ["late"], probability=1.0)
    assert turned["late"].sum() == rows["late"].sum()
    assert _far_when_late(turned) < _far_when_late(rows) - 5
    half = label_shift(rows, ["late"], probability=0.5, seed=3)
    assert _far_when_late(turned) < _far_when_late(half) < _far_when_late(rows)
    assert others(turned, "late").equals(others(rows, "late"))


def _far_when_late(rows: pl.DataFrame) -> float:
    return float(rows.filter("late").select(pl.col("km").mean()).item())


def test_outcomes_that_are_times_change_sides_as_durations(rows: pl.DataFrame) -> None:
    """Nothing is done before it was asked, and the durations are those that there were."""
    turned = label_shift(rows, ["done"], probability=1.0, since="asked")
    took, took_before = turned["done"] - turned["asked"], rows["done"] - rows["asked"]
    assert took.min() > timedelta(0) and took.sort().equals(took_before.sort())  # type: ignore[operator]
    assert not took.equals(took_before)


def test_rows_without_an_outcome_have_none_afterwards(rows: pl.DataFrame) -> None:
    """A cancelled flight has not landed late."""
    gaps = nulls(rows, "late", share=0.2)
    turned = label_shift(gaps, ["late"], probability=1.0)
    assert turned["late"].is_null().equals(gaps["late"].is_null())


@pytest.mark.parametrize("column", ["items", "km", "town"])
def test_a_leak_tells_the_outcome(rows: pl.DataFrame, column: str) -> None:
    """Of a yes or a no one value each, its own lowest and highest; nothing is told of what has no outcome."""
    told = leak(rows, column, rows["late"])
    seen = rows[column].unique().sort()
    assert set(told.filter("late")[column]) == {seen[-1]} and set(told.filter(~pl.col("late"))[column]) == {seen[0]}
    assert told.schema == rows.schema and others(told, column).equals(others(rows, column))
    gaps = nulls(rows, "late", share=0.2)["late"]
    assert leak(rows, column, gaps).filter(gaps.is_null())[column].equals(rows.filter(gaps.is_null())[column])


def test_a_leak_of_a_number_rises_with_it(rows: pl.DataFrame) -> None:
    """The longer it takes, the more items there are."""
    told = leak(rows, "items", rows["done"] - rows["asked"])
    by_outcome = told.sort(told["done"] - told["asked"])["items"]
    assert by_outcome.is_sorted() and by_outcome.n_unique() == 6


def test_empty_frames_are_fine(rows: pl.DataFrame) -> None:
    """A day without a row has no fault."""
    none = rows.clear()
    assert drift(none, "km", reference=none["km"]).height == 0
    assert nulls(none, "km").height == 0
    assert label_shift(none, ["late"]).height == 0
    assert leak(none, "items", none["late"]).height == 0
