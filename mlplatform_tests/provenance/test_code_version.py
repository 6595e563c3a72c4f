"""Code versions: what moves them, what must not, and what is refused."""

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DeclarationError
from mlplatform.provenance.code_version import code_version, declaration_version


class _Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports packages from texts in memory, under whatever name a test asks for."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str, bool]] = {}
        self.count = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.texts:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=self.texts[fullname][1])

    def get_source(self, fullname: str) -> str:
        return self.texts[fullname][0]

    def is_package(self, fullname: str) -> bool:
        return self.texts[fullname][1]

    def package(self, files: Mapping[str, str], name: str = "") -> str:
        self.count += 1
        name = name or f"written_{self.count}"
        self.texts.setdefault(name, ("", True))
        for file, text in files.items():
            inside = file.removesuffix("__init__").strip("/").replace("/", ".")
            full = f"{name}.{inside}" if inside else name
            self.texts[full] = (textwrap.dedent(text), file.endswith("__init__"))
        return name

    def version(self, files: Mapping[str, str] | str, take: str = "f", name: str = "") -> str:
        """Version of `take` in the module `features`, imported afresh."""
        package = self.package({"features": files} if isinstance(files, str) else files, name)
        return code_version(getattr(importlib.import_module(f"{package}.features"), take))


@pytest.fixture(scope="module")
def sources() -> Iterator[_Sources]:
    """Give an importer of texts, and forget its modules afterwards."""
    finder = _Sources()
    sys.meta_path.insert(0, finder)
    yield finder
    sys.meta_path.remove(finder)
    for name in finder.texts:
        sys.modules.pop(name, None)


PLAIN = """
    import functools
    from dataclasses import dataclass

    import polars as pl

    LIMIT = 15
    UNUSED = 1
    TABLE = {"a": 1}
    TABLE["b"] = 2

    def times(n):
        def decorate(function):
            @functools.wraps(function)
            def wrapper(value):
                return n * function(value)
            return wrapper
        return decorate

    def helper(value, by=LIMIT):
        return value + by

    def unreached(value):
        return value - 1

    class Base:
        def shift(self):
            return 3

    class Row(Base):
        def total(self, value):
            return value + self.shift()

    @times(2)
    def f(value, start=0):
        if value > 100:
            return f(value - 1)
        return helper(value) + start + TABLE["b"] + Row().total(value)

    early = functools.partial(helper, by=7)

    def closed(n, names=()):
        def inner(value):
            return helper(value) + n
        return inner

    def other_times(value):
        return value

    inside = closed(4)
    line = lambda value: helper(value) * 2
"""


def test_comments_layout_and_docstrings_do_not_move_it(sources: _Sources) -> None:
    """The same tree written otherwise has the same version."""
    otherwise = '''
        """A docstring of the module."""
        import polars as pl
        # a comment
        def f(value,
              start = 0):
            """What it does."""

            return (pl.lit('late')  # why
                    .eq( value )), start
        class Unused: ...
    '''
    plain = 'import polars as pl\ndef f(value, start=0): return pl.lit("late").eq(value), start'
    assert sources.version(otherwise) == sources.version(plain)


def test_attribute_docstrings_do_not_move_it(sources: _Sources) -> None:
    """A bare string below a field, or alone in a body, says something only to its reader."""
    bare = "class A:\n    x: int = 1\n    def g(self): pass\ndef f(): return A"
    told = 'class A:\n    x: int = 1\n    """Minutes."""\n    def g(self):\n        """Nothing."""\ndef f(): return A'
    assert sources.version(bare) == sources.version(told)


@pytest.mark.parametrize(
    ("take", "old", "new"),
    [
        ("f", "return value + by", "return value + by + 1"),
        ("f", "LIMIT = 15", "LIMIT = 16"),
        ("f", "@times(2)", "@times(3)"),
        ("f", "n * function(value)", "n + function(value)"),
        ("f", "start=0", "start=1"),
        ("f", "return 3", "return 4"),
        ("f", 'TABLE["b"] = 2', 'TABLE["b"] = 3'),
        ("f", "import functools\n", "import json as functools\n    import functools\n"),
        ("early", "by=7", "by=8"),
        ("early", "return value + by", "return value - by"),
        ("inside", "closed(4)", "closed(5)"),
        ("inside", "return helper(value) + n", "return helper(value) - n"),
        ("inside", "LIMIT = 15", "LIMIT = 16"),
        ("line", "* 2", "* 3"),
        ("line", "return value + by", "return value - by"),
        ("Row", "return 3", "return 4"),
    ],
)
def test_a_change_of_reached_code_moves_it(sources: _Sources, take: str, old: str, new: str) -> None:
    """Helpers, constants, decorators, defaults, base classes, bound and captured values all count."""
    assert old in PLAIN
    assert sources.version(PLAIN, take) != sources.version(PLAIN.replace(old, new), take)


