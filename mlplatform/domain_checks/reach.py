"""What the functions of a domain refer to beside their arguments: read off their code, since no input can show it."""

from collections.abc import Callable, Iterator, Mapping
from inspect import getclosurevars, unwrap
from types import FunctionType
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain


def functions_of(domain: Domain) -> dict[str, Callable[..., Any]]:
    """Every function of a domain that makes features or facts, by what it is."""
    found: dict[str, Callable[..., Any]] = {f"base of {source.name}": source.base for source in domain.sources}
    found |= {f"derived {table.name}": table.function for table in domain.derived}
    found |= {f"view {view.name}": view.function for view in domain.views}
    found |= {f"on-demand {each.name}": each.function for each in domain.on_demand}
    found |= {f"fit of fitted value {each.name}": each.fit for each in domain.fitted}
    found |= {f"apply of fitted value {each.name}": each.apply for each in domain.fitted}
    found["requests.of_facts"] = domain.requests.of_facts
    return found


def in_reach(function: Any) -> Iterator[FunctionType]:
    """Give a function, and those of its own package that it refers to by name, directly or through others."""
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        each = unwrap(getattr(each, "func", each))  # of functools.partial, and of decorators
        if not isinstance(each, FunctionType) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        package = each.__module__.partition(".")[0]
        for value in _named(each).values():
            inner = unwrap(value) if callable(value) else None
            if isinstance(inner, FunctionType) and inner.__module__.partition(".")[0] == package:
                waiting.append(inner)


def frames_in_reach(function: Any) -> Mapping[str, pl.DataFrame]:
    """Frames that a function refers to by name, alone or in a list or mapping."""
    found: dict[str, pl.DataFrame] = {}
    for each in in_reach(function):
        for name, value in _named(each).items():
            inside = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            )
            for part in inside:
                if isinstance(part, pl.LazyFrame | pl.DataFrame):
                    found[name] = part.lazy().collect()
    return found


def _named(function: FunctionType) -> dict[str, Any]:
    names = getclosurevars(function)
    return {**names.globals, **names.nonlocals}
