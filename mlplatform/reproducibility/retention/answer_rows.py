"""Rows of monitors that tell of single answers: they go when the answers do.

`skew_rows` holds requests as they were asked, `outcome_labels` what came of them, `replay_findings` what could not be
given again. The first two have a partition for each day of answers. A night of replays tells of answers of many days:
it gets a new revision without those that went, and the former ones go.

No policy of theirs: they are found by their age, so it makes no difference whether the log of the day went just now.
"""

from collections.abc import Callable
from datetime import timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.removal import remove_revisions
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.monitoring.outcomes.tables import labels_table
from mlplatform.monitoring.skew.tables import skew_rows
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.tables import coverage_rows

_by_day = (skew_rows, labels_table)
_by_night = (coverage_rows,)


def remove_answer_rows(platform: Platform, domain: Domain, has_gone: Callable[[str], bool], why: str) -> None:
    """Take away the rows that tell of answers of days that went.

    Parameters
    ----------
    has_gone : whether the answers of an ISO day go or are gone
    why : what is said in the place of a former revision
    """
    for table in _by_day:
        store = table(platform, domain)
        holding = {
            (each.partition, each.number)
            for each in store.revisions()
            if each.rows and not each.removed and has_gone(each.partition)
        }
        nothing = pl.DataFrame(schema=store.schema)
        _remove(platform, store, holding, {partition: nothing for partition, _ in holding}, why)
    for table in _by_night:
        store = table(platform, domain)
        # Of a night without old answers nothing is read but when they came.
        of_day = pl.col("received").dt.date().cast(pl.String)
        told = store.history(columns=["received"]).select("_partition", "_revision", day=of_day).unique()
        gone = [day for day in told["day"].drop_nulls().unique() if has_gone(day)]
        touched = told.filter(pl.col("day").is_in(gone))
        holding = set(touched.select("_partition", "_revision").iter_rows())
        kept = {night: store.read([night]).filter(~of_day.is_in(gone).fill_null(value=False)) for night, _ in holding}
        _remove(platform, store, holding, kept, why)


def _remove(
    platform: Platform, store: Stage, holding: set[tuple[str, int]], kept: dict[str, pl.DataFrame], why: str
) -> None:
    """Take revisions away; in the place of a current one comes what is kept of it."""
    current = {each.partition: each.number for each in store.current(kept).values()}
    drafts = {name: Draft(rows=rows) for name, rows in kept.items() if (name, current[name]) in holding}
    now = platform.clock()
    written = Written(run_id="", code_version="retention", environment=platform.environment, known_at=now)
    # A monitor that writes at the same time is the first; the next removal finds what it wrote.
    store.append(drafts, written, expect={name: current[name] for name in drafts})
    remove_revisions(store, dict.fromkeys(holding, why))


def why_removed(platform: Platform, age: timedelta) -> str:
    """The text of the marks."""
    return f"rows of answers were removed by policy on {platform.clock():%Y-%m-%d} (answers go after {age.days} days)"
