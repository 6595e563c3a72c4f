"""What an Arrow IPC stream says of itself, looked at before anybody makes what it asks for.

Polars believes a stream: forty bytes may ask for a billion rows, thirty kilobytes hold a gigabyte compressed, a million
rows may name one long text, types may be nested until a stack ends. Each of these costs a worker its memory or its
life. So the metadata of every message is read here, which takes some microseconds, and what a request has no use for is
refused: compression, dictionaries, nested types, more rows and more text than are answered at once.

It refuses to understand more than that. What the buffers hold is for Polars to check.

References
----------
Apache Arrow, "Columnar format: Serialization and Interprocess Communication", with Message.fbs and Schema.fbs;
"FlatBuffer Internals", for how a table is laid out.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlplatform.errors import MalformedBody

MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Of all texts of a stream, counted as often as rows name them: four times the longest body."""

MAX_MESSAGES = 1_000
"""Batches of a stream. Each costs a frame; who sends a hundred thousand rows sends some ten."""

BUFFERS = {1: 0, 2: 2, 3: 2, 5: 3, 6: 2, 8: 2, 10: 2, 20: 3, 24: 2}
"""Types (of Schema.fbs) that a field of a request may have -> its number of buffers: nothing, whole and other numbers,
text, truth, days, instants, and text in its large and its view form."""

SEVERAL = "Send several requests"
STREAM = "Send one as Arrow's libraries write it, whole"

TEXT_VIEW = 24
SCHEMA, RECORDS = 1, 3


def examine(body: bytes, *, max_rows: int, max_columns: int) -> None:
    """Make sure that a stream asks for no more than it may.

    Raises
    ------
    MalformedBody
        It does, or it is no stream of messages at all.
    """
    try:
        _examine(body, max_rows, max_columns)
    except (struct.error, ValueError) as error:
        raise MalformedBody(f"it is no Arrow IPC stream ({error})", instead=STREAM) from None


def _examine(body: bytes, max_rows: int, max_columns: int) -> None:
    kinds: list[int] | None = None
    rows = text = 0
    for number, (kind, header, start) in enumerate(_messages(body)):
        if number > MAX_MESSAGES:
            raise MalformedBody(f"it has more than {MAX_MESSAGES} batches", instead="Send larger ones")
        if kind == SCHEMA and kinds is None:
            kinds = _kinds(header, max_columns)
        elif kind == RECORDS and kinds is not None:
            if header.slot(3) is not None:
                raise MalformedBody("it is compressed", instead="Send it uncompressed")
            rows += _natural(header.number(0, "<q"))
            text += _text_bytes(body, header, start, kinds)
            if rows > max_rows:
                raise MalformedBody(f"it has more than {max_rows} rows", instead=SEVERAL)
            if text > MAX_TEXT_BYTES:
                raise MalformedBody(f"its texts have more than {MAX_TEXT_BYTES} bytes", instead=SEVERAL)
        else:
            raise ValueError("one schema and then batches are expected")


def _messages(body: bytes) -> Iterator[tuple[int, "_Table", int]]:
    """Kind, header and start of the buffers of each message."""
    at = 0
    while at < len(body):
        mark, length = struct.unpack_from("<Ii", body, at)
        if mark != 0xFFFFFFFF or length < 0:
            raise ValueError(f"no message at byte {at}")
        if length == 0:
            return
        message = _Table.root(body, at + 8)
        start = at + 8 + length
        at = start + _natural(message.number(3, "<q"))
        if at > len(body):
            raise ValueError("it ends within a message")
        yield message.number(1, "<B"), message.table(2), start


def _kinds(schema: "_Table", max_columns: int) -> list[int]:
    """The type of each column."""
    columns = schema.length(1)
    if columns > max_columns:
        raise MalformedBody(f"it has {columns} columns", instead="Send those of a request")
    kinds = []
    for column in range(columns):
        field = schema.table_of(1, column)
        kind = field.number(2, "<B")
        if kind not in BUFFERS or field.slot(4) is not None or field.length(5):
            raise MalformedBody(f"column {column} holds no plain numbers, texts or times", instead="Send plain ones")
        kinds.append(kind)
    return kinds


def _text_bytes(body: bytes, batch: "_Table", start: int, kinds: list[int]) -> int:
    """Bytes of the texts that rows of a batch name; of views only, since the other forms hold each text once."""
    named = buffer = views = 0
    for kind in kinds:
        if kind == TEXT_VIEW:
            offset, length = (_natural(each) for each in batch.item(2, buffer + 1, "<qq"))
            if length:
                held = np.frombuffer(body, dtype="<u4", count=length // 16 * 4, offset=start + offset)
                named += int(held[::4].sum(dtype=np.int64))
            buffer += _natural(batch.item(4, views, "<q")[0])
            views += 1
        buffer += BUFFERS[kind]
    return named


@dataclass(frozen=True)
class _Table:
    """A table of a flat buffer: its fields by their number."""

    held: bytes
    at: int

    @classmethod
    def root(cls, held: bytes, at: int) -> "_Table":
        """The table that the offset at a place leads to."""
        return cls(held, at + _read(held, at, "<I")[0])

    def slot(self, field: int) -> int | None:
        """Where a field stands; None: it has its default."""
        known = self.at - _read(self.held, self.at, "<i")[0]
        entry = 4 + 2 * field
        if entry >= _read(self.held, known, "<H")[0]:
            return None
        offset = _read(self.held, known + entry, "<H")[0]
        return self.at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """A number."""
        at = self.slot(field)
        return 0 if at is None else _read(self.held, at, form)[0]

    def table(self, field: int) -> "_Table":
        """A table."""
        at = self.slot(field)
        if at is None:
            raise ValueError("a message says nothing")
        return _Table.root(self.held, at)

    def length(self, field: int) -> int:
        """How long a list is."""
        at = self.slot(field)
        return 0 if at is None else _read(self.held, _Table.root(self.held, at).at, "<I")[0]

    def item(self, field: int, index: int, form: str) -> tuple[int, ...]:
        """One of a list of numbers, or of structures of numbers."""
        return _read(self.held, self._place(field, index, struct.calcsize(form)), form)

    def table_of(self, field: int, index: int) -> "_Table":
        """One of a list of tables."""
        return _Table.root(self.held, self._place(field, index, 4))

    def _place(self, field: int, index: int, size: int) -> int:
        at = self.slot(field)
        if at is None or index >= self.length(field):
            raise ValueError("a list is too short")
        return _Table.root(self.held, at).at + 4 + size * index


def _natural(number: int) -> int:
    if number < 0:
        raise ValueError("a length below zero")
    return number


def _read(held: bytes, at: int, form: str) -> tuple[int, ...]:
    # To `struct` a place before the first byte is one counted from the end.
    return struct.unpack_from(form, held, _natural(at))
