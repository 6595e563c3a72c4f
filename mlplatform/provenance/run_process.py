"""Which runs' processes are gone, so that a run whose process was killed is not waited for.

Dagster's default launcher cannot tell: a run killed in the middle stays "started" for ever. So a run announces itself
by a file that its process keeps locked; the kernel frees the lock when the process ends, however it ends. The lock of
another machine may not be seen here, so nothing is concluded from a free one until it is old. A container that is made
anew has another name than the one before it, and still the same kernel, which sees the locks of both.
"""

import fcntl
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

longest_opening = timedelta(minutes=1)
"""Between opening an announcement and writing it lie microseconds; what is empty for longer was killed there."""

longest_run_elsewhere = timedelta(days=1)
"""After it a run that another machine announced, and whose lock is free here, is taken for over: a machine that is gone
for good must not be waited for. The longest runs, a year of days, take hours."""

_boot_id = Path("/proc/sys/kernel/random/boot_id")

_held: dict[Path, int] = {}
"""Descriptors, open as long as this process lives: closing a file frees its lock."""


def announce_run(home: Path, run_id: str) -> None:
    """Say that this process executes a run; to be called by each of its steps."""
    path = _folder(home) / run_id
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(file, " ".join(_this_machine()).encode())
    _held[path] = file


def end_run(home: Path, run_id: str) -> None:
    """Say that this process is done with a run: one that executes hundreds would run out of files to hold open."""
    path = _folder(home) / run_id
    if path in _held:
        path.unlink(missing_ok=True)
        os.close(_held.pop(path))


def is_announced(home: Path, run_id: str) -> bool:
    """Whether some process has announced the run."""
    return (_folder(home) / run_id).exists()


def runs_without_process(home: Path) -> list[str]:
    """Announced runs whose process has ended: done, killed, or lost with its machine."""
    folder = _folder(home)
    return sorted(path.name for path in folder.iterdir() if _is_over(path)) if folder.exists() else []


def forget_run(home: Path, run_id: str) -> None:
    """Take a run's announcement away."""
    (_folder(home) / run_id).unlink(missing_ok=True)


def _is_over(path: Path) -> bool:
    if path in _held:
        return False
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            told = set(file.read().split())
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except (BlockingIOError, FileNotFoundError):
        return False
    if told & _this_machine():
        return True
    # Empty: its process has opened and not yet locked it.
    return age > (longest_run_elsewhere if told else longest_opening).total_seconds()


def _this_machine() -> set[str]:
    """Its name, which outlives a restart, and where there is one its kernel's id, which outlives a container."""
    return {socket.gethostname(), *(_boot_id.read_text().split() if _boot_id.exists() else ())}


def _folder(home: Path) -> Path:
    return home / "running"
