"""Modules as their source states them: the definitions, what each of them uses, and trees without what is mere layout.

Nothing in a module is run for it. What the code version makes of this is in `code_version.py`.
"""

import ast
import functools
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from mlplatform.errors import DeclarationError

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_COMPOUND = (ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match)
_SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment"})  # they follow from the rest, or are only notation


def normalised(node: ast.AST) -> str:
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
class Import:
    """What a name is bound to by an import: a module, or an attribute of it."""

    module: str
    attribute: str = ""
    relative: bool = False


Use = tuple[str | Import, tuple[str, ...]]
"""A name, or an import made inside the function, and the attributes read from it."""


def _import_bindings(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Import]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, Import(whole)
        return
    module = node.module or ""
    if node.level:
        try:
            module = importlib.util.resolve_name("." * node.level + module, package)
        except ImportError as error:
            raise DeclarationError(f"relative import in {package or 'a module without a package'}: {error}") from error
    for alias in node.names:
        yield alias.asname or alias.name, Import(module, alias.name, relative=bool(node.level))


def _bound(nodes: Iterable[ast.AST], package: str) -> dict[str, list[Import]]:
    """Names that `nodes` bind in their own scope, each with the imports that bind it (none: an ordinary local)."""
    names: dict[str, list[Import]] = {}
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
        self.scopes: list[dict[str, list[Import]]] = [{name: [] for name in free}]
        self.found: set[Use] = set()

    def use(self, name: str, attributes: tuple[str, ...]) -> None:
        for scope in reversed(self.scopes):
            if name in scope:
                self.found.update((target, attributes) for target in scope[name])
                return
        self.found.add((name, attributes))

    def within(self, scope: dict[str, list[Import]], nodes: Iterable[ast.AST]) -> None:
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
        scope = {name: list[Import]() for name in _parameters(node.args)}
        self.within(_bound(node.body, self.package) | scope, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        scope = {name: list[Import]() for name in _parameters(node.args)}
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


class Module:
    """The definitions of one module as its source states them; nothing in it is run."""

    def __init__(self, name: str, is_package: bool, source: str) -> None:
        self.name = name
        self.package = name if is_package else name.rpartition(".")[0]
        self.tree = ast.parse(source)
        self.statements: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[Import]] = {}
        self._described: dict[str, tuple[str, list[Use]]] = {}
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

    def describe(self, name: str) -> tuple[str, list[Use]]:
        """Return the normalised statements that define `name` (all of the module for ""), and what they use."""
        if name not in self._described:
            nodes: list[ast.AST] = [*self.statements[name]] if name else [self.tree]
            self._described[name] = "".join(map(normalised, nodes)), self.uses(nodes)
        return self._described[name]

    def uses(self, nodes: Iterable[ast.AST], free: Iterable[str] = ()) -> list[Use]:
        """What some nodes read from outside them; the names `free` come from a closure and do not count."""
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
        if len({normalised(node) for node in found}) != 1:
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


_MODULES: dict[str, tuple[ModuleSpec | None, Module]] = {}
"""Parsed modules by name; a reload gives the module a new spec, which is how a stale entry is known."""


def module_name(namespace: Mapping[str, Any]) -> str:
    """Name under which a module is known to others, from its globals."""
    spec = namespace.get("__spec__")
    return str(spec.name if spec is not None else namespace.get("__name__", ""))  # `python -m` runs under `__main__`


def module_of(namespace: Mapping[str, Any]) -> Module:
    """The parsed module that these are the globals of."""
    name, spec = module_name(namespace), namespace.get("__spec__")
    return _parsed(name, spec, "__path__" in namespace, namespace.get("__file__"))


def module_named(name: str) -> Module:
    """The parsed module of that name, imported or not.

    Raises
    ------
    DeclarationError
        It cannot be found, or its source cannot be had.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return module_of(vars(loaded))
    spec = find_spec(name)
    if spec is None:
        raise DeclarationError(
            f"{name} is reached but cannot be found: mend the import, or put the module into sys.modules"
        )
    return _parsed(name, spec, spec.submodule_search_locations is not None, spec.origin)


def find_spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from; None where there is none, or its name is none."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _parsed(name: str, spec: ModuleSpec | None, is_package: bool, path: str | None) -> Module:
    known = _MODULES.get(name)
    if known is not None and known[0] is spec and spec is not None:
        return known[1]
    try:
        source = _source(spec, path)
        if source is None:
            raise DeclarationError(f"the source of {name} cannot be had, so it has no code version: ship its .py file")
        module = Module(name, is_package, source)
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
