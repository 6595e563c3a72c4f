"""A kill at any line of a module: what ends there runs no line more, not even a `finally`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any


class Killed(BaseException):
    """The code ends here."""


@contextmanager
def killed_at(line: int, *modules: ModuleType) -> Iterator[None]:
    """End the code of some modules before its `line`-th line is executed; after its last one, not at all.

    Lines that would still run while the kill goes up the stack, such as those of a `finally`, are ended too.
    """
    files = {module.__file__ for module in modules}
    executed = 0

    def trace(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        return look if frame.f_code.co_filename in files else None

    def look(_frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal executed
        if event == "line":
            executed += 1
            if executed >= line:
                raise Killed
        return look

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