@pytest.mark.parametrize(
    ("take", "old", "new"),
    [
        ("f", "return value - 1\n\n    class", "return value - 2\n\n    class"),
        ("f", "UNUSED = 1", "UNUSED = 2"),
        ("f", "closed(4)", "closed(5)"),
        ("f", "by=7", "by=8"),
        ("inside", "@times(2)", "@times(3)"),
        ("early", 'TABLE["b"] = 2', 'TABLE["b"] = 3'),
        ("line", "def f(value, start=0)", "def f(value, start=1)"),
    ],
)
def test_a_change_of_unreached_code_does_not_move_it(sources: _Sources, take: str, old: str, new: str) -> None:
    """What the function cannot reach is none of its business."""
    assert old in PLAIN
    assert sources.version(PLAIN, take) == sources.version(PLAIN.replace(old, new), take)


def test_a_local_name_is_not_the_global_of_the_same_name(sources: _Sources) -> None:
    """Parameters, loop variables and comprehension targets hide what the module calls the same."""
    text = """
        def row(): return 1
        def rows(): return 1
        def f(rows):
            for row in rows:
                pass
            return [row for row in rows], (lambda row: row)
    """
    assert sources.version(text) == sources.version(text.replace("return 1", "return 2"))


PACKAGE = {
    "__init__": "from . import deep",
    "features": """
        from . import windows
        from .windows import LENGTH as length
        from .deep.more import *
        from . import deep as d
        from ..{sibling}.shared import scale

        def wrap(n):
            def inner(value):
                return windows.mean(value) * n
            return inner

        def f(value):
            from .lazy import late
            return windows.mean(value) + length + starred() + d.more.starred() + late() + scale(value)

        inside = wrap(3)
    """,
    "windows": "from .deep.more import low\nLENGTH = 5\ndef mean(value): return low(value)\ndef unreached(): return 1",
    "lazy": "def late(): return 8",
    "deep/__init__": "",
    "deep/more": "from .. import windows\ndef low(value): return windows.LENGTH\ndef starred(): return 9",
}


def _under(sources: _Sources, parent: str, take: str = "f", **changed: str) -> str:
    sources.package({}, parent)
    sources.package({"shared": changed.pop("shared", "def scale(value): return 2 * value")}, f"{parent}.beside")
    files = PACKAGE | {"features": PACKAGE["features"].replace("{sibling}", "beside")}
    files |= {file.replace("_slash_", "/"): text for file, text in changed.items()}
    return sources.version(files, take, f"{parent}.x")


@pytest.mark.parametrize("take", ["f", "inside"])
def test_the_name_under_which_a_package_is_loaded_does_not_move_it(sources: _Sources, take: str) -> None:
    """A bundle's copy, loaded under a name made from its digest, has the version of the checkout."""
    assert _under(sources, f"checkout_{take}", take) == _under(sources, f"abc123_{take}", take)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("windows", PACKAGE["windows"].replace("LENGTH = 5", "LENGTH = 6")),
        ("windows", PACKAGE["windows"].replace("return low(value)", "return -low(value)")),
        ("lazy", "def late(): return 7"),
        ("deep_slash_more", PACKAGE["deep/more"].replace("return 9", "return 10")),
        ("deep_slash_more", PACKAGE["deep/more"].replace("return windows.LENGTH", "return 5")),
        ("shared", "def scale(value): return 3 * value"),
    ],
)
def test_relative_imports_are_followed(sources: _Sources, file: str, text: str) -> None:
    """Modules, names, stars, imports inside a function and a sibling domain lead to the code that counts."""
    before = _under(sources, f"before_{sources.count}")
    assert before != _under(sources, f"after_{sources.count}", **{file: text})


