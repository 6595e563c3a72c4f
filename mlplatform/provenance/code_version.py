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

import ast
import builtins
import functools
import hashlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePath
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from mlplatform.errors import DeclarationError

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_COMPOUND = (ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match)
_SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment"})  # they follow from the rest, or are only notation
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
    chosen = tuple(roots) or (home.get("__package__") or _module_name(home),)
    reach = _Reach(chosen)
    if reach.place(_module_name(home)) is None:
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


# --- the syntax tree --------------------------------------------------------------------------------------------------


def _normalised(node: ast.AST) -> str:
    """Write the tree without positions, docstrings and notation; `ast.dump` changes with the version of Python."""
    out: list[str] = []

    def write(value: object) -> None:
        if isinstance(value, ast.AST):
            out.append(f"{type(value).__name__}(")
            for name in value._fields:
                item = getattr(value, name, None)
                if name in _SILENT_FIELDS or item is None or (isinstance(item, list) and not item):
                    continue
                out.append(f"{name}=")
                write(item)
                out.append(",")
            out.append(")")
        elif isinstance(value, list):
            # A bare string is a docstring of what stands before it; a body of nothing else is a `pass`.
            kept = [item for item in value if not _is_bare_string(item)] or [ast.Pass()]
            out.append("[")
            for item in kept:
                write(item)
                out.append(",")
            out.append("]")
        else:
            out.append(repr(value))

    write(node)
    return "".join(out)


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@dataclass(frozen=True, order=True)
class _Import:
    module: str
    attribute: str = ""
    relative: bool = False


_Use = tuple[str | _Import, tuple[str, ...]]
"""A name, or an import made inside the function, and the attributes read from it."""


def _import_bindings(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, _Import]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, _Import(whole)
        return
    module = node.module or ""
    if node.level:
        try:
            module = importlib.util.resolve_name("." * node.level + module, package)
        except ImportError as error:
            raise DeclarationError(f"relative import in {package or 'a module without a package'}: {error}") from error
    for alias in node.names:
        yield alias.asname or alias.name, _Import(module, alias.name, relative=bool(node.level))


def _bound(nodes: Iterable[ast.AST], package: str) -> dict[str, list[_Import]]:
    """Names that `nodes` bind in their own scope, each with the imports that bind it (none: an ordinary local)."""
    names: dict[str, list[_Import]] = {}
    elsewhere: set[str] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, target in _import_bindings(node, package):
                names.setdefault(name, []).append(target)
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            names.setdefault(node.name, [])
        elif isinstance(node, _COMPREHENSIONS):
            for inner in ast.walk(node):
                if isinstance(inner, ast.NamedExpr):
                    names.setdefault(inner.target.id, [])
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Global):
                elsewhere.update(node.names)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names.setdefault(node.id, [])
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names.setdefault(node.name, [])
            elif isinstance(node, ast.MatchMapping) and node.rest:
                names.setdefault(node.rest, [])
            pending.extend(ast.iter_child_nodes(node))
    return {name: imports for name, imports in names.items() if name not in elsewhere}


def _parameters(arguments: ast.arguments) -> list[str]:
    """Return the names of the parameters, in the order in which a code object lists them."""
    ordered = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [each.arg for each in (*ordered, arguments.vararg, arguments.kwarg) if each is not None]


