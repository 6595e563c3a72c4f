"""Code version: a hash of a transformation and of all the code of its package that it reaches.

A version typed by hand is forgotten on the day it matters. This one is read off the syntax tree, so it moves when the
code that runs moves, and stays when only comments, layout or docstrings do. Code outside the roots (polars, the
platform) counts by its qualified name: its versions are the business of the lock file. Inside the roots only names
relative to the root are used, so a package has one version in a checkout and in a bundle loaded under another name.

It refuses to guess: where the source cannot be had, or a captured value has no stable form, it raises
`DeclarationError`. It does not see what only the running program knows: `getattr` by a computed name, `globals()`, a
registry filled by decorators, a data file read at import. An absolute import of one's own package names the checkout,
not the bundle: use relative imports inside a domain.
"""

import builtins
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from mlplatform.errors import DeclarationError
from mlplatform.provenance.module_source import (
    Import,
    Module,
    Use,
    find_spec,
    module_name,
    module_named,
    module_of,
    normalised,
)

_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial, type)


def code_version(function: Callable[..., object], *, roots: Sequence[str] = ()) -> str:
    """Version of `function`: a hash of its code and of everything inside `roots` that it reaches.

    Parameters
    ----------
    function : Callable
        A function, method, class, closure, lambda, `functools.partial`, or any of these decorated.
    roots : Sequence[str]
        Packages or modules whose code counts, in an order that is part of the version. By default the package that
        holds the function's module, or the module itself where it stands alone. A package beside a root, such as
        another domain, counts too where a relative import reaches it.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    DeclarationError
        The source cannot be had, the function lies outside `roots`, a relative import goes beyond them and the packages
        beside them, or a captured value (closure, default, bound argument) has no stable form.

    Examples
    --------
    >>> import textwrap
    >>> code_version(textwrap.dedent) == code_version(textwrap.dedent, roots=["textwrap"])
    True
    """
    home = _home(function)
    chosen = tuple(roots) or (home.get("__package__") or module_name(home),)
    reach = _Reach(chosen)
    if reach.place(module_name(home)) is None:
        raise DeclarationError(
            f"{_told(function)} lies outside {', '.join(chosen)}: none of its code would count. "
            "Name its package in `roots`"
        )
    return _digest("code", reach.callable(function), *reach.definitions())


def declaration_version(*parts: object) -> str:
    """Version of declared data and functions, such as a feature view's code, dtypes, keys and schedule.

    Parameters
    ----------
    *parts : object
        Dataclass instances (by field), mappings (in any order), sequences, sets, polars dtypes, dates, times, time
        deltas, primitives, enums, paths, and functions and classes (by their code version).

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    DeclarationError
        A part, or something inside it, is of a type without a stable form; the message names the type.

    Examples
    --------
    >>> declaration_version({"a": 1, "b": 2.0}) == declaration_version({"b": 2.0, "a": 1})
    True
    >>> declaration_version(1) == declaration_version(1.0)
    False
    """
    return _digest("declaration", *(_encode(part, code_version, ()) for part in parts))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _told(function: object) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


# --- values -----------------------------------------------------------------------------------------------------------


def _encode(value: object, code: Callable[[Any], str], within: tuple[int, ...]) -> str:
    """Write `value` as text that depends on nothing but its content; `code` writes the callables in it."""
    if id(value) in within:
        raise DeclarationError(f"a {type(value).__qualname__} contains itself: declare it without the loop")
    within = (*within, id(value))

    def listed(items: Iterable[object]) -> list[str]:
        return [_encode(item, code, within) for item in items]

    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}={_encode(value.value, code, within)}"
    if value is None or isinstance(value, bool | bytes):
        return repr(value)
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain.__repr__(value)  # a subclass (np.float64) may write itself in another way
    if isinstance(value, pl.DataType) or (isinstance(value, type) and issubclass(value, pl.DataType)):
        return _encode_dtype(value)
    if isinstance(value, timedelta):
        return f"timedelta({value.days},{value.seconds},{value.microseconds})"
    if isinstance(value, datetime | date | time):
        return f"{type(value).__name__}({value.isoformat()},{getattr(value, 'tzinfo', None)})"
    if isinstance(value, Decimal | PurePath | ZoneInfo):
        kind = "Path" if isinstance(value, PurePath) else type(value).__name__
        return f"{kind}({str(value)!r})"
    if is_dataclass(value) and not isinstance(value, type):
        written = sorted(f"{field.name}={_encode(getattr(value, field.name), code, within)}" for field in fields(value))
        return f"{type(value).__qualname__}({','.join(written)})"
    if isinstance(value, Mapping):
        pairs = sorted(":".join(listed(pair)) for pair in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, set | frozenset):
        return f"set({','.join(sorted(listed(value)))})"
    if isinstance(value, Sequence):
        return f"[{','.join(listed(value))}]"
    if isinstance(value, type) and value.__module__ == "builtins":
        return f"builtins.{value.__qualname__}"
    if isinstance(value, _CODE) or (callable(value) and hasattr(value, "__wrapped__")):
        return f"code({code(value)})"
    raise DeclarationError(
        f"{type(value).__module__}.{type(value).__qualname__} has no stable form to take a version of. "
        "Use a dataclass, a mapping, a sequence, a polars dtype, a date or time, a primitive, an enum or a function"
    )


