"""Files of the prediction log as they are read: of whatever version they are."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.log_rows import collected, stored
from mlplatform.monitoring.pickup import log_files
from mlplatform.monitoring.prediction_log import schema
from mlplatform.monitoring.row_digest import altered_rows, digests
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.logged_answers import log_answers

DAY = "2024-01-20"
FIRST_FIELDS = ("view", "version", "revision", "status")


@pytest.fixture
def written(platform: Platform) -> tuple[pl.DataFrame, list[str]]:
    """Rows of a log, and its files."""
    log_answers(platform, DAY, 5)
    paths = log_files(platform, DOMAIN, datetime(2000, 1, 1, tzinfo=UTC))["path"].to_list()
    return stored(platform, paths).collect(), paths


def test_rows_of_an_older_version_lack_what_came_later(
    platform: Platform, written: tuple[pl.DataFrame, list[str]], tmp_path: Path
) -> None:
    """Whole columns, and of a view which row of its table was read; a row has its digest still."""
    rows, paths = written
    fields = pl.struct(*(pl.element().struct.field(name) for name in FIRST_FIELDS))
    old = rows.drop("plan", "propensity", "computing", "digest").with_columns(pl.col("views").list.eval(fields))
    path = tmp_path / "old.parquet"
    old.write_parquet(path)
    read = collected(platform, stored(platform, [*paths, str(path)]), [*paths, str(path)])
    assert (read.height, dict(read.schema)) == (2 * rows.height, dict(schema))
    before = read.tail(rows.height)
    assert before["views"].list.len().to_list() == rows["views"].list.len().to_list()
    views = before.explode("views").unnest("views")
    assert views["value_revision"].null_count() == views["event_time"].null_count() == views.height > 0
    assert views.select(FIRST_FIELDS).equals(rows.explode("views").unnest("views").select(FIRST_FIELDS))
    assert not altered_rows(before).any()


def test_a_row_keeps_its_digest_where_a_view_gets_a_field(
    platform: Platform, written: tuple[pl.DataFrame, list[str]], tmp_path: Path
) -> None:
    """Of before there was the field, read with it: nothing was altered."""
    rows, _ = written
    fields = pl.struct(*(pl.element().struct.field(name) for name in FIRST_FIELDS))
    old = rows.with_columns(pl.col("views").list.eval(fields))
    old = old.with_columns(digests(old))
    path = tmp_path / "old.parquet"
    old.write_parquet(path)
    read = stored(platform, [str(path)]).collect()
    assert read["digest"].null_count() == 0
    assert not altered_rows(read).any()
