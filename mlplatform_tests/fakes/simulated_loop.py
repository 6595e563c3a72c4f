"""An event loop on simulated time: waiting costs nothing, and who would wait for ever is found out."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class WaitsForEver(AssertionError):
    """Nothing is ready and no timer is set, yet the main task is not done."""


class _NoFiles(selectors.SelectSelector):
    """Looks at no file: where a real one would wait, it moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise WaitsForEver
        self.now = round(self.now + timeout, 9)  # so that equal instants are equal, however they were reached
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Timers and tasks as in asyncio itself; `time()` moves when there is nothing else to do."""

    def __init__(self) -> None:
        self._files = _NoFiles()
        super().__init__(self._files)

    def time(self) -> float:
        """Simulated seconds."""
        return self._files.now


def simulate(main: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end on simulated time.

    Raises
    ------
    WaitsForEver
        It never comes to an end.
    """
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
