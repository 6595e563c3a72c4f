"""How the days of a sample are cut: the window of the views, the parts of the split, and the rows that each will hold.

All are shares of what there is, so that the first model can be trained and judged on the sample alone. Where that is
too little, it says how much is needed; it never makes a part so small that its figures mean nothing.
"""

import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import polars as pl

from mlplatform.domain.model import Split, Task
from mlplatform.errors import DataError
from mlplatform.new_domain.sampled import instant
from mlplatform.training.split import split

windows = (3, 7, 14, 28)
"""Days that a view may look back, and days in which an entity should have been seen a few times."""

few_times = 3

calibration_share, evaluation_share = 0.15, 0.25
"""Of the days that windows and label delays leave."""

least_days = 10
"""Left for training, calibration and evaluation: fewer cannot be cut in three."""

least_rows = {"training": 200, "calibration": 50, "evaluation": 100}
"""With fewer the gate would call every model inconclusive."""

least_of_a_kind = 5
"""Rows of the rarer outcome in training and in evaluation."""


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The days of the sample and how they are cut."""

    first: date
    last: date
    window: int
    """Days that a view looks back."""

    window_why: str
    label_delay: timedelta
    split: Split
    training_rows: int
    evaluation_rows: int
    busiest: int
    """Rows of the day with most."""

    @property
    def days(self) -> int:
        """Days of the sample, first and last included."""
        return (self.last - self.first).days + 1


def horizon_of(
    rows: pl.DataFrame, *, entities: int, delay: timedelta, publishing_delay: timedelta, task: Task
) -> Horizon:
    """Cut the days of a sample.

    Parameters
    ----------
    rows : (n, 3) `at` and `event_time` (Datetime us, UTC), `outcome` (null: none)
    entities : how many things have a history
    delay : from the request until nearly every outcome is known
    publishing_delay : of the domain

    Raises
    ------
    DataError
        The days, the rows or the rows of the rarer outcome do not suffice; says how many are needed.
    """
    days = rows["event_time"].dt.date()
    first, last = days.min(), days.max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    span = (last - first).days + 1
    seen_a_day = rows.height / (entities * span)
    wanted = next((each for each in windows if each * seen_a_day >= few_times), windows[-1])
    window = max(1, min(wanted, span // 6))
    gaps = 3 * math.ceil(delay / timedelta(days=1))
    left = span - window - gaps
    if left < least_days:
        raise DataError(
            f"the sample spans {span} days: a window of {window} and three times the {_told(delay)} until an outcome "
            f"is known leave {max(0, left)} to train, calibrate and evaluate on. Take a sample of {least_days - left} "
            "more days"
        )
    cut = Split(
        warm_up=timedelta(days=window),
        calibration=timedelta(days=max(1, round(calibration_share * left))),
        evaluation=timedelta(days=max(2, round(evaluation_share * left))),
    )
    why = (
        f"each of {entities} is seen {seen_a_day * window:.1f} times in {window} days"
        if window == wanted
        else f"a sixth of the sample's {span} days; each of {entities} is seen {seen_a_day * window:.1f} times in them"
    )
    end = datetime.combine(last + timedelta(days=1), time(), rows["event_time"][0].tzinfo) + publishing_delay
    labelled = rows.filter(pl.col("outcome").is_not_null()).sort("at")
    parts = split(
        labelled["at"].cast(instant),
        start=datetime.combine(first, time(), end.tzinfo),
        as_of=end - delay,
        spec=cut,
        gap=delay,
    )
    counts = {"training": len(parts.train), "calibration": len(parts.calibration), "evaluation": len(parts.evaluation)}
    short = {part: least_rows[part] / rows for part, rows in counts.items() if rows < least_rows[part]}
    if short:
        part = max(short, key=lambda name: short[name])
        raise DataError(
            f"the {part} part of the sample has {counts[part]} rows with an outcome; {least_rows[part]} are needed. "
            f"Take a sample of {math.ceil(short[part] * labelled.height):,} rows or more, over as many days"
        )
    if task == "binary":
        for part, chosen in (("training", parts.train), ("evaluation", parts.evaluation)):
            yes = int(labelled["outcome"].gather(chosen.tolist()).sum())
            if min(yes, len(chosen) - yes) < least_of_a_kind:
                raise DataError(
                    f"the {part} part of the sample has {min(yes, len(chosen) - yes)} rows of the rarer outcome; "
                    f"{least_of_a_kind} are needed to learn or to judge anything. Take a longer sample"
                )
    return Horizon(
        first=first,
        last=last,
        window=window,
        window_why=why,
        label_delay=delay,
        split=cut,
        training_rows=counts["training"],
        evaluation_rows=counts["evaluation"],
        busiest=int(days.value_counts()["count"].max()),  # type: ignore[arg-type]  # of counts
    )


def _told(delay: timedelta) -> str:
    hours = delay / timedelta(hours=1)
    return f"{hours:g} hours" if hours < 48 else f"{math.ceil(hours / 24)} days"
