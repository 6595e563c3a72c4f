"""The committed Parquet files are what the script beside them says it writes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from mlplatform.domains.flight_delay.sample import data

ROWS = {"flights": 336_776, "weather": 26_115, "planes": 3_322, "airports": 1_458}


@pytest.fixture(scope="module")
def rebuild() -> ModuleType:
    """The script, loaded and not run."""
    spec = importlib.util.spec_from_file_location("rebuild", data / "rebuild.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_every_file_there_is(rebuild: ModuleType) -> None:
    """No data file lies here that the script does not make, and none is missing."""
    assert {path.stem for path in data.glob("*.parquet")} == set(rebuild.SCHEMAS) == set(ROWS)


@pytest.mark.parametrize("table", ROWS)
def test_a_file_has_the_columns_and_rows_of_the_script(rebuild: ModuleType, table: str) -> None:
    """Columns, their order and their types are those of the script; the rows are the package's."""
    committed = pl.read_parquet(data / f"{table}.parquet")
    assert committed.schema == pl.Schema(rebuild.SCHEMAS[table])
    assert committed.height == ROWS[table]


def test_writing_a_file_again_gives_the_same_bytes(rebuild: ModuleType, tmp_path: Path) -> None:
    """The bytes follow from the rows: the smallest table, written anew, is the committed file."""
    path = data / "planes.parquet"
    again = tmp_path / "planes.parquet"
    rebuild.write_table(pl.read_parquet(path), again)
    assert again.read_bytes() == path.read_bytes()


def test_the_licence_of_the_data_lies_beside_it() -> None:
    """Who copies the data finds its terms."""
    assert "CC0" in (data / "LICENSE.md").read_text()
