"""Append-only files: what was appended is there, whole, in order, whatever the writer died of."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import Unavailable
from mlplatform.provenance.append_only import AppendOnlyFiles, day_begun, files, frames, is_growing
from mlplatform_tests.fakes.synthetic_home import Clock


def held(folder: Path) -> list[bytes]:
    """Every payload, oldest file first."""
    return [payload for path in files(folder) for payload, _ in frames(path)]


def test_what_was_appended_is_read_and_each_day_has_its_files(tmp_path: Path) -> None:
    """A new day and a full file begin another; a file that nobody writes grows no more."""
    clock = Clock(datetime(2024, 1, 1, 23, 59, tzinfo=UTC))
    writer = AppendOnlyFiles(tmp_path, clock, size=40)
    for payload in (b"a", b"b" * 40, b"c"):
        writer.append(payload)
    clock.now = datetime(2024, 1, 2, 0, 1, tzinfo=UTC)
    writer.append(b"d")
    assert held(tmp_path) == [b"a", b"b" * 40, b"c", b"d"]
    assert [str(day_begun(path)) for path in files(tmp_path)] == ["2024-01-01", "2024-01-01", "2024-01-02"]
    assert [is_growing(path) for path in files(tmp_path)] == [False, False, True]
    writer.close()
    assert not any(is_growing(path) for path in files(tmp_path))


@given(cut=st.integers(0, 60))
def test_a_torn_end_is_not_there_and_nothing_before_it_is_lost(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """A machine that lost its power in the middle of a frame leaves the frames before it."""
    folder = tmp_path_factory.mktemp("torn")
    writer = AppendOnlyFiles(folder, Clock())
    writer.append(b"first")
    (path,) = files(folder)
    whole = path.stat().st_size
    writer.append(b"second")
    writer.close()
    os.truncate(path, min(path.stat().st_size, whole + cut))
    assert held(folder) == ([b"first", b"second"] if path.stat().st_size == whole + 8 + 6 else [b"first"])
    (_, end), *_ = frames(path)
    assert end == whole


def test_threads_share_a_force_and_none_returns_before_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen appends at once take fewer forces than sixteen, and after each its payload was forced."""
    forced: list[int] = []
    sizes: list[int] = []
    real = os.fdatasync

    def force(file: int) -> None:
        size = os.fstat(file).st_size
        real(file)
        forced.append(size)

    monkeypatch.setattr(os, "fdatasync", force)
    writer = AppendOnlyFiles(tmp_path, Clock())
    ready = threading.Barrier(16)

    def append(number: int) -> None:
        ready.wait()
        payload = b"%02d" % number * 50
        writer.append(payload)
        place = next(end for each, end in frames(files(tmp_path)[0]) if each == payload)
        sizes.append(place)
        assert max(forced) >= place

    threads = [threading.Thread(target=append, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 16
    assert len(forced) <= 16


def test_a_full_disk_refuses_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a frame is cut away, and the next append goes through when there is room again."""
    writer = AppendOnlyFiles(tmp_path, Clock())
    writer.append(b"before")
    real = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return real(file, content[:100])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Unavailable, match=r"No space left on device.*Make room"):
            writer.append(b"x" * 150)
    assert held(tmp_path) == [b"before"]
    writer.append(b"after")
    assert held(tmp_path) == [b"before", b"after"]
