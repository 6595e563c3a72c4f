"""What is read of the online store for a batch: each view in the version that the model was trained on.

What cannot be read is nulls, with the reason, and never an error: the model answers without it. The store has a
breaker, so that one that fails or hangs costs its share of a few requests' time and not of all.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import polars as pl

from mlplatform.errors import Unavailable, ViewNotPublished, ViewVersionMismatch
from mlplatform.features.online.store import Lookup, OnlineStore
from mlplatform.features.view import view_features
from mlplatform.registry.bundle import Bundle
from serving.circuit_breaker import CircuitBreaker

Answer = TypeVar("Answer")

UNKNOWN = "?"
"""Stands for a publication that is not known."""


@dataclass(frozen=True)
class ViewRead:
    """What was read of a view, a value for each row."""

    publication: str
    """Names what the store held; empty where it could not be read."""

    statuses: list[str]
    revisions: list[int | None]
    event_times: list[int | None]
    """When the values were last true, microseconds since 1970, UTC."""

    def part(self, start: int, end: int) -> "ViewRead":
        """Of some rows that follow each other."""
        return ViewRead(
            self.publication, self.statuses[start:end], self.revisions[start:end], self.event_times[start:end]
        )


@dataclass(frozen=True)
class Found:
    """What was read of all views for some rows."""

    values: pl.DataFrame
    """(n, n_view_features), null where not present or not read."""

    views: dict[str, ViewRead]
    reason: str
    """Why a view could not be read; empty where all could."""

    @property
    def complete(self) -> bool:
        """Whether every view could be read."""
        return not self.reason


class ViewReader:
    """Reads the views of one model.

    Parameters
    ----------
    breaker : of the store
    seconds : after which no further view of a batch is asked of a store that is remote; one in this process is not
        waited for, and what a busy machine takes from it would be taken from the model's answer for nothing
    tell : is given each reason for which a view could not be read
    clock : seconds
    """

    def __init__(
        self,
        bundle: Bundle,
        store: OnlineStore,
        breaker: CircuitBreaker,
        *,
        seconds: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breaker = breaker
        self._bundle = bundle
        self._store = store
        self._seconds = seconds
        self._tell = tell
        self._clock = clock
        self._views = view_features(bundle.domain, bundle.model)
        # One thread, which starts when it is first needed: the store and its breaker are asked by one at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="online-store")

    async def read(self, rows: pl.DataFrame) -> Found:
        """Values of all views for requests with `at`."""
        if not self._store.remote:
            return self._read(rows)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, rows)

    async def revision(self) -> str:
        """What features are made from now, as `revision_of` what was read; of no batch where the store does not say."""
        if not self._store.remote:
            return self._revision()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._revision)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _read(self, rows: pl.DataFrame) -> Found:
        until = self._clock() + self._seconds if self._store.remote else math.inf
        parts, views, reason = [], {}, ""
        for view, declared in self._views.items():
            try:
                if self._clock() > until:
                    raise Unavailable("the online store took its time already")
                lookup = self._asked(partial(look_up, self._bundle, self._store, view, rows))
            except (Unavailable, ViewVersionMismatch) as error:
                reason = str(error)
                self._tell(reason)
                parts.append(pl.DataFrame(schema={each.name: each.dtype for each in declared}).clear(rows.height))
                nothing: list[int | None] = [None] * rows.height
                views[view] = ViewRead("", ["unavailable"] * rows.height, nothing, nothing)
                continue
            parts.append(lookup.values)
            views[view] = ViewRead(
                lookup.publication,
                lookup.statuses.to_list(),
                lookup.revisions.to_list(),
                lookup.event_time.to_physical().to_list(),
            )
        values = pl.concat(parts, how="horizontal") if parts else pl.DataFrame(height=rows.height)
        return Found(values, views, reason)

    def _revision(self) -> str:
        def held() -> list[tuple[str, str]]:
            return [(view, self._store.revision(pinned(self._bundle, view)) or UNKNOWN) for view in self._views]

        try:
            return _named(self._asked(held))
        except Unavailable:
            return UNKNOWN

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the store says, behind its breaker."""
        permit = self.breaker.permit()
        if permit is None:
            raise Unavailable("the online store failed often; it is left alone for a while")
        began = self._clock()
        try:
            said = ask()
        except BaseException as error:
            # What it does not hold, or cannot be asked, says nothing of the store.
            if isinstance(error, Unavailable) and not isinstance(error, ViewNotPublished):
                permit.failed(self._clock() - began)
            else:
                permit.cancelled()
            raise
        permit.succeeded(self._clock() - began)
        return said


def revision_of(views: Mapping[str, ViewRead]) -> str:
    """Names what features were made from."""
    return _named((view, read.publication) for view, read in views.items())


def look_up(bundle: Bundle, store: OnlineStore, reference: str, rows: pl.DataFrame) -> Lookup:
    """Values of a view in the version that the model was trained on.

    Raises
    ------
    Unavailable, ViewVersionMismatch
        As `check_view_version`.
    """
    try:
        return store.lookup(pinned(bundle, reference), rows, rows.get_column("at"))
    except Unavailable:
        # Asked only now why: whether the version is held costs as much as to read it.
        check_view_version(bundle, store, reference)
        raise


def pinned(bundle: Bundle, reference: str) -> str:
    """The view as the store knows it, in the version that the model was trained on."""
    return f"{reference}@{bundle.manifest.views[reference]}"


def check_view_version(bundle: Bundle, store: OnlineStore, reference: str) -> None:
    """Make sure that the store holds the version of a view that the model was trained on.

    Raises
    ------
    ViewNotPublished
        The store holds nothing of this view.
    ViewVersionMismatch
        It holds another version.
    Unavailable
        It cannot be read.
    """
    if store.revision(pinned(bundle, reference)) is not None:
        return
    offered = store.version(reference)
    if offered is None:
        raise ViewNotPublished(reference)
    raise ViewVersionMismatch(reference, bundle.manifest.views[reference], offered)


def _named(publications: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{view}@{publication}" for view, publication in publications)