def _encode_dtype(dtype: object) -> str:
    # The dtypes that hold something are written out, since polars' own repr is for reading and may shorten it.
    if isinstance(dtype, pl.Enum):
        return f"dtype(Enum({dtype.categories.to_list()!r}))"
    if isinstance(dtype, pl.Struct):
        return f"dtype(Struct({','.join(f'{field.name!r}:{_encode_dtype(field.dtype)}' for field in dtype.fields)}))"
    if isinstance(dtype, pl.Array):
        return f"dtype(Array({_encode_dtype(dtype.inner)},{dtype.shape}))"
    if isinstance(dtype, pl.List):
        return f"dtype(List({_encode_dtype(dtype.inner)}))"
    return f"dtype({dtype!r})"


def _innermost(function: object) -> object:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif not isinstance(function, type) and hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


def _home(function: object) -> Mapping[str, Any]:
    """Namespace of the module in which the innermost function or class is written."""
    inner = _innermost(function)
    if isinstance(inner, types.FunctionType):
        return inner.__globals__
    if isinstance(inner, type) and inner.__module__ in sys.modules:
        return vars(sys.modules[inner.__module__])
    raise DeclarationError(
        f"the source of {_told(inner)} cannot be had, so it has no code version: give a Python function"
    )


class _Reach:
    """Walks from one function through everything inside the roots; the order of the walk leaves no trace."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots
        self._siblings: dict[str, str] = {}
        self._reached: dict[str, str] = {}
        self._pending: list[tuple[str, Module, str]] = []
        self._walked: dict[int, int] = {}
        self._following: set[tuple[str, tuple[str, ...]]] = set()

    def place(self, module: str) -> str | None:
        """Name of the module relative to the root that holds it; None outside the roots."""
        for number, root in enumerate(self.roots):
            if f"{module}.".startswith(f"{root}."):
                return f"{number}:{module[len(root) + 1 :]}"
        for sibling, shown in self._siblings.items():
            if f"{module}.".startswith(f"{sibling}."):
                return f"{shown}:{module[len(sibling) + 1 :]}"
        return None

    def _admit_sibling(self, module: str) -> None:
        """Count a package beside a root, such as another domain, once a relative import has reached it."""
        for number, root in enumerate(self.roots):
            parent = root.rpartition(".")[0]
            if parent and module.startswith(f"{parent}."):
                sibling = module[len(parent) + 1 :].partition(".")[0]
                self._siblings[f"{parent}.{sibling}"] = f"{number}..{sibling}"
                return

    def definitions(self) -> list[str]:
        """Return all that was reached, each definition with where its names lead."""
        while self._pending:
            key, module, name = self._pending.pop()
            text, uses = module.describe(name)
            self._reached[key] = f"{key} {text} {self._leads(module, uses)}"
        return sorted(self._reached.values())

    def _reach(self, module: Module, name: str) -> str:
        key = f"{self.place(module.name)}#{name}"
        if key not in self._reached:
            self._reached[key] = ""
            self._pending.append((key, module, name))
        return key

    def _leads(self, module: Module, uses: Iterable[Use]) -> str:
        told = []
        for target, attributes in uses:
            if isinstance(target, str):
                leads, shown = self._resolve(module, target, attributes), target
            else:
                leads, shown = [self._import(target, attributes)], target.attribute
            told += [f"{'.'.join((shown, *attributes))}->{lead}" for lead in leads]
        return " ".join(sorted(told))

    def _resolve(self, module: Module, name: str, attributes: tuple[str, ...]) -> list[str]:
        leads = [self._reach(module, name)] if name in module.statements else []
        leads += [self._import(target, attributes) for target in module.imports.get(name, ())]
        if not leads and not hasattr(builtins, name):
            # A star names nothing: look into those of the roots, and note the others.
            for star in module.imports.get("*", ()):
                if self.place(star.module) is None:
                    leads.append(f"outside {star.module}.*")
                else:
                    leads += self._resolve(module_named(star.module), name, attributes)
        return leads

    def _import(self, target: Import, attributes: tuple[str, ...]) -> str:
        path = (target.attribute, *attributes) if target.attribute else attributes
        module = target.module
        # `import a.b.c` binds `a`: walk down to the root before asking whether it lies inside.
        while path and any(f"{root}.".startswith(f"{module}.{path[0]}.") for root in self.roots):
            module, path = f"{module}.{path[0]}", path[1:]
        if target.relative and self.place(module) is None:
            # `from .. import weather` names the package beside the root by its attribute.
            parents = [root.rpartition(".")[0] for root in self.roots]
            if path and module in parents:
                module, path = f"{module}.{path[0]}", path[1:]
            self._admit_sibling(module)
        if self.place(module) is not None:
            return self._follow(module, path)
        if target.relative:
            raise DeclarationError(
                f"a relative import reaches {'.'.join((module, *path))}, beyond {', '.join(self.roots)} and the "
                "packages beside: its code would not count. Name the package that holds both in `roots`"
            )
        return f"outside {'.'.join((module, *path))}"

    def _follow(self, name: str, path: tuple[str, ...]) -> str:
        module = module_named(name)
        if not path:
            return self._reach(module, "")  # the module itself is handed on: anything in it may be used
        leads: list[str] = []
        # In an `__init__`, `from . import helpers` binds the name to itself: the second time round it is the submodule.
        if (name, path) not in self._following:
            self._following.add((name, path))
            try:
                leads = self._resolve(module, path[0], path[1:])
            finally:
                self._following.discard((name, path))
        if not leads:
            submodule = f"{name}.{path[0]}"
            if submodule in sys.modules or find_spec(submodule) is not None:
                return self._follow(submodule, path[1:])
        return "|".join(sorted(leads)) or f"{self.place(name)}#{path[0]} missing"

    # Functions in hand rather than in the source: entries, and the values of closures, defaults and partials.

    def callable(self, function: object) -> str:
        if isinstance(function, functools.partial):
            keywords = {name: function.keywords[name] for name in sorted(function.keywords)}
            bound = f"{self._value(function.args)} {self._value(keywords)}"
            return f"partial {self.callable(function.func)} {bound}"
        if isinstance(function, types.MethodType):
            return f"method {self.callable(function.__func__)} {self._value(function.__self__)}"
        if isinstance(function, type):
            return self._class(function)
        if hasattr(function, "__wrapped__"):
            inner = _innermost(function)
            if isinstance(inner, types.FunctionType) and inner.__globals__.get(inner.__code__.co_qualname) is function:
                return self._function(inner)  # its decorators stand above it in the source
            own = f"outside {_told(type(function))}"
            if isinstance(function, types.FunctionType):
                own = self._function(function)
            return f"wrapper {own} {self.callable(function.__wrapped__)}"
        if isinstance(function, types.FunctionType):
            return self._function(function)
        if isinstance(function, types.ModuleType):
            return self._import(Import(function.__name__), ())
        return f"outside {_told(function)}"

    def _value(self, value: object) -> str:
        return _encode(value, self.callable, ())

    def _class(self, kind: type) -> str:
        if self.place(kind.__module__) is None:
            return f"outside {_told(kind)}"
        module = module_named(kind.__module__)
        name = kind.__qualname__.partition(".")[0]
        if name not in module.statements or "<locals>" in kind.__qualname__:
            raise DeclarationError(
                f"class {_told(kind)} cannot be told in its source: define it at the top of its module"
            )
        return self._reach(module, name)

    def _function(self, function: types.FunctionType) -> str:
        if self.place(module_name(function.__globals__)) is None:
            return f"outside {module_name(function.__globals__)}.{function.__code__.co_qualname}"
        module, code = module_of(function.__globals__), function.__code__
        node = module.locate(code)
        if "<" not in code.co_qualname:
            # At the top of the module, or a method, for which the whole class counts: `self` reaches any of it.
            name = code.co_qualname.partition(".")[0]
            if name in module.statements:
                return self._reach(module, name)
        if id(function) in self._walked:
            return f"again {self._walked[id(function)]}"
        self._walked[id(function)] = len(self._walked)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        closure = [f"{name}={self._cell(cell)}" for name, cell in cells]
        defaults = [self._value(function.__defaults__), self._value(function.__kwdefaults__)]
        leads = self._leads(module, module.uses([node], code.co_freevars))
        return f"{self.place(module.name)} {normalised(node)} {leads} {closure} {defaults}"

    def _cell(self, cell: types.CellType) -> str:
        try:
            content = cell.cell_contents
        except ValueError:  # the variable is not assigned yet
            return "unset"
        return self._value(content)
