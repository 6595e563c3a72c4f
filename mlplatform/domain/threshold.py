"""`Threshold`: a number that decides something, and why it is that number."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher"]
"""Which way is better."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A number that decides something, and the reason why it is that number."""

    value: float
    reason: str