def test_an_unreached_function_of_an_imported_module_does_not_count(sources: _Sources) -> None:
    """An import alone reaches nothing; the names used from it do."""
    changed = PACKAGE["windows"].replace("return 1", "return 2")
    before = _under(sources, f"before_{sources.count}")
    assert before == _under(sources, f"after_{sources.count}", windows=changed)


def test_another_library_behind_the_same_name_moves_it(sources: _Sources) -> None:
    """Code outside the roots counts by its qualified name."""
    text = "from statistics import mean\ndef f(x): return mean(x)"
    assert sources.version(text) != sources.version(text.replace("statistics", "numpy"))


def test_a_module_that_is_handed_on_counts_as_a_whole(sources: _Sources) -> None:
    """Whoever holds the module may use anything in it."""
    files = {"features": "from . import m\ndef f(name): return getattr(m, name)", "m": "def g(): return 1"}
    assert sources.version(files) != sources.version(files | {"m": "def g(): return 2"})


def test_implementations_of_a_single_dispatch_function_count(sources: _Sources) -> None:
    """They are reached by type, not by name."""
    text = """
        from functools import singledispatch
        @singledispatch
        def f(x): return 0
        @f.register
        def _(x: int): return 1
    """
    assert sources.version(text) != sources.version(text.replace("return 1", "return 2"))


def test_methods_bring_their_class_and_their_object(sources: _Sources) -> None:
    """A bound method counts what `self` holds and what `self` can call."""
    text = """
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class Shift:
            by: int
            def more(self): return 1
            def run(self, x): return x + self.by + self.more()
        f = Shift(3).run
    """
    versions = {
        sources.version(each)
        for each in (text, text.replace("Shift(3)", "Shift(4)"), text.replace("return 1", "return 2"))
    }
    assert len(versions) == 3


def test_lambdas_on_one_line_are_told_apart(sources: _Sources) -> None:
    """The columns of the byte code say which of them was meant."""
    text = "pair = (lambda x: x + 1, lambda x: x + 2)\nf, g = pair\nsame = lambda x: x + 2"
    assert sources.version(text, "g") == sources.version(text, "same") != sources.version(text, "f")


def test_mutual_and_captured_recursion_end(sources: _Sources) -> None:
    """Functions that call each other, or themselves through a closure, have a version."""
    text = """
        def f(n): return n and g(n - 1)
        def g(n): return n and f(n - 1)
        def make():
            def down(n): return n and down(n - 1)
            return down
        h = make()
    """
    assert sources.version(text) != sources.version(text.replace("n and f", "n or f"))
    assert sources.version(text, "h") != sources.version(text.replace("n and down", "n or down"), "h")


def test_roots_say_whose_code_counts(sources: _Sources) -> None:
    """With a wider root, a package imported by its absolute name counts too."""
    for answer in ("1", "2"):
        top = sources.package({}, f"wide_{answer}")
        sources.package({"m": f"def g(): return {answer}"}, f"{top}.b")
        sources.package({"features": f"from {top}.b.m import g\ndef f(): return g()"}, f"{top}.a")
    first, second = (importlib.import_module(f"wide_{answer}.a.features").f for answer in ("1", "2"))
    assert code_version(first, roots=["wide_1"]) != code_version(second, roots=["wide_2"])
    with pytest.raises(DeclarationError, match=r"lies outside wide_2"):
        code_version(first, roots=["wide_2"])


def test_a_relative_import_beyond_the_neighbours_is_refused(sources: _Sources) -> None:
    """Code that a bundle does not take along cannot be left out in silence."""
    sources.package({"shared": "def g(): return 1"}, "far")
    sources.package({}, "far.near")
    with pytest.raises(DeclarationError, match=r"far\.shared\.g, beyond far\.near\.x"):
        sources.version("from ...shared import g\ndef f(): return g()", name="far.near.x")


@pytest.mark.parametrize("function", [len, eval("lambda: 1"), functools.partial(len)])
def test_no_source_is_an_error(function: Callable[..., object]) -> None:
    """A version that ignores the code would be worse than none."""
    with pytest.raises(DeclarationError, match=r"source"):
        code_version(function)


def test_a_module_without_its_file_is_an_error() -> None:
    """Code compiled from nowhere has no version, and the message names the module."""
    module = types.ModuleType("nowhere")
    exec("def f(): return 1", vars(module))
    with pytest.raises(DeclarationError, match=r"source of nowhere cannot be had"):
        code_version(module.f)


