"""A function of the domain with one input: what the checks of pure functions are made on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from mlplatform.errors import DomainCodeRaised, MlplatformError

Days = Mapping[str, pl.DataFrame]
"""Frames by day, or by name."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One function of the domain with one input: what the checks of pure functions are made on."""

    what: str
    """The function, such as `view courier`."""

    where: str
    """The day or part that the input is of."""

    frames: Days
    """The input, by name; a function of one frame has one."""

    run: Callable[[Days], pl.DataFrame]
    """The function on such an input; raises whatever the domain raises."""

    elementwise: bool
    """Whether a row of the output is of the same row of the input, and of no other."""

    keys: tuple[str, ...] = ()
    """Columns that name a row of the output."""

    def call(self, frames: Days) -> pl.DataFrame:
        """What the function gives for copies of these frames."""
        return self.given({name: frame.clone() for name, frame in frames.items()})

    def given(self, frames: Days) -> pl.DataFrame:
        """What the function gives for these very frames, in an order that means something, its rows named by `keys`.

        Raises
        ------
        DomainCodeRaised
            It raised.
        """
        if not self.elementwise:
            return sorted_by(called(self.what, self.where, self.run, frames), self.keys)
        (rows,) = frames.values()
        named = rows.select([name for name in self.keys if name in rows.columns])
        given = called(self.what, self.where, self.run, frames)
        names = [name for name in named.columns if name not in given.columns]
        return given.with_columns(named.select(names).get_columns()) if given.height == rows.height else given


def called(what: str, where: str, function: Callable[..., T], *arguments: Any) -> T:
    """What a function of the domain gives; whatever it raises is told as its own fault.

    Raises
    ------
    DomainCodeRaised
        It raised something that is not a refusal of ours.
    """
    try:
        return function(*arguments)
    except MlplatformError:
        raise
    except Exception as error:
        raise DomainCodeRaised(what, where, error) from error


def sorted_by(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Rows in the order of their keys, then of everything else."""
    plain = [name for name in sorted(frame.columns) if not frame.schema[name].is_nested() and name not in keys]
    order = [name for name in keys if name in frame.columns] + plain
    return frame.sort(order, nulls_last=True) if order else frame
