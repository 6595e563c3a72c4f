"""Events: somebody says that data has come, and the word is kept until the pipeline has decided on it.

A gateway takes them (`POST /webhook/data-updated`), or a Redis Stream; both append to one log per domain. An event is
known by its id: sent again, it is the same event, whatever else it says. What is in the log is only a claim. Whether
there is such a partition is for the pipeline to say, and it answers with a decision.

No import of this module may drag in a table or a frame: gateways use it.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mlplatform.errors import InvalidRequest, MalformedBody
from mlplatform.provenance.append_only import AppendOnlyFiles, day_begun, files, frames, is_growing

remembered = 10_000
"""Ids that a writer remembers, some 100 bytes each: what is sent again within minutes is not written again."""

EVENT_BYTES = 16 * 1024
"""Of one event as it is sent: five fields of at most 200 characters."""

kept_for = timedelta(days=30)
"""How long an event that was decided on is known by its id. A sender that says it again after a month, says it anew."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]


class DataUpdated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sender says. It is read back from the log as it is declared here, so bounds may only be widened."""

    id: Id
    """Chosen by the sender; the same id is the same event."""

    source: Name
    """Of the domain's sources, or the domain's own name for all of them."""

    partition: Name
    """The day whose rows have come, ISO."""

    rows_added: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    dataset_version: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """The sender's own name of what the data set is now; kept with the decision."""


class Event(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """An event as it is kept. Fields may be added at the end, with a default."""

    id: str
    """The sender's id behind the id of its key: two senders may choose the same."""

    received: int
    """Microseconds since the epoch, UTC, on the clock of whoever took it in."""

    said: DataUpdated


Positions = dict[str, int]
"""File name -> where the last event that was read of it ends."""

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Event).decode


def understand(body: bytes, domain: str, sources: Collection[str]) -> DataUpdated:
    """What a body says, as JSON.

    Raises
    ------
    MalformedBody
        It is no JSON object.
    InvalidRequest
        Fields are missing, unknown, or of no sense; all of them are named.
    """
    instead = "Send a JSON object with `id`, `source`, `partition`, `rows_added` and, if you like, `dataset_version`"
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody(f"it is no JSON ({error})", instead=instead) from error
    if not isinstance(raw, dict):
        raise MalformedBody("it is no JSON object", instead=instead)
    declared = msgspec.structs.fields(DataUpdated)
    faults = dict.fromkeys(raw.keys() - {field.name for field in declared}, "there is no such field")
    read: dict[str, Any] = {}
    for field in declared:
        if field.name in raw:
            try:
                read[field.name] = msgspec.convert(raw[field.name], field.type)
            except msgspec.ValidationError as error:
                faults[field.name] = str(error)
        elif field.required:
            faults[field.name] = "is missing"
    if "source" in read and read["source"] not in (domain, *sources):
        faults["source"] = f"there is no such source here; there is {', '.join([domain, *sources])}"
    if "partition" in read and not _is_day(read["partition"]):
        faults["partition"] = "is no day; write it as 2013-07-01"
    if faults:
        raise InvalidRequest(faults)
    return DataUpdated(**read)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def event_folder(home: Path, domain: str) -> Path:
    """Where the events of a domain are kept."""
    return home / "events" / domain


class EventWriter:
    """Appends the events of one domain; one per process, for any of its threads."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self._files = AppendOnlyFiles(folder, now)
        self._now = now
        self._kept: OrderedDict[str, None] = OrderedDict()

    def append(self, event_id: str, said: DataUpdated) -> bool:
        """Keep an event; it is on the disk when this returns. False: this writer has kept it before.

        Raises
        ------
        Unavailable
            It cannot be written: it may be there or not. Send it again under the same id.
        """
        if event_id in self._kept:
            return False
        received = int(self._now().timestamp() * 1_000_000)
        self._files.append(_encode(Event(id=event_id, received=received, said=said)))
        self._kept[event_id] = None
        if len(self._kept) > remembered:
            # Of two threads one may find it taken already.
            self._kept.popitem(last=False)
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._files.close()


@dataclass(frozen=True, kw_only=True)
class News:
    """Events that nobody has decided on, and how far the log was read."""

    events: Sequence[Event]
    reached: Positions


def news(folder: Path, since: Positions) -> News:
    """The events behind some positions, each once, without those that stand before them too.

    Only where something was appended is anything read, and then the whole log: what was sent again may stand anywhere.
    """
    paths = files(folder)
    grown = {path.name: _size(path) for path in paths}
    if not any(size > since.get(name, 0) for name, size in grown.items()):
        return News(events=(), reached=since)
    before: set[str] = set()
    new: dict[str, Event] = {}
    # A file that is gone is forgotten.
    reached = {name: since.get(name, 0) for name in grown}
    for path in paths:
        for payload, behind in _frames(path):
            event = _decode(payload)
            if behind <= since.get(path.name, 0):
                before.add(event.id)
            else:
                # What was said first counts; the files of two gateways are in no order.
                new[event.id] = min(new.get(event.id, event), event, key=lambda each: each.received)
                reached[path.name] = behind
    found = [event for name, event in new.items() if name not in before]
    return News(events=sorted(found, key=lambda each: (each.received, each.id)), reached=reached)


def prune(folder: Path, reached: Sequence[Positions], today: date) -> int:
    """Remove what is older than `kept_for` and decided on for every model; how many files.

    Parameters
    ----------
    reached : of each model, how far it has read; one that has decided on nothing keeps everything
    """
    removed = 0
    for path in files(folder):
        if today - day_begun(path) <= kept_for:
            break
        decided = min((of_model.get(path.name, 0) for of_model in reached), default=0)
        try:
            if is_growing(path) or next(frames(path, decided), None) is not None:
                continue
            path.unlink()
            removed += 1
        except FileNotFoundError:
            continue  # another model's sensor was first
    return removed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # pruned this moment: it was decided on


def _frames(path: Path) -> list[tuple[bytes, int]]:
    try:
        return list(frames(path))
    except FileNotFoundError:
        return []  # pruned this moment: it was decided on
