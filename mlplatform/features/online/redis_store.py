"""The online store in Redis: the same bytes for gateways and publishers on several machines.

Of a view there are, under keys with one hash tag, so that a cluster keeps them together:

* `mlplatform:{owner/view}`: its catalogue
* `mlplatform:{owner/view}:made-from:<version>`: what the version was made from
* `mlplatform:{owner/view}:<generation>`: a hash, the values by key

Invariants:

* A value is written only where it still is what it was merged with (`_compare_and_set`, a script); who lost reads and
  merges again. So of two publishers at once none takes a newer value away, and there is one merge for both stores.
* The catalogue is written last, in the same way. A publisher that was killed has brought in some keys, each newer than
  before and whole; the next publication brings in the rest.
* A rebuild fills a hash that expires by itself unless it is switched to. A lookup reads the values and then the
  catalogue in one round trip, and counts only where the catalogue is still the one that the values were looked for by.

Everything that Redis may refuse or be late with is `Unavailable`, in time: a request is waiting.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import polars as pl
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from mlplatform.errors import Unavailable
from mlplatform.features.epoch import epoch_micros
from mlplatform.features.online.catalogue import (
    Batch,
    Catalogue,
    Catalogues,
    OpenVersion,
    StoredVersion,
    encode_catalogue,
    instants,
    mend,
    new_version,
    same_schema,
)
from mlplatform.features.online.keys import Keys
from mlplatform.features.online.record import Layout
from mlplatform.features.online.store import Found, Lookup, Statistics, ViewRecord

read_seconds = 0.05
"""To connect, and for each answer, of a reader: half of a usual deadline, ten times what a healthy Redis takes for a
hundred keys. With less a garbage collection is taken for an outage; with more requests miss their time before the
breaker has noticed."""

seconds_per_key = 50e-6
"""What a lookup of many keys may take longer, per key: five times what it takes."""

publish_seconds = 10.0
"""For each answer to a publisher, which nobody waits for."""

rebuild_expires_seconds = 600
"""A rebuild that has written nothing for so long was killed, and Redis forgets it."""

_KEYS_READ_AT_ONCE = 1000
# A script holds up every reader; one of 500 keys takes a millisecond.
_KEYS_WRITTEN_AT_ONCE = 500
_ATTEMPTS = 64

# KEYS: a hash. ARGV: field, value that it must have (empty: none), new value, … -> places of those that have another.
_compare_and_set = """
local lost = {}
for i = 1, #ARGV, 3 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if (held or '') == ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  else
    lost[#lost + 1] = (i - 1) / 3
  end
end
return lost
"""

# KEYS: catalogue, what it was made from, hash that must outlive its expiry. ARGV: catalogue that must be there, new
# one, `set`/`del`/`keep` and what it was made from, whether the hash has values -> 1; 0: another catalogue; -1: no
# hash.
_switch = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
redis.call('PERSIST', KEYS[3])
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] == 'set' then redis.call('SET', KEYS[2], ARGV[4]) end
if ARGV[3] == 'del' then redis.call('DEL', KEYS[2]) end
return 1
"""


class _Merged(NamedTuple):
    """What a merge has done to a generation."""

    changed: int
    entities: int
    size: int

    def grown(self, stored: StoredVersion, batch: Batch) -> StoredVersion:
        """The version after it."""
        return stored.grown(batch, self.entities, self.size)


class RedisStore:
    """One Redis, or one that stands for several.

    Parameters
    ----------
    address : `redis://[[user]:password@]host:port[/db]`, `rediss://` with TLS
    clock : seconds, for the time budget of a lookup
    """

    remote = True

    def __init__(self, address: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._reader = _client(address, read_seconds)
            self._writer = _client(address, publish_seconds)
        except ValueError as error:
            # The error would tell the address, and with it the password.
            raise Unavailable(
                "MLPLATFORM_ONLINE_STORE is no address of a Redis. Write it as redis://:password@host:6379/0"
            ) from error
        told = self._reader.connection_pool.connection_kwargs
        self._where = f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"
        self._set_values = self._writer.register_script(_compare_and_set)
        self._set_catalogue = self._writer.register_script(_switch)
        self._catalogues = Catalogues()
        self._raw: dict[str, bytes | None] = {}
        self._clock = clock

    def __repr__(self) -> str:
        return f"RedisStore({self._where})"

    def version(self, view: str) -> str | None:
        """Version of the view that is served."""
        return self._catalogue(view)[1].current or None

    def revision(self, view: str) -> str | None:
        """Version, generation and number of publications."""
        opened = self._opened(view)
        return opened.publication if opened else None

    def content(self, view: str) -> str | None:
        """What the version was made from; None also where its values are gone, as after a restart without a disk."""
        opened = self._opened(view)
        if opened is None:
            return None
        name = view.partition("@")[0]
        pipeline: Any = self._reader.pipeline(transaction=False)
        pipeline.get(_content_key(name, opened.name))
        pipeline.exists(_values_key(name, opened.stored.generation))
        told, there = self._asked(pipeline.execute)
        return told.decode() if told is not None and (there or not opened.stored.entities) else None

    def statistics(self, view: str) -> Statistics | None:
        """What is held of the view."""
        opened = self._opened(view)
        return opened.stored.statistics() if opened else None

    def lookup(self, view: str, keys: pl.DataFrame, at: pl.Series) -> Lookup:
        """Values of each key, in one round trip for a thousand of them."""
        opened, values = self._values(view, lambda opened: opened.keys.encoded(keys))
        return opened.layout.chosen(values, instants(at), opened.stored.ttl, opened.publication)

    def find(self, view: str, key: tuple[object, ...], at: int) -> Found:
        """Value of one key."""
        opened, values = self._values(view, lambda opened: [opened.keys.encoded_one(key)])
        return opened.layout.found(values[0], at, opened.stored.ttl)

    def put(self, view: ViewRecord, rows: pl.DataFrame, *, content: str | None, now: datetime) -> int:
        """Merge rows in, each key by itself, the catalogue last."""
        micros = epoch_micros(now)
        layout = Layout(view.features)
        batch = Batch.of_rows(Keys(view.keys), layout, rows)
        begun: StoredVersion | None = None
        merged: dict[int, _Merged] = {}
        for _ in range(_ATTEMPTS):
            raw, catalogue = self._catalogue(view.name, self._writer)
            stored = catalogue.versions.get(view.version)
            new = stored is None or not same_schema(stored, view)
            if stored is None or new:
                stored = begun = begun or self._new_version(view)
            if stored.generation not in merged:
                merged[stored.generation] = self._merge(view.name, stored, layout, batch, micros, expires=new)
            done = merged[stored.generation]
            after = done.grown(stored, batch) if done.changed or new else stored
            told = "" if new and content is None else content
            if self._write_catalogue(view, raw, catalogue, catalogue.with_version(view.version, after), told):
                return done.changed
            if not new and stored.generation not in self._catalogue(view.name, self._writer)[1].generations:
                # Rebuilt meanwhile: what was put into the old hash has made it anew.
                self._asked(partial(self._writer.unlink, _values_key(view.name, stored.generation)))
        raise self._too_slow(view.name)

    def replace(self, view: ViewRecord, chunks: Iterable[pl.DataFrame], *, content: str, now: datetime) -> None:
        """Fill another hash, then switch."""
        micros = epoch_micros(now)
        keys, layout = Keys(view.keys), Layout(view.features)
        stored = self._new_version(view)
        for rows in chunks:
            batch = Batch.of_rows(keys, layout, rows)
            stored = self._merge(view.name, stored, layout, batch, micros, expires=True).grown(stored, batch)
        for _ in range(_ATTEMPTS):
            raw, catalogue = self._catalogue(view.name, self._writer)
            if self._write_catalogue(view, raw, catalogue, catalogue.switched(view.version, stored), content):
                return
        raise self._too_slow(view.name)

    def _values(
        self, view: str, encode: Callable[[OpenVersion], list[bytes | None]]
    ) -> tuple[OpenVersion, list[bytes | None]]:
        name = view.partition("@")[0]
        raw = self._raw.get(name)
        if raw is None:
            raw = self._catalogue(view)[0]
        for _ in range(_ATTEMPTS):
            opened = self._catalogues.open(view, self._catalogues.of(name, raw))
            encoded = encode(opened)
            asked = [key for key in encoded if key is not None]
            found, now_there = self._fetched(name, opened.stored, asked)
            if now_there == raw:
                held = iter(found)
                return opened, [None if key is None else next(held) for key in encoded]
            raw = self._raw[name] = now_there
        raise Unavailable(f"{name} is published faster than it can be read at {self._where}")

    def _fetched(self, name: str, stored: StoredVersion, keys: list[bytes]) -> tuple[list[bytes | None], bytes | None]:
        """Values of some keys, and the catalogue as it was after they were read."""
        until = self._clock() + read_seconds + len(keys) * seconds_per_key
        values_key = _values_key(name, stored.generation)
        found: list[bytes | None] = []
        there, raw = True, None
        for start in range(0, max(len(keys), 1), _KEYS_READ_AT_ONCE):
            if start and self._clock() > until:
                raise Unavailable(
                    f"Redis at {self._where} is too slow: {start} of {len(keys)} keys in the time of all. Look at its "
                    "load, and at the way to it"
                )
            part = keys[start : start + _KEYS_READ_AT_ONCE]
            pipeline: Any = self._reader.pipeline(transaction=False)
            if part:
                pipeline.hmget(values_key, part)
            pipeline.exists(values_key)
            pipeline.get(_catalogue_key(name))
            *values, exists, raw = self._asked(pipeline.execute)
            found += values[0] if part else []
            there = there and bool(exists)
        if stored.entities and not there and stored.generation in self._catalogues.of(name, raw).generations:
            raise Unavailable(
                f"the values of {name} are gone from Redis at {self._where}, its catalogue is not. Look whether it "
                f"evicts keys (maxmemory-policy must be noeviction). {mend}"
            )
        return found, raw

    def _merge(
        self, name: str, stored: StoredVersion, layout: Layout, batch: Batch, now: int, *, expires: bool
    ) -> "_Merged":
        """Merge a batch into a generation."""
        changed = entities = size = 0
        values_key = _values_key(name, stored.generation)
        for part in batch.parts(_KEYS_WRITTEN_AT_ONCE):
            left = part
            for _ in range(_ATTEMPTS):
                before: list[bytes | None] = self._asked(partial(self._writer.hmget, values_key, left.keys))
                after = layout.merged(before, left.records, left.of, left.texts, now)
                new = [place for place, value in enumerate(after) if value != before[place]]
                told: list[bytes] = []
                for place in new:
                    told += left.keys[place], before[place] or b"", after[place]
                lost = self._asked(partial(self._set_values, keys=[values_key], args=told)) if told else []
                for place in (new[each] for each in set(range(len(new))) - set(lost)):
                    held = before[place]
                    changed += 1
                    entities += held is None
                    size += len(after[place]) + (len(left.keys[place]) if held is None else -len(held))
                if not lost:
                    break
                left = left.only([new[each] for each in lost])
            else:
                raise self._too_slow(name)
            if expires:
                self._asked(partial(self._writer.expire, values_key, rebuild_expires_seconds))
        return _Merged(changed, entities, size)

    def _too_slow(self, name: str) -> Unavailable:
        return Unavailable(f"other publishers of {name} were faster {_ATTEMPTS} times running; publish again")

    def _write_catalogue(
        self, view: ViewRecord, raw: bytes | None, before: Catalogue, after: Catalogue, content: str | None
    ) -> bool:
        """Write a catalogue where it still is what it was, then take away what nobody reads any more.

        Parameters
        ----------
        content : None: as it is; empty: none

        Returns
        -------
        written : False where another publisher has changed the catalogue
        """
        stored = after.versions[view.version]
        keys = [
            _catalogue_key(view.name),
            _content_key(view.name, view.version),
            _values_key(view.name, stored.generation),
        ]
        act = "keep" if content is None else "set" if content else "del"
        told: list[bytes | str | int] = [
            raw or b"",
            encode_catalogue(after),
            act,
            content or "",
            int(stored.entities > 0),
        ]
        answer = self._asked(partial(self._set_catalogue, keys=keys, args=told))
        if answer == 0:
            return False
        if answer == -1:
            raise Unavailable(
                f"the values of {view.name} are gone from Redis at {self._where}: it was emptied, or evicts keys, or "
                "the rebuild stood still for too long. Publish again"
            )
        stale = [_values_key(view.name, generation) for generation in before.generations - after.generations]
        stale += [_content_key(view.name, version) for version in before.versions.keys() - after.versions.keys()]
        if stale:
            self._asked(partial(self._writer.unlink, *stale))
        return True

    def _new_version(self, view: ViewRecord) -> StoredVersion:
        key = f"{_catalogue_key(view.name)}:generations"
        return new_version(view, self._asked(partial(self._writer.incr, key)))

    def _catalogue(self, view: str, client: "Redis | None" = None) -> tuple[bytes | None, Catalogue]:
        name = view.partition("@")[0]
        asked = client or self._reader
        raw = self._raw[name] = self._asked(partial(asked.get, _catalogue_key(name)))
        return raw, self._catalogues.of(name, raw)

    def _opened(self, view: str) -> OpenVersion | None:
        catalogue = self._catalogue(view)[1]
        version = view.partition("@")[2] or catalogue.current
        return self._catalogues.open(view, catalogue) if version in catalogue.versions else None

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except RedisError as error:
            told = next((told for kind, told in _told.items() if isinstance(error, kind)), None)
            told = told or f"refuses ({error}). Look into its log"
            raise Unavailable(f"Redis at {self._where} {told}") from error


_told: Mapping[type[RedisError], str] = {
    TimeoutError: "does not answer in time. Look at its load, and at the way to it",
    OutOfMemoryError: "is full. Give it more memory (maxmemory) or take something away; what was published stays",
    ReadOnlyError: "takes no writes: it is a replica. Let MLPLATFORM_ONLINE_STORE name the primary",
    AuthenticationError: "does not let us in. Correct the password in MLPLATFORM_ONLINE_STORE",
    ConnectionError: "cannot be reached. Start it, or correct MLPLATFORM_ONLINE_STORE; nothing else has to be done",
}
"""What a failure means and what to do; the first that fits: who is not let in has a connection error too."""


def _client(address: str, seconds: float) -> "Redis":
    # A connection that a restart has cut is opened anew at once; a server that is late is not asked twice.
    again = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))
    return Redis.from_url(
        address,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=again,
        protocol=2,
        driver_info=None,
    )


def _catalogue_key(name: str) -> str:
    return f"mlplatform:{{{name}}}"


def _content_key(name: str, version: str) -> str:
    return f"{_catalogue_key(name)}:made-from:{version}"


def _values_key(name: str, generation: int) -> str:
    return f"{_catalogue_key(name)}:{generation}"
