"""The journal of a domain's alerts: what was found, what is to be told, to whom it was told, and what is hushed.

Append-only files, each entry forced to the disk before anything is sent. What is known at any time is the sum of the
entries, so that a killed process forgets nothing.

Invariants:

* An alert and the message about it stand in one entry: neither is there without the other.
* A message goes to each of its receivers until one attempt at it succeeded, and to none after that. A process that is
  killed between a sending and its entry sends once more; both carry the same id.
* Entries are written by one process at a time, that which holds the lock; a silence may come from any.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from mlplatform.monitoring.alerts.alert import Alert, Identity, State
from mlplatform.provenance.append_only import AppendOnlyFiles, files, frames

keep_trying = timedelta(days=7)
"""A message that nobody took for so long is given up, and shown as such: who reads it then reads of another world."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to people. Fields may be added, with a default."""

    id: str
    at: datetime
    tags: tuple[str, ...]
    to: tuple[str, ...]
    """Ids of the receivers that those tags meant when it was written; empty: nobody is told."""

    subject: str
    text: str
    alerts: tuple[str, ...] = ()
    """Ids of the alerts it is about."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """Alerts that have changed, and the messages about them."""

    at: datetime
    alerts: tuple[Alert, ...] = ()
    messages: tuple[Message, ...] = ()


class Attempt(msgspec.Struct, frozen=True, kw_only=True, tag="attempt"):
    """A message was given to a receiver, which took it or did not."""

    at: datetime
    message: str
    receiver: str
    delivered: bool
    why: str = ""


class Silence(msgspec.Struct, frozen=True, kw_only=True, tag="silence"):
    """Somebody wants to hear nothing of something for a while."""

    at: datetime
    what: str
    """`rule` or `rule:subject`."""

    until: datetime
    reason: str
    actor: str


Entry = Step | Attempt | Silence

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Step | Attempt | Silence).decode


@dataclass
class Known:
    """What the entries read so far add up to."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    """Every alert there ever was, by id, as it was last."""

    messages: dict[str, Message] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    """By message."""

    silences: list[Silence] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """One more entry."""
        if isinstance(entry, Step):
            self.alerts |= {each.id: each for each in entry.alerts}
            self.messages |= {each.id: each for each in entry.messages}
        elif isinstance(entry, Attempt):
            self.attempts.setdefault(entry.message, []).append(entry)
        else:
            self.silences.append(entry)

    def state(self, domain: str) -> State:
        """The newest alert of each identity."""
        newest: dict[Identity, Alert] = {}
        for alert in self.alerts.values():
            other = newest.get(alert.identity)
            if other is None or (alert.opened, alert.over is None) > (other.opened, other.over is None):
                newest[alert.identity] = alert
        return State(domain=domain, alerts=newest)

    def silent(self, now: datetime) -> list[Silence]:
        """The silences that hold at a time."""
        # The last word counts: a silence that ends at once takes back the one before.
        newest = {each.what: each for each in self.silences}
        return [each for each in newest.values() if each.at <= now < each.until]

    def silenced(self, alert: Alert, now: datetime) -> Silence | None:
        """The silence that holds an alert back at a time."""
        return next((each for each in self.silent(now) if each.what in (alert.rule, alert.name)), None)

    def delivered(self, message: str) -> set[str]:
        """Receivers that took a message."""
        return {each.receiver for each in self.attempts.get(message, ()) if each.delivered}

    def waiting(self, now: datetime) -> list[Message]:
        """Messages that some receiver has not taken yet, the oldest first."""
        return [
            each
            for each in self.messages.values()
            if now - each.at < keep_trying and not set(each.to) <= self.delivered(each.id)
        ]


class Journal:
    """Reads and appends the entries of one domain.

    Parameters
    ----------
    folder : made with the first entry
    now : aware UTC; names the files
    """

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._writer = AppendOnlyFiles(folder, now)
        self._read_to: dict[Path, int] = {}
        self._known = Known()

    @property
    def lock(self) -> Path:
        """To be held by who writes steps and attempts."""
        return self._folder / ".monitor.lock"

    def known(self) -> Known:
        """What there is now; only what was appended since the last call is read."""
        fresh: list[Entry] = []
        read_to: dict[Path, int] = {}
        for path in files(self._folder):
            for payload, end in frames(path, self._read_to.get(path, 0)):
                fresh.append(_decode(payload))
                read_to[path] = end
        # Writers have files of their own: the time tells the order.
        for entry in sorted(fresh, key=lambda each: each.at):
            self._known.add(entry)
        # Last: what was read before a file could not be is read again.
        self._read_to |= read_to
        return self._known

    def append(self, entry: Entry) -> None:
        """Write one entry; it is on the disk when this returns.

        Raises
        ------
        Unavailable
            It cannot be written.
        """
        self._writer.append(_encode(entry))

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()


def journal_folder(home: Path, domain: str) -> Path:
    """Where the journal of a domain lies."""
    return home / "alerts" / domain
