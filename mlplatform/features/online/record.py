"""The bytes under which an online store keeps the values of a key: a short history, the best value first.

A value is some records of one fixed width (event time, available at, revision, state, count, nulls, features), and
behind them, where features are texts, those as msgpack. So a batch is decoded by joining its values and looking at them
as one numpy array, and a publication is merged with what is there without a loop over its rows.

Invariants:

* A record is known by its clocks (event time, available at): of two with the same ones the higher revision stays. A
  *removed* one takes away the lower revisions, and answers nobody.
* Records stand in falling order of (event time, revision, available at). One that becomes visible no earlier than a
  better one can never be the answer, and is left out; that is the rule of the point-in-time join.
* Of what can be seen by now the best `seen_kept` stay, of what cannot yet all, `most_records` in all: where there are
  more, removed ones go first. What was put in which order makes no difference to what is kept.
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.errors import DeclarationError
from mlplatform.features.online.store import Found, Lookup
from mlplatform.features.revision_files import column_types
from mlplatform.features.view import instant

seen_kept = 2
"""Values of a key that could be served already: the newest, and the one before it for a gateway whose clock is behind,
or a request that names a time a little while ago."""

most_records = 16
"""Of a key. More are there only where much was removed or many values are dated in the future. Removed ones are left
out first, beginning with the oldest, then the values furthest away; never one that could be served already."""

dtype_names = {dtype: str(dtype) for dtype in column_types}
"""What a stage table can hold, and how a store writes it down."""

dtypes_named = {name: dtype for dtype, name in dtype_names.items()}

_WIDTHS: dict[pl.DataType, tuple[str, str]] = {
    pl.Boolean(): ("u1", "?"),
    pl.Int8(): ("<i1", "b"),
    pl.Int16(): ("<i2", "h"),
    pl.Int32(): ("<i4", "i"),
    pl.Int64(): ("<i8", "q"),
    pl.Float32(): ("<f4", "f"),
    pl.Float64(): ("<f8", "d"),
    pl.Date(): ("<i4", "i"),
    pl.Datetime("us"): ("<i8", "q"),
    instant: ("<i8", "q"),
}
_PHYSICAL: dict[pl.DataType, pl.DataType] = {
    pl.Date(): pl.Int32(),
    pl.Datetime("us"): pl.Int64(),
    instant: pl.Int64(),
}
_REMOVED = 1
_LATEST = 2**63 - 1
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Records = npt.NDArray[Any]


class Layout:
    """How the features of a view become bytes.

    Parameters
    ----------
    features : dtype by name, in declared order
    """

    def __init__(self, features: Mapping[str, pl.DataType]) -> None:
        self.features = dict(features)
        self._fixed = [name for name, dtype in self.features.items() if dtype in _WIDTHS]
        self._texts = [name for name in self.features if name not in self._fixed]
        # A name of its own, so that a feature may be called like a clock.
        self._place = {name: f"f{number}" for number, name in enumerate(self._fixed)}
        for name in self._texts:
            if self.features[name] not in dtype_names:
                raise DeclarationError(
                    f"feature {name!r} is of type {self.features[name]}, but stores hold {', '.join(dtypes_named)}"
                )
        self._bit = {name: (number // 8, 1 << number % 8) for number, name in enumerate(self.features)}
        mask = -(-len(self.features) // 8)
        self.dtype = np.dtype(
            [
                ("event_time", "<i8"),
                ("available_at", "<i8"),
                ("revision", "<i8"),
                ("state", "u1"),
                ("count", "u1"),
                ("nulls", "u1", (mask,)),
                *((self._place[name], _WIDTHS[self.features[name]][0]) for name in self._fixed),
            ]
        )
        self._size = self.dtype.itemsize
        self._unpack = struct.Struct(
            f"<qqqBB{mask}s" + "".join(_WIDTHS[self.features[name]][1] for name in self._fixed)
        ).unpack_from
        self._count_at = 25
        nobody = np.zeros(1, self.dtype)
        nobody["nulls"] = 255
        self._nobody = nobody.tobytes()
        self._runs = _runs({name: self.features[name] for name in self._fixed})
        fields: Mapping[str, Any] = self.dtype.fields or {}
        self._run_dtype = np.dtype(
            {
                "names": ["clocks", "nulls", *(f"run{number}" for number in range(len(self._runs)))],
                "formats": [
                    ("<i8", (3,)),
                    ("u1", (mask,)),
                    *((_WIDTHS[self.features[run[0]]][0], (len(run),)) for run in self._runs),
                ],
                "offsets": [0, 26, *(fields[self._place[run[0]]][1] for run in self._runs)],
                "itemsize": self._size,
            }
        )
        """The same bytes, with neighbours of one width as one array."""
        self._columns = {name: _Column(name, self.features[name]) for name in self._fixed}

    def records(self, rows: pl.DataFrame) -> tuple[Records, list[list[object]]]:
        """(n,) records of some rows, and what is text in them."""
        made = np.zeros(rows.height, self.dtype)
        for name in ("event_time", "available_at"):
            made[name] = rows.get_column(name).cast(instant).to_physical().to_numpy()
        made["revision"] = rows.get_column("_revision").to_numpy()
        if "_removed" in rows.columns:
            made["state"] = rows.get_column("_removed").fill_null(value=False).to_numpy()
        for name, (byte, bit) in self._bit.items():
            column = rows.get_column(name)
            if column.null_count():
                made["nulls"][:, byte] |= column.is_null().to_numpy() * np.uint8(bit)
            if name in self._place:
                physical = column.to_physical()
                filled = physical.fill_null(value=False) if column.dtype == pl.Boolean() else physical.fill_null(0)
                made[self._place[name]] = filled.to_numpy()
        texts = [rows.get_column(name).to_list() for name in self._texts]
        return made, [list(each) for each in zip(*texts, strict=True)] if texts else []

    def merged(
        self,
        held: Sequence[bytes | None],
        fresh: Records,
        of: npt.NDArray[np.int64],
        texts: list[list[object]],
        now: int,
    ) -> list[bytes]:
        """The value of each key after some records have come.

        Parameters
        ----------
        held : (k,) value of each key; None where there is none
        fresh, texts : (n,) as `records` gives them
        of : (n,) the key of each record, as a place in `held`, rising
        now : microseconds
        """
        there = [value for value in held if value is not None]
        if there:
            counts = np.array([0 if value is None else value[self._count_at] for value in held])
            every = np.frombuffer(self._joined([*there, fresh.tobytes()]), self.dtype)
            group = np.concatenate([np.repeat(np.arange(len(held)), counts), of])
            if self._texts:
                texts = [each for value in there for each in self._tail(value)] + texts
        else:
            every, group = fresh, of
        # Of equal ones the last put comes first, and stays.
        age = np.arange(len(every), 0, -1)
        order = np.lexsort((age, ~every["available_at"], ~every["revision"], ~every["event_time"], group))
        clocks = every["event_time"][order], every["available_at"][order]
        group, removed = group[order], (every["state"][order] & _REMOVED).astype(bool)
        if removed.any():
            first = _first_of_each(group, *clocks)
            order, group, removed = order[first], group[first], removed[first]
            clocks = clocks[0][first], clocks[1][first]
        kept = _kept(group, removed, *clocks, now)
        order, group = order[kept], group[kept]
        chosen = every[order]
        counts = np.bincount(group, minlength=len(held))
        chosen["count"] = counts[group]
        ends = np.cumsum(counts)
        buffer, size = chosen.tobytes(), self._size
        spans = zip((ends - counts).tolist(), ends.tolist(), strict=True)
        if not self._texts:
            return [buffer[start * size : end * size] for start, end in spans]
        tails = [texts[place] for place in order.tolist()]
        return [buffer[start * size : end * size] + _encode(tails[start:end]) for start, end in spans]

    def chosen(
        self, values: Sequence[bytes | None], at: npt.NDArray[np.int64], ttl: int, publication: str = ""
    ) -> Lookup:
        """What each value gives at its instant.

        Parameters
        ----------
        values : (n,) of a store; None where it has none
        at : (n,) microseconds
        ttl : microseconds
        """
        there = [value for value in values if value is not None]
        every = np.frombuffer(self._joined([*there, self._nobody]), self.dtype)
        nobody = len(every) - 1
        counts = [0 if value is None else value[self._count_at] for value in values]
        group = np.repeat(np.arange(len(values)), counts)
        instants = at[group]
        seen = (every["available_at"][:-1] <= instants) & (every["event_time"][:-1] <= instants)
        # The best one of each key stands first; written from the last on, it is the one that remains.
        visible = np.flatnonzero(seen & (every["state"][:-1] != _REMOVED))[::-1]
        place = np.full(len(values), nobody)
        place[group[visible]] = visible
        found = place < nobody
        present = found & (every["event_time"][place] >= at - ttl)
        place[~present] = nobody
        # As bytes: numpy takes records field by field.
        picked = every.view(f"V{self._size}")[place].view(self._run_dtype)
        null = np.unpackbits(picked["nulls"], axis=1, count=len(self.features), bitorder="little")
        known = pl.Series(present)
        absent = len(values) - np.count_nonzero(present)
        kept = known if absent else None
        expired = np.count_nonzero(found) > np.count_nonzero(present)
        otherwise = _expired.zip_with(pl.Series(found), _not_found) if expired else _not_found
        made: dict[str, pl.Series] = {}
        for number, run in enumerate(self._runs):
            made |= zip(run, _side_by_side(picked[f"run{number}"]), strict=True)
        texts = self._picked_texts(values, place, counts, present)
        # Mostly a feature is null just where nothing is known of the key, and one mask serves all columns.
        more_nulls = (null.sum(axis=0) > absent).tolist()
        columns = []
        for number, name in enumerate(self.features):
            if name in made:
                mask = pl.Series(null[:, number] == 0) if more_nulls[number] else kept
                columns.append(self._columns[name](made[name], mask))
            else:
                columns.append(pl.Series(name, texts[name], self.features[name]))
        event_time, available_at, revision = _side_by_side(picked["clocks"])
        return Lookup(
            values=pl.DataFrame(columns),
            statuses=_present.zip_with(known, otherwise),
            revisions=_revision(revision, kept),
            event_time=_event_time(event_time, kept),
            available_at=_available_at(available_at, kept),
            publication=publication,
        )

    def found(self, value: bytes | None, at: int, ttl: int) -> Found:
        """What one value gives at an instant."""
        if value is None:
            return Found("not_found", (), None, None, None)
        size = self._size
        for number in range(value[self._count_at]):
            event_time, available_at, revision, state, _, nulls, *fixed = self._unpack(value, number * size)
            if event_time > at or available_at > at or state & _REMOVED:
                continue
            if event_time < at - ttl:
                return Found("expired", (), None, None, None)
            values = fixed
            if self._texts:
                read, text = iter(fixed), iter(self._tail(value)[number])
                values = [next(read if name in self._place else text) for name in self.features]
            if any(nulls):
                values = [
                    None if nulls[byte] & bit else each
                    for each, (byte, bit) in zip(values, self._bit.values(), strict=True)
                ]
            return Found("present", tuple(values), revision, event_time, available_at)
        return Found("not_found", (), None, None, None)

    def _joined(self, values: list[bytes]) -> bytes:
        """The records of all but the last value, which has no text, and of that."""
        if self._texts:
            size = self._size
            values = [*(value[: value[self._count_at] * size] for value in values[:-1]), values[-1]]
        return b"".join(values)

    def _tail(self, value: bytes) -> list[list[object]]:
        tail = _decode(memoryview(value)[value[self._count_at] * self._size :])
        assert isinstance(tail, list)
        return tail

    def _picked_texts(
        self,
        values: Sequence[bytes | None],
        place: npt.NDArray[np.int64],
        counts: Sequence[int],
        present: npt.NDArray[np.bool_],
    ) -> dict[str, list[object]]:
        if not self._texts:
            return {}
        starts = np.cumsum(counts) - counts
        rows: list[list[object]] = []
        for value, number, there in zip(values, (place - starts).tolist(), present.tolist(), strict=True):
            rows.append(self._tail(value)[number] if value is not None and there else [None] * len(self._texts))
        return {name: [row[number] for row in rows] for number, name in enumerate(self._texts)}


def _first_of_each(
    group: npt.NDArray[np.int64], event_time: npt.NDArray[np.int64], available_at: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Places of the first record of each group and pair of clocks, in order."""
    order = np.lexsort((np.arange(len(group)), available_at, event_time, group))
    new = np.ones(len(order), dtype=bool)
    new[1:] = False
    for each in (group, event_time, available_at):
        new[1:] |= each[order][1:] != each[order][:-1]
    return np.sort(order[new])


