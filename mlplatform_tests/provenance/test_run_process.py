"""Which runs' processes are gone: told by the kernel, whatever killed them."""

import multiprocessing
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

from mlplatform.provenance.run_process import announce_run, forget_run, is_announced, runs_without_process

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


def test_a_run_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    """A lock on another machine cannot be seen here, so a free one means nothing."""
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "elsewhere").write_text("another-host")
    (tmp_path / "running" / "just opened").touch()
    assert runs_without_process(tmp_path) == []
