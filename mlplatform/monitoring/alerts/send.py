"""Sending: messages to the services of an Apprise configuration, each until it has taken them.

A service that does not take a message is left in peace for a wait that doubles, with everything that is meant for it;
the others do not wait for it. What its address is, is a secret: a service is called by its scheme and a hash.

Apprise sends to these services and to nobody else: no outside images, no redirects, nothing kept on disk.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from mlplatform.errors import Unavailable
from mlplatform.monitoring.alerts.journal import Attempt, Journal, Known, Message

first_wait, longest_wait = timedelta(seconds=30), timedelta(minutes=30)
"""After a first failure, and at most: a service that is up again is used within half an hour."""

seconds_at_once = 15.0
"""After which no further message is begun: a look has a minute, and a service that hangs takes up to eight seconds."""


class Channels(Protocol):
    """Where messages go."""

    def receivers(self, tags: Sequence[str]) -> list[str]:
        """Ids of the services with one of these tags."""

    def deliver(self, message: Message, receiver: str) -> str:
        """Give a message to a service: empty when it took it, else why not."""


class Nobody:
    """No channel is configured: alerts are kept and shown."""

    def receivers(self, tags: Sequence[str]) -> list[str]:
        """Nobody."""
        return []

    def deliver(self, message: Message, receiver: str) -> str:
        """Nobody takes it."""
        return "no channels are configured"


class Broken:
    """The configuration cannot be read: what it will name gets the messages once it can.

    Parameters
    ----------
    why : what is told instead of sending
    """

    def __init__(self, why: str) -> None:
        self._why = why

    def receivers(self, tags: Sequence[str]) -> list[str]:
        """Somebody, not yet known."""
        return ["unknown"] if tags else []

    def deliver(self, message: Message, receiver: str) -> str:
        """Not now."""
        return self._why


class AppriseChannels:
    """The services of an Apprise configuration file.

    Parameters
    ----------
    path : the file, as text or YAML

    Raises
    ------
    Unavailable
        It is not there, or names no service.
    """

    def __init__(self, path: Path) -> None:
        import apprise

        asset = apprise.AppriseAsset(
            app_id="mlplatform",
            app_desc="mlplatform",
            app_url="",
            image_url_mask="",
            image_url_logo="",
            async_mode=False,
            http_redirects=False,
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            secure_logging=True,
        )
        try:
            written = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"the file that MLPLATFORM_ALERTS names cannot be read ({type(error).__name__}). Write an Apprise "
                "configuration there, or leave it unset"
            ) from error
        with _overheard():
            # As text, so that nothing it names is fetched.
            config = apprise.AppriseConfig(asset=asset)
            config.add_config(written, asset=asset)
            self._services: dict[str, Any] = {_name(each): each for each in config.services()}
        if not self._services:
            raise Unavailable(
                "the file that MLPLATFORM_ALERTS names holds no service that Apprise understands. Write lines such as "
                "`page=json://host/path`"
            )

    def receivers(self, tags: Sequence[str]) -> list[str]:
        """Services with one of these tags, each once."""
        return [name for name, service in self._services.items() if set(tags) & set(service.tags)]

    def deliver(self, message: Message, receiver: str) -> str:
        """Give a message to a service: empty when it took it, else why not, without its address."""
        service = self._services.get(receiver)
        if service is None:
            return "the configuration does not name it any more"
        with _overheard() as heard:
            try:
                taken = service.notify(body=message.text, title=message.subject)
            except Exception as error:  # noqa: BLE001 - a hundred plugins, and none may keep an alert from the others
                return f"Apprise raised {type(error).__name__}"
        if taken:
            return ""
        code = next(iter(re.findall(r"error=(\d+)", " ".join(heard.told))), "")
        return f"it answered {code}" if code else "it could not be reached, or did not answer"


class _overheard(logging.Filter):
    """What Apprise and the libraries beneath it log meanwhile goes no further: they tell of addresses."""

    _loggers = ("apprise", "urllib3.connectionpool")

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Kept here, and nowhere else."""
        self.told.append(record.getMessage())
        return False

    def __enter__(self) -> "_overheard":
        for name in self._loggers:
            logging.getLogger(name).addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._loggers:
            logging.getLogger(name).removeFilter(self)


def open_channels(path: Path | None) -> Channels:
    """The channels that the settings name; unreadable ones hold everything back until they can be read."""
    if path is None:
        return Nobody()
    try:
        return AppriseChannels(path)
    except Unavailable as error:
        return Broken(str(error))


def send(
    journal: Journal,
    channels: Channels,
    now: datetime,
    *,
    seconds: float = seconds_at_once,
    clock: Callable[[], float] = time.monotonic,
) -> list[Attempt]:
    """Give every message that waits to those who have not taken it, as far as time allows.

    Parameters
    ----------
    clock : seconds, monotonic
    """
    known, started = journal.known(), clock()
    made: list[Attempt] = []
    held = waits(known, now)
    for message in known.waiting(now):
        for receiver in unserved(known, message, channels):
            if held.get(receiver, now) > now:
                continue
            if clock() - started > seconds:
                return made
            why = channels.deliver(message, receiver)
            attempt = Attempt(at=now, message=message.id, receiver=receiver, delivered=not why, why=why)
            journal.append(attempt)
            made.append(attempt)
            if why:
                # What else is for it comes after this one, in its order.
                held[receiver] = now + first_wait
    return made


def unserved(known: Known, message: Message, channels: Channels) -> list[str]:
    """Who has yet to take a message.

    A receiver that the configuration does not name any more is replaced by those that its tags mean now and did not
    mean then: an address with a slip in it is mended, and the message goes to the right one.
    """
    taken = known.delivered(message.id)
    there = set(channels.receivers(message.tags))
    left = [each for each in message.to if each not in taken]
    gone = [each for each in left if each not in there]
    instead = sorted(there - set(message.to) - taken) if gone else []
    return [each for each in left if each in there] + instead


def waits(known: Known, now: datetime) -> dict[str, datetime]:
    """Until when each receiver that did not take its last message is left in peace."""
    failed: dict[str, int] = {}
    until: dict[str, datetime] = {}
    attempts: Iterable[Attempt] = sorted(
        (each for message in known.waiting(now) for each in known.attempts.get(message.id, ())),
        key=lambda each: each.at,
    )
    for each in attempts:
        failed[each.receiver] = 0 if each.delivered else failed.get(each.receiver, 0) + 1
        doubled = first_wait * 2 ** min(10, failed[each.receiver] - 1) if failed[each.receiver] else timedelta()
        until[each.receiver] = each.at + min(doubled, longest_wait)
    return until


def _name(service: Any) -> str:
    digest = blake2b(service.url(privacy=False).encode(), digest_size=4).hexdigest()
    scheme = service.protocol or service.secure_protocol
    return f"{scheme if isinstance(scheme, str) else scheme[0]}-{digest}"