class _Uses(ast.NodeVisitor):
    """Collects the names that a tree takes from outside its own scopes, with the attributes read from them."""

    def __init__(self, package: str, free: Iterable[str]) -> None:
        self.package = package
        self.scopes: list[dict[str, list[_Import]]] = [{name: [] for name in free}]
        self.found: set[_Use] = set()

    def use(self, name: str, attributes: tuple[str, ...]) -> None:
        for scope in reversed(self.scopes):
            if name in scope:
                self.found.update((target, attributes) for target in scope[name])
                return
        self.found.add((name, attributes))

    def within(self, scope: dict[str, list[_Import]], nodes: Iterable[ast.AST]) -> None:
        self.scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self.scopes.pop()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.use(node.id, ())

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self.use(name, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.use(inner.id, tuple(reversed(attributes)))
        else:
            self.visit(inner)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outer in (*node.decorator_list, node.args, *([node.returns] if node.returns else [])):
            self.visit(outer)
        scope = {name: list[_Import]() for name in _parameters(node.args)}
        self.within(_bound(node.body, self.package) | scope, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        scope = {name: list[_Import]() for name in _parameters(node.args)}
        self.within(_bound([node.body], self.package) | scope, [node.body])

    def visit_comprehension_scope(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first = node.generators[0].iter
        self.visit(first)  # evaluated outside: `[x for x in x]` reads the outer x
        scope = _bound([generator.target for generator in node.generators], self.package)
        self.within(scope, [child for child in self._parts(node) if child is not first])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_scope

    @staticmethod
    def _parts(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> Iterator[ast.AST]:
        yield from [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for generator in node.generators:
            yield from (generator.iter, *generator.ifs)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> int:
    """Line that the code object gives: that of the first decorator."""
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _root_name(node: ast.AST) -> str | None:
    """Name at the left end of `name.a[b].c(d)`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


class _Module:
    """The definitions of one module as its source states them; nothing in it is run."""

    def __init__(self, name: str, is_package: bool, source: str) -> None:
        self.name = name
        self.package = name if is_package else name.rpartition(".")[0]
        self.tree = ast.parse(source)
        self.statements: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[_Import]] = {}
        self._described: dict[str, tuple[str, list[_Use]]] = {}
        for statement in self.tree.body:
            self._bind(statement)
        for statement in self.tree.body:
            for changed in self._changed(statement):
                if changed in self.statements and statement not in self.statements[changed]:
                    self.statements[changed].append(statement)

    def _bind(self, statement: ast.stmt) -> None:
        plain_import = isinstance(statement, ast.Import | ast.ImportFrom)
        for name, targets in _bound([statement], self.package).items():
            if targets:
                self.imports.setdefault(name, []).extend(targets)
            if not plain_import and (not targets or self._also_assigned(statement, name)):
                self.statements.setdefault(name, []).append(statement)

    @staticmethod
    def _also_assigned(statement: ast.stmt, name: str) -> bool:
        """Tell `try: import x … except ImportError: x = None` from a guarded import alone."""
        return any(
            (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
            or (isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and node.name == name)
            for node in ast.walk(statement)
        )

    def _changed(self, statement: ast.stmt) -> Iterator[str]:
        """Names whose object the statement changes: `TABLE["a"] = 1`, `NAMES.append("b")`, `@area.register`."""
        if isinstance(statement, _FUNCTIONS):
            # Of a single-dispatch function only: through a shared registry every view would reach every other.
            for decorator in statement.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                root = _root_name(called) if isinstance(called, ast.Attribute) else None
                if root and any(isinstance(each, _FUNCTIONS) for each in self.statements.get(root, ())):
                    yield root
            return
        for node in ast.walk(statement) if isinstance(statement, _COMPOUND) else (statement,):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = [target for target in node.targets if not isinstance(target, ast.Name)]
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                targets = [node.value.func] if isinstance(node.value.func, ast.Attribute) else []
            yield from filter(None, map(_root_name, targets))

    def describe(self, name: str) -> tuple[str, list[_Use]]:
        """Return the normalised statements that define `name` (all of the module for ""), and what they use."""
        if name not in self._described:
            nodes: list[ast.AST] = [*self.statements[name]] if name else [self.tree]
            self._described[name] = "".join(map(_normalised, nodes)), self.uses(nodes)
        return self._described[name]

    def uses(self, nodes: Iterable[ast.AST], free: Iterable[str] = ()) -> list[_Use]:
        visitor = _Uses(self.package, free)
        for node in nodes:
            visitor.visit(node)
        return sorted(visitor.found, key=repr)

    @functools.cached_property
    def _functions(self) -> dict[tuple[int, str], list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]]:
        index: dict[tuple[int, str], list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
                index.setdefault((_first_line(node), getattr(node, "name", "<lambda>")), []).append(node)
        return index

    def locate(self, code: types.CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda:
        """Find the tree that `code` was compiled from, by line, name, parameters and, for lambdas, columns."""
        starred = sum(bool(code.co_flags & flag) for flag in (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS))
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + starred]
        found = []
        for node in self._functions.get((code.co_firstlineno, code.co_name), []):
            written = _parameters(node.args)
            # A private name (`__x` in a class) is compiled with the class before it.
            if len(written) == len(parameters) and all(map(str.endswith, parameters, written)):
                found.append(node)
        if len(found) > 1:
            found = [node for node in found if _spans(node, code)] or found
        if len({_normalised(node) for node in found}) != 1:
            raise DeclarationError(
                f"{self.name}.{code.co_qualname} (line {code.co_firstlineno}) cannot be told in its source: "
                + ("several functions stand there; put each on its own line" if found else "the file holds another")
            )
        return found[0]


def _spans(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, code: types.CodeType) -> bool:
    """Whether every instruction of `code` comes from the body of `node`."""
    first, last = (node.body, node.body) if isinstance(node, ast.Lambda) else (node.body[0], node.body[-1])
    start, end = (first.lineno, first.col_offset), (last.end_lineno or 0, last.end_col_offset or 0)
    for line, end_line, column, end_column in code.co_positions():
        if line is None or end_line is None or column is None or end_column is None or column == end_column == 0:
            continue  # an instruction of the frame itself, or columns are switched off
        if (line, column) < start or (end_line, end_column) > end:
            return False
    return True


# --- modules and their source -----------------------------------------------------------------------------------------

_MODULES: dict[str, tuple[ModuleSpec | None, _Module]] = {}
"""Parsed modules by name; a reload gives the module a new spec, which is how a stale entry is known."""


def _module_name(namespace: Mapping[str, Any]) -> str:
    spec = namespace.get("__spec__")
    return str(spec.name if spec is not None else namespace.get("__name__", ""))  # `python -m` runs under `__main__`


def _module_of(namespace: Mapping[str, Any]) -> _Module:
    name, spec = _module_name(namespace), namespace.get("__spec__")
    return _parsed(name, spec, "__path__" in namespace, namespace.get("__file__"))


def _module_named(name: str) -> _Module:
    loaded = sys.modules.get(name)
    if loaded is not None:
        return _module_of(vars(loaded))
    spec = _find_spec(name)
    if spec is None:
        raise DeclarationError(
            f"{name} is reached but cannot be found: mend the import, or put the module into sys.modules"
        )
    return _parsed(name, spec, spec.submodule_search_locations is not None, spec.origin)


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _parsed(name: str, spec: ModuleSpec | None, is_package: bool, path: str | None) -> _Module:
    known = _MODULES.get(name)
    if known is not None and known[0] is spec and spec is not None:
        return known[1]
    try:
        source = _source(spec, path)
        if source is None:
            raise DeclarationError(f"the source of {name} cannot be had, so it has no code version: ship its .py file")
        module = _Module(name, is_package, source)
    except (OSError, ImportError, SyntaxError, UnicodeDecodeError) as error:
        raise DeclarationError(f"the source of {name} cannot be read, so its code has no version: {error}") from error
    _MODULES[name] = (spec, module)
    return module


def _source(spec: ModuleSpec | None, path: str | None) -> str | None:
    get_source = getattr(spec.loader, "get_source", None) if spec is not None else None
    if spec is not None and get_source is not None:
        found: str | None = get_source(spec.name)
        return found
    if path is None or not path.endswith(".py"):
        return None
    return importlib.util.decode_source(Path(path).read_bytes())


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


# --- what is reached --------------------------------------------------------------------------------------------------


class _Reach:
    """Walks from one function through everything inside the roots; the order of the walk leaves no trace."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots
        self._siblings: dict[str, str] = {}
        self._reached: dict[str, str] = {}
        self._pending: list[tuple[str, _Module, str]] = []
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

    def _reach(self, module: _Module, name: str) -> str:
        key = f"{self.place(module.name)}#{name}"
        if key not in self._reached:
            self._reached[key] = ""
            self._pending.append((key, module, name))
        return key

    def _leads(self, module: _Module, uses: Iterable[_Use]) -> str:
        told = []
        for target, attributes in uses:
            if isinstance(target, str):
                leads, shown = self._resolve(module, target, attributes), target
            else:
                leads, shown = [self._import(target, attributes)], target.attribute
            told += [f"{'.'.join((shown, *attributes))}->{lead}" for lead in leads]
        return " ".join(sorted(told))

    def _resolve(self, module: _Module, name: str, attributes: tuple[str, ...]) -> list[str]:
        leads = [self._reach(module, name)] if name in module.statements else []
        leads += [self._import(target, attributes) for target in module.imports.get(name, ())]
        if not leads and not hasattr(builtins, name):
            # A star names nothing: look into those of the roots, and note the others.
            for star in module.imports.get("*", ()):
                if self.place(star.module) is None:
                    leads.append(f"outside {star.module}.*")
                else:
                    leads += self._resolve(_module_named(star.module), name, attributes)
        return leads

    def _import(self, target: _Import, attributes: tuple[str, ...]) -> str:
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
        module = _module_named(name)
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
            if submodule in sys.modules or _find_spec(submodule) is not None:
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
            return self._import(_Import(function.__name__), ())
        return f"outside {_told(function)}"

    def _value(self, value: object) -> str:
        return _encode(value, self.callable, ())

    def _class(self, kind: type) -> str:
        if self.place(kind.__module__) is None:
            return f"outside {_told(kind)}"
        module = _module_named(kind.__module__)
        name = kind.__qualname__.partition(".")[0]
        if name not in module.statements or "<locals>" in kind.__qualname__:
            raise DeclarationError(
                f"class {_told(kind)} cannot be told in its source: define it at the top of its module"
            )
        return self._reach(module, name)

    def _function(self, function: types.FunctionType) -> str:
        if self.place(_module_name(function.__globals__)) is None:
            return f"outside {_module_name(function.__globals__)}.{function.__code__.co_qualname}"
        module, code = _module_of(function.__globals__), function.__code__
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
        return f"{self.place(module.name)} {_normalised(node)} {leads} {closure} {defaults}"

    def _cell(self, cell: types.CellType) -> str:
        try:
            content = cell.cell_contents
        except ValueError:  # the variable is not assigned yet
            return "unset"
        return self._value(content)
