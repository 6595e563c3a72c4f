"""The rate limit of each key, counted by the library `limits` in a sliding window of one minute.

Counted in memory, each gateway worker lets its share of a key's limit pass: a client that keeps to one connection meets
that share, not the whole. Counted in Redis (`MLPLATFORM_RATE_LIMITS`) the limit holds over all workers and machines.
It refuses to let an outage of Redis become one of the service: until it is back, the shares are counted in memory.

The window is the library's sliding counter (two numbers for each key) and not its moving window, which keeps an object
for each request of the last minute: at 60,000 requests per minute, that is what the garbage collector then stops for.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage as SharedMemoryStorage
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter as SharedLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from mlplatform.errors import Unavailable

SharedStorage = RedisStorage | SharedMemoryStorage
"""Where limits can be counted for all workers; the latter for tests."""

logger = logging.getLogger(__name__)

SHARED_AT_MOST = 0.05
"""Seconds that a request waits for Redis before it is counted in memory: Redis answers within 1 ms."""

SHARED_AGAIN = 1.0
"""Seconds after a failure of Redis in which it is not asked: no request waits for what was just found missing."""


class RateLimits:
    """Counts requests by key, and says how long one that is too much must wait.

    Parameters
    ----------
    workers : gateway workers that share a limit counted in memory
    shared : where it is counted for all of them; None: in memory
    clock : seconds; says when `shared` is asked again after a failure
    """

    def __init__(
        self, *, workers: int = 1, shared: SharedStorage | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._clock = clock
        self._memory = MemoryStorage()
        self._own = SlidingWindowCounterRateLimiter(self._memory)
        self._shared = None if shared is None else (shared, SharedLimiter(shared))
        self._shared_from = -math.inf
        self._items: dict[tuple[int, int], RateLimitItemPerMinute] = {}

    async def wait(self, key_id: str, per_minute: int) -> int:
        """Count one request of a key; 0 if it may pass, else the seconds after which the next one may."""
        if self._shared is not None and self._clock() >= self._shared_from:
            store, limiter = self._shared
            try:
                async with asyncio.timeout(SHARED_AT_MOST):
                    item = self._item(per_minute, 1)
                    if await limiter.hit(item, key_id):
                        return 0
                    return seconds_to_wait(item.amount, *await store.get_sliding_window(item.key_for(key_id), 60))
            except (StorageError, TimeoutError) as error:
                if self._clock() >= self._shared_from:  # else another request that waited has said so
                    # What the client library says is left out, since the address in it may hold a password.
                    reason = type(error.__cause__ if isinstance(error, StorageError) else error).__name__
                    logger.error(
                        "rate limits are counted in memory: Redis does not answer (%s). Start it again", reason
                    )
                self._shared_from = self._clock() + SHARED_AGAIN
        item = self._item(per_minute, self._workers)
        if self._own.hit(item, key_id):
            return 0
        return seconds_to_wait(item.amount, *self._memory.get_sliding_window(item.key_for(key_id), 60))

    def _item(self, per_minute: int, workers: int) -> RateLimitItemPerMinute:
        known = self._items.get((per_minute, workers))
        if known is None:
            known = self._items[per_minute, workers] = RateLimitItemPerMinute(math.ceil(per_minute / workers))
        return known


def rate_limits(place: str, *, workers: int) -> RateLimits:
    """The limits as `MLPLATFORM_RATE_LIMITS` tells: `memory`, or the URL of a Redis.

    Raises
    ------
    Unavailable
        The client library of Redis is not installed, or the URL is none.
    """
    if place == "memory":
        return RateLimits(workers=workers)
    try:
        # Whatever the client library raises later, `wrap_exceptions` makes a StorageError of it.
        shared = RedisStorage(f"async+{place}", wrap_exceptions=True, implementation="redispy")
    except ConfigurationError:
        # Without its cause, which may show the password in the URL.
        raise Unavailable(
            "limits cannot be counted in Redis: its client is not installed (`pip install redis`), or "
            "MLPLATFORM_RATE_LIMITS is no URL such as redis://:password@host:6379/0"
        ) from None
    return RateLimits(workers=workers, shared=shared)


def seconds_to_wait(at_most: int, before: int, before_ends: float, now: int, now_ends: float) -> int:
    """Whole seconds after which a request passes that is too much now, if no other is let through; at least one.

    The library counts a window of a minute and the one before it, and weighs the latter by its part in the last 60 s.
    The reset time that it tells is when a request falls out of the window, which need not make room for another.

    Parameters
    ----------
    at_most : requests in a minute
    before, now : requests in the window before and in this one
    before_ends : seconds until the window before counts no more
    now_ends : seconds until this window counts no more, 60 s after it is the window before

    Examples
    --------
    >>> seconds_to_wait(3, 0, 0.0, 3, 100.0)
    41
    >>> seconds_to_wait(3, 4, 50.0, 1, 110.0)
    21
    """
    if now < at_most and before:
        wait = before_ends - 60 * (at_most - now) / before
    else:
        wait = now_ends - 60 * min(1.0, at_most / max(now, 1))
    # The library's times are differences of wall-clock times, so a wait of 20 s may read 19.9999999.
    return max(1, math.floor(wait + 0.001) + 1)
