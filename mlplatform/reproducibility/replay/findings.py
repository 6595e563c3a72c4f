"""Findings: what a replay has come upon so far, by row; the first thing that differs settles a row."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mlplatform.reproducibility.replay.verdict import Cause, Outcome, Verdict

Places = npt.NDArray[np.intp]


class Findings:
    """Of some rows, by place."""

    def __init__(self, rows: int) -> None:
        self.difference = np.zeros(rows)
        """Largest absolute one of score or probability."""
        self._settled: dict[int, Verdict] = {}
        self._within: dict[int, Verdict] = {}
        self._notes: dict[int, list[str]] = {}

    def settle(self, place: int, outcome: Outcome, cause: Cause, reason: str) -> None:
        """Nothing more is looked for; what was found before stays the cause."""
        place = int(place)
        if place in self._settled:
            return
        before = self._within.get(place)
        found = Verdict(outcome=outcome, cause=cause, reason=reason)
        if before is not None:
            found = Verdict(outcome=outcome, cause=before.cause, reason=f"{before.reason}; {reason}")
        self._settled[place] = found

    def differs(self, place: int, cause: Cause, reason: str, *, within: bool) -> None:
        """It differs. Within tolerance it goes on: what is told may still be the same."""
        if within:
            found = Verdict(outcome="within_tolerance", cause=cause, reason=reason)
            self._within.setdefault(int(place), found)
        else:
            self.settle(place, "diverged", cause, reason)

    def note(self, places: Iterable[int], text: str) -> None:
        """What is worth knowing of some rows and changes nothing."""
        for place in places:
            self._notes.setdefault(int(place), []).append(text)

    def open(self, places: Iterable[int]) -> Places:
        """Those that nothing has settled yet."""
        return np.array([place for place in places if int(place) not in self._settled], dtype=np.intp)

    def verdict(self, place: int) -> Verdict:
        """What it came to."""
        found = self._settled.get(place) or self._within.get(place) or Verdict(outcome="exact")
        notes = tuple(self._notes.get(place, ()))
        return Verdict(outcome=found.outcome, cause=found.cause, reason=found.reason, notes=notes)
