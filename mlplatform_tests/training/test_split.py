"""The split by time: order, gaps, no overlap, and empty parts."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.model import Split
from mlplatform.errors import DataError
from mlplatform.training.split import split, windows

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
cut = Split(warm_up=3 * DAY, calibration=4 * DAY, evaluation=5 * DAY)


def hourly(hours: int) -> pl.Series:
    """One request an hour from the start."""
    return pl.Series([START + timedelta(hours=each) for each in range(hours)], dtype=pl.Datetime("us", "UTC"))


def test_parts_are_where_the_calendar_says() -> None:
    """30 days: training from day 3 to day 19, calibration from 20 to 24, evaluation from 25 to 30, to the hour."""
    parts = split(hourly(24 * 40), start=START, as_of=START + 30 * DAY, spec=cut, gap=DAY)
    assert parts.train.tolist() == list(range(24 * 3, 24 * 19))
    assert parts.calibration.tolist() == list(range(24 * 20, 24 * 24))
    assert parts.evaluation.tolist() == list(range(24 * 25, 24 * 30))


@given(
    hours=st.lists(st.one_of(st.none(), st.integers(-100, 24 * 45)), max_size=40),
    gap_hours=st.integers(0, 72),
)
def test_no_part_knows_the_labels_of_the_next(hours: list[int | None], gap_hours: int) -> None:
    """Whatever the rows and their order: parts do not overlap, and a full gap lies between two of them."""
    gap = timedelta(hours=gap_hours)
    as_of = START + 40 * DAY
    certain = [24 * 10, 24 * 40 - 24 * 5 - gap_hours - 1, 24 * 40 - 1]
    times = [None if each is None else START + timedelta(hours=each) for each in [*hours, *certain]]
    parts = split(pl.Series(times, dtype=pl.Datetime("us", "UTC")), start=START, as_of=as_of, spec=cut, gap=gap)
    chosen = np.concatenate([parts.train, parts.calibration, parts.evaluation])
    assert len(set(chosen.tolist())) == len(chosen)
    known = {each: time for each, time in enumerate(times) if time is not None}
    assert set(chosen.tolist()) <= set(known)
    train, calibration, evaluation = (
        [known[row] for row in part.tolist()] for part in (parts.train, parts.calibration, parts.evaluation)
    )
    assert min(train) >= START + cut.warm_up
    assert max(train) + gap < parts.windows.calibration.start + timedelta(microseconds=1)
    assert min(calibration) - max(train) > gap
    assert min(evaluation) - max(calibration) > gap
    assert max(evaluation) < as_of


def test_too_short_a_history_says_how_many_days_are_missing() -> None:
    """14 days of windows and gaps leave nothing of 10 days: 5 more give the first day of training."""
    with pytest.raises(DataError, match="Land 5 more days"):
        windows(start=START, as_of=START + 10 * DAY, spec=cut, gap=DAY)
    windows(start=START, as_of=START + 15 * DAY, spec=cut, gap=DAY)


def test_an_empty_part_says_how_many_days_are_missing() -> None:
    """Requests that end before the evaluation window begins on day 25."""
    with pytest.raises(DataError, match=r"evaluation part .* Land 3 more days"):
        split(hourly(24 * 23), start=START, as_of=START + 30 * DAY, spec=cut, gap=DAY)


def test_requests_that_begin_too_late_are_told() -> None:
    """Requests that begin after the training window leave nothing to train on."""
    with pytest.raises(DataError, match=r"training part .* the first request is of 2013-01-21"):
        split(hourly(24 * 30)[24 * 20 :], start=START, as_of=START + 30 * DAY, spec=cut, gap=DAY)


def test_no_requests_at_all_are_told() -> None:
    """Only nulls: no row was ever a request."""
    with pytest.raises(DataError, match="no row has a request time"):
        split(pl.Series([None], dtype=pl.Datetime("us", "UTC")), start=START, as_of=START + 30 * DAY, spec=cut, gap=DAY)
