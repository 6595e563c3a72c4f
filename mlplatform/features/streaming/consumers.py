"""Where streamed facts come from: the fact logs that gateways write, and Redis Streams.

A consumer gives events until they are acknowledged, also after a crash: at least once. That each counts once is the
business of the log, in which an event has an identity. So a message from Redis is appended to the log first, under its
own id, and given from there; whoever dies in between gets it again, appends its twin, and nobody counts it twice.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Source, Stream
from mlplatform.errors import DeclarationError, MalformedBody, Unavailable
from mlplatform.features.streaming.fact_log import Event, FactWriter, Positions, events, fact_folder
from mlplatform.features.streaming.fact_rows import arrow, understand
from mlplatform.provenance.files import write_whole
from mlplatform.settings import redis_schemes

log = logging.getLogger(__name__)

look_seconds = 0.02
"""Between two looks at the logs: a fiftieth of the second in which a fact is to be visible, and a look costs 50 µs."""

group = "mlplatform"
"""The consumer group in Redis."""

claim_after_seconds = 30.0
"""How long a message may be with a consumer before it is taken for dead and another one gets it."""

messages_at_once = 500


class FactConsumer(Protocol):
    """Gives the events of a domain's streamed sources, each at least once until it is acknowledged."""

    def acknowledged(self) -> Mapping[str, Positions]:
        """By source, how far its log was acknowledged before this consumer began."""
        ...

    def poll(self, seconds: float) -> dict[str, list[Event]]:
        """New events by source, as soon as there are any; nothing after so many seconds."""
        ...

    def acknowledge(self) -> None:
        """What was polled is done with, and is not given again."""
        ...


