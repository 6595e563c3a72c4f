"""An evaluation: every figure that the promotion gate and a reader look at, as one immutable record.

It holds figures and no opinion; `rollout.gate` has the opinion. A figure that could not be computed is None, never 0.
"""

from dataclasses import dataclass

import msgspec

from mlplatform.domain.model import Task
from mlplatform.errors import DataError
from mlplatform.training.metrics import Interval


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How fast the model scores inside the process, with one thread."""

    p50_ms: float | None
    """Median time to score one row."""

    p99_ms: float | None
    rows_per_second: float | None
    """In batches of 1,024."""

    calls: int = 0


@dataclass(frozen=True, kw_only=True)
class Immaturity:
    """How many labels the cut-off leaves out, and which way that bends what is left."""

    requests: int
    """Requests asked in the last label delay before the edge, which is one label delay before the cut-off."""

    pending: int
    """Those whose label was not yet available at the edge; all of them have it by now."""

    mean_early: float | None = None
    """Mean label of those that had it at the edge."""

    mean_all: float | None = None
    """Mean label of all of them. Far from `mean_early`: fast labels are not like slow ones."""

    @property
    def share(self) -> float | None:
        """Share of requests without their label."""
        return self.pending / self.requests if self.requests else None


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """One value of a declared segment."""

    segment: str
    value: str
    rows: int
    judged: bool
    """False: fewer rows than the segment's `min_rows`, so there are no figures."""

    metrics: dict[str, dict[str, Interval]]
    """Model (`candidate`, `champion`, `naive`, `simple`) -> metric -> figure."""

    differences: dict[str, dict[str, Interval]]
    """Other model -> metric -> candidate − other, on the same rows and draws."""


@dataclass(frozen=True, kw_only=True)
class CurveBin:
    """One point of the calibration curve."""

    rows: int
    mean_score: float
    observed: float
    """Share of label 1 (binary) or of right answers (multiclass) among these rows."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of a candidate on the evaluation part, beside what it must beat, on the same rows."""

    model: str
    task: Task
    rows: int
    days: int
    seed: int
    resamples: int
    metrics: dict[str, dict[str, Interval]]
    """Model (`candidate`, `champion`, `naive`, `simple`) -> metric -> figure. `champion` is absent without one."""

    differences: dict[str, dict[str, Interval]]
    """Other model -> metric -> candidate − other."""

    segments: tuple[SegmentResult, ...]
    calibration_curve: tuple[CurveBin, ...]
    """Empty for a regression."""

    roc: tuple[tuple[float, float], ...]
    """False-positive and true-positive rate, at most 201 points; empty unless binary."""

    importance: dict[str, float]
    """Feature -> share of the gain of all splits."""

    immaturity: Immaturity | None
    latency: Latency | None
    parity: float | None
    """Largest absolute difference between scores of the exported bundle and of the model as trained."""

    def to_json(self) -> str:
        """The record as JSON; floats come back to the bit, a figure that is no number as null."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """What `to_json` wrote.

        Raises
        ------
        DataError
            The text is no evaluation.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise DataError(f"this is no evaluation ({error}); evaluate the model again") from error
