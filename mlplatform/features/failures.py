"""Open failures: which day of which table could not be computed, why, and from what it was tried.

A day whose data is wrong must neither stop the others nor be tried for ever, and nobody may have to search a log for
it. So a failure is kept as data, in an append-only table of the domain with one partition per day, until the same table
of that day has been computed, or would be made from something else: a corrected file, the good one again, other code,
another lock file. Only then is it tried again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import Tables
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One table of one day that could not be computed."""

    day: str
    stage: str
    table: str
    reason: str
    made_from: str
    """Input revisions, code version and environment of the last attempt; the same would fail again."""

    at: datetime
    """When it was last tried."""

    attempts: int = 1

    @property
    def of(self) -> tuple[str, str, str]:
        """Day, stage and table: what there is one failure of."""
        return self.day, self.stage, self.table


def open_failures(platform: Platform, domain: Domain, days: Iterable[str] | None = None) -> list[Failure]:
    """What has failed and was not made good since, by day, stage and table; of some days, or of all."""
    store = Tables(platform, domain).failures()
    current = store.current(None if days is None else set(days))
    rows = store.read([day for day, revision in current.items() if revision.rows], provenance=True)
    found = [
        Failure(day=row["_partition"], **{name: row[name] for name in store.schema})
        for row in rows.iter_rows(named=True)
    ]
    return sorted(found, key=lambda each: each.of)


def record_failures(
    platform: Platform,
    domain: Domain,
    failed: Iterable[Failure],
    *,
    closed: Mapping[str, Iterable[tuple[str, str]]],
    run_id: str,
) -> None:
    """Keep what failed in a run, and close what is over.

    Parameters
    ----------
    failed : the failures of this run; attempts are counted on from the open ones
    closed : day -> stage and table of what this run has computed, or has found to be made from something else now
    """
    fresh = list(failed)
    store = Tables(platform, domain).failures()
    # What is read decides what is written: of two runs at once the second must see what the first has kept.
    with alone(platform.home / "locks" / f"{domain.name}.failures.lock"):
        before = open_failures(platform, domain, {*closed, *(each.day for each in fresh)})
        after = {each.of: each for each in before}
        for each in fresh:
            tried = after[each.of].attempts if each.of in after else 0
            after[each.of] = replace(each, attempts=tried + 1)
        for day, tables in closed.items():
            for stage, table in tables:
                after.pop((day, stage, table), None)
        touched = sorted({each.day for each in (*before, *fresh)})
        drafts = {
            day: Draft(rows=pl.DataFrame([_row(each) for each in after.values() if each.day == day], store.schema))
            for day in touched
        }
        written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
        store.append(drafts, written)


def _row(failure: Failure) -> dict[str, object]:
    values = asdict(failure)
    del values["day"]
    return values
