"""A vector that was served, beside the one that is made again: whose fault it is where they differ.

The first feature that differs is looked at. Where the row of the view's table that was served is not the one that was
known then, it is the data; where values are the same and the code makes something else of them, it is what computes, or
the code. But a score that follows from the vector made again, and not from the one in the log, says that the log is
wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time

import numpy as np
import polars as pl

from mlplatform.reproducibility.replay.answered import Floats, Mask, close, same_bits
from mlplatform.reproducibility.replay.part import Part
from mlplatform.reproducibility.replay.rebuilt import Rebuilt
from mlplatform.reproducibility.replay.view_values import partition_of
from mlplatform.scoring.booster import Matrix


@dataclass(frozen=True, kw_only=True)
class Scores:
    """(n, outputs) each."""

    logged: Floats
    """NaN where the model gave none."""

    there: Mask
    """(n,) Rows to which the model gave any."""

    again: Floats
    """Of the vectors made again."""

    by_logged: Floats
    """Of the vectors in the log."""


class JudgedVectors:
    """Settles rows whose vector is another, or cannot be made again.

    Parameters
    ----------
    logged : (n, k) float32
    read : by view, what was read of the online store, as the log tells it
    """

    def __init__(
        self,
        part: Part,
        rebuilt: Rebuilt,
        logged: Matrix,
        read: Mapping[str, pl.DataFrame],
        scores: Scores,
    ) -> None:
        self._part = part
        self._rebuilt = rebuilt
        self._logged = logged
        self._read = read
        self._scores = scores
        self._names = part.bundle.manifest.features
        from_again = same_bits(scores.logged, scores.again) & scores.there
        from_logged = same_bits(scores.logged, scores.by_logged) & scores.there
        self._of_again, self._of_logged = from_again & ~from_logged, from_logged & ~from_again

    def judge(self) -> None:
        """Go through the rows."""
        part, rebuilt = self._part, self._rebuilt
        for view in rebuilt.views.values():
            for row in range(part.rows.height) if view.note else ():
                part.note(row, view.note)
        for row in rebuilt.publishing:
            part.note(int(row), "a newer value was on its way to the online store")
        for row, fault in rebuilt.damaged.items():
            part.findings.settle(part.places[row], "impossible", fault.cause, fault.reason)
        for row, error in rebuilt.raised.items():
            other = part.elsewhere(row)
            reason = f"{other.reason}: {error}" if other else error
            part.findings.settle(part.places[row], "diverged", other.cause if other else "code", reason)
        differing = rebuilt.other
        for row in part.open():
            if differing[row].any():
                self._differs(int(row), int(differing[row].argmax()))

    def _differs(self, row: int, column: int) -> None:
        """The vector is another, first in this column."""
        part, place = self._part, self._part.places[row]
        name = self._names[column]
        then, now = self._logged[row, column], self._rebuilt.vectors[row, column]
        what = f"{name} was {_shown(then)}, and is {_shown(now)}"
        if self._of_again[row] and not part.verified[row]:
            reason = f"{what}, and the score follows from the latter: the row is not what was written"
            part.findings.settle(place, "diverged", "record", reason)
            return
        moved = [view for view in self._rebuilt.views if self._moved(view, row)]
        of_view = self._rebuilt.view_of.get(name)
        if of_view in moved or (of_view is None and moved):
            self._other_data(row, name, of_view or moved[0])
            return
        if not part.verified[row] and not self._of_logged[row]:
            part.findings.settle(place, "diverged", "record", f"{what}: the row is not what was written")
            return
        if of_view is not None:
            reason = f"{what}: the online store held another value of {of_view} than its table has under that revision"
            part.findings.settle(place, "diverged", "data", reason)
            return
        other = part.elsewhere(row)
        if other is None:
            reason = f"{what}: the bundle's feature code makes something else of the same values"
            part.findings.settle(place, "diverged", "code", reason)
            return
        # Where the model gave no score, what its tier says is what counts, and is looked at next.
        near = not self._scores.there[row] or bool(close(self._scores.logged, self._scores.again)[row])
        part.findings.differs(place, other.cause, f"{other.reason}: {what}", within=near)

    def _moved(self, view: str, row: int) -> bool:
        """Whether another row of a view's table was served than was known then; older logs do not tell which was."""
        served = self._served(view, row)
        told = served != (None, None) or not self._was_present(view, row)
        return told and served != self._known(view, row)

    def _was_present(self, view: str, row: int) -> bool:
        return view in self._read and self._read[view]["status"][row] == "present"

    def _served(self, view: str, row: int) -> tuple[int | None, datetime | None]:
        if view not in self._read:
            return None, None
        revision, event_time = self._read[view].select("revision", "event_time").row(row)
        return revision, event_time

    def _known(self, view: str, row: int) -> tuple[int | None, datetime | None]:
        revision, event_time = self._rebuilt.origins[view].select("revision", "event_time").row(row)
        return revision, event_time

    def _other_data(self, row: int, feature: str, view: str) -> None:
        place, at = self._part.places[row], self._part.requests["at"][row]
        served, known = self._served(view, row), self._known(view, row)
        if stone := self._rebuilt.views[view].removed(at, *served):
            self._part.findings.settle(place, "impossible", "removed", stone)
            return
        day = self._rebuilt.origins[view]["partition"][row]
        known_as = "nothing" if known[0] is None else f"revision {known[0]} of {day}"
        served_as = "nothing" if served[0] is None else f"revision {served[0]} of {_day_of(served[1])}"
        reason = f"{feature} of {view} differs: {served_as} was served, {known_as} was known then"
        self._part.findings.settle(place, "diverged", "data", reason)


def _day_of(event_time: datetime | None) -> str:
    """The partition of a value that is dated by the end of its window, else when it was true."""
    if event_time is None:
        return "no day"
    if event_time.time() == time():
        return partition_of(event_time)
    return f"what was true at {event_time.isoformat()}"


def _shown(value: np.float32) -> str:
    return "missing" if np.isnan(value) else repr(float(value))