class LogConsumer:
    """Tails the fact logs of a domain; how far it came is remembered in a file.

    Parameters
    ----------
    kept : the file
    clock, sleep : seconds; for waiting
    """

    def __init__(
        self,
        home: Path,
        domain: Domain,
        kept: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folders = {each.name: fact_folder(home, domain.name, each.name) for each in streamed_sources(domain)}
        self._kept = kept
        self._clock, self._sleep = clock, sleep
        told = read_positions(kept)
        self._reached = {
            # Of files that were cleared nothing is left to know.
            name: {file: end for file, end in told.get(name, {}).items() if (folder / file).exists()}
            for name, folder in self._folders.items()
        }
        self._acknowledged = {name: dict(each) for name, each in self._reached.items()}

    def acknowledged(self) -> Mapping[str, Positions]:
        """As the file said when this consumer was made."""
        return self._acknowledged

    def poll(self, seconds: float) -> dict[str, list[Event]]:
        """Events behind those of the last poll."""
        end = self._clock() + seconds
        while True:
            found = {}
            for name, folder in self._folders.items():
                more, self._reached[name] = events(folder, self._reached[name])
                if more:
                    found[name] = more
            if found or self._clock() >= end:
                return found
            self._sleep(min(look_seconds, seconds))

    def acknowledge(self) -> None:
        """Write down how far."""
        write_whole(self._kept, msgspec.json.encode(self._reached))


class RedisConsumer:
    """Takes messages of Redis Streams into the fact logs, and gives what is in the logs.

    A source has the stream `mlplatform:facts:<domain>/<source>`. A message has a field `rows` (a JSON list of objects)
    or `arrow` (an Arrow IPC stream), and may have an `id` of the sender's own, under which it may be sent twice. Rows
    that break the contract go to the stream `…:refused`, with the reason.

    Parameters
    ----------
    client : a `redis.Redis`
    logs : gives what was appended, by gateways too
    """

    def __init__(
        self,
        client: Any,
        domain: Domain,
        home: Path,
        logs: FactConsumer,
        now: Callable[[], datetime],
        *,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._sources = {f"mlplatform:facts:{domain.name}/{each.name}": each for each in streamed_sources(domain)}
        self._writers = {
            key: FactWriter(fact_folder(home, domain.name, each.name), now) for key, each in self._sources.items()
        }
        self._logs = logs
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._clock = clock
        self._claim_at = -float("inf")
        self._unacknowledged: dict[str, list[bytes]] = {key: [] for key in self._sources}
        self._told = ""

    def acknowledged(self) -> Mapping[str, Positions]:
        """Of the logs."""
        return self._logs.acknowledged()

    def poll(self, seconds: float) -> dict[str, list[Event]]:
        """Take in what Redis has, then give what the logs have."""
        from redis.exceptions import RedisError

        try:
            self._take_in(seconds)
            self._told = ""
        except RedisError as error:
            # Gateways go on appending meanwhile, and what is in Redis waits there.
            self._tell(f"Redis cannot be read ({error}); the fact logs are, and it is tried again")
            return self._logs.poll(seconds)
        return self._logs.poll(0.0)

    def acknowledge(self) -> None:
        """First the logs, then Redis: what is lost in between is given again, and known by its id."""
        from redis.exceptions import RedisError

        self._logs.acknowledge()
        for key, ids in self._unacknowledged.items():
            if ids:
                try:
                    self._client.xack(key, group, *ids)
                except RedisError as error:
                    self._tell(f"Redis cannot be told what was taken in ({error}); it gives that again")
                    return
                ids.clear()

    def _take_in(self, seconds: float) -> None:
        if self._clock() >= self._claim_at:
            self._claim_at = self._clock() + claim_after_seconds
            for key in self._sources:
                self._make_group(key)
                self._keep(key, self._claimed(key))
        wait = max(1, int(min(seconds, look_seconds) * 1000))
        from redis.exceptions import ResponseError

        try:
            given = self._client.xreadgroup(
                group, self._name, dict.fromkeys(self._sources, ">"), count=messages_at_once, block=wait
            )
        except ResponseError:
            # It has forgotten the group: it was restarted without its memory. The next look makes it anew.
            self._claim_at = -float("inf")
            raise
        for key, messages in _by_stream(given):
            self._keep(key, messages)

    def _make_group(self, key: str) -> None:
        from redis.exceptions import ResponseError

        try:
            self._client.xgroup_create(key, group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _claimed(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Messages of consumers that died, and of this one if it has died under the same name."""
        idle = int(claim_after_seconds * 1000)
        own = self._client.xreadgroup(group, self._name, {key: "0"}, count=messages_at_once)
        found = [message for _, messages in _by_stream(own) for message in messages]
        start: Any = "0-0"
        while True:
            start, messages, *_ = self._client.xautoclaim(
                key, group, self._name, min_idle_time=idle, start_id=start, count=messages_at_once
            )
            found += messages
            if start in (b"0-0", "0-0"):
                return found

    def _keep(self, key: str, messages: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        """Append messages to the log; on the disk when this returns."""
        for number, fields in messages:
            if number in self._unacknowledged[key]:
                continue
            kind, body = (arrow, fields[b"arrow"]) if b"arrow" in (fields or {}) else ("", (fields or {}).get(b"rows"))
            try:
                if body is None:
                    raise MalformedBody("it has neither `rows` nor `arrow`", instead="Send one of these fields")
                understood = understand(body, kind, self._sources[key])
            except MalformedBody as error:
                self._refuse(key, number, str(error))
            else:
                if understood.refused:
                    told = "; ".join(f"row {row}: {reason}" for row, reason in understood.refused.items())
                    self._refuse(key, number, told)
                if understood.rows.height:
                    sent = fields.get(b"id")
                    own = f"redis:{number.decode()}" if sent is None else sent.decode("utf-8", "replace")
                    self._writers[key].append(own, understood.rows)
            self._unacknowledged[key].append(number)

    def _refuse(self, key: str, number: bytes, reason: str) -> None:
        log.warning("%s %s: %s", key, number.decode(), reason[:400])
        self._client.xadd(f"{key}:refused", {"message": number, "reason": reason[:4000]})

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.warning("%s", reason)


def streamed_sources(domain: Domain) -> list[Source]:
    """The sources whose facts are sent as they happen."""
    return [each for each in domain.sources if isinstance(each.landing, Stream)]


def positions_file(home: Path, domain: Domain) -> Path:
    """Where the process of a domain remembers how far it has acknowledged the fact logs."""
    return home / "streamed" / domain.name / "positions.json"


def open_consumer(address: str | None, domain: Domain, home: Path, now: Callable[[], datetime]) -> FactConsumer:
    """The fact logs of a home, and where an address is given, a Redis that facts are taken from too.

    Raises
    ------
    DeclarationError
        The address is none of Redis.
    Unavailable
        The client of Redis is not installed.
    """
    logs = LogConsumer(home, domain, positions_file(home, domain))
    if address is None:
        return logs
    if not address.startswith(redis_schemes):
        raise DeclarationError("facts are streamed from redis://host:port, or from the gateways without `--from`")
    try:
        from redis import Redis
    except ImportError as error:
        raise Unavailable("the client of Redis is not installed. Install the package `redis`") from error
    client = Redis.from_url(address, socket_timeout=5.0, socket_connect_timeout=5.0)
    return RedisConsumer(client, domain, home, logs, now)


def _by_stream(given: Any) -> list[tuple[str, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """What XREADGROUP gives, in either of the client's forms."""
    if not given:
        return []
    pairs = given.items() if isinstance(given, dict) else given
    found = []
    for key, messages in pairs:
        # The newer protocol gives a list of lists.
        flat = messages[0] if messages and isinstance(messages[0], list) else messages
        found.append((key.decode() if isinstance(key, bytes) else key, list(flat)))
    return found


def read_positions(kept: Path) -> dict[str, Positions]:
    """How far the logs were acknowledged; broken or missing, from the beginning: that counts nothing twice."""
    try:
        return msgspec.json.decode(kept.read_bytes(), type=dict[str, Positions])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
