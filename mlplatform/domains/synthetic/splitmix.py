"""Random numbers as Polars expressions: the n-th number of a stream is a function of the stream's name and n alone.

So a day can be drawn without the day before it, an order without the order before it, and a million of them at once;
and the same numbers come out whatever version of a library draws them. It is SplitMix64, which has no state but a
counter.

It refuses nothing and promises no secrecy: good for worlds that are made up, not for keys.

References
----------
Guy L. Steele, Doug Lea, Christine H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from hashlib import blake2b

import polars as pl


def uniform(stream: str, number: pl.Expr) -> pl.Expr:
    """Numbers of a stream, uniform in [0, 1), Float64.

    Parameters
    ----------
    stream : its name; every name gives numbers that have nothing to do with those of another
    number : expression of whole numbers, which of the stream's numbers to give
    """
    # The upper 53 bits fill the mantissa of a double.
    return (bits(key(stream), number) // _whole(1 << 11)).cast(pl.Float64) * 2.0**-53


def key(stream: str) -> int:
    """Where the counter of a stream starts."""
    return int.from_bytes(blake2b(stream.encode(), digest_size=8).digest(), "big")


def bits(start: int, number: pl.Expr) -> pl.Expr:
    """The `number`-th output of SplitMix64 from a starting state, the first one being number 0; UInt64."""
    # Products wrap at 64 bits; a quotient by a power of two is a shift.
    mixed = (number.cast(pl.UInt64) + _whole(1)) * _whole(0x9E3779B97F4A7C15) + _whole(start)
    mixed = (mixed ^ (mixed // _whole(1 << 30))) * _whole(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed // _whole(1 << 27))) * _whole(0x94D049BB133111EB)
    return mixed ^ (mixed // _whole(1 << 31))


def _whole(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.UInt64())
