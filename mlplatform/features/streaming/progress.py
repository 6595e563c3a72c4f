"""How far the stream of a domain has come, for whoever looks from outside: whether it runs, and what it has not done.

The process leaves a small file after what it did; whether it is alive its lock says, and what waits the length of the
fact logs behind the places that were acknowledged. Nothing else is read: no table, no store, and of the facts only as
many as are counted.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive
from mlplatform.features.streaming.consumers import positions_file, read_positions, streamed_sources
from mlplatform.features.streaming.fact_log import fact_folder
from mlplatform.features.streaming.streaming import Streaming
from mlplatform.provenance.append_only import files, frames, is_growing
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform

counted_bytes = 64 << 20
"""Of the facts that wait, as many are counted; a second's reading. A stream that stopped a week ago has more."""


class _Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the process leaves behind. Fields may be added, with a default."""

    at: datetime
    newest_fact: datetime | None
    blocked: str


@dataclass(frozen=True, kw_only=True)
class StreamStatus:
    """The stream of one domain."""

    views: tuple[str, ...]
    """Those that are published as facts arrive."""

    running: bool
    last_step: datetime | None
    """When the process finished something last, also if that was to find nothing new; None: it never ran."""

    newest_fact: datetime | None
    """Time of the newest fact that it has taken in."""

    newest_fact_age_seconds: float | None
    waiting_events: int
    """Events in the fact logs that are not published; those that are still in Redis are not known here."""

    more_wait: bool
    """Whether there are more than were counted."""

    blocked: str
    """Why values that are owed are not in the store, as the process said at its last step; empty: none are owed."""


def lock_file(home: Path, domain: Domain) -> Path:
    """Held by the process while it lives."""
    return home / "locks" / f"stream-{domain.name}"


def write_progress(platform: Platform, domain: Domain, streaming: Streaming) -> None:
    """Leave behind how far it has come."""
    now = platform.clock()
    told = _Progress(at=now, newest_fact=streaming.newest_fact(now), blocked=streaming.blocked)
    write_whole(_file(platform.home, domain), msgspec.json.encode(told))


def streamed_views(domain: Domain) -> tuple[str, ...]:
    """Names of the views that are published as facts arrive."""
    return tuple(view.name for view in domain.views if isinstance(view.schedule, AsFactsArrive))


def stream_status(platform: Platform, domain: Domain) -> StreamStatus:
    """How the stream of a domain with streamed views stands."""
    told = _told(_file(platform.home, domain))
    newest = told.newest_fact if told else None
    lock = lock_file(platform.home, domain)
    events, more = _waiting(platform.home, domain)
    return StreamStatus(
        views=streamed_views(domain),
        running=lock.exists() and is_growing(lock),
        last_step=told.at if told else None,
        newest_fact=newest,
        newest_fact_age_seconds=(platform.clock() - newest).total_seconds() if newest else None,
        waiting_events=events,
        more_wait=more,
        blocked=told.blocked if told else "",
    )


def _file(home: Path, domain: Domain) -> Path:
    return home / "streamed" / domain.name / "progress.json"


def _told(file: Path) -> _Progress | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Progress)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _waiting(home: Path, domain: Domain) -> tuple[int, bool]:
    """Events behind the acknowledged places, and whether there are more than were counted."""
    reached = read_positions(positions_file(home, domain))
    events, left = 0, counted_bytes
    for source in streamed_sources(domain):
        for path in files(fact_folder(home, domain.name, source.name)):
            start = reached.get(source.name, {}).get(path.name, 0)
            behind = path.stat().st_size - start
            if behind <= 0:
                continue
            if left <= 0:
                return events, True
            events += sum(1 for _ in frames(path, start))
            left -= behind
    return events, False
