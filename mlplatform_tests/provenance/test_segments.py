"""The segments: what was appended is there after a kill, and what could not be appended is counted."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlplatform.errors import SegmentUnreadable
from mlplatform.provenance.segments import Contents, Segments, backlog_bytes, finished, read, roll_after
from mlplatform_tests.fakes.waiting import until

SMALL = 1 << 16

WRITER = """
import os, sys, struct
from pathlib import Path
from mlplatform.provenance.segments import Segments
segments = Segments(Path(sys.argv[1]), size=1 << 16)
number = 0
while True:
    segments.append(struct.pack("<Q", number) * 40)
    number += 1
    os.pwrite(3, struct.pack("<Q", number), 0)
"""
"""Appends numbered payloads, and after each says how many, where it survives the writer."""


def all_of(folder: Path) -> Contents:
    """What all finished segments hold together."""
    parts = [read(path) for path in finished(folder)]
    return Contents([each for part in parts for each in part.payloads], sum(part.dropped for part in parts), 0, 0)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_appended_is_read_in_its_order(tmp_path: Path) -> None:
    """Over several segments; nothing is left but those, cut to what they hold."""
    payloads = [bytes([number % 250 + 1]) * (number % 700) + b"." for number in range(600)]
    segments = Segments(tmp_path, size=SMALL, spares=6)
    assert all(segments.append(payload) for payload in payloads)
    segments.close()
    assert all_of(tmp_path) == Contents(payloads, 0, 0, 0)
    assert len(list(tmp_path.iterdir())) == len(finished(tmp_path)) > 2
    assert backlog_bytes(tmp_path) < sum(map(len, payloads)) + 600 * 8 + 16 * 10


@pytest.mark.parametrize("appended", [1, 40, 3000])
def test_a_killed_writer_loses_nothing(tmp_path: Path, appended: int) -> None:
    """kill -9 amid appending: every payload it had told of is there or counted, in order, and at most one more."""
    told = tmp_path / "told"
    folder = tmp_path / "log"
    with told.open("w+b") as file:
        # The writer finds the file as its descriptor 3.
        writer = subprocess.Popen(
            ["sh", "-c", 'exec "$@" 3<>"$0"', str(told), sys.executable, "-c", WRITER, str(folder)],
        )
        try:
            until(
                lambda: int.from_bytes(told.read_bytes(), "little") >= appended, seconds=30, what="the writer's appends"
            )
            # Looked at while it writes: its open segment is nobody else's.
            finished(folder)
            assert list(folder.glob("*.open"))
            assert writer.poll() is None
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        count = int.from_bytes(file.read(), "little")
    found = all_of(folder)
    numbers = [int.from_bytes(payload[:8], "little") for payload in found.payloads]
    assert count <= len(numbers) + found.dropped <= count + 1
    assert numbers == sorted(set(numbers))
    assert all(len(payload) == 320 and payload == payload[:8] * 40 for payload in found.payloads)
    assert not list(folder.glob("*.open")) and not list(folder.glob("*.new"))


def test_a_damaged_frame_costs_itself_alone(tmp_path: Path) -> None:
    """One flipped bit, or a lost end: all that is whole is read, and what is not is counted."""
    segments = Segments(tmp_path, size=SMALL)
    for payload in (b"one", b"two", b"three"):
        segments.append(payload)
    segments.close()
    (path,) = finished(tmp_path)
    whole = path.read_bytes()
    assert read(path).payloads == [b"one", b"two", b"three"]
    path.write_bytes(whole[:-1])
    assert (read(path).payloads, read(path).damaged) == ([b"one", b"two"], 1)
    path.write_bytes(whole.replace(b"two", b"twp"))
    assert (read(path).payloads, read(path).damaged) == ([b"one", b"three"], 1)
    # Its writer dies, and it is finished by whoever looks: nothing of it is cut away.
    path.rename(path.with_suffix(".open"))
    (adopted,) = finished(tmp_path)
    assert (read(adopted).payloads, read(adopted).damaged) == ([b"one", b"three"], 1)
    path.write_bytes(b"something else altogether")
    with pytest.raises(SegmentUnreadable, match="does not begin like a segment"):
        read(path)


def test_a_full_disk_costs_records_that_are_counted(tmp_path: Path) -> None:
    """What is open is filled, then rows are dropped; once there is room the log goes on. Nothing goes uncounted."""
    size = 2 << 20
    segments = Segments(tmp_path, size=size, spares=1)
    payload = bytes(200_000)
    appended = handed = 0
    with files_at_most(1 << 20):
        for _ in range(40):
            handed += 3
            appended += 3 * segments.append(payload, rows=3)
        assert 0 < segments.dropped == handed - appended

    def goes_on() -> bool:
        nonlocal appended, handed
        handed += 3
        done = segments.append(payload, rows=3)
        appended += 3 * done
        return done

    until(goes_on, seconds=10, what="appending with room again")
    segments.close()
    found = all_of(tmp_path)
    assert 3 * len(found.payloads) == appended
    assert found.dropped == segments.dropped
    assert 3 * len(found.payloads) + found.dropped == handed


def test_a_killed_writer_on_a_full_disk_has_counted(tmp_path: Path) -> None:
    """The count of dropped rows lies in the segment itself, so it does not die with the writer."""
    program = f"""
import os, resource, signal
from pathlib import Path
from mlplatform.provenance.segments import Segments
segments = Segments(Path({str(tmp_path)!r}), size=1 << 16, spares=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
for _ in range(100):
    segments.append(bytes(10_000), rows=5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    found = all_of(tmp_path)
    assert found.payloads and found.dropped
    assert 5 * len(found.payloads) + found.dropped == 500


def test_an_unwritable_folder_costs_records_that_are_counted(tmp_path: Path) -> None:
    """From the start on; once it can be written, the first segment tells how many were lost."""
    place = tmp_path / "place"
    place.write_text("a file where a folder should be")
    segments = Segments(place / "log", size=SMALL)
    assert [segments.append(b"lost", rows=2) for _ in range(3)] == [False] * 3
    assert segments.dropped == 6
    place.unlink()
    handed = 6

    def goes_on() -> bool:
        nonlocal handed
        handed += 2
        return segments.append(b"kept", rows=2)

    until(goes_on, seconds=10, what="appending to the folder")
    segments.close()
    found = all_of(place / "log")
    assert found.payloads == [b"kept"]
    assert found.dropped + 2 == handed


def test_a_payload_beyond_a_segment_is_dropped(tmp_path: Path) -> None:
    """And counted; the one after it is not."""
    segments = Segments(tmp_path, size=SMALL)
    assert not segments.append(bytes(SMALL), rows=9)
    assert segments.append(b"small")
    segments.close()
    assert all_of(tmp_path) == Contents([b"small"], 9, 0, 0)


def test_an_old_segment_is_finished_while_its_writer_lives(tmp_path: Path) -> None:
    """So that rows reach the table; an empty one goes."""
    now = [0.0]
    segments = Segments(tmp_path, size=SMALL, clock=lambda: now[0])
    now[0] = 10 * roll_after
    segments.append(b"first")
    now[0] += roll_after
    (path,) = until(lambda: finished(tmp_path), seconds=10, what="a finished segment")
    assert read(path).payloads == [b"first"]
    segments.append(b"second")
    segments.close()
    assert [read(each).payloads for each in finished(tmp_path)] == [[b"first"], [b"second"]]
    assert not segments.append(b"too late", rows=4)
    assert segments.dropped == 4