def _kept(
    group: npt.NDArray[np.int64],
    removed: npt.NDArray[np.bool_],
    event_time: npt.NDArray[np.int64],
    available_at: npt.NDArray[np.int64],
    now: int,
) -> npt.NDArray[np.bool_]:
    """Which records stay; they are sorted by group, the best one first."""
    if not len(group):
        return np.zeros(0, dtype=bool)
    seen_from = np.maximum(event_time, available_at)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    number = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(group)]))
    instants, rank = np.unique(seen_from, return_inverse=True)
    # The earliest instant among the better records of the group: a running minimum that falls by a whole turn with each
    # group, so that none is compared with the group before.
    turn = len(instants) + 1
    level = np.where(removed, len(instants), rank) + (len(starts) - number) * turn
    best = np.minimum.accumulate(level)
    leading = ~removed
    leading[1:] &= level[1:] < best[:-1]
    seen = leading & (seen_from <= now)
    nth = np.cumsum(seen)
    nth = nth - (nth - seen)[starts][number]
    kept = leading & (~seen | (nth <= seen_kept))
    if removed.any():
        # What was removed is remembered while it could come between the values that are kept.
        oldest = np.minimum.reduceat(np.where(kept, event_time, _LATEST), starts)
        kept |= removed & ((event_time >= oldest[number]) | (oldest[number] == _LATEST))
    if (np.add.reduceat(kept, starts, dtype=np.int64) > most_records).any():
        places = np.flatnonzero(kept)
        gone, of = removed[places], number[places]
        rank = np.where(gone, 2, seen_from[places] > now)
        # Those to come from the nearest on, those removed from the newest on.
        order = np.lexsort((np.where(gone, places, -places), rank, of))
        kept[places[order[np.arange(len(of)) - np.searchsorted(of, of) >= most_records]]] = False
    return kept


