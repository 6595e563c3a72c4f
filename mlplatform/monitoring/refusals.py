"""Rows beside one that is refused: what is computed of many at once is computed again of halves, until it goes."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mlplatform.errors import DataError, DeclarationError

Places = npt.NDArray[np.intp]
Made = TypeVar("Made")

refusals_at_most = 128
"""Parts of the requests that are halved since code or tables refuse them. One request among 20,000 is found in 15: six
of them are told from the others. Fewer would lose rows beside them; where every row is refused, each costs a read."""


def by_parts(rows: int, make: Callable[[Places], Made]) -> tuple[list[tuple[Places, Made]], dict[int, str]]:
    """What is made of all rows but those that are refused; what is refused is halved, so that few are lost with one.

    Parameters
    ----------
    make : of some of the rows, by place

    Returns
    -------
    made : the places of each part, and what was made of it
    refused : place -> why
    """
    made: list[tuple[Places, Made]] = []
    refused: dict[int, str] = {}
    refusals = 0
    parts = deque([np.arange(rows)])
    while parts:
        part = parts.popleft()
        try:
            made.append((part, make(part)))
        except (DataError, DeclarationError) as error:
            refusals += 1
            if part.size > 1 and refusals <= refusals_at_most:
                parts.extend(np.array_split(part, 2))
            else:
                refused.update(dict.fromkeys(part.tolist(), str(error)))
    return made, refused
