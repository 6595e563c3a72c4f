"""Fallback rules: they are asked when everything else is broken, so they never raise, and what they say is an answer.

They are given what a request may hold (every bound and word of the declared columns, nulls), and what it never should
(missing fields, wrong types, NaN). To the first kind the answer must be in range; to the second it need only come.
"""

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from math import isfinite
from typing import Any

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.model import ModelSpec
from mlplatform.domain_checks.case import called
from mlplatform.domain_checks.evidence import Evidence, seed
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import DomainCodeRaised, InvalidRequest, MlplatformError
from mlplatform.scoring.request import parse_requests

drawn_requests = 300
"""Requests whose fields are drawn at random, half of them honest; each costs some microseconds."""

far = 1e9
"""Stands for no bound: a column without a maximum may be asked with it."""

wrong_values: tuple[Any, ...] = (
    None, "", "?", "7", 7, -1, 0, 0.5, True, float("nan"), float("inf"), -float("inf"), 1e308, 10**30, [], {}, b"x",
    (), object(), date(2024, 2, 29), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC),
    datetime(2024, 3, 10, 2, 30),  # noqa: DTZ001 - a time without a zone is one of the wrong values
)  # fmt: skip
"""What no column asks for, or only some do."""


def fallback_rules(evidence: Evidence) -> Looked:
    """The rules of each model give an answer in range, or None, and never raise."""
    domain = evidence.domain
    usual = example(evidence)
    asked = [(where, request, True) for where, request in _honest(domain.requests.columns, usual)]
    asked += [(where, request, False) for where, request in _wrong(domain.requests.columns, usual)]
    faults = [fault for model in domain.models for fault in _first_fault(model, asked)]
    looked = f"{len(asked)} requests to the rules of each of {len(domain.models)} models"
    return Looked(at=looked, faults=tuple(faults))


def example(evidence: Evidence) -> dict[str, Any]:
    """The example request as rules get it: parsed."""
    columns = evidence.domain.requests.columns
    given = {name: value for name, value in evidence.domain.requests.example.items() if name != "at"}
    try:
        return parse_requests([given], columns).row(0, named=True)
    except InvalidRequest:
        return {column.name: next(_values(column), None) for column in columns}  # `example request` tells what is wrong


def _first_fault(model: ModelSpec, asked: list[tuple[str, dict[str, Any], bool]]) -> list[Fault]:
    for where, request, in_range in asked:
        fault = _answer(model, where, dict(request), in_range=in_range)
        if fault is not None:
            return [fault]
    return []


def _answer(model: ModelSpec, where: str, request: dict[str, Any], *, in_range: bool) -> Fault | None:
    before = dict(request)
    what = f"rules of {model.name}"
    try:
        said = called(what, where, model.rules, request)
    except DomainCodeRaised as raised:
        cause = raised.__cause__
        mend = "Ask with `request.get`, look at the type (`isinstance`), and give None where nothing is known"
        return Fault(what=what, where=where, told=f"raised {type(cause).__name__}: {cause}. {mend}")
    except MlplatformError as raised:
        return Fault(what=what, where=where, told=f"raised {raised}. Give None instead")
    if list(map(id, request.values())) != list(map(id, before.values())) or list(request) != list(before):
        return Fault(what=what, where=where, told="it changes the request it is given. Read it, and leave it as it is")
    wrong = _out_of_range(model, said) if in_range and said is not None else None
    if wrong:
        return Fault(what=what, where=where, told=f"says {said!r}, {wrong}. Bound the answer, or give None")
    return None


def _out_of_range(model: ModelSpec, said: Any) -> str | None:
    if isinstance(said, bool) or not isinstance(said, int | float):
        return f"a {type(said).__name__} and no number"
    if not isfinite(said):
        return "which is no finite number"
    if model.task == "binary" and not 0.0 <= said <= 1.0:
        return "which is no probability between 0 and 1"
    if model.task == "multiclass" and said not in range(len(model.label.classes)):
        return f"which is no class of 0 to {len(model.label.classes) - 1}"
    return None


def _honest(columns: tuple[Column, ...], usual: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that parsing lets through."""
    yield "the example", dict(usual)
    for column in columns:
        for value in _values(column):
            yield f"column {column.name} = {value!r}", {**usual, column.name: value}
    draw = random.Random(seed)
    values = {column.name: [usual[column.name], *_values(column)] for column in columns}
    for number in range(drawn_requests // 2):
        yield f"drawn request {number + 1}", {name: draw.choice(each) for name, each in values.items()}


def _wrong(columns: tuple[Column, ...], usual: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that parsing would refuse."""
    yield "an empty request", {}
    for column in columns:
        yield f"column {column.name} missing", {name: value for name, value in usual.items() if name != column.name}
        for value in wrong_values:
            yield f"column {column.name} = {_shown(value)}", {**usual, column.name: value}
    yield "nothing but nulls", dict.fromkeys((column.name for column in columns), None)
    draw = random.Random(seed)
    for number in range(drawn_requests // 2):
        some = {column.name: draw.choice(wrong_values) for column in columns if draw.random() < 0.8}
        yield f"drawn request {number + 1} of wrong values", some


def _shown(value: Any) -> str:
    told = repr(value)
    return told if len(told) < 40 else type(value).__name__


def _values(column: Column) -> Iterator[Any]:
    """What an honest request may hold in a column: its bounds, its words, null where that is declared."""
    dtype = column.dtype
    if dtype.is_numeric():
        low, high = (-far if dtype.is_signed_integer() or dtype.is_float() else 0.0), far
        if dtype.is_integer():
            ends = pl.select(dtype.min().alias("low"), dtype.max().alias("high")).row(0)  # type: ignore[attr-defined]  # integers only
            low, high = max(low, float(ends[0])), min(high, float(ends[1]))
        low = column.minimum if column.minimum is not None else low
        high = column.maximum if column.maximum is not None else high
        for value in (low, high, (low + high) / 2):
            yield int(value) if dtype.is_integer() else float(value)
    elif dtype == pl.Boolean():
        yield from (True, False)
    elif isinstance(dtype, pl.Datetime):
        zone = UTC if dtype.time_zone else None
        yield from (datetime(year, 3, 10, 7, 30, tzinfo=zone) for year in (1970, 2024, 2100))
    elif isinstance(dtype, pl.Date):
        yield from (date(1970, 1, 1), date(2024, 2, 29), date(2100, 12, 31))
    elif column.allowed or not column.pattern:
        # Of a pattern there is the example; no text can be made up that surely matches.
        yield from column.allowed or ("X", "a word nobody knows", "")
    if column.nullable:
        yield None