def test_a_file_on_disk_and_its_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary package on disk works, and a reload is noticed."""
    package = tmp_path / "on_disk_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "features.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("on_disk_package.features")
    before = code_version(module.f)
    (package / "features.py").write_text("def f(): return 2\n")
    assert code_version(module.f) == before
    assert code_version(importlib.reload(module).f) != before


@settings(max_examples=40)
@given(data=st.data(), size=st.integers(2, 6))
def test_exactly_the_reachable_functions_move_it(sources: _Sources, data: st.DataObject, size: int) -> None:
    """Over any call graph, cycles included: a change of function i moves the version of function 0 if 0 reaches i."""
    calls = [data.draw(st.sets(st.integers(0, size - 1)), label=f"calls of {i}") for i in range(size)]
    order = data.draw(st.permutations(range(size)), label="order in the file")
    noise = data.draw(st.sampled_from(["", "    # a comment\n", '    """A docstring."""\n', "\n\n"]), label="noise")

    def written(changed: int | None, noise: str = "") -> str:
        return "\n".join(
            f"def f{i}(n):\n{noise}    return {[f'f{j}(n)' for j in sorted(calls[i])]}, {i}, {i == changed}".replace(
                "'", ""
            )
            for i in order
        )

    reached, waiting = {0}, [0]
    while waiting:
        fresh = calls[waiting.pop()] - reached
        reached |= fresh
        waiting += fresh
    before = sources.version(written(None), "f0")
    assert sources.version(written(None, noise), "f0") == before
    for i in range(size):
        assert (sources.version(written(i), "f0") != before) == (i in reached)


class _Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class _Declared:
    name: str
    dtype: object
    function: Callable[[int], int] | None = None


def _plus_one(value: int) -> int:
    return value + 1


def _plus_two(value: int) -> int:
    return value + 2


DIFFERENT: list[Any] = [
    None, True, 1, 1.0, "1", b"1", (), {}, set(), [1, 2], [2, 1], [[1], 2], {"a": 1}, {"a": 2}, {"b": 1},
    _Colour.RED, _Colour.BLUE, timedelta(days=1), timedelta(seconds=1), date(2013, 1, 1),
    datetime(2013, 1, 1, tzinfo=UTC),
    Path("a"), pl.Float64(), pl.Float32(), pl.Datetime("us", "UTC"), pl.Datetime("us"), pl.Datetime("ms", "UTC"),
    pl.Enum(["a", "b"]), pl.Enum(["b", "a"]),
    pl.Enum([str(i) for i in range(99)]), pl.Enum([str(i) for i in range(98)]),
    pl.List(pl.Int8()), pl.Array(pl.Int8(), 2), pl.Struct({"a": pl.Int8()}), pl.Struct({"a": pl.Int16()}), int,
    _plus_one, _plus_two, functools.partial(_plus_one, 1), functools.partial(_plus_one, 2),
    _Declared("a", pl.Int8()), _Declared("b", pl.Int8()), _Declared("a", pl.Int16()),
    _Declared("a", pl.Int8(), _plus_one),
    _Declared("a", pl.Int8(), _plus_two),
]  # fmt: skip


def test_different_declarations_have_different_versions() -> None:
    """No two kinds of value, and no two values of a kind, are written alike."""
    assert len({declaration_version(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_parts_do_not_run_into_each_other() -> None:
    """Where one part ends and the next begins counts."""
    assert declaration_version("a", "b") != declaration_version("a\n'b'") != declaration_version(["a", "b"])


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.text())), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(mapping: dict[str, object], random: Any) -> None:
    """A mapping is declared by its keys, whatever order they were typed in."""
    shuffled = list(mapping.items())
    random.shuffle(shuffled)
    assert declaration_version(mapping) == declaration_version(dict(shuffled))


@pytest.mark.parametrize("value", [object(), [object()], {"a": pl.col("x")}, _Declared("a", iter(()))])
def test_an_unknown_type_is_named(value: object) -> None:
    """What has no stable form is refused by name, however deep it lies."""
    with pytest.raises(DeclarationError, match=r"builtins\.object|polars\..*Expr|tuple_iterator"):
        declaration_version(value)


def test_a_loop_in_a_declaration_is_refused() -> None:
    """A list that holds itself is an error, not an endless walk."""
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(DeclarationError, match=r"contains itself"):
        declaration_version(loop)
