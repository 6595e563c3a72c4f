"""What an online store says of a view: which versions it holds, how their bytes are read, what they were made from.

A view's catalogue is one small document in the store itself, so that a gateway needs nothing else. The values of a
version lie under a *generation*, a number: a rebuild fills another one, and writing the catalogue is the switch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.errors import DataError, Unavailable
from mlplatform.features.epoch import epoch_time
from mlplatform.features.online.keys import Keys
from mlplatform.features.online.record import Layout, Records, dtype_names, dtypes_named
from mlplatform.features.online.store import Statistics, ViewRecord
from mlplatform.features.view import instant

versions_kept = 2
"""Of a view: the current one and the one before it, for the model that was trained on that and still serves. A third
would hold what no champion can be pinned to, but after two changes without a training in between."""


class StoredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a view, as it lies in the store."""

    generation: int
    keys: dict[str, str]
    features: dict[str, str]
    ttl: int
    """Microseconds."""

    publications: int = 0
    entities: int = 0
    bytes: int = 0
    newest_event_time: int | None = None
    newest_available_at: int | None = None

    def grown(self, batch: "Batch", entities: int, size: int) -> "StoredVersion":
        """After a batch that brought in so many new keys, and so many bytes more."""
        return msgspec.structs.replace(
            self,
            publications=self.publications + 1,
            entities=self.entities + entities,
            bytes=self.bytes + size,
            newest_event_time=_later(self.newest_event_time, batch.newest("event_time")),
            newest_available_at=_later(self.newest_available_at, batch.newest("available_at")),
        )

    def statistics(self) -> Statistics:
        """As told."""
        return Statistics(
            keys=self.entities,
            bytes=self.bytes,
            newest_event_time=_datetime(self.newest_event_time),
            newest_available_at=_datetime(self.newest_available_at),
        )


class Catalogue(msgspec.Struct, frozen=True):
    """All versions of a view, the oldest first."""

    current: str = ""
    versions: dict[str, StoredVersion] = {}

    def with_version(self, name: str, stored: StoredVersion) -> "Catalogue":
        """The same with a version added or put in place of itself; the oldest ones that are too many are left out.

        The version just added is current; one that was there changes nothing about that.
        """
        versions = {**self.versions, name: stored}
        current = self.current if name in self.versions else name
        kept = [*[each for each in versions if each != current][-(versions_kept - 1) :], current]
        return Catalogue(current, {each: versions[each] for each in versions if each in kept})

    def switched(self, name: str, stored: StoredVersion) -> "Catalogue":
        """The same with a version rebuilt: it is the current one from now on."""
        others = {each: version for each, version in self.versions.items() if each != name}
        return Catalogue(self.current, others).with_version(name, stored)

    @property
    def generations(self) -> set[int]:
        """Those that somebody may read."""
        return {each.generation for each in self.versions.values()}


@dataclass(frozen=True)
class OpenVersion:
    """A version of a view with what reads its bytes."""

    name: str
    stored: StoredVersion
    keys: Keys
    layout: Layout
    publication: str


