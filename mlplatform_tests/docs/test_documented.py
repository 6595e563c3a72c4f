"""Whatever a user can set, type, declare or see is in the documentation; what is new and not told fails here."""

import ast
import dataclasses
import inspect
import re
from itertools import pairwise
from types import ModuleType

import pytest

from mlplatform import cli, errors
from mlplatform.cli.command import app
from mlplatform.definitions import defs
from mlplatform.domain import column, domain, model, source, view
from mlplatform.features.tables import stages
from mlplatform.settings import own_variables
from mlplatform_tests.docs.page import PAGES, ROOT
from serving.metrics import FAMILIES

PROSE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "docs")


def declarations() -> list[type]:
    """The public classes by which a domain is declared."""
    return [
        each
        for module in (column, domain, model, source, view)
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and not name.startswith("_")
    ]


def shown_modules() -> set[str]:
    """Modules whose docstrings the reference shows."""
    return set(re.findall(r'"(mlplatform\.[\w.]+)"', (ROOT / "docs" / "generated_reference.py").read_text()))


@pytest.mark.parametrize("module", [column, domain, model, source, view, errors], ids=lambda each: str(each.__name__))
def test_the_reference_shows_the_module(module: ModuleType) -> None:
    """Every module of declarations, and the errors, have their page."""
    assert module.__name__ in shown_modules()


@pytest.mark.parametrize("declared", declarations(), ids=lambda each: str(each.__name__))
def test_every_declaration_says_what_it_is(declared: type) -> None:
    """A class whose docstring is empty would be left out of the reference."""
    assert declared.__doc__
    # What dataclasses write when nobody has.
    assert not declared.__doc__.startswith(f"{declared.__name__}(")


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(domain.Domain)])
def test_every_field_of_a_domain_is_told_of(field: str) -> None:
    """Each part of a domain is used or explained on a page that a person has written."""
    assert re.search(rf"\b{field}\b", PROSE), f"name `{field}` of Domain in docs/bring_a_domain.md"


@pytest.mark.parametrize("declared", declarations(), ids=lambda each: str(each.__name__))
def test_every_declaration_is_told_of(declared: type) -> None:
    """Each class that a domain may use is used or explained on a page that a person has written."""
    assert re.search(rf"\b{declared.__name__}\b", PROSE), f"name `{declared.__name__}` in docs/bring_a_domain.md"


def test_every_field_of_a_contract_is_shown() -> None:
    """The reference leaves out a field that has no docstring; a page shows how freshness is declared."""
    (declared,) = (
        each
        for each in ast.parse(inspect.getsource(column)).body
        if isinstance(each, ast.ClassDef) and each.name == "Contract"
    )
    bare = [
        ast.unparse(each)
        for each, after in pairwise(declared.body)
        if isinstance(each, ast.AnnAssign) and not isinstance(after, ast.Expr)
    ]
    assert bare == []
    assert re.search(r"^    freshness=Freshness\(column=", PROSE, re.MULTILINE)


def test_every_command_is_told_of() -> None:
    """Each verb of the command line is on a page that a person has written."""
    verbs = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback]
    assert [verb for verb in verbs if not re.search(rf"\bmlplatform {verb}\b", PROSE)] == []


def test_every_setting_is_told_of() -> None:
    """Each variable that is ours is on a page that a person has written."""
    assert [name for name in own_variables if name not in PROSE] == []


def test_every_figure_is_told_of() -> None:
    """Each name that `/metrics` shows is on the page about serving."""
    told = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert [family.name for family in FAMILIES if f"`{family.name}`" not in told] == []


def test_every_asset_is_told_of() -> None:
    """Each kind of asset stands in the table of the first page."""
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    kinds = {key.path[-1] for key in defs().resolve_asset_graph().get_all_asset_keys()}
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in first] == []


def test_the_stages_are_counted_alike_everywhere() -> None:
    """Pages and `--help` name the number of stages that there is."""
    told = "\n".join([*(page.read_text(encoding="utf-8") for page in PAGES), inspect.getsource(cli)])
    counted = set(re.findall(r"\b(four|five|six|seven) stages\b", told))
    assert (counted, len(stages)) == ({"six"}, 6)


def test_every_kind_of_sensor_is_told_of() -> None:
    """Each sensor is named as one of the patterns that the page on operation explains."""
    told = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    patterns = [re.sub(r"<\w+>", r"\\w+", each) for each in re.findall(r"`((?:<\w+>_)+\w+)`", told)]
    names = [each.name for each in defs().sensors or ()]
    assert [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert names
