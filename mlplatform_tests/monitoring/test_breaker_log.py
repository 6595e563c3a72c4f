"""The breaker log: whole lines, read from where they were left, kept while somebody writes."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.monitoring.behaviour.rules import opened
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder, files, read, remove_abandoned
from mlplatform_tests.fakes.answered import transition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a domain, not there yet."""
    return breaker_folder(tmp_path, "synthetic")


def reasons(path: Path, start: int = 0) -> list[str]:
    """What was read, by its reason."""
    return [line.transition.reason for line in read(path, start) if line.transition]


def test_what_was_written_is_read_from_where_it_was_left(folder: Path) -> None:
    """Field for field, and again from the end of any line."""
    log = BreakerLog(folder)
    assert not folder.exists()
    written = [transition(reason=each) for each in ("wörd\nover two lines", "second", "third")]
    for each in written:
        log.append(each)
    (path,) = files(folder)
    lines = read(path)
    assert [line.transition for line in lines] == written
    assert [line.start for line in lines] == [0, lines[0].end, lines[1].end]
    assert reasons(path, lines[0].end) == ["second", "third"]
    assert read(path, lines[-1].end) == []
    log.append(transition(reason="fourth"))
    assert reasons(path, lines[-1].end) == ["fourth"]


def test_half_a_line_is_not_read_and_a_strange_one_stops_nobody(folder: Path) -> None:
    """A writer that died in the middle leaves no transition; what is no transition has an end all the same."""
    BreakerLog(folder).append(transition(reason="whole"))
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(b'{"model": 7}\n' + whole + whole[:-9])
    lines = read(path)
    assert [line.transition and line.transition.reason for line in lines] == [None, "whole"]
    assert lines[-1].end == 13 + len(whole)


@pytest.fixture
def full_disk() -> Any:
    """Call it, and no file of this process grows beyond so many bytes until it is called with None."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


def test_a_full_disk_costs_the_record_and_no_other(folder: Path, full_disk: Callable[[int | None], None]) -> None:
    """What was cut short is taken back, so that the next line begins on a line of its own."""
    log = BreakerLog(folder)
    log.append(transition(reason="before"))
    (path,) = files(folder)
    full_disk(path.stat().st_size + 20)
    with pytest.raises(OSError):
        log.append(transition(reason="lost"))
    full_disk(None)
    log.append(transition(reason="after"))
    assert reasons(path) == ["before", "after"]
    assert len(path.read_bytes().splitlines()) == 2


def test_a_folder_that_cannot_be_made_is_tried_again_with_the_next_transition(folder: Path) -> None:
    """Whoever mends it need not start the gateway again."""
    folder.parent.write_text("a file where the folder should be")
    log = BreakerLog(folder)
    with pytest.raises(OSError):
        log.append(transition(reason="lost"))
    folder.parent.unlink()
    log.append(transition(reason="kept"))
    (path,) = files(folder)
    assert reasons(path) == ["kept"]


WRITER = """
import os, sys
from pathlib import Path
from mlplatform.monitoring.breaker_log import BreakerLog
from mlplatform_tests.fakes.answered import transition
log = BreakerLog(Path(sys.argv[1]))
log.append(transition(reason="last words"))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_file_is_removed_only_when_its_writer_is_gone_and_all_of_it_was_read(folder: Path) -> None:
    """A killed writer's too, whatever half a line it has left; and its open breaker is told to be gone with it."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"written\n"
        (path,) = files(folder)
        end = read(path)[-1].end
        assert not remove_abandoned(path, end)
        writer.kill()
    with path.open("ab") as file:
        file.write(b'{"model"')
    assert not remove_abandoned(path, 0)
    assert not remove_abandoned(path, end, now=lambda: 2**62)
    (left,) = read(path, end)
    assert left.transition == transition(
        before="open", after="gone", reason="the gateway worker that it was of has ended", at=2**62
    )
    assert [each.still for each in opened(line.transition for line in read(path) if line.transition)] == [0]
    assert remove_abandoned(path, left.end)
    assert files(folder) == []


def test_a_file_that_was_taken_for_abandoned_while_it_was_made_is_made_again(folder: Path) -> None:
    """A reader between the making of a file and its lock takes nothing away from its writer."""
    folder.mkdir(parents=True)
    names = iter([1, 2])
    real = os.open

    def reader(path: Any, *told: Any, **more: Any) -> int:
        opened = real(path, *told, **more)
        if Path(path).name.startswith("1-"):
            assert remove_abandoned(Path(path), 0)
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlplatform.monitoring.breaker_log.os.open", reader)
        log = BreakerLog(folder, now=lambda: next(names))
        log.append(transition(reason="kept"))
    (path,) = files(folder)
    assert path.name.startswith("2-") and reasons(path) == ["kept"]
