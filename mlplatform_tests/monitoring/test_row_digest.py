"""The digest of a logged row: another value is another digest, and nothing else is."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.log_rows import stored
from mlplatform.monitoring.pickup import log_files, log_table, pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder, schema
from mlplatform.monitoring.row_digest import altered_rows, digests
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform_tests.fakes.answered import answered

content = {name: dtype for name, dtype in schema.items() if name != "digest"}

instants = st.integers(0, 2**52).map(lambda each: datetime.fromtimestamp(each // 1_000_000, UTC))


def values(dtype: Any) -> st.SearchStrategy[Any]:
    """Values of a column, nulls among them; few texts and numbers, so that rows repeat them."""
    if isinstance(dtype, pl.List):
        inner = values(dtype.inner) if isinstance(dtype.inner, pl.Struct) else present(dtype.inner)
        return st.none() | st.lists(inner, max_size=3)
    if isinstance(dtype, pl.Struct):
        return st.fixed_dictionaries({field.name: values(field.dtype) for field in dtype.fields})
    return st.none() | present(dtype)


def present(dtype: Any) -> st.SearchStrategy[Any]:
    """Values of a plain column."""
    if dtype == pl.Boolean():
        return st.booleans()
    if dtype == pl.Int64():
        return st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)
    if dtype.is_float():
        return st.floats(width=32 if dtype == pl.Float32() else 64).map(
            # Of NaN there is one, and of zero.
            lambda each: float("nan") if each != each else each + 0.0
        )
    return instants if dtype == pl.Datetime("us", "UTC") else st.text(max_size=5) | st.sampled_from(["a", "b"])


rows = st.fixed_dictionaries({name: values(dtype) for name, dtype in content.items()})


def table(told: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of the log."""
    return pl.DataFrame(told, schema=content, orient="row")


@settings(max_examples=200)
@given(st.data())
def test_one_value_that_is_another_is_another_digest(data: st.DataObject) -> None:
    """Whichever column it is of, nested ones included; a value in the place of a null too."""
    row = data.draw(rows)
    name = data.draw(st.sampled_from(list(content)))
    other = data.draw(values(content[name]).filter(lambda each: repr(each) != repr(row[name])))
    one, another = digests(table([row, {**row, name: other}]))
    assert one != another


@pytest.mark.parametrize(
    ("row", "other"),
    [
        ({"features": [1.0, 2.0]}, {"features": [2.0, 1.0]}),
        ({"features": [1.0]}, {"features": [1.0, 1.0]}),
        ({"features": []}, {"features": None}),
        ({"scores": [0.5]}, {"features": [0.5]}),
        ({"queue_us": 1, "hop_us": 2}, {"queue_us": 2, "hop_us": 1}),
        ({"reason": ""}, {"reason": None}),
        ({"degraded": False}, {"degraded": None}),
        ({"views": [{"view": "a"}, {"view": "b"}]}, {"views": [{"view": "b"}, {"view": "a"}]}),
        ({"views": [{"view": "a"}]}, {"views": [{"version": "a"}]}),
        ({"key": "ab", "arm": "c"}, {"key": "a", "arm": "bc"}),
    ],
)
def test_what_is_near_is_another_digest(row: dict[str, Any], other: dict[str, Any]) -> None:
    """The same values in another order or place, and nothing beside a zero."""
    one, another = digests(table([row, other]))
    assert one != another


@settings(max_examples=100)
@given(st.lists(rows, min_size=1, max_size=8), st.randoms())
def test_order_and_chunks_mean_nothing(told: list[dict[str, Any]], random: Any) -> None:
    """A row has its digest wherever it stands, and whatever stands beside it."""
    expected = digests(table(told)).to_list()
    places = list(range(len(told)))
    random.shuffle(places)
    chunks = pl.concat([table([told[place]]) for place in places], rechunk=False)
    assert digests(chunks).to_list() == [expected[place] for place in places]
    backwards = table(told).select(list(content)[::-1]).with_columns(digest=pl.lit("x"), day=pl.lit("2024-01-01"))
    assert digests(backwards).to_list() == expected


