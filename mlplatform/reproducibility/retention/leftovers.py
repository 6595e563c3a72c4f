"""What somebody who was killed has left: tables that are open to removal, files that no log names, drafts.

Nothing of it is in any table or answers anything, so it takes no policy, and leaves no tombstone. But it may hold rows
that were removed elsewhere, so it must not stay for ever.

A file that no log names may be one that a writer is about to commit. So it stays for a week, and a draft for a day, by
the clock of the machine, which dates files.
"""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.features.removal import is_open, sweep, vacuum, vacuum_is_due
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables, stages
from mlplatform.monitoring.outcomes.tables import labels_table
from mlplatform.monitoring.pickup import gaps_table, log_options, log_table
from mlplatform.monitoring.skew.tables import skew_rows
from mlplatform.provenance.platform import Platform, wall_clock
from mlplatform.reproducibility.coverage.tables import coverage_rows

LEAVING = ".leaving-"
"""Begins the name of a bundle that is being removed."""

drafts_stay = timedelta(days=1)
_readers_take_hours = 1
_writers_take_hours = 168


def close_tables(platform: Platform, domain: Domain) -> None:
    """Make tables append-only again that a removal which was killed has left open."""
    for uri in _tables(platform, domain):
        if is_open(uri, log_options(platform)):
            sweep(uri, log_options(platform), older_than_hours=_readers_take_hours)


def sweep_all(platform: Platform, domain: Domain) -> None:
    """Put right and clear away what was left, as far as it is old enough."""
    uri, options = log_table(platform, domain), log_options(platform)
    for table in [*_tables(platform, domain), gaps_table(platform, domain)]:
        sweep(table, options, older_than_hours=_readers_take_hours if table == uri else 0)
        vacuum(table, options, older_than_hours=_writers_take_hours, unknown=True)
    for folder in _leaving(platform, domain):
        shutil.rmtree(folder)
    for draft in _old_drafts(platform, domain):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def anything_left(platform: Platform, domain: Domain) -> bool:
    """Whether there is something to clear away, as far as a cheap look tells.

    Files that no log names are not looked for: that lists every file of every table.
    """
    if any(_leaving(platform, domain)) or any(_old_drafts(platform, domain)):
        return True
    return vacuum_is_due(log_table(platform, domain), log_options(platform), older_than_hours=_readers_take_hours)


def _leaving(platform: Platform, domain: Domain) -> Iterator[Path]:
    return platform.bundles.glob(f"{LEAVING}{domain.name}-*")


def _old_drafts(platform: Platform, domain: Domain) -> Iterator[Path]:
    """Drafts of bundles, whose names tell no domain, and of training sets."""
    begun_before = (wall_clock() - drafts_stay).timestamp()
    training = platform.training(domain.name, "", "")
    for each in (*platform.bundles.glob(".draft-*"), *training.glob("*/*/.training_set.*.parquet")):
        if each.stat().st_mtime < begun_before:
            yield each


def _tables(platform: Platform, domain: Domain) -> list[str]:
    """Everything that is ever removed from."""
    of_stages: list[Stage] = [store for stage in stages for store in Tables(platform, domain).of(stage).values()]
    of_answers = [table(platform, domain) for table in (skew_rows, labels_table, coverage_rows)]
    return [log_table(platform, domain), *(store.uri for store in (*of_stages, *of_answers))]
