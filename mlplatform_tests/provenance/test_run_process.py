"""Which runs' processes are gone: told by the kernel, whatever killed them."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from mlplatform.provenance.run_process import (
    announce_run,
    forget_run,
    is_announced,
    longest_opening,
    longest_run_elsewhere,
    runs_without_process,
)

processes = multiprocessing.get_context("spawn")


def _announce_and_wait(home: str, announced: Event, leave: Event) -> None:
    announce_run(Path(home), "theirs")
    announced.set()
    leave.wait(60)


def test_a_run_is_without_process_once_its_process_is_killed(tmp_path: Path) -> None:
    """Not while it lives, nor when it announces itself again; at once when it is dead; then it can be forgotten."""
    announced, leave = processes.Event(), processes.Event()
    child = processes.Process(target=_announce_and_wait, args=(str(tmp_path), announced, leave))
    child.start()
    try:
        assert announced.wait(60)
        announce_run(tmp_path, "ours")
        announce_run(tmp_path, "ours")
        assert runs_without_process(tmp_path) == []
        assert is_announced(tmp_path, "theirs") and not is_announced(tmp_path, "unheard of")
    finally:
        child.kill()
        child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert runs_without_process(tmp_path) == ["theirs"]
    forget_run(tmp_path, "theirs")
    assert runs_without_process(tmp_path) == []
    assert not is_announced(tmp_path, "theirs")


def aged(path: Path, age: timedelta) -> None:
    """Let a file have been written so long ago."""
    at = time.time() - age.total_seconds()
    os.utime(path, (at, at))


def test_a_run_of_another_machine_is_waited_for_a_day(tmp_path: Path) -> None:
    """Its lock may not be seen here, so a free one means nothing; but a machine may be gone for good."""
    theirs = tmp_path / "running" / "elsewhere"
    theirs.parent.mkdir()
    theirs.write_text("another-host another-kernel")
    aged(theirs, longest_run_elsewhere - timedelta(minutes=1))
    assert runs_without_process(tmp_path) == []
    aged(theirs, longest_run_elsewhere + timedelta(minutes=1))
    assert runs_without_process(tmp_path) == ["elsewhere"]


def test_a_run_killed_before_it_could_write_its_announcement_is_over(tmp_path: Path) -> None:
    """Not at once: another may just be about to lock and to write it."""
    empty = tmp_path / "running" / "opened"
    empty.parent.mkdir()
    empty.touch()
    assert runs_without_process(tmp_path) == []
    aged(empty, longest_opening + timedelta(seconds=1))
    assert runs_without_process(tmp_path) == ["opened"]


def test_a_container_that_is_made_anew_knows_the_runs_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has another name and runs on the same kernel, which has freed the lock; a restart changes the kernel only."""
    ours = tmp_path / "running" / "ours"
    ours.parent.mkdir()
    ours.write_text(f"removed-container {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}")
    assert runs_without_process(tmp_path) == ["ours"]
    ours.write_text("this-host kernel-before-the-restart")
    assert runs_without_process(tmp_path) == []
    monkeypatch.setattr("socket.gethostname", lambda: "this-host")
    assert runs_without_process(tmp_path) == ["ours"]
