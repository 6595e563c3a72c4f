"""The plan's file: written whole, followed while it is good, and not let go of whatever becomes of it."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.rollout.plan import Plan, to_file
from mlplatform.rollout.plan_file import LARGEST, WatchedPlan, plan_path, write_plan

MODEL = "harbour/waits"
FIRST = Plan(model=MODEL, champion="a" * 64, number=1)
SECOND = Plan(model=MODEL, champion="a" * 64, challenger="b" * 64, mode="canary", weight=500, salt="s", number=2)


@pytest.fixture
def watched(tmp_path: Path) -> WatchedPlan:
    """A plan that has been written, and read once."""
    write_plan(tmp_path, FIRST)
    made = WatchedPlan(plan_path(tmp_path, MODEL), MODEL)
    assert made.look()
    return made


def test_a_change_is_seen_once(watched: WatchedPlan, tmp_path: Path) -> None:
    """Also that the same was written again, which is no change; each model has its own file."""
    assert not watched.look()
    assert write_plan(tmp_path, SECOND)
    assert (watched.look(), watched.look()) == (True, False)
    assert watched.plan and watched.plan.version == SECOND.version
    assert not write_plan(tmp_path, SECOND)
    write_plan(tmp_path, replace(FIRST, model="harbour/other"))
    plan_path(tmp_path, MODEL).touch()
    assert not watched.look()


def test_before_there_is_one_nothing_is_wrong(tmp_path: Path) -> None:
    """A Bento on a bare host serves its own bundle; it follows the plan as soon as there is one."""
    watched = WatchedPlan(plan_path(tmp_path, MODEL), MODEL)
    assert (watched.look(), watched.plan, watched.fault) == (False, None, "")
    write_plan(tmp_path, FIRST)
    assert (watched.look(), watched.plan) == (True, FIRST)


def flag(**changes: object) -> bytes:
    """The second plan with another field."""
    file = json.loads(to_file(SECOND))
    file["flags"][MODEL] |= changes
    return json.dumps(file).encode()


def folder(path: Path) -> None:
    """In the file's place."""
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    """In the file's place: whoever opens it to read waits for ever."""
    path.unlink()
    os.mkfifo(path)


def circle(path: Path) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path)


def endless(path: Path) -> None:
    """As large as a disk, with nothing in it."""
    os.truncate(path, LARGEST * 10_000)


NONSENSE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(to_file(SECOND)[:200]),
    "of a writer of old": lambda path: path.write_text(json.dumps({"champion": "b" * 64})),
    "of another model": lambda path: path.write_bytes(to_file(replace(SECOND, model="harbour/other"))),
    "deep": lambda path: path.write_bytes(
        flag(targeting={}).replace(b'"targeting": {}', b'"targeting": ' + b"[" * 50_000)
    ),
    "no text": lambda path: path.write_bytes(to_file(SECOND).replace(b'"s"', b'"\xff\xfe"')),
    "out of the folder": lambda path: path.write_bytes(flag(variants={"champion": "../" * 5})),
    "switched off": lambda path: path.write_bytes(flag(state="DISABLED")),
    "a folder": folder,
    "a pipe": pipe,
    "a circle": circle,
    "endless": endless,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_keeps_the_last_good_plan(watched: WatchedPlan, tmp_path: Path, kind: str) -> None:
    """Whatever stands in its place: it is said what is wrong, until a good one is written over it."""
    path = plan_path(tmp_path, MODEL)
    NONSENSE[kind](path)
    for _ in range(2):
        assert not watched.look()
        assert watched.plan == FIRST
        assert "last good" in watched.fault
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    assert write_plan(tmp_path, SECOND)
    assert (watched.look(), watched.fault) == (True, "")
    assert watched.plan and watched.plan.version == SECOND.version


def test_a_folder_in_its_place_takes_no_descriptors(watched: WatchedPlan, tmp_path: Path) -> None:
    """It is looked at five times a second, for days."""
    folder(plan_path(tmp_path, MODEL))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        watched.look()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pipe_that_says_nothing(watched: WatchedPlan, tmp_path: Path) -> None:
    """Somebody holds its other end, and it is not waited for."""
    path = plan_path(tmp_path, MODEL)
    pipe(path)
    end = os.open(path, os.O_RDWR)
    try:
        assert (watched.look(), watched.plan) == (False, FIRST)
        assert "last good" in watched.fault
    finally:
        os.close(end)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda at, put: to_file(SECOND)[:at] + put + to_file(SECOND)[at + 1 :],
            st.integers(0, len(to_file(SECOND))),
            st.binary(max_size=3),
        ),
    )
)
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Either it is a plan, or what is wrong is told and the one before stays; a byte changed, left out or put in."""
    path = tmp_path_factory.getbasetemp() / "any-plan.json"
    path.write_bytes(to_file(FIRST))
    watched = WatchedPlan(path, MODEL)
    watched.look()
    path.unlink()
    path.write_bytes(content)
    changed = watched.look()
    assert watched.plan is not None
    assert changed == (watched.plan != FIRST)
    assert not (changed and watched.fault)


def test_a_reader_sees_one_plan_or_the_other(tmp_path: Path) -> None:
    """While two writers replace it in turn, no look finds half a file, and none is out of the two."""
    write_plan(tmp_path, FIRST)
    watched, over = WatchedPlan(plan_path(tmp_path, MODEL), MODEL), threading.Event()

    def write(plan: Plan) -> None:
        while not over.is_set():
            write_plan(tmp_path, plan)

    writers = [threading.Thread(target=write, args=(plan,)) for plan in (FIRST, SECOND)]
    for writer in writers:
        writer.start()
    seen = set()
    for _ in range(500):
        watched.look()
        assert watched.plan and not watched.fault, watched.fault
        seen.add(watched.plan.version)
    over.set()
    for writer in writers:
        writer.join()
    assert seen <= {FIRST.version, SECOND.version}


def test_a_writer_that_is_killed_leaves_the_plan_before(
    watched: WatchedPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the draft and its renaming."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_plan(tmp_path, SECOND)
    assert (watched.look(), watched.plan, watched.fault) == (False, FIRST, "")
