"""The landing folder: which files count, when, and what it costs to look."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from mlplatform.errors import ChangedWhileRead, MalformedFile, Unavailable
from mlplatform.features.landing.folder import LandingFolder, settling_seconds
from mlplatform_tests.fakes.synthetic_home import Clock

CLOCK = Clock()
WHOLE = b"PAR1 as far as anybody can tell PAR1"


def put(folder: Path, name: str, content: bytes, *, age: timedelta = timedelta(hours=1)) -> Path:
    """A file that was last changed so long ago."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    changed = (CLOCK() - age).timestamp()
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "orders"


@pytest.fixture
def landing(folder: Path) -> LandingFolder:
    """The landing over it."""
    return LandingFolder(folder, CLOCK)


def test_a_folder_that_is_not_there_holds_nothing(landing: LandingFolder) -> None:
    """The first file makes it; no error until then."""
    assert landing.list() == {}


def test_names_lose_their_suffix_and_temporary_ones_are_left_out(folder: Path, landing: LandingFolder) -> None:
    """What lies there for good is listed, a folder too; what somebody is writing is not."""
    for name in ("2024-01-01.parquet", "2024-01-02.csv", "2024-01-03.jsonl", "2024-01-04.xlsx", "notes"):
        put(folder, name, WHOLE)
    for name in (".2024-01-05.parquet", "2024-01-05.parquet.tmp", "2024-01-05.csv.part", "2024-01-05.csv~"):
        put(folder, name, WHOLE)
    (folder / "2024-01-06.parquet").mkdir()
    found = landing.list()
    assert sorted(found) == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
        "2024-01-04.xlsx",
        "2024-01-06.parquet/",
        "notes",
    ]
    assert found["2024-01-01"] == found["2024-01-02"], "the version is of the bytes alone"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_that_may_still_grow_is_waited_for(folder: Path, landing: LandingFolder, suffix: str) -> None:
    """Left alone for its settling time it counts, whole or not."""
    half = WHOLE[:-4]
    settled = timedelta(seconds=settling_seconds[suffix])
    for age in (timedelta(0), settled - timedelta(seconds=1)):
        put(folder, f"2024-01-02.{suffix}", half, age=age)
        assert landing.list() == {}
    put(folder, f"2024-01-02.{suffix}", half, age=settled)
    assert list(landing.list()) == ["2024-01-02"]


def test_a_whole_parquet_file_counts_at_once(folder: Path, landing: LandingFolder) -> None:
    """Its closing mark says that nothing more comes."""
    put(folder, "2024-01-02.parquet", WHOLE, age=timedelta(0))
    assert list(landing.list()) == ["2024-01-02"]


def test_a_time_in_the_future_holds_nothing_back(folder: Path, landing: LandingFolder) -> None:
    """A file of a machine whose clock is wrong would be waited for till then."""
    put(folder, "2024-01-02.csv", b"a\n", age=timedelta(days=-400))
    assert list(landing.list()) == ["2024-01-02"]


def test_two_files_of_one_day_are_refused(folder: Path, landing: LandingFolder) -> None:
    """Neither is taken for the right one: the message names both. Taking one away is a change."""
    put(folder, "2024-01-02.parquet", WHOLE)
    spare = put(folder, "2024-01-02.csv", b"order_id\n1\n")
    both = landing.list()
    with pytest.raises(MalformedFile, match=r"2024-01-02\.parquet and 2024-01-02\.csv are both there.*take the wrong"):
        landing.read("2024-01-02", both["2024-01-02"])
    spare.unlink()
    assert landing.list() != both


def test_a_second_file_that_still_settles_is_no_fault_of_the_first(folder: Path, landing: LandingFolder) -> None:
    """The version that was listed is the first one's, and is right again when the second one is taken away."""
    put(folder, "2024-01-02.parquet", WHOLE)
    spare = put(folder, "2024-01-02.csv", b"order_id\n1\n", age=timedelta(0))
    with pytest.raises(ChangedWhileRead, match=r"2024-01-02\.parquet got 2024-01-02\.csv beside it"):
        landing.read("2024-01-02", landing.list()["2024-01-02"])
    spare.unlink()
    spare.mkdir()
    with pytest.raises(MalformedFile, match="not a readable Parquet file"):
        landing.read("2024-01-02", landing.list()["2024-01-02"])