@settings(max_examples=50)
@given(st.lists(rows, min_size=1, max_size=5))
def test_a_column_that_came_later_changes_no_digest(told: list[dict[str, Any]]) -> None:
    """Nor does a field of a view: where they are null they count for nothing."""
    old = table(told)
    fields = [pl.element().struct.field("*"), pl.lit(None, pl.String).alias("found_in")]
    wider = old.with_columns(
        pl.lit(None, pl.Float64).alias("cost"),
        pl.lit(None, pl.List(pl.String)).alias("reasons"),
        views=pl.col("views").list.eval(pl.struct(*fields)),
    )
    assert digests(wider).to_list() == digests(old).to_list()


def test_the_digest_is_the_same_for_ever() -> None:
    """Rows of years ago are held against it, so it does not move with a version of any library."""
    row = dict.fromkeys(content) | {
        "request_id": "r1",
        "received": datetime(2024, 1, 1, tzinfo=UTC),
        "degraded": False,
        "scores": [0.25, -0.0],
        "features": [1.5, float("nan")],
        "total_us": 7,
        "views": [{"view": "a/b", "value_revision": 1}],
    }
    assert digests(table([row])).item() == "d9e159dd0a8d495f0c87ed04899cce74"


def _log(platform: Platform, rows: int) -> pl.DataFrame:
    segments = Segments(log_folder(platform.home, DOMAIN.name), size=1 << 20, spares=1)
    for first in range(0, rows, 7):
        segments.append(encode(answered(7, first=first, computing='{"python":"3.11.7"}')), 7)
    segments.close()
    pick_up(platform, DOMAIN)
    return pl.read_delta(log_table(platform, DOMAIN))


def test_rows_out_of_the_table_are_what_was_picked_up(platform: Platform) -> None:
    """Through Delta and through its files alone; one that was edited is found, and one without a digest is not."""
    held = _log(platform, 70)
    assert held["digest"].str.len_chars().unique().to_list() == [32]
    assert held["computing"].unique().to_list() == ['{"python":"3.11.7"}']
    assert not altered_rows(held).any()
    files = log_files(platform, DOMAIN, datetime(2000, 1, 1, tzinfo=UTC))["path"].to_list()
    assert not altered_rows(stored(platform, files).collect()).any()
    edited = held.with_columns(
        probability=pl.when(pl.int_range(pl.len()) == 3).then(0.7500000000000001).otherwise("probability")
    )
    assert altered_rows(edited).arg_true().to_list() == [3]
    older = edited.with_columns(digest=pl.lit(None, pl.String))
    assert not altered_rows(older).any()


def test_a_table_from_before_the_digest_is_widened(platform: Platform, tmp_path: Path) -> None:
    """Old rows have nulls there; they are unknown, not altered."""
    from deltalake import write_deltalake

    held = _log(platform, 7)
    before = tmp_path / "before"
    older = Platform(home=before, clock=platform.clock, environment="test")
    write_deltalake(
        log_table(older, DOMAIN),
        held.drop("digest", "computing"),
        partition_by=["day"],
        configuration={"delta.appendOnly": "true"},
    )
    rows = _log(older, 14).sort("digest", nulls_last=False)
    assert (rows.height, rows["digest"].null_count(), rows["computing"].null_count()) == (21, 7, 7)
    assert not altered_rows(rows).any()


@pytest.mark.parametrize("height", [0, 1, 16_384, 16_385])
def test_any_number_of_rows(height: int) -> None:
    """None, one, and more than are taken at once."""
    row = dict.fromkeys(content) | {"request_id": "r", "features": [1.0]}
    many = table([row]).select(pl.all().repeat_by(height).explode(empty_as_null=False) if height > 1 else pl.all())
    many = many.head(height)
    assert digests(many).n_unique() == min(height, 1)
    assert len(digests(many)) == height
