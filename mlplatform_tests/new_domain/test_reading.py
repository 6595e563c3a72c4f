"""Reading a sample file: separators, encodings, rows that are no rows."""

from pathlib import Path

import polars as pl
import pytest

from mlplatform.errors import DataError, DeclarationError
from mlplatform.new_domain.reading import read_sample
from mlplatform.new_domain.sampled import read


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    """A file."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_spreadsheet_of_another_country(tmp_path: Path) -> None:
    """Semicolons, Windows letters, quoted line breaks, a blank line and a torn row: all read, and told."""
    content = 'Größe;Text\n1,5;"a\nb"\n\n2,5;c\n2,5;c\n3;d;e\n'.encode("cp1252")
    found = read_sample(written(tmp_path, "a.csv", content))
    assert found.frame.rows() == [("1,5", "a\nb"), ("2,5", "c")]
    assert found.decimal_comma
    assert [note.split(":")[0] for note in found.notes] == [
        "the file is not UTF-8",
        "fields are parted by ';'",
        "1 rows have another number of fields than the header",
        "1 rows repeat another row in every column",
    ]


def test_parquet_and_json_lines_keep_their_types(tmp_path: Path) -> None:
    """Only what no contract holds is left out; NaN is a missing value."""
    frame = pl.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": [[1], [2]]}, schema_overrides={"a": pl.UInt8})
    frame.write_parquet(tmp_path / "a.parquet")
    found = read_sample(tmp_path / "a.parquet")
    assert found.frame.rows() == [(1, 0.5), (2, None)]
    assert found.notes == ("c is List(Int64), which no contract holds: left out",)
    path = written(
        tmp_path, "a.jsonl", '{"a": 1, "t": "2024-01-01T00:00:00Z"}\n{"a": null, "t": "2024-01-02T00:00:00Z"}\n'
    )
    assert read(path, "UTC").frame.schema == {"a": pl.Int64(), "t": pl.Datetime("us", "UTC")}


def test_columns_get_names_that_code_can_say(tmp_path: Path) -> None:
    """A column is found by its old and by its new name; what the platform calls its own is renamed."""
    found = read(written(tmp_path, "a.csv", "Order ID,at,Ümlaut (%)\n1,2,3\n4,5,6\n"), "UTC")
    assert found.frame.columns == ["order_id", "at_column", "umlaut"]
    assert found.column("Order ID", "--label") == found.column("order_id", "--label") == "order_id"
    with pytest.raises(
        DeclarationError, match="--label: the sample has no column 'orders'; it has order_id, at_column"
    ):
        found.column("orders", "--label")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "has no rows"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.csv", "a,a\n1,2\n", "names a twice"),
        ("a.xlsx", "PK", "convert it"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.jsonl", "{no json", "cannot be read as jsonl"),
    ],
)
def test_a_file_that_is_no_sample_is_refused(tmp_path: Path, name: str, content: str, told: str) -> None:
    """With what is wrong, and no traceback of the reader."""
    with pytest.raises(DataError, match=told):
        read_sample(written(tmp_path, name, content))


def test_a_file_that_is_not_there_and_a_zone_that_does_not_exist(tmp_path: Path) -> None:
    """Both are named."""
    with pytest.raises(DataError, match=r"there is no file .*nothing\.csv"):
        read_sample(tmp_path / "nothing.csv")
    with pytest.raises(DeclarationError, match="there is no time zone 'Europe/Atlantis'"):
        read(tmp_path / "nothing.csv", "Europe/Atlantis")