def test_a_file_that_can_no_longer_be_read_is_tried_again(
    folder: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be when it was listed: gone between two looks, or on a disk that is away for a moment."""
    put(folder, "2024-01-02.csv", b"a\n1\n")
    version = landing.list()["2024-01-02"]

    def fails(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        with pytest.raises(ChangedWhileRead, match=r"could no longer be read .*Input/output error"):
            landing.read("2024-01-02", version)
    assert landing.read("2024-01-02", version).height == 1


def test_a_correction_with_the_same_time_and_size_is_seen(folder: Path, landing: LandingFolder) -> None:
    """Written in place by a tool that keeps the time of its original: the file system knows better."""
    path = put(folder, "2024-01-02.csv", b"a\n1\n")
    before, changed = landing.list(), path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == changed:  # its clock ticks every few milliseconds
        put(folder, path.name, b"a\n2\n")
    assert landing.list() != before


def test_looking_again_reads_no_file_again(
    folder: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has not changed is known by its inode, time and size; one that has is read, even if it is as long."""
    path = put(folder, "2024-01-02.csv", b"abc")
    put(folder, "2024-01-03.parquet", WHOLE)
    before = landing.list()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_: pytest.fail("opened again"))
        assert landing.list() == before
    put(folder, path.name, b"abd", age=timedelta(minutes=59))
    assert landing.list()["2024-01-02"] != before["2024-01-02"]


def test_a_file_changed_within_the_resolution_of_its_time_is_seen(folder: Path, landing: LandingFolder) -> None:
    """Same inode, size and time stamp, a moment ago: its hash is not taken from memory."""
    just_now = timedelta(seconds=1)
    put(folder, "2024-01-02.parquet", WHOLE, age=just_now)
    before = landing.list()
    put(folder, "2024-01-02.parquet", WHOLE.replace(b"anybody", b"nobody "), age=just_now)
    assert landing.list() != before


def test_a_file_that_goes_while_it_is_looked_at_is_not_there(
    folder: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of the folder and the look at the file; the others are listed."""
    put(folder, "2024-01-01.parquet", WHOLE)
    goes = put(folder, "2024-01-02.parquet", WHOLE)
    stat = os.stat

    def gone(path: str) -> os.stat_result:
        if path == str(goes):
            goes.unlink()
        return stat(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", gone)
        found = landing.list()
    assert list(found) == ["2024-01-01"]


def test_a_file_that_may_not_be_read_is_a_failure_of_its_day(
    folder: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed, so that reading it tells; once it may be read, its version is another."""
    path = put(folder, "2024-01-02.csv", b"a\n1\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        closed = landing.list()
        with pytest.raises(MalformedFile, match=r"2024-01-02\.csv: it cannot be read .*Permission denied"):
            landing.read("2024-01-02", closed["2024-01-02"])
    opened = landing.list()
    assert closed != opened
    assert landing.read("2024-01-02", opened[path.stem]).height == 1


def test_a_folder_that_cannot_be_listed_is_said_to_be(tmp_path: Path) -> None:
    """It must not look like one in which nothing has landed."""
    (tmp_path / "orders").write_text("a file")
    with pytest.raises(Unavailable, match="orders cannot be read"):
        LandingFolder(tmp_path / "orders", CLOCK).list()


def test_what_was_landed_again_meanwhile_is_not_read(folder: Path, landing: LandingFolder) -> None:
    """The bytes that are parsed are those whose hash was listed."""
    path = put(folder, "2024-01-02.csv", b"a\n1\n")
    planned = landing.list()["2024-01-02"]
    put(folder, path.name, b"a\n2\n")
    with pytest.raises(ChangedWhileRead, match="landed again while it was being read"):
        landing.read("2024-01-02", planned)
