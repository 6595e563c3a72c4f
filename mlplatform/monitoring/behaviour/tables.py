"""The table `model_behaviour`: what was measured of each day, one row per model, manifest, arm and figure.

Long, not wide: a figure can be one of any number (a source, a bin, a reason), each has its interval or bounds beside
it, a new one needs no new column, and to plot one over time is to filter by two columns. A partition is a day; a day
that is judged again is a new revision.
"""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Revision, Stage, Written
from mlplatform.monitoring.behaviour.behaviour import Behaviour, Figure
from mlplatform.monitoring.tables import monitor_table
from mlplatform.provenance.platform import Platform

table_schema: Mapping[str, pl.DataType] = {
    "model": pl.String(),
    "manifest": pl.String(),
    "model_version": pl.String(),
    "arm": pl.String(),
    "figure": pl.String(),
    "part": pl.String(),
    "value": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
}
"""As `Behaviour` and `Figure`; `low` and `high` are null where a figure has none."""

_of = ("model", "manifest", "model_version", "arm")


def behaviour_table(platform: Platform, domain: Domain) -> Stage:
    """The table `model_behaviour` of a domain."""
    order = ("model", "manifest", "model_version", "arm", "figure", "part")
    return monitor_table(platform, domain, "model_behaviour", table_schema, sort_by=order)


def keep_behaviour(
    platform: Platform, domain: Domain, day: str, found: Iterable[Behaviour], *, run_id: str
) -> Revision:
    """Write what was measured of a day, also when that is nothing."""
    rows = [
        (*(getattr(each, name) for name in _of), figure.name, figure.part, figure.value, figure.low, figure.high)
        for each in found
        for figure in each.figures
    ]
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    frame = pl.DataFrame(rows, schema=table_schema, orient="row")
    return behaviour_table(platform, domain).append({day: Draft(rows=frame)}, written)[day]


def latest_behaviour(
    platform: Platform, domain: Domain, *, days: int = 1, until: str = "9999"
) -> dict[str, list[Behaviour]]:
    """What was measured of the newest days that were judged: ISO day -> behaviours, by day.

    Parameters
    ----------
    days : how many of them at most
    until : ISO day, included
    """
    table = behaviour_table(platform, domain)
    judged = sorted(day for day in table.current() if day <= until)[-days:]
    rows = table.read(judged, provenance=True) if judged else pl.DataFrame()
    found: dict[str, list[Behaviour]] = {day: [] for day in judged}
    if rows.is_empty():
        return found
    for (day, *of), own in rows.group_by("_partition", *_of, maintain_order=True):
        figures = own.select(pl.col("figure").alias("name"), "part", "value", "low", "high").iter_rows(named=True)
        told = {name: str(said) for name, said in zip(_of, of, strict=True)}
        found[str(day)].append(Behaviour(**told, figures=tuple(Figure(**each) for each in figures)))
    for each in found.values():
        each.sort(key=lambda behaviour: -behaviour.count("answers"))
    return found


def answers_before(platform: Platform, domain: Domain, day: str, *, days: int = 21) -> dict[str, dict[int, float]]:
    """Model -> how many days ago -> answers of that day, as it was judged; a day without any is not there."""
    today = date.fromisoformat(day)
    found: dict[str, dict[int, float]] = {}
    judged = latest_behaviour(platform, domain, days=days, until=(today - timedelta(days=1)).isoformat())
    for before, behaviours in judged.items():
        ago = (today - date.fromisoformat(before)).days
        for each in behaviours:
            if not each.is_shadow:
                of_model = found.setdefault(each.model, {})
                of_model[ago] = of_model.get(ago, 0.0) + each.count("answers")
    return found
