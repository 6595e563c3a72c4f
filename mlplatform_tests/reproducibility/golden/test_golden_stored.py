"""The golden traffic of our own models, which is committed: what CI answers again at every change."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.reproducibility.golden.golden import Golden, found_in

ROOT = Path(__file__).resolve().parents[3] / "golden"
FOLDERS = found_in(ROOT)


def test_no_answer_has_moved() -> None:
    """What moved is printed; if it is meant, `mlplatform golden record … --again --reason …` says so."""
    told = CliRunner().invoke(app, ["golden", "check", str(ROOT)])
    assert told.exit_code == 0, told.output


def test_scripts_are_told_of_each_folder() -> None:
    """With its rows, and nothing that moved."""
    told = json.loads(CliRunner().invoke(app, ["golden", "check", str(ROOT), "--json"]).stdout)
    assert [each["model"] for each in told] == ["flight_delay/late_arrival", "synthetic/speed"]
    assert [each["rows"] for each in told] == [48, 40]
    assert all(each["moved"] == [] and each["rows_moved"] == 0 for each in told)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: each.name)
def test_a_stored_folder_is_small_and_whole(folder: Path) -> None:
    """It holds what `golden.json` lists and nothing else, and can be committed without a second thought."""
    stored = Golden(folder)
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == {"golden.json", *stored.told.files}
    assert sum(files.values()) < 300_000
    assert stored.told.as_logged == stored.told.rows == len(stored.answers)


def test_where_nothing_is_stored_the_check_says_how(tmp_path: Path) -> None:
    """An empty folder is no success: nothing was checked."""
    told = CliRunner().invoke(app, ["golden", "check", str(tmp_path)])
    assert told.exit_code == 1
    assert "mlplatform golden record MODEL" in str(told.exception)
