"""Real days of the flight domain in a home of their own, taken through the stages without Dagster."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.materialization import raise_failures, run
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.provenance.platform import Platform

FIRST = DOMAIN.start


@dataclass(frozen=True, repr=False)
class FlightDays:
    """A home whose stages hold the flight domain's days from the first to `last`."""

    platform: Platform
    last: date

    @property
    def days(self) -> list[str]:
        """ISO days that were computed."""
        return day_range(FIRST.isoformat(), self.last.isoformat())

    @property
    def tables(self) -> Tables:
        """Its tables."""
        return Tables(self.platform, DOMAIN)

    def features(self, view: str, days: list[str] | None = None) -> pl.DataFrame:
        """Published rows of a view, with their `_partition`; of all days, or some."""
        declared = next(each for each in DOMAIN.views if each.name == view)
        rows = self.tables.features(declared).read(days, provenance=True)
        return rows.drop("_revision", "_known_at")


def flight_days(home: Path, last: date) -> FlightDays:
    """Land the sample up to `last` and run every stage."""
    platform = Platform(home=home)
    made = FlightDays(platform, last)
    land_sample(platform, DOMAIN, FIRST, last)
    for stage in stages:
        raise_failures(run(platform, DOMAIN, stage, made.days, run_id="test"))
    return made