def _runs(fixed: Mapping[str, pl.DataType]) -> list[list[str]]:
    """Neighbouring features of one width."""
    return [list(names) for _, names in groupby(fixed, key=lambda name: _WIDTHS[fixed[name]][0])]


def _side_by_side(table: npt.NDArray[Any]) -> list[pl.Series]:
    """The columns of a table; to make one of all and cut it costs little more than to make a single one."""
    together, rows = pl.Series(table.T.ravel()), len(table)
    return [together.slice(number * rows, rows) for number in range(table.shape[1])]


class _Column:
    """Makes a column of physical values; what does not change from one to the next is looked up once."""

    def __init__(self, name: str, dtype: pl.DataType) -> None:
        self._name = name
        self._logical = dtype if dtype in _PHYSICAL or dtype == pl.Boolean() else None
        self._nothing = pl.Series([None], dtype=pl.UInt8() if dtype == pl.Boolean() else _PHYSICAL.get(dtype, dtype))

    def __call__(self, values: pl.Series, kept: pl.Series | None) -> pl.Series:
        """(n,) values, null where `kept` is false; None: all are kept."""
        made = values.alias(self._name)
        if kept is not None:
            # Each from this or from the one null: a list or `set` costs several times as much.
            made = made.zip_with(kept, self._nothing)
        return made if self._logical is None else made.cast(self._logical)


_revision = _Column("revision", pl.Int64())
_event_time = _Column("event_time", instant)
_available_at = _Column("available_at", instant)
_present, _expired, _not_found = (pl.Series("status", [word]) for word in ("present", "expired", "not_found"))
