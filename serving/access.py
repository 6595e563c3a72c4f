"""Access: who may ask or send facts, how often, and how much at once.

It works on the raw headers of ASGI, since it stands before every request: an accepted one costs a few microseconds. It
refuses to look at keys where they are off: a proxy in front may use the same headers for itself.
"""

import asyncio
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from mlplatform.registry.api_keys import ApiKeys, Right
from serving.rate_limit import RateLimits

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""

NOBODY = ""
"""The caller where keys are off."""

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""What an id may hold: it goes into logs and headers, so no spaces, quotes or line ends."""

LOOK_FOR_OVERDUE = 0.25
"""Seconds between two looks for bodies that do not come."""


@dataclass(frozen=True)
class Refused:
    """Why a request goes no further, ready for `send_problem`."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


def keys_required(told: Literal["auto", "off", "required"], host: str) -> bool:
    """Whether requests must bring a key: where the address can be reached from elsewhere, unless told otherwise.

    Examples
    --------
    >>> keys_required("auto", "127.0.0.1"), keys_required("auto", "0.0.0.0"), keys_required("off", "0.0.0.0")
    (False, True, False)
    """
    return told == "required" or (told == "auto" and not _loopback(host))


def _loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than `localhost` may mean any address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Lets requests in by their key.

    Parameters
    ----------
    keys : who may ask
    required : False: everybody may, and no key is looked at
    limits : counts the requests of keys that have a limit
    """

    def __init__(self, keys: ApiKeys, *, required: bool, limits: RateLimits | None = None) -> None:
        self._keys = keys
        self._required = required
        self._limits = limits or RateLimits()

    async def admit(self, headers: Headers, right: Right = "predictions") -> str | Refused:
        """The id of the key that a request brings (`NOBODY` where keys are off), or why it is refused.

        It waits only where limits are counted in Redis.

        Parameters
        ----------
        right : what the key must be good for
        """
        if not self._required:
            return NOBODY
        token = _token(headers)
        key = self._keys.find(token)
        if key is None:
            return _unknown if token else _missing
        if right not in key.may:
            return _not_for[right]
        if key.requests_per_minute is not None:
            seconds = await self._limits.wait(key.id, key.requests_per_minute)
            if seconds:
                detail = f"this key may ask {key.requests_per_minute} times per minute. Ask again in {seconds} s"
                return Refused(429, detail, {"Retry-After": str(seconds)})
        return key.id


_missing = Refused(
    401,
    "a key is needed: send `Authorization: Bearer <key>` or `X-API-Key: <key>`. `mlplatform keys create` makes one",
    {"WWW-Authenticate": 'Bearer realm="mlplatform"'},
)
_unknown = Refused(
    401,
    "the key is unknown or revoked. Ask for another one; `mlplatform keys create` makes it",
    {"WWW-Authenticate": 'Bearer realm="mlplatform", error="invalid_token"'},
)


_not_for = {
    right: Refused(
        403,
        f"this key may not {act}. Ask for another one; `mlplatform keys create NAME --may {right}` makes it",
        {"WWW-Authenticate": 'Bearer realm="mlplatform", error="insufficient_scope"'},
    )
    for right, act in (("predictions", "ask for predictions"), ("facts", "send facts or tell of data"))
}


def _token(headers: Headers) -> bytes:
    """What stands where a key belongs; our own header counts before the general one. Empty: nothing."""
    bearer = b""
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return bearer


def request_id(headers: Headers) -> str:
    """The caller's own id of a request, if it brings one that may go into logs and headers; else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return os.urandom(16).hex()


async def read_body(headers: Headers, receive: Receive, *, at_most: int, within: float) -> bytes | Refused:
    """The body of a request, unless it is too long or too slow in coming.

    Parameters
    ----------
    at_most : bytes; a body that says it is longer is refused before it is read
    within : seconds for the whole body; without it, clients that send a byte now and then would pile up

    Raises
    ------
    ClientDisconnect
        The client is gone; nobody waits for an answer.
    """
    for name, value in headers:
        if name == b"content-length" and int(value) > at_most:
            return _too_long(at_most)
    reading = _reading_here()
    task = asyncio.current_task()
    assert task is not None
    reading.until[task] = reading.loop.time() + within
    try:
        return await _whole_body(receive, at_most)
    except asyncio.CancelledError:
        # Somebody else may have cancelled it too: then it is no slow body, it is the end.
        if task not in reading.overdue or task.uncancel() > 0:
            raise
        return Refused(408, f"the body did not come within {within:g} s. Send it in one go", {"Connection": "close"})
    finally:
        del reading.until[task]
        reading.overdue.discard(task)


async def _whole_body(receive: Receive, at_most: int) -> bytes | Refused:
    chunks, length = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        length += len(chunk)
        if length > at_most:
            return _too_long(at_most)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


class _Reading:
    """The bodies that are being read on one event loop, with one timer for all of them.

    A timer for each (`asyncio.timeout`) costs 5 to 11 µs, a tenth or more of all that a request costs, and nearly every
    body is there before it is asked for. One that is overdue is noticed up to `LOOK_FOR_OVERDUE` late.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.until: dict[asyncio.Task[object], float] = {}
        self.overdue: set[asyncio.Task[object]] = set()
        loop.call_later(LOOK_FOR_OVERDUE, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        for task, until in self.until.items():
            if until <= now and task not in self.overdue:
                self.overdue.add(task)
                task.cancel()
        self.loop.call_later(LOOK_FOR_OVERDUE, self._look)


_reading: _Reading | None = None


def _reading_here() -> _Reading:
    """Those of the running loop; a process of ours has one loop."""
    global _reading
    loop = asyncio.get_running_loop()
    if _reading is None or _reading.loop is not loop:
        _reading = _Reading(loop)
    return _reading


def _too_long(at_most: int) -> Refused:
    # The rest of the body is not read, so the connection cannot be used again.
    return Refused(413, f"the body is longer than {at_most} bytes. Send fewer rows", {"Connection": "close"})
