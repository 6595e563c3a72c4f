"""Online reads: the newest published feature values of an entity, for a request that is waiting.

`OnlineStore` is the small interface; `open_online_store` opens the one that an address names: LMDB in a folder of this
machine, or Redis. Both keep the same bytes (`record`) and are held to the same tests.

What a store refuses: to let an older value take the place of a newer one, and to answer with a value that is not
available yet at the request's time, or older than the view's time to live. It computes no feature.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

import polars as pl

from mlplatform.settings import redis_schemes


@dataclass(frozen=True)
class Lookup:
    """What a store knows of some keys; rows in the order of the keys."""

    values: pl.DataFrame
    """(n_keys, n_features), null where the status is not `present`."""

    statuses: pl.Series
    """(n_keys,) String: `present`, `not_found` or `expired`. The values of a view come and go together."""

    revisions: pl.Series
    """(n_keys,) Int64: number of the stage's revision that the values come from; null where not present."""

    event_time: pl.Series
    """(n_keys,) Datetime us UTC: when the values were last true; null where not present."""

    available_at: pl.Series
    """(n_keys,) Datetime us UTC: since when they could be served; null where not present."""

    publication: str = ""
    """`OnlineStore.revision` of the view as it was read, so that nobody has to ask twice."""


class Found(NamedTuple):
    """What a store knows of one key, in Python's own types."""

    status: str
    values: tuple[object, ...]
    """In declared order; temporal ones as the integers that Polars holds. Empty where not present."""

    revision: int | None
    event_time: int | None
    available_at: int | None
    """Microseconds since 1970, UTC."""


@dataclass(frozen=True, kw_only=True)
class ViewRecord:
    """A view as the store has to know it: with it a gateway needs nothing else."""

    name: str
    """`owner/view`."""

    version: str
    keys: Mapping[str, pl.DataType]
    features: Mapping[str, pl.DataType]
    """In declared order."""

    ttl: timedelta


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a store holds of a view."""

    keys: int
    bytes: int
    """Of keys and values; what the store needs to find them comes on top."""

    newest_event_time: datetime | None
    newest_available_at: datetime | None


class OnlineStore(Protocol):
    """Newest values by view and key.

    A view is called `owner/view`, which means its current version, or `owner/view@version`: after a change of its
    definition the version before stays readable, for the models that were trained on it.
    """

    remote: bool
    """Whether a look-up waits for a network, so that it belongs into a thread."""

    def version(self, view: str) -> str | None:
        """Version of the view that the store serves; None: it holds nothing of it."""
        ...

    def revision(self, view: str) -> str | None:
        """Names what the store holds of the view now; another one after each publication. None: it holds nothing."""
        ...

    def content(self, view: str) -> str | None:
        """What the last complete publication was made from; None: there was none."""
        ...

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key as they can be served at its instant.

        Parameters
        ----------
        keys : (n, …) the view's key columns, and others that are not read; a null names nobody
        at : (n,) Datetime us, UTC

        Raises
        ------
        Unavailable
            The store cannot be read, or holds nothing of the view.
        DataError
            A key column is missing, or of another kind than the view's.
        """
        ...

    def find(self, view: str, key: tuple[object, ...], at: int) -> Found:
        """The same of one key without frames, for who counts in microseconds.

        Parameters
        ----------
        key : values of the view's key columns, in declared order
        at : microseconds since 1970, UTC
        """
        ...

    def put(self, view: ViewRecord, rows: pl.DataFrame, *, content: str | None, now: datetime) -> int:
        """Bring in rows, in whatever order they come: of each key the newest by (event time, revision) is served.

        Parameters
        ----------
        rows : (n, …) key columns, features, `event_time`, `available_at`, `_revision`; where `_removed` is true, the
            row of these clocks was taken away by this revision
        content : what the store holds of the view after this; None: as before
        now : what can be served by now needs no predecessors; of what cannot, those that are served until then stay

        Returns
        -------
        changed : number of keys

        Raises
        ------
        Unavailable
            The store cannot be written. What it held it holds.
        """
        ...

    def replace(self, view: ViewRecord, chunks: Iterable[pl.DataFrame], *, content: str, now: datetime) -> None:
        """Build the view anew beside what is served, and switch over at once. The version before stays readable."""
        ...

    def statistics(self, view: str) -> Statistics | None:
        """What the store holds of the view; None: nothing."""
        ...


def open_online_store(address: str) -> OnlineStore:
    """The store in a folder (LMDB), or at `redis://…` or `rediss://…`. Nothing is made or asked before it is used."""
    # Imported where used: who reads one store need not have the client of the other.
    if address.startswith(redis_schemes):
        from mlplatform.features.online.redis_store import RedisStore

        return RedisStore(address)
    from mlplatform.features.online.lmdb_store import LmdbStore

    return LmdbStore(Path(address))
