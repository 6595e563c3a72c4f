"""Clearing a fact log: files whose facts are all in the table `raw`, and old, are removed.

A log would grow for ever, though the table has every row of a day that is over. What stays beside the log is a small
file for each cleared day: which events it had, and the revision of `raw` that holds their rows. So the day keeps its
version, an event that is sent once more is still known, and a fact that comes later yet is a correction of what the
table has (`landing.stream`). Only the landing and the stream read the log; as-of, the skew check and replay do not.

It refuses to touch a file that somebody writes, that has a fact of a day which is not in `raw` as it was sent, or one
that a window may still reach: the stream makes a day of today's windows anew from its log.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source, Stream
from mlplatform.features.landing.landing import landed, landing_stream
from mlplatform.features.landing.stream import Held
from mlplatform.features.streaming.fact_log import fact_folder
from mlplatform.features.tables import Tables, partition_end
from mlplatform.provenance.append_only import files, is_growing
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform

reach = timedelta(days=2)
"""Beyond the longest window: a stream that was started a moment ago may still be at yesterday's."""


def clear_facts(platform: Platform, domain: Domain) -> int:
    """Remove what may go of the fact logs of a domain, where its sources declare how long facts are kept.

    Returns
    -------
    bytes : that were freed
    """
    freed = 0
    for source in domain.sources:
        if isinstance(source.landing, Stream) and source.landing.keep is not None:
            # What is cleared is judged under the lock, so that of two runs the later one sees what the earlier did.
            with alone(platform.home / "locks" / f"facts-{domain.name}-{source.name}"):
                freed += _clear(platform, domain, source, source.landing.keep)
    return freed


def _clear(platform: Platform, domain: Domain, source: Source, keep: timedelta) -> int:
    landing = landing_stream(platform, domain, source)
    folder = fact_folder(platform.home, domain.name, source.name)
    held: Mapping[Path, Held] = {path: landing.of_file(path) for path in files(folder) if not is_growing(path)}
    age = max([keep, *(view.look_back + reach for view in domain.views)])
    old = {day for day in set().union(*held.values()) if partition_end(day) + age <= platform.clock()}
    versions = landed(platform, domain, source).days
    current = Tables(platform, domain).raw(source.name).current(sorted(old))
    whole = {
        day: revision.number
        for day, revision in current.items()
        if f"landing/{source.name}/{day}@{versions.get(day)}" in revision.inputs
    }
    gone = [path for path, days in held.items() if days.keys() <= whole.keys()]
    if not gone:
        return 0
    events = landing.events_by_day()
    told = [landing.clear(day, whole[day], events[day]) for day in sorted(set().union(*(held[each] for each in gone)))]
    for path in (*told, folder):
        _force(path)
    freed = 0
    for path in gone:
        for each in (*folder.glob(f"{path.stem}.*.days"), path):
            freed += each.stat().st_size
            each.unlink()
    return freed


def _force(path: Path) -> None:
    """Have it on the disk before anything is removed."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
