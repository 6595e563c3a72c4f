"""The `mlplatform` command in a process of its own, which may be made to die, or to meet another, at one exact moment.

The processes are forked from a server that has nothing but the heavy imports behind it: what a run does is real, but
the 10 s of imports before it are spent once.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

SECONDS = 90.0
"""Time a command gets; a few seconds of work on a machine where other tests run."""

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "mlplatform.cli.command",
        "mlplatform.definitions",
        "mlplatform.operations.jobs",
        "great_expectations",
        "great_expectations.expectations.core.expect_column_sum_to_be_between",
        "mlplatform_tests.fakes.run_process",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment of a run: the n-th call of some function."""

    function: str
    """`module:qualified.name`; replaced in the child only."""

    call: int = 1
    where: str = ""
    """Counts only calls in whose arguments this text is found: the name of a table, a path."""

    after: bool = False
    """Whether the moment is when the call has returned; else it is when it begins."""

    half_written: bool = False
    """Whether half of the file that the call has written is gone, as if death came in the middle of it."""


def start(
    home: Path,
    *arguments: str,
    log: Path,
    die_at: Moment | None = None,
    meet_at: Moment | None = None,
    meeting: Barrier | None = None,
) -> BaseProcess:
    """Start `mlplatform` with `arguments` on a home; what it says goes into `log`."""
    child = processes.Process(target=_run, args=(str(home), arguments, str(log), die_at, meet_at, meeting))
    child.start()
    return child


def finish(child: BaseProcess) -> int:
    """Wait for a command and give its exit code; −9 where it was killed."""
    child.join(SECONDS)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise AssertionError(f"the command took more than {SECONDS:.0f} s")
    return child.exitcode


def _run(
    home: str,
    arguments: Sequence[str],
    log: str,
    die_at: Moment | None,
    meet_at: Moment | None,
    meeting: Barrier | None,
) -> None:
    from mlplatform.cli.command import app_main

    os.environ["MLPLATFORM_HOME"] = home
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if die_at is not None:
        _intercept(die_at, _die)
    if meet_at is not None and meeting is not None:
        _intercept(meet_at, lambda: _meet(meeting))
    sys.argv = ["mlplatform", *arguments]
    app_main()


def _intercept(moment: Moment, act: Callable[[], None]) -> None:
    module, _, path = moment.function.partition(":")
    owner: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)
    calls = 0

    @wraps(real)
    def intercepted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        counts = any(moment.where in f"{each} {getattr(each, 'name', '')}" for each in given)
        calls += counts
        now = counts and calls == moment.call
        if now and not moment.after:
            act()
        result = real(*given, **named)
        if now and moment.after:
            if moment.half_written:
                _halve(Path(str(given[0])))
            act()
        return result

    setattr(owner, name, intercepted)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _meet(meeting: Barrier) -> None:
    meeting.wait(SECONDS)