class Catalogues:
    """Catalogues as they were read, understood once for the same bytes."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[bytes, Catalogue]] = {}
        self._opened: dict[str, tuple[StoredVersion, OpenVersion]] = {}

    def of(self, name: str, raw: bytes | None) -> Catalogue:
        """The catalogue that some bytes are; without any an empty one.

        Raises
        ------
        Unavailable
            The bytes are none of ours.
        """
        if raw is None:
            return Catalogue()
        read = self._read.get(name)
        if read is not None and read[0] == raw:
            return read[1]
        try:
            catalogue = msgspec.json.decode(raw, type=Catalogue)
        except msgspec.DecodeError as error:
            raise Unavailable(f"what the online store says of {name} cannot be understood ({error}). {mend}") from error
        self._read[name] = raw, catalogue
        return catalogue

    def open(self, view: str, catalogue: Catalogue) -> OpenVersion:
        """The version that `owner/view` or `owner/view@version` names.

        Raises
        ------
        Unavailable
            It is not there.
        """
        version = view.partition("@")[2] or catalogue.current
        stored = catalogue.versions.get(version)
        if stored is None:
            raise Unavailable(f"the online store holds nothing of {view}. {mend}")
        opened = self._opened.get(view)
        if opened is not None and opened[0] is stored and opened[1].name == version:
            return opened[1]
        made = OpenVersion(
            version,
            stored,
            Keys({each: dtypes_named[dtype] for each, dtype in stored.keys.items()}),
            Layout({each: dtypes_named[dtype] for each, dtype in stored.features.items()}),
            f"{version}.{stored.generation}.{stored.publications}",
        )
        self._opened[view] = stored, made
        return made


mend = "Materialise `online_store` of its domain"


def encode_catalogue(catalogue: Catalogue) -> bytes:
    """As `Catalogues.of` reads it."""
    return msgspec.json.encode(catalogue)


def new_version(view: ViewRecord, generation: int) -> StoredVersion:
    """A version without values."""
    return StoredVersion(
        generation=generation,
        keys={name: dtype_names[dtype] for name, dtype in view.keys.items()},
        features={name: dtype_names[dtype] for name, dtype in view.features.items()},
        ttl=view.ttl // timedelta(microseconds=1),
    )


@dataclass(frozen=True)
class Batch:
    """Rows as a store takes them: keys, and the records of each key side by side."""

    keys: list[bytes]
    records: Records
    of: npt.NDArray[np.int64]
    texts: list[list[object]]

    @classmethod
    def of_rows(cls, keys: Keys, layout: Layout, rows: pl.DataFrame) -> "Batch":
        """The rows of somebody: those without a key or a clock are left out.

        Raises
        ------
        DataError
            A column is missing.
        """
        names = list(keys.dtypes)
        if lacking := [
            each
            for each in (*names, *layout.features, "event_time", "available_at", "_revision")
            if each not in rows.columns
        ]:
            raise DataError(f"the rows lack {', '.join(lacking)}; there are {', '.join(rows.columns)}")
        rows = rows.drop_nulls([*names, "event_time", "available_at", "_revision"])
        if not rows.height:
            return cls([], *layout.records(rows)[:1], np.zeros(0, dtype=np.int64), [])
        rows = rows.sort(names, maintain_order=True)
        # Keys in their order: an LMDB tree is filled twice as fast from left to right.
        of = rows.select(pl.struct(names).rle_id()).to_series().to_numpy().astype(np.int64)
        firsts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
        encoded = keys.encoded(rows[firsts].select(names) if len(firsts) < rows.height else rows)
        records, texts = layout.records(rows)
        return cls([each for each in encoded if each is not None], records, of, texts)

    def part(self, start: int, end: int) -> "Batch":
        """The keys from one place to another, with their records."""
        low, high = np.searchsorted(self.of, [start, end])
        return Batch(self.keys[start:end], self.records[low:high], self.of[low:high] - start, self.texts[low:high])

    def only(self, places: Sequence[int]) -> "Batch":
        """Some of the keys, in rising order, with their records."""
        chosen = np.flatnonzero(np.isin(self.of, places))
        return Batch(
            [self.keys[place] for place in places],
            self.records[chosen],
            np.searchsorted(places, self.of[chosen]),
            [self.texts[place] for place in chosen.tolist()] if self.texts else [],
        )

    def parts(self, keys: int) -> Iterable["Batch"]:
        """So many keys at a time."""
        return (self.part(start, start + keys) for start in range(0, len(self.keys), keys))

    def newest(self, clock: str) -> int | None:
        """The latest of a clock, of what was not taken away."""
        living = self.records[clock][self.records["state"] == 0]
        return int(living.max()) if len(living) else None


def same_schema(stored: StoredVersion, view: ViewRecord) -> bool:
    """Whether rows of the view can be merged with what is there."""
    other = new_version(view, stored.generation)
    return (other.keys, other.features, other.ttl) == (stored.keys, stored.features, stored.ttl)


def instants(at: pl.Series) -> npt.NDArray[np.int64]:
    """(n,) microseconds since 1970, UTC."""
    at = at if at.dtype == instant else at.cast(instant)
    # `to_physical` of a column starts a query.
    micros: npt.NDArray[np.int64] = at.to_numpy().view(np.int64)
    return micros


def _later(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _datetime(micros: int | None) -> datetime | None:
    return None if micros is None else epoch_time(micros)
