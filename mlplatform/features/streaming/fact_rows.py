"""What is sent as facts, understood: JSON or Arrow in, rows in the types of the source's contract out.

A row that breaks the contract is refused alone, with the rules it breaks. What can only be judged over a day (keys that
come twice, how many rows there are) is judged when the stages see the day. Gateways use this module: it needs no more
than Polars.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl

from mlplatform.domain.column import Contract
from mlplatform.domain.source import Source, Stream
from mlplatform.errors import DeclarationError, MalformedBody, MalformedFile
from mlplatform.features.rules import cast_to_contract, check

arrow = "application/vnd.apache.arrow.stream"
"""Media type of an Arrow IPC stream."""

rows_at_once = 20_000
"""Rows that may be sent at once: a second of work for whoever takes them in."""

_instead = "Send a JSON list of objects, or an Arrow IPC stream"


@dataclass(frozen=True)
class Understood:
    """The rows of a body, told apart."""

    rows: pl.DataFrame
    """(n, …) those that keep the contract, in its columns and types."""

    refused: dict[int, str]
    """Position in the body -> what is wrong with that row."""


def streamed_sources(sources: Sequence[Source]) -> list[Source]:
    """Those whose facts may be sent as they happen."""
    return [each for each in sources if isinstance(each.landing, Stream)]


def streamed_source(sources: Sequence[Source], name: str) -> Source:
    """The source of that name, if its facts may be sent as they happen.

    Raises
    ------
    DeclarationError
        There is none, or it lands in another way.
    """
    streamed = {each.name: each for each in streamed_sources(sources)}
    if name in streamed:
        return streamed[name]
    told = f"there is {', '.join(streamed)}" if streamed else "no source here declares `landing=Stream(time=…)`"
    raise DeclarationError(f"no facts of {name!r} are taken in: {told}")


def understand(body: bytes, kind: str, source: Source) -> Understood:
    """The rows in a body.

    Parameters
    ----------
    kind : media type; anything but Arrow's is read as JSON: a list of objects, or one object

    Raises
    ------
    MalformedBody
        It is not what its media type says, or holds no rows, or too many.
    """
    assert isinstance(source.landing, Stream)
    time = source.landing.time
    # A day's rules, and a key that another fact may have too, are judged when the day is.
    contract = replace(source.contract, unique=(), freshness=None, max_refused_share=1.0)
    given = _arrow(body) if kind == arrow else _json(body)
    if not 1 <= len(given) <= rows_at_once:
        raise MalformedBody(f"it holds {len(given)} rows; 1 to {rows_at_once} are taken in at once", instead=_instead)
    typed, refused = _typed(given, contract, 0)
    checked = check(typed.filter(pl.col(time).is_not_null()), contract)
    broken = checked.refused.select("_row", "broken_rules").iter_rows()
    refused |= {row: f"breaks {rules}" for row, rules in broken}
    refused |= dict.fromkeys(typed.filter(pl.col(time).is_null())["_row"], f"breaks {time}: not null")
    return Understood(checked.kept.drop("_row"), dict(sorted(refused.items())))


_Given = list[dict[str, Any]] | pl.DataFrame


def _arrow(body: bytes) -> pl.DataFrame:
    try:
        return pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        told = str(error).splitlines()[0][:200] if str(error) else "it cannot be read"
        raise MalformedBody(f"it is no Arrow IPC stream ({told})", instead=_instead) from None


def _json(body: bytes) -> list[dict[str, Any]]:
    try:
        given = msgspec.json.decode(body, type=list[dict[str, Any]] | dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"it is no list of JSON objects ({error})", instead=_instead) from None
    return [given] if isinstance(given, dict) else given


def _typed(given: _Given, contract: Contract, first: int) -> tuple[pl.DataFrame, dict[int, str]]:
    """Rows that have the declared types, with their place `_row`, and what is wrong with the others.

    Mostly all have them, and are looked at together; where not, the halves are looked at alone.
    """
    try:
        frame = given if isinstance(given, pl.DataFrame) else _frame(given, contract)
        typed = cast_to_contract(frame, contract, path="the body")
    except (MalformedFile, TypeError, OverflowError, ValueError, pl.exceptions.PolarsError) as error:
        if len(given) == 1:
            reason = error.reason if isinstance(error, MalformedFile) else " ".join(str(error).split())[:200]
            return pl.DataFrame(schema=contract.schema).with_row_index("_row"), {first: reason}
        half = len(given) // 2
        left, of_left = _typed(given[:half], contract, first)
        right, of_right = _typed(given[half:], contract, first + half)
        return pl.concat([left, right]), of_left | of_right
    return typed.with_row_index("_row", first), {}


def _frame(given: list[dict[str, Any]], contract: Contract) -> pl.DataFrame:
    """JSON objects as a frame; what an object lacks is null, and no guess is made over several of them."""
    columns = []
    for column in contract.columns:
        values = [each.get(column.name) for each in given]
        if column.dtype.is_float():
            # JSON has one kind of number, and 3 among 3.5 is one of them.
            values = [float(each) if type(each) is int else each for each in values]
        columns.append(pl.Series(column.name, values, strict=True))
    return pl.DataFrame(columns)
