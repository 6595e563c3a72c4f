"""Landed files: their bytes become rows, or are malformed; nothing is guessed."""

import polars as pl
import pytest

from mlplatform.errors import MalformedFile
from mlplatform.features.landing.files import by_name, parsed
from mlplatform_tests.fakes.shops import as_parquet

ROWS = pl.DataFrame({"code": ["007", None, "é"], "amount": [1.5, None, -2.0]})


def test_parquet_keeps_its_types() -> None:
    """They are the writer's."""
    assert parsed(as_parquet(ROWS), "2024-01-02.parquet").equals(ROWS)


def test_every_column_of_csv_is_text() -> None:
    """`007` stays what it is; an empty field is a null, whatever the column; a byte-order mark is no part of a name."""
    found = parsed("\ufeffcode,amount\n007,1.5\n,\né,-2.0\n".encode(), "2024-01-02.csv")
    assert found.equals(ROWS.cast(pl.String))


def test_json_lines_say_what_is_text() -> None:
    """A number is one and a text is one; a field that a line lacks is a null, and a late one is not lost."""
    lines = b'{"code":"007","amount":1}\n{}\n{"amount":-2.5,"code":"x","late":true}\n'
    found = parsed(lines, "2024-01-02.jsonl")
    assert found.to_dict(as_series=False) == {
        "code": ["007", None, "x"],
        "amount": [1.0, None, -2.5],
        "late": [None, None, True],
    }


def test_a_csv_file_with_no_rows_is_a_day_on_which_nothing_happened() -> None:
    """Its header is there, so it is whole."""
    assert parsed(b"code,amount\n", "2024-01-02.csv").shape == (0, 2)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("parquet", b""),
        ("parquet", b"PAR1"),
        ("parquet", b"code,amount\n007,1.5\n"),
        ("parquet", as_parquet(ROWS)[:-30]),
        ("parquet", b"PAR1" + bytes(200) + b"PAR1"),
        ("csv", b""),
        ("csv", "code\né\n".encode("latin-1")),
        ("csv", b"code\n1,2\n"),
        ("csv", b'code\n"never closed\n'),
        ("jsonl", b""),
        ("jsonl", b'{"code":"007"}\n{"code":'),
        ("jsonl", b'[{"code":"007"}]'),
    ],
)
def test_what_is_not_what_its_suffix_says_is_malformed(suffix: str, content: bytes) -> None:
    """One line that names the file and what to do, without the reader's advice to programmers."""
    with pytest.raises(
        MalformedFile, match=rf"^shop/2024-01-02\.{suffix}: not a readable .* land a corrected file"
    ) as told:
        parsed(content, f"shop/2024-01-02.{suffix}")
    assert "\n" not in str(told.value) and "infer_schema_length" not in str(told.value)


def test_a_panic_of_the_reader_is_a_malformed_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no `Exception`, and would take the days beside it along."""

    def panics(_content: object) -> pl.DataFrame:
        raise pl.exceptions.PanicException("assertion failed: offset + length <= self.length")

    monkeypatch.setattr(pl, "read_parquet", panics)
    with pytest.raises(MalformedFile, match="assertion failed"):
        parsed(as_parquet(ROWS), "2024-01-02.parquet")


def test_files_of_one_name_are_told_together() -> None:
    """The version of both: when either changes or goes, it is another."""
    assert by_name([("2024-01-02.csv", "b"), ("2024-01-02.parquet", "a"), ("2024-01-02.txt", "c")]) == {
        "2024-01-02": "b+a",
        "2024-01-02.txt": "c",
    }


def test_a_file_without_a_suffix_is_no_day() -> None:
    """Nobody can tell how to read it; the day's own file beside it keeps its version."""
    assert by_name([("2024-01-02", "a"), ("2024-01-02.csv", "b"), ("2024-01-03", "c"), ("notes", "d")]) == {
        "2024-01-02 (no suffix)": "a",
        "2024-01-02": "b",
        "2024-01-03 (no suffix)": "c",
        "notes": "d",
    }
