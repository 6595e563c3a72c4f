"""A file is there whole or not at all; a lock keeps two processes apart."""

import multiprocessing
from pathlib import Path

import pytest

from mlplatform.provenance.files import alone, write_whole


def test_a_reader_meets_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dies between writing and renaming leaves the old content under the real name."""
    path = tmp_path / "deep" / "decision.json"
    write_whole(path, "old")

    def dies(_source: object, _target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlplatform.provenance.files.os.replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new, and longer")
    assert path.read_text() == "old"


def _count(folder: Path) -> None:
    for _ in range(200):
        with alone(folder / "lock"):
            write_whole(folder / "count", str(int((folder / "count").read_text()) + 1))


def test_only_one_process_is_in(tmp_path: Path) -> None:
    """Two processes that read, add one and write lose no addition."""
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "count").read_text() == "400"
