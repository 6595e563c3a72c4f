"""The answers of a day, with what is read of their requests: what names the case, and what figures are grouped by.

A day has a million of them, so only the columns that are needed are read out of the JSON, and no rule of the contract
is checked again: the gateway did, and what matters here is to find the fact.
"""

from collections.abc import Iterator, Sequence

import msgspec
import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Domain
from mlplatform.monitoring.outcomes.tally import request_columns
from mlplatform.monitoring.pickup import answered, logged
from mlplatform.provenance.platform import Platform
from mlplatform.scoring.request import Fault, Field, request_fields

kept = (
    "request_id",
    "received",
    "at",
    "model",
    "manifest",
    "arm",
    "source",
    "prediction",
    "probability",
    "scores",
    "request",
)

rows_at_once = 100_000
"""Requests that stand in memory as Python values."""


def answers_of(platform: Platform, domain: Domain, day: str, model: str) -> pl.DataFrame:
    """A model's answers of a day: columns of the log, `request` left out, and those of the requests that are needed.

    `readable` is false for a request in which the domain, as it is declared now, finds no case.
    """
    log = logged(platform, domain, day)
    assert log is not None
    answered = log.filter(pl.col("model") == model).select(kept).collect()
    declared = {column.name: column for column in domain.requests.columns}
    names = dict.fromkeys([*domain.requests.identity, *request_columns(domain.model(model))])
    read = read_columns(answered["request"], [declared[name] for name in names])
    # A segment is worth showing without the other fields; a case that is not known is not.
    readable = read.select(pl.all_horizontal(pl.col(domain.requests.identity).is_not_null())).to_series()
    return answered.drop("request").hstack(read).with_columns(readable=readable)


def models_of(platform: Platform, domain: Domain, day: str) -> dict[str, int]:
    """Model -> answers of a day."""
    log = answered(platform, domain, day)
    if log is None:
        return {}
    counted = log.group_by("model").len().sort("model").collect()
    return {model: int(answers) for model, answers in counted.iter_rows()}


def read_columns(bodies: pl.Series, columns: Sequence[Column]) -> pl.DataFrame:
    """Some columns of logged requests, null where a request does not have them as they are declared now.

    Parameters
    ----------
    bodies : (n,) String, JSON
    columns : which; other fields of a request are not looked at
    """
    fields = request_fields(tuple(columns))
    parts = [_read(part, fields) for part in _slices(bodies)]
    frame = {
        each.name: pl.concat([pl.Series([], dtype=each.stored), *(part[place] for part in parts)]).cast(each.dtype)
        for place, each in enumerate(fields)
    }
    return pl.DataFrame(frame)


def _slices(bodies: pl.Series) -> Iterator[pl.Series]:
    for start in range(0, len(bodies), rows_at_once):
        yield bodies.slice(start, rows_at_once)


absent = msgspec.Raw(b"null")


def _read(bodies: pl.Series, fields: Sequence[Field]) -> list[pl.Series]:
    """One series per field, of the dtype in which it is stored."""
    made = msgspec.defstruct(
        "Request",
        # Names of our own: a column may have any name, an attribute not.
        [(f"field_{place}", msgspec.Raw, absent) for place in range(len(fields))],
        rename={f"field_{place}": each.name for place, each in enumerate(fields)},
        gc=False,
    )
    decode = msgspec.json.Decoder(made).decode
    nothing = made()
    rows = []
    for body in bodies:
        try:
            rows.append(decode(body or "{}"))
        except msgspec.DecodeError:
            rows.append(nothing)
    return [_values([getattr(row, f"field_{place}") for row in rows], each) for place, each in enumerate(fields)]


def _values(raw: Sequence[msgspec.Raw], field: Field) -> pl.Series:
    """Each text of JSON is read once, however often it comes."""
    texts = [bytes(each) for each in raw]
    known = {text: _value(text, field) for text in set(texts)}
    return pl.Series(field.name, [known[text] for text in texts], dtype=field.stored)


def _value(text: bytes, field: Field) -> object:
    given = msgspec.json.decode(text)
    if given is None:
        return None
    value = field.read(given)
    return None if isinstance(value, Fault) else value
