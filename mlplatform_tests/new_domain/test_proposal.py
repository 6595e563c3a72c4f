"""What is proposed from a sample: the contract, the outcome, what may not be asked for, how the days are cut."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.errors import DataError, DeclarationError
from mlplatform.new_domain.contract import propose_column, propose_key, wider
from mlplatform.new_domain.horizon import horizon_of
from mlplatform.new_domain.outcome import outcome_of
from mlplatform.new_domain.proposal import Proposal, propose
from mlplatform.new_domain.proxies import sums_to_outcome, tells
from mlplatform.new_domain.questions import Given, choose
from mlplatform.new_domain.sampled import read
from mlplatform_tests.fakes.sample_files import deliveries

AFTERWARDS = datetime(2024, 6, 1, tzinfo=UTC)


def proposed(path: Path, now: datetime = AFTERWARDS, **changed: object) -> Proposal:
    """What is proposed from deliveries."""
    given = {"entity": ("Van ID",), "time": "Ordered at", "label": "Late", "known_at": "Delivered at", **changed}
    return propose("vans", choose(read(path, "UTC"), Given(**given), None), now=now)  # type: ignore[arg-type]  # of any


def test_a_domain_of_deliveries(tmp_path: Path) -> None:
    """Requests hold what is there when they are asked; the label delay is what nearly all outcomes took."""
    told = proposed(deliveries(tmp_path / "deliveries.csv"))
    assert told.task == "binary"
    assert told.outcome.classes == ("no", "yes")
    assert told.asked == ("van_id", "ordered_at", "distance_km", "weather")
    assert set(told.left_out) == {"late", "delivered_at", "remark"}
    assert told.horizon.label_delay == timedelta(hours=2)
    assert (told.numbers, told.words) == (("distance_km",), ("van_id", "weather"))
    contract = {each.column.name: each.column for each in told.columns}
    assert (contract["distance_km"].minimum, contract["distance_km"].maximum) == (0, 39)
    assert contract["weather"].allowed == ("dry", "wet")
    assert (contract["weather"].nullable, contract["distance_km"].nullable) == (True, False)


def test_columns_that_give_the_outcome_away_are_not_asked_for(tmp_path: Path) -> None:
    """A copy of the label and a time after the request are left out with the reason; who knows better says so."""
    path = deliveries(tmp_path / "deliveries.csv")
    lines = path.read_text().splitlines()
    copied = [f"{line};{'E7' if line.endswith('yes') else ''}" for line in lines[1:]]
    path.write_text("\n".join([f"{lines[0]};Complaint", *copied]))
    told = proposed(path, known_at=None, known_after=timedelta(hours=1))
    assert "gives late away (AUC 1.000)" in told.left_out["complaint"]
    assert "lies after ordered_at" in told.left_out["delivered_at"]
    assert set(proposed(path, outcome_columns="none").left_out) == {"late", "delivered_at", "remark"}


def test_what_lies_in_the_future_is_refused(tmp_path: Path) -> None:
    """A day is taken in when it is over: a wrong column or zone shows here."""
    with pytest.raises(DataError, match="of today or of days to come"):
        proposed(deliveries(tmp_path / "deliveries.csv"), now=datetime(2024, 1, 20, tzinfo=UTC))


def test_an_outcome_is_not_known_before_it_is_asked_for(tmp_path: Path) -> None:
    """Swapped times are told."""
    with pytest.raises(DataError, match="Swap --time and --known-at"):
        proposed(deliveries(tmp_path / "deliveries.csv"), time="Delivered at", known_at="Ordered at")


@pytest.mark.parametrize(
    ("days", "rows", "told"), [(9, 60, "Take a sample of . more days"), (40, 6, r"Take a sample of [\d,]+ rows")]
)
def test_too_little_data_is_told_with_how_much_is_needed(tmp_path: Path, days: int, rows: int, told: str) -> None:
    """Too few days and too few rows."""
    with pytest.raises(DataError, match=told):
        proposed(deliveries(tmp_path / "deliveries.csv", days=days, rows_per_day=rows))


def test_the_parts_of_the_split_fit_the_days() -> None:
    """Warm-up, gaps, calibration and evaluation leave most of the days to train on."""
    at = [datetime(2024, 1, 1, hour, tzinfo=UTC) + timedelta(days=day) for day in range(60) for hour in range(20)]
    rows = pl.DataFrame({"at": at, "outcome": [float(n % 3) for n in range(1200)]}).cast(
        {"at": pl.Datetime("us", "UTC")}
    )
    cut = horizon_of(
        rows.with_columns(event_time=pl.col("at") + timedelta(hours=1)),
        entities=5,
        delay=timedelta(hours=1),
        publishing_delay=timedelta(hours=1),
        task="regression",
    )
    assert (cut.first, cut.last, cut.window) == (date(2024, 1, 1), date(2024, 2, 29), 3)
    assert (cut.split.calibration, cut.split.evaluation) == (timedelta(days=8), timedelta(days=14))
    assert cut.training_rows > 600
    assert cut.evaluation_rows == 280


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        ([True, False, None], None, ("binary", ("False", "True"), [1, 0, None])),
        (["ok", "ok", "broken"], None, ("binary", ("ok", "broken"), [0, 0, 1])),
        (["no", "yes", "yes", "yes"], None, ("binary", ("no", "yes"), [0, 1, 1, 1])),
        ([3, 7, 7], None, ("binary", ("3", "7"), [0, 1, 1])),
        ([3, 4, 5], None, ("regression", (), [3.0, 4.0, 5.0])),
        ([3, 4, 5], "multiclass", ("multiclass", ("3", "4", "5"), [0, 1, 2])),
        (["b", "a", "c", None], None, ("multiclass", ("a", "b", "c"), [1, 0, 2, None])),
    ],
)
def test_the_outcome_of_a_label(values: list[object], task: str | None, expected: tuple[object, ...]) -> None:
    """Two values are a yes or no, words are classes, numbers an amount, unless it is said otherwise."""
    told = outcome_of(pl.Series("label", values), task)  # type: ignore[arg-type]  # a task
    assert (told.task, told.classes, told.values.to_list()) == expected


@pytest.mark.parametrize(
    ("values", "task", "told"),
    [
        (["a", "a"], None, "says the same in every row"),
        ([1, 2, 3], "binary", "binary means two"),
        (["a", "b", "c"], "regression", "is no number"),
        ([f"name {n}" for n in range(30)], None, "classes are 3 to 20"),
        ([datetime(2024, 1, 1), datetime(2024, 1, 2)], None, "is a time"),
    ],
)
def test_a_label_that_cannot_be_is_refused(values: list[object], task: str | None, told: str) -> None:
    """With what it would have to be."""
    with pytest.raises(DeclarationError, match=told):
        outcome_of(pl.Series("label", values), task)  # type: ignore[arg-type]  # a task


def test_a_range_leaves_room_and_a_key_has_none() -> None:
    """Twice as wide on either side, never below a seen nought; the numbers of a key are no amounts."""
    assert [wider(0.0, 10.0), wider(-5.0, 5.0), wider(20.0, 20.0)] == [(0, 20), (-15, 15), (0, 40)]
    numbers = pl.Series("n", [10, 20, 30])
    column = propose_column(numbers, written="N", why="whole numbers", rows_per_day=1.0).column
    assert (column.minimum, column.maximum) == (0, 50)
    key = propose_column(numbers, written="N", why="whole numbers", rows_per_day=1.0, names_something=True).column
    assert (key.minimum, key.maximum) == (None, None)


def test_the_key_of_the_rows() -> None:
    """An identifier, else entity and time and what it takes, else everything; an outcome never by itself."""
    rows = pl.DataFrame({"van": [1, 1, 2], "t": [1, 1, 1], "line": [1, 2, 1], "paid": [5, 6, 7], "w": [0.1, 0.2, 0.3]})
    assert propose_key(rows, ["van"], "t", ["paid"])[0] == ("van", "t", "line")
    assert propose_key(rows.rename({"line": "paid_no"}), ["van"], "t", [])[0] == ("van", "t", "paid_no")
    assert propose_key(rows.rename({"paid": "order_no"}), ["van"], "t", [])[0] == ("order_no",)
    assert propose_key(rows.drop("line"), ["van"], "t", [])[0] == ("van", "t", "paid")
    assert propose_key(rows.drop("line"), ["van"], "t", ["paid"])[0] == ("van", "t", "paid", "w")


def test_what_a_column_alone_tells() -> None:
    """A copy tells everything, chance nothing, and missing values are a value."""
    outcome = pl.Series([n * 7 % 5 == 0 for n in range(1000)]).cast(pl.Int8)
    rows = pl.DataFrame({"outcome": outcome, "chance": [n * 31 % 97 for n in range(1000)]}).with_columns(
        copy=pl.when(pl.col("outcome") == 1).then(pl.lit("E7"))
    )
    assert tells(rows, "copy", "binary") == 1.0
    assert tells(rows, "chance", "binary") < 0.6


def test_parts_that_add_up_to_the_outcome_are_found() -> None:
    """Both summands are named, and the column beside them is not."""
    rows = pl.DataFrame(
        {"a": [n % 7 for n in range(99)], "b": [n % 5 for n in range(99)], "c": [n % 3 for n in range(99)]}
    )
    assert sums_to_outcome(rows.with_columns(outcome=pl.col("a") + 2 * pl.col("b")), ["a", "b", "c"]) == ("a", "b")
    assert sums_to_outcome(rows.with_columns(outcome=pl.col("a") * pl.col("b")), ["a", "b", "c"]) == ()
