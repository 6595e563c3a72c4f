"""Whether what was streamed is what the tables give: the same instants computed again, compared to the bit.

The other way round on purpose: from the tables as they were materialised, over the facts of all entities and not of
those that were touched alone. So it finds a view whose values of one entity depend on others, a fact that the stream
saw and the tables lack, and code that is not the same on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import blake2b

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.features.streaming.record import arrivals_record, values_record
from mlplatform.features.tables import Tables
from mlplatform.features.view import compute_view, look_back_days
from mlplatform.provenance.platform import Platform

instants_at_most = 100
"""Of a view and day that are computed again, chosen by hash: one takes some 10 ms where the window has 30,000 facts, so
a day of five views some seconds. All of them, where there are no more."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that was streamed and that the tables do not give."""

    view: str
    feature: str
    entity: str
    instant: datetime
    streamed: object
    batch: object

    def __str__(self) -> str:
        return (
            f"{self.view}: {self.feature} of {self.entity} at {self.instant:%Y-%m-%dT%H:%M:%S.%fZ} was streamed as "
            f"{self.streamed!r}, the tables give {self.batch!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was compared of a day, and what was found."""

    instants: int
    values: int
    differences: tuple[Difference, ...]


def compare_streamed(platform: Platform, domain: Domain, day: str) -> Compared:
    """Compute again what was streamed on a day.

    Raises
    ------
    MissingPartition
        The tables lack a day of a window.
    """
    instants, values, differences = 0, 0, list[Difference]()
    for view in domain.views:
        if isinstance(view.schedule, AsFactsArrive):
            of_view = _compare(platform, domain, view, date.fromisoformat(day))
            instants += of_view.instants
            values += of_view.values
            differences += of_view.differences
    return Compared(instants=instants, values=values, differences=tuple(differences))


def _compare(platform: Platform, domain: Domain, view: FeatureView, day: date) -> Compared:
    streamed = values_record(platform.home, domain, view, platform.clock).rows(day, day)
    if streamed.is_empty():
        return Compared(instants=0, values=0, differences=())
    facts = _facts_seen(platform, domain, view, day)
    wanted = _sample(streamed.get_column("_instant").unique().sort().to_list())
    compared, differences = 0, list[Difference]()
    for instant in wanted:
        theirs = streamed.filter(pl.col("_instant") == instant)
        seen = facts.filter(pl.col("_seen_from") <= instant).drop("_seen_from")
        window = seen.filter(pl.col("event_time").is_between(instant - view.look_back, instant, closed="left"))
        order = ["event_time", *(name for name in window.columns if name != "event_time")]
        batch = compute_view(view, window.sort(order, maintain_order=True), instant)
        compared += theirs.height * len(view.features)
        differences += _differences(view, instant, theirs, batch)
    return Compared(instants=len(wanted), values=compared, differences=tuple(differences))


def _facts_seen(platform: Platform, domain: Domain, view: FeatureView, day: date) -> pl.DataFrame:
    """Facts of the day's windows, with the instant from which the stream saw each; null: it never did."""
    table = Tables(platform, domain).facts(view.facts)
    first = max(domain.start, day - timedelta(days=look_back_days(view)))
    days = [(first + timedelta(days=number)).isoformat() for number in range((day - first).days + 1)]
    facts = table.read(list(table.current(days))).drop("available_at")
    record = arrivals_record(platform.home, domain, view.facts, platform.clock)
    arrivals = record.rows(first, day).sort("_instant")
    names = facts.columns
    nth = pl.int_range(pl.len()).over(names).alias("_nth")
    arrived = facts.with_columns(nth).join(
        arrivals.with_columns(nth), on=[*names, "_nth"], how="left", nulls_equal=True, maintain_order="left"
    )
    before = pl.when(pl.col("event_time") < record.first_instant()).then(pl.col("event_time"))
    return arrived.with_columns(pl.coalesce("_instant", before).alias("_seen_from")).drop("_nth", "_instant")


def _sample(instants: Sequence[datetime]) -> list[datetime]:
    by_hash = sorted(instants, key=lambda each: blake2b(each.isoformat().encode(), digest_size=8).digest())
    return sorted(by_hash[:instants_at_most])


def _differences(view: FeatureView, instant: datetime, streamed: pl.DataFrame, batch: pl.DataFrame) -> list[Difference]:
    joined = streamed.join(batch, on=list(view.entity), how="left", suffix="_batch", maintain_order="left")
    found = []
    for name in (*(feature.name for feature in view.features), "event_time"):
        here, there = joined.get_column(name), joined.get_column(f"{name}_batch")
        for row in np.flatnonzero(~_same(here, there)).tolist():
            entity = ", ".join(str(joined[row, key]) for key in view.entity)
            found.append(
                Difference(
                    view=view.name, feature=name, entity=entity, instant=instant, streamed=here[row], batch=there[row]
                )
            )
    return found


def _same(here: pl.Series, there: pl.Series) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """(n,) whether values are equal to the bit, nulls to nulls."""
    null = (here.is_null() == there.is_null()).to_numpy()
    if here.dtype.is_float():
        bits = f"i{4 if here.dtype == pl.Float32() else 8}"
        equal = here.fill_null(0).to_numpy().view(bits) == there.fill_null(0).to_numpy().view(bits)
    else:
        equal = here.eq_missing(there).to_numpy()
    return np.asarray(null & equal, dtype=np.bool_)
