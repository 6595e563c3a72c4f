"""What every benchmark prints alike: its steps as they go on, and one line per aim."""

import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_holds: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def aim(name: str, found: float, word: str, limit: float, *, form: str = ".4g", limit_form: str = "g") -> None:
    """One aim, for people and scripts; a missed one is printed and does not fail the command.

    Parameters
    ----------
    word : `<`, `<=`, `>` or `>=`
    form, limit_form : how the two numbers are written
    """
    met = "met" if _holds[word](found, limit) else "short"
    print(f"aim  {name}  {found:{form}}  {word} {limit:{limit_form}}  {met}", flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """What is being done, and how long it took."""
    started = time.monotonic()
    print(f"▸ {name}", flush=True)
    yield
    print(f"  {time.monotonic() - started:.1f} s", flush=True)
