"""A batch: requests that are answered together, and what came of them.

Column by column, since most of what is done is done once for all rows of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.scoring.booster import Matrix
from mlplatform.scoring.fallback import AnswerColumns
from serving.routing import UNPLANNED, Route
from serving.view_reader import ViewRead, revision_of

Scores = npt.NDArray[np.float64]


class Ask(NamedTuple):
    """One request, as far as it is understood before it waits for its batch."""

    values: tuple[Any, ...]
    """In the order of the declared request columns, as `request_frame` takes them."""

    at: int
    """The request's time, microseconds since 1970, UTC."""

    body: bytes
    """As it came."""

    request_id: str
    caller: str
    """Id of the API key; empty where keys are off."""

    canonical: bytes
    """What the request is called in the cache."""

    received: float
    """Seconds on the clock of deadlines."""

    deadline: float
    route: Route = UNPLANNED


@dataclass(frozen=True, slots=True)
class Asks:
    """Requests that are answered together, column by column; a table of them costs no object for each row."""

    at: Sequence[int]
    body: Sequence[bytes]
    """Empty where they came as a table, and not one by one."""

    request_id: Sequence[str]
    caller: Sequence[str]
    canonical: Sequence[bytes]
    received: Sequence[float]
    deadline: Sequence[float]
    route: Sequence[Route]

    @classmethod
    def of(cls, asks: Sequence[Ask]) -> Self:
        """Single requests side by side; there is one at least."""
        _, *columns = zip(*asks, strict=True)
        return cls(*columns)

    @classmethod
    def joined(cls, parts: Sequence["Asks"]) -> Self:
        """Some of them after each other."""
        return cls(*([each for part in parts for each in getattr(part, name)] for name in cls.__slots__))

    def chosen(self, rows: Sequence[int]) -> "Asks":
        """Some of them, in the order given."""
        first, last = rows[0], rows[-1] + 1
        if last - first == len(rows):
            return self.part(first, last)
        # Where they came as a table they have no bodies.
        columns = (getattr(self, name) for name in self.__slots__)
        return Asks(*([column[row] for row in rows] if column else column for column in columns))

    def __len__(self) -> int:
        return len(self.at)

    def part(self, start: int, end: int) -> "Asks":
        """Some of them that follow each other."""
        return Asks(*(getattr(self, name)[start:end] for name in self.__slots__))


@dataclass
class Batch:
    """A batch that has its answers, and all that is worth recording of how it came to them."""

    asks: Asks
    rows: pl.DataFrame
    """The requests as `Predictor.frame` gives them."""

    answers: AnswerColumns
    features: Matrix
    """(n, k) float32 of the rows; (0, k) where they could not be computed."""

    scores: Scores | None
    """(n,) or (n, classes) of the model; None where it did not answer."""

    views: Mapping[str, ViewRead]
    reason: str
    """Why the model, or a view, did not contribute; empty where all is as declared."""

    complete: bool
    """Whether every view could be read."""

    queue: float = 0.0
    """Seconds that its oldest row waited; then those that went into features, the way to the worker, scoring."""

    computing: float = 0.0
    hop: float = 0.0
    scoring: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """By row, from request to answer."""

    came: Sequence[int] = ()
    """By row, when the request came, nanoseconds since 1970, UTC: what the log has told once it tells again."""

    @property
    def revision(self) -> str:
        """Names what the features were made from."""
        return revision_of(self.views)

    def part(self, start: int, end: int) -> "Batch":
        """Some of its rows that follow each other."""
        if start == 0 and end >= len(self.asks):
            return self
        return replace(
            self,
            asks=self.asks.part(start, end),
            rows=self.rows[start:end],
            answers=self.answers.part(start, end),
            features=self.features[start:end],
            scores=None if self.scores is None else self.scores[start:end],
            views={view: read.part(start, end) for view, read in self.views.items()},
            seconds=self.seconds[start:end],
            came=self.came[start:end],
        )
