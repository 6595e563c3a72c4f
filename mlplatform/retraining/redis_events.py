"""Events from Redis: the stream `mlplatform:events:<domain>`, taken into the domain's event log.

A message has one field, `event`: the JSON that the webhook takes. It is acknowledged once it is in the log, so whoever
dies in between gets it again, under the same id. What is no event goes to the stream `…:refused`, with the reason.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from mlplatform.domain.domain import Domain
from mlplatform.errors import InvalidRequest, MalformedBody, Unavailable
from mlplatform.retraining.events import EVENT_BYTES, EventWriter, event_folder, understand

log = logging.getLogger(__name__)

group = "mlplatform"
"""The consumer group; all sensors are one consumer of it, since the log tells twins apart."""

messages_at_once = 1_000
"""Taken in by one tick; the next one is half a minute away."""


def stream_key(domain: str) -> str:
    """The stream of a domain's events."""
    return f"mlplatform:events:{domain}"


def take_from_redis(address: str | None, domain: Domain, home: Path, now: Callable[[], datetime]) -> int:
    """Take in what waits in Redis; how many messages. A Redis that is away is told of, and asked again next time.

    Parameters
    ----------
    address : `redis://…`; None: there is none
    """
    if address is None:
        return 0
    try:
        from redis import Redis
        from redis.exceptions import RedisError
    except ImportError as error:
        raise Unavailable("the client of Redis is not installed. Install the package `redis`") from error
    client = Redis.from_url(address, socket_timeout=5.0, socket_connect_timeout=5.0)
    writer = EventWriter(event_folder(home, domain.name), now)
    try:
        return _take_in(client, domain, writer)
    except RedisError as error:
        log.warning("events of %s cannot be read from Redis (%s); they wait there", domain.name, error)
        return 0
    finally:
        client.close()
        writer.close()


def _take_in(client: Any, domain: Domain, writer: EventWriter) -> int:
    from redis.exceptions import ResponseError

    key, sources = stream_key(domain.name), [source.name for source in domain.sources]
    try:
        client.xgroup_create(key, group, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    taken = 0
    # First what was given before and never acknowledged, then what is new.
    for start in ("0", ">"):
        for number, fields in _messages(client.xreadgroup(group, group, {key: start}, count=messages_at_once)):
            body = (fields or {}).get(b"event", b"")
            try:
                if len(body) > EVENT_BYTES:
                    raise MalformedBody(f"it has more than {EVENT_BYTES} bytes", instead="Send one event")
                said = understand(body, domain.name, sources)
                writer.append(f"redis:{said.id}", said)
            except (MalformedBody, InvalidRequest) as error:
                log.warning("%s %s: %s", key, number.decode(), str(error)[:400])
                client.xadd(f"{key}:refused", {"message": number, "reason": str(error)[:4000]}, maxlen=messages_at_once)
            client.xack(key, group, number)
            taken += 1
    return taken


def _messages(given: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The messages of one stream, in either form of the client."""
    pairs = given.items() if isinstance(given, dict) else given or []
    found: list[tuple[bytes, dict[bytes, bytes]]] = []
    for _, messages in pairs:
        # The newer protocol gives a list of lists.
        found += messages[0] if messages and isinstance(messages[0], list) else messages
    return found
