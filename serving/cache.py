"""The prediction cache: answers of the model, kept for the same request to the same manifest.

An entry remembers the feature revision that it was made with. While the features can be read, only an entry of the
revision there is now is given again (`fresh`); when they cannot, any entry that is young enough is better than a guess
(`stale`, the first tier of the fallback chain). Several requests for the same thing at the same time are one flight:
the first computes, the others wait for it.

It refuses to decide what a good answer is: whoever puts answers in puts only those of the model, never a fallback's.
One event loop only, no locks.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

Answer = TypeVar("Answer")

_encode = msgspec.msgpack.Encoder().encode


def canonical(values: Sequence[Any]) -> bytes:
    """The bytes that stand for a request: equal requests have equal bytes, whatever their JSON looked like.

    Parameters
    ----------
    values : parsed and typed, in the declared order of the request's columns. All that the answer depends on: the
        request's own time too, where it may bring one

    Examples
    --------
    >>> canonical(("UA", 2.0, None)) == canonical(["UA", 2.0, None])
    True
    >>> canonical(("UA", 2.0)) == canonical(("UA2.0",))
    False
    """
    return _encode(values)


class _Entry(NamedTuple, Generic[Answer]):
    revision: str
    answer: Answer
    at: float


class PredictionCache(Generic[Answer]):
    """The newest answers, bounded in number: who has not been asked for longest makes room.

    Parameters
    ----------
    max_entries : 0 keeps nothing. An entry weighs about as much as the request and the answer, some 500 bytes
    clock : seconds
    """

    def __init__(self, max_entries: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[tuple[str, bytes], _Entry[Answer]] = OrderedDict()
        self._flights: dict[tuple[str, bytes, str], list[asyncio.Future[Answer | None]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, digest: str, request: bytes, revision: str, max_age: float) -> Answer | None:
        """The answer of this manifest to this request with these very features, if younger than `max_age` seconds.

        Parameters
        ----------
        digest : of the manifest
        request : as `canonical` gives it
        revision : of the features
        """
        entry = self._entries.get((digest, request))
        if entry is None or entry.revision != revision:
            return None
        return self.stale(digest, request, max_age)

    def stale(self, digest: str, request: bytes, max_age: float) -> Answer | None:
        """The same, whatever features it was made with."""
        key = (digest, request)
        entry = self._entries.get(key)
        if entry is None or self._clock() - entry.at >= max_age:
            return None  # kept, since another asker may take older ones; the bound on their number removes it
        self._entries.move_to_end(key)
        return entry.answer

    def put(self, digest: str, request: bytes, revision: str, answer: Answer) -> None:
        """Keep an answer of the model, and give it to those who wait for this flight."""
        key = (digest, request)
        self._entries[key] = _Entry(revision, answer, self._clock())
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        self._land(digest, request, revision, answer)

    def flight(self, digest: str, request: bytes, revision: str) -> asyncio.Future[Answer | None] | None:
        """A seat on the flight that is under way, or None: then the asker is the pilot.

        A pilot must end its flight, by `put` or by `leave`, whatever happens: `leave` belongs into a `finally`. Each
        passenger has a future of its own, so that one who is cancelled takes nobody along. It gives None when the
        pilot left without an answer of the model; then the passenger sees for itself.
        """
        key = (digest, request, revision)
        passengers = self._flights.get(key)
        if passengers is None:
            self._flights[key] = []
            return None
        seat: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        passengers.append(seat)
        return seat

    def leave(self, digest: str, request: bytes, revision: str) -> None:
        """End a flight without an answer; nothing when it has ended."""
        self._land(digest, request, revision, None)

    def _land(self, digest: str, request: bytes, revision: str, answer: Answer | None) -> None:
        for seat in self._flights.pop((digest, request, revision), ()):
            if not seat.done():
                seat.set_result(answer)
