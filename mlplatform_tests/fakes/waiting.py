"""Waiting for what other processes do: looked at again and again, for so long and no longer."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], *, seconds: float, what: str) -> Found:
    """What `look` finds as soon as it finds something true; an `AssertionError` that names it when time is over."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen {found!r}")
        time.sleep(0.1)
