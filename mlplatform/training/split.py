"""The split by time: warm-up | training | gap | calibration | gap | evaluation, never random.

The gap is the label delay: at the instant a part begins, every label of the part before it could have been known. A
random split would let tomorrow teach yesterday, and the evaluation would promise what serving cannot keep.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Split
from mlplatform.errors import DataError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of request time: `start <= at < end`, both aware UTC."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%M} to {self.end:%Y-%m-%dT%H:%M}"


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where the time axis is cut, known before a row is read."""

    training: Window
    calibration: Window
    evaluation: Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Row positions of each part, ascending, and the windows they come from."""

    windows: Windows
    train: Rows
    calibration: Rows
    evaluation: Rows


def windows(*, start: datetime, as_of: datetime, spec: Split, gap: timedelta) -> Windows:
    """Cut the time from `start` to `as_of`.

    Parameters
    ----------
    start : aware UTC, begin of the first partition
    as_of : aware UTC, end of the evaluation window
    spec : lengths of warm-up, calibration and evaluation; training takes the rest
    gap : label delay

    Raises
    ------
    DataError
        Nothing is left for training; says how many more days are needed.
    """
    evaluation = Window(start=as_of - spec.evaluation, end=as_of)
    calibration = Window(start=evaluation.start - gap - spec.calibration, end=evaluation.start - gap)
    training = Window(start=start + spec.warm_up, end=calibration.start - gap)
    if training.end <= training.start:
        missing = training.start - training.end
        raise DataError(
            f"from {start:%Y-%m-%d} to {as_of:%Y-%m-%d} nothing is left to train on after warm-up, gaps, calibration "
            f"and evaluation. Land {missing // timedelta(days=1) + 1} more days, or shorten the windows of the split"
        )
    return Windows(training=training, calibration=calibration, evaluation=evaluation)


def split(at: pl.Series, *, start: datetime, as_of: datetime, spec: Split, gap: timedelta) -> Parts:
    """Assign rows to parts by the time of their request.

    Parameters
    ----------
    at : (n,) Datetime us, UTC
        Request times in any order; a null belongs nowhere.
    start, as_of, spec, gap : see `windows`

    Returns
    -------
    Row positions per part; rows of the warm-up, of the gaps, and from `as_of` on are in none.

    Raises
    ------
    DataError
        A part is empty; says how many more days are needed where that can be told.
    """
    cut = windows(start=start, as_of=as_of, spec=spec, gap=gap)
    return Parts(
        windows=cut,
        train=_rows(at, "training", cut.training),
        calibration=_rows(at, "calibration", cut.calibration),
        evaluation=_rows(at, "evaluation", cut.evaluation),
    )


def _rows(at: pl.Series, part: str, window: Window) -> Rows:
    inside = at.is_between(pl.lit(window.start), pl.lit(window.end), closed="left").fill_null(value=False)
    rows = np.flatnonzero(inside.to_numpy()).astype(np.int64)
    if len(rows):
        return rows
    first, last = at.min(), at.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        raise DataError(f"no row has a request time, so the {part} part is empty. Land days that hold requests")
    if last < window.start:
        days, whence = (window.start - last) // timedelta(days=1) + 1, f"the last request is of {last:%Y-%m-%d}"
    elif first >= window.end:
        days, whence = (first - window.end) // timedelta(days=1) + 1, f"the first request is of {first:%Y-%m-%d}"
    else:
        raise DataError(f"no request falls in the {part} part ({window}). Land its days, or lengthen that window")
    raise DataError(
        f"no request falls in the {part} part ({window}): {whence}. Land {days} more days, or shorten the windows"
    )
