"""What is kept of the days that were judged before: counts, figures and early labels, and windows made of them."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.stage import Stage
from mlplatform.features.tables import day_range
from mlplatform.monitoring.outcomes.early import EarlyBias, days_compared, early_bias
from mlplatform.monitoring.outcomes.model_day import Part
from mlplatform.monitoring.outcomes.tables import bins_table, days_table, early_schema, early_table, figures_table
from mlplatform.monitoring.outcomes.tally import figure_schema, figures, tally_of_days
from mlplatform.provenance.platform import Platform

DayParts = Mapping[str, tuple[pl.DataFrame, pl.DataFrame]]
"""Day -> its figures and bins."""


class KeptDays:
    """Some days as they were judged; those that never were are left out."""

    def __init__(self, platform: Platform, domain: Domain, days: Sequence[str]) -> None:
        there = list(days_table(platform, domain).current(days))

        def read(table: Stage) -> pl.DataFrame:
            return table.read(there, provenance=True).rename({"_partition": "day"})

        self.counts = read(days_table(platform, domain))
        self._figures = read(figures_table(platform, domain))
        self._bins = read(bins_table(platform, domain))
        self._early = read(early_table(platform, domain))

    def mature(self, model: str) -> pl.DataFrame:
        """Counts of a model's mature days, the oldest first."""
        return self.counts.filter(pl.col("model") == model, "mature").sort("day")

    def parts(self, model: str) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
        """Figures and bins of its mature days."""
        own = pl.col("model") == model
        return {
            day: (
                self._figures.filter(own, pl.col("day") == day).drop("day"),
                self._bins.filter(own, pl.col("day") == day).drop("day"),
            )
            for day in self.mature(model)["day"]
        }

    def early_bias(self, model: str, hours: float) -> EarlyBias | None:
        """How labels that are in so many hours after the end of a day differ from all of them."""
        own = self._early.filter(pl.col("model") == model, pl.col("day").is_in(self.mature(model)["day"].implode()))
        return early_bias([each.select(list(early_schema)) for each in own.partition_by("day")], model, hours)


class History:
    """The mature days before a day, as far back as anything looks."""

    def __init__(self, platform: Platform, domain: Domain, day: str) -> None:
        self._day = date.fromisoformat(day)
        self.kept = KeptDays(platform, domain, day_range(self._back(days_compared), self._back(1)))

    def _back(self, days: int) -> str:
        return (self._day - timedelta(days=days)).isoformat()

    def window(self, part: Part, days: int) -> tuple[int, pl.DataFrame]:
        """How many mature days there are among so many up to this one, and their figures, as `figure_schema`."""
        of = {day: kept for day, kept in self.kept.parts(part.model.name).items() if day > self._back(days)}
        if part.counts.mature:
            of[self._day.isoformat()] = part.figures, part.bins
        return len(of), window_figures(part.model, of)


def window_figures(model: ModelSpec, of: DayParts) -> pl.DataFrame:
    """Figures of several days together, with intervals from a bootstrap over them, as `figure_schema`."""
    tallied = tally_of_days([(date.fromisoformat(day).toordinal(), *parts) for day, parts in sorted(of.items())])
    return figures(model, tallied).select(list(figure_schema))
