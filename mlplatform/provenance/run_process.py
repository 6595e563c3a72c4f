"""Which runs' processes are gone, so that a run whose process was killed is not waited for.

Dagster's default launcher cannot tell: a run killed in the middle stays "started" for ever. So a run announces itself
by a file that its process keeps locked; the kernel frees the lock when the process ends, however it ends. On another
machine a lock says nothing, and nothing is concluded from it.
"""

import fcntl
import os
import socket
from pathlib import Path

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
    os.write(file, socket.gethostname().encode())
    _held[path] = file


def is_announced(home: Path, run_id: str) -> bool:
    """Whether some process has announced the run."""
    return (_folder(home) / run_id).exists()


def runs_without_process(home: Path) -> list[str]:
    """Announced runs whose process, on this machine, has ended: done or killed."""
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
            # Empty: its process has opened and not yet locked it.
            return file.read() == socket.gethostname()
    except (BlockingIOError, FileNotFoundError):
        return False


def _folder(home: Path) -> Path:
    return home / "running"
