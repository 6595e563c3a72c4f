"""The content hash of a frame: equal values give equal hashes, whoever computed them and with which library version.

It names data revisions, training sets and records, so it must outlive upgrades. It therefore looks at the values alone:
column names and order, data types, row order, nulls and values. It does not see chunking, what lies in memory under a
null, the sign of a zero or the bits of a NaN. It refuses nested columns, whose values have no such plain form here.

What was left aside, and why: Polars' own row hashes change between its versions and ignore names and integer width;
Arrow bytes show the chunking; Parquet bytes change with the version of the writer.
"""

import hashlib
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.errors import DeclarationError

# Our own tags, not Polars' names for its types: those are for people and may change.
_NUMBER_TAGS: dict[pl.DataType, str] = {
    pl.Int8(): "i8",
    pl.Int16(): "i16",
    pl.Int32(): "i32",
    pl.Int64(): "i64",
    pl.UInt8(): "u8",
    pl.UInt16(): "u16",
    pl.UInt32(): "u32",
    pl.UInt64(): "u64",
}
_FLOAT_TAGS: dict[pl.DataType, str] = {pl.Float32(): "f32", pl.Float64(): "f64"}
_TEXT_TAGS: dict[pl.DataType, str] = {pl.String(): "text", pl.Binary(): "bytes"}
_SLICE_ROWS = 1_000_000


def content_hash(frame: pl.DataFrame) -> str:
    """Hash the values of a frame, canonically.

    Parameters
    ----------
    frame : pl.DataFrame
        Columns of strings, bytes, categories, booleans, integers, floats, dates, times, datetimes or durations. Row and
        column order count: sort by a unique key first where the order means nothing.

    Returns
    -------
    str
        32 hexadecimal digits (BLAKE2b, 16 bytes).

    Raises
    ------
    DeclarationError
        A column is of a type without a canonical form (nested, decimal, object); the message names it.

    Examples
    --------
    >>> content_hash(pl.DataFrame({"delay": [0.0, None]})) == content_hash(pl.DataFrame({"delay": [-0.0, None]}))
    True
    >>> content_hash(pl.DataFrame({"delay": [0]})) == content_hash(pl.DataFrame({"delay": [0.0]}))
    False

    References
    ----------
    RFC 7693, "The BLAKE2 Cryptographic Hash and Message Authentication Code (MAC)".
    """
    digest = hashlib.blake2b(struct.pack("<QQ", frame.height, frame.width), digest_size=16)
    tags = [type_tag(column) for column in frame.iter_columns()]
    # One query for all columns: on the small frames of daily partitions a query for each would be most of the time.
    plain = frame.select(_canonical(name, dtype) for name, dtype in frame.schema.items())
    present = frame.select(pl.col(column.name).is_not_null() for column in frame.iter_columns() if column.null_count())
    lengths = plain.select(pl.col(pl.String).str.len_bytes().cast(pl.UInt64))
    # Joined in Polars: ten times as fast as in Python. By slices, since one joined string must stay under 4 GiB.
    starts = range(0, frame.height, _SLICE_ROWS)
    joined = [plain.slice(start, _SLICE_ROWS).select(pl.col(pl.String).str.join("")) for start in starts]
    for column, tag in zip(plain.iter_columns(), tags, strict=True):
        for part in (column.name.encode(), tag.encode()):
            digest.update(struct.pack("<Q", len(part)))
            digest.update(part)
        if column.name in present.columns:
            digest.update(b"\x01")
            digest.update(np.packbits(present[column.name].to_numpy()).data)
        else:
            digest.update(b"\x00")
        for values in _values(column, lengths, joined):
            digest.update(values)
    return digest.hexdigest()


def _canonical(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column with its nulls made zero, in its physical type."""
    column = pl.col(name)
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return column.cast(pl.String).fill_null("")
    if isinstance(dtype, pl.Binary):
        return column.fill_null(b"")
    if isinstance(dtype, pl.Boolean):
        return column.fill_null(value=False)
    if dtype in _FLOAT_TAGS:
        return column.fill_null(0.0)
    return column.to_physical().fill_null(0)


def type_tag(column: pl.Series) -> str:
    """Name the type of a column in our own words, which stay when Polars renames its own."""
    dtype = column.dtype
    for tags in (_NUMBER_TAGS, _FLOAT_TAGS, _TEXT_TAGS):
        if dtype in tags:
            return tags[dtype]
    if isinstance(dtype, pl.Boolean):
        return "bool"
    if isinstance(dtype, pl.Date):
        return "date"
    if isinstance(dtype, pl.Time):
        return "time"
    if isinstance(dtype, pl.Datetime):
        return f"datetime[{dtype.time_unit},{dtype.time_zone or ''}]"
    if isinstance(dtype, pl.Duration):
        return f"duration[{dtype.time_unit}]"
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return "category"
    raise DeclarationError(
        f"column {column.name!r} is of type {dtype}, which has no canonical form to hash. "
        "Declare plain columns, or write nested values as JSON text"
    )


def _values(column: pl.Series, lengths: pl.DataFrame, joined: Sequence[pl.DataFrame]) -> Iterator[bytes | memoryview]:
    """Yield the values of a canonical column, little-endian; those of text after their lengths."""
    dtype = column.dtype
    if isinstance(dtype, pl.String):
        yield _little_endian(lengths[column.name].to_numpy())
        for piece in joined:
            yield piece[column.name].item().encode()
    elif isinstance(dtype, pl.Binary):
        pieces = column.to_list()
        yield _little_endian(np.fromiter(map(len, pieces), dtype=np.uint64, count=len(pieces)))
        yield b"".join(pieces)
    elif isinstance(dtype, pl.Boolean):
        yield np.packbits(column.to_numpy()).data
    elif dtype in _FLOAT_TAGS:
        values = column.to_numpy(writable=True)
        # Adding zero in NumPy turns -0.0 into 0.0; Polars optimises that very addition away.
        values += 0.0
        values[np.isnan(values)] = np.nan
        yield _little_endian(values)
    else:
        yield _little_endian(column.to_numpy())


def _little_endian(values: npt.NDArray[Any]) -> memoryview:
    """Give the bytes of an array in the order that every machine hashes."""
    return np.ascontiguousarray(values if sys.byteorder == "little" else values.byteswap()).data
