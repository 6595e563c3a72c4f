"""The bytes under which an online store finds an entity: its key's values with their kinds, whatever their width.

Publisher and reader must come to the same bytes, though one has columns of a table and the other a value of a request.

It refuses a key by which nothing can be looked up, such as a fraction, and one of another kind than the view's. A
number that does not fit the view's type is nobody's.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from hashlib import blake2b

import msgspec
import polars as pl

from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.epoch import epoch_micros
from mlplatform.features.revision_files import column_types

longest_key = 400
"""Bytes; LMDB takes 511, of which some tell the view. A longer key is known by its hash."""

_EPOCH = date(1970, 1, 1)
_encode = msgspec.msgpack.Encoder().encode


class Keys:
    """How the keys of a view become bytes.

    Parameters
    ----------
    dtypes : by name, in declared order
    """

    def __init__(self, dtypes: Mapping[str, pl.DataType]) -> None:
        self.dtypes = dict(dtypes)
        for name, dtype in self.dtypes.items():
            if dtype.is_float() or dtype not in column_types:
                raise DeclarationError(
                    f"the key {name!r} is of type {dtype}, by which nothing can be looked up. Name the entity by a "
                    "text, a whole number or a date"
                )

    def encoded(self, rows: pl.DataFrame) -> list[bytes | None]:
        """(n,) bytes of each row's key; None where a part of it is null."""
        columns = [self._column(rows, name, dtype) for name, dtype in self.dtypes.items()]
        parts = zip(*(column.to_list() for column in columns), strict=True)
        if any(column.null_count() for column in columns):
            return [None if None in key else _short(_encode(key)) for key in parts]
        encoded = list(map(_encode, parts))
        longest = max(map(len, encoded), default=0)
        return [*encoded] if longest <= longest_key else [*map(_short, encoded)]

    def encoded_one(self, key: tuple[object, ...]) -> bytes | None:
        """The same of one key, in Python's values."""
        if len(key) != len(self.dtypes):
            raise DataError(f"the key {key!r} has {len(key)} parts, the view's has {len(self.dtypes)}")
        if None in key:
            return None
        return _short(_encode([_physical(value) for value in key]))

    def _column(self, rows: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Series:
        try:
            column = rows.get_column(name)
        except pl.exceptions.ColumnNotFoundError as error:
            raise DataError(f"the keys lack {name!r}; there are {', '.join(rows.columns)}") from error
        given = column.dtype
        if given != dtype:
            same_kind = (
                (given.is_integer() and dtype.is_integer())
                or (isinstance(given, pl.Datetime) and isinstance(dtype, pl.Datetime))
                or (isinstance(given, pl.Categorical | pl.Enum) and dtype == pl.String())
                or given == pl.Null()
            )
            if not same_kind:
                raise DataError(f"the key {name!r} is of type {given}, the view's is {dtype}. Cast it")
            # A number that does not fit is of nobody.
            column = column.cast(dtype, strict=False)
        return column.to_physical() if dtype.is_temporal() else column


def _short(key: bytes) -> bytes:
    # A hash is no msgpack array of the key's length, so it is no other key's encoding.
    return key if len(key) <= longest_key else b"#" + blake2b(key, digest_size=32).digest()


def _physical(value: object) -> object:
    if isinstance(value, datetime):
        return epoch_micros(value.replace(tzinfo=value.tzinfo or UTC))
    return (value - _EPOCH).days if isinstance(value, date) else value
