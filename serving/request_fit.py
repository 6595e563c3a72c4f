"""The fit: how requests as one model version reads them become those of another.

Arms may have been trained with other code, which may declare other columns. Callers send what the champion asks for. A
column that came since is null, if it may be; one that went is passed over. What cannot be told so, a version does not
fit: it neither answers nor scores in the shadow, and says why.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mlplatform.domain.column import Column


class RequestFit:
    """From the columns of one version to those of another.

    Parameters
    ----------
    given, wanted : request columns, in declared order
    """

    def __init__(self, given: Sequence[Column], wanted: Sequence[Column]) -> None:
        there = {column.name: (place, column) for place, column in enumerate(given)}
        self.fault = "; ".join(filter(None, (_fault(there, column) for column in wanted)))
        """Why it does not fit; empty where it does."""

        places = [there[column.name][0] if column.name in there else None for column in wanted]
        self._same = places == list(range(len(given)))
        self._places = places
        self._wanted = {column.name: column.dtype for column in wanted}

    def values(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of one request, in the order wanted."""
        if self._same:
            return values
        return tuple(None if place is None else values[place] for place in self._places)

    def rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Requests with `at`."""
        if self._same:
            return rows
        missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in self._wanted.items() if name not in rows]
        return rows.with_columns(missing).select(*self._wanted, "at")


def _fault(there: dict[str, tuple[int, Column]], column: Column) -> str:
    if column.name not in there:
        return "" if column.nullable else f"it needs {column.name}, which requests do not have"
    given = there[column.name][1]
    if given.dtype != column.dtype:
        return f"it reads {column.name} as {column.dtype}, and requests are read as {given.dtype}"
    if given.nullable and not column.nullable:
        return f"it needs {column.name}, which requests may leave out"
    return ""
