"""The house rules that neither import-linter nor ruff can say, read off the syntax trees of `mlplatform` and `serving`.

Who may import whom stands in `setup.cfg`. Every rule here is a function from a module to its offences; it is held
against the whole house, and against a planted offence, so that a rule that has gone blind is noticed.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HEAVY = frozenset(
    {
        "bentoml",
        "evidently",
        "great_expectations",
        "matplotlib",
        "mlflow",
        "optuna",
        "pandas",
        "pyarrow",
        "scipy",
        "sklearn",
        "xgboost",
    }
)
"""Libraries whose cold import takes 0.3 s or more. Dagster, which adapters cannot do without, is excepted."""

ADAPTERS = frozenset({"assets", "checks", "jobs", "partitions", "resources", "schedules", "sensors"})

VAGUE = frozenset({"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"})

ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})


@dataclass(frozen=True)
class Module:
    """A source file: its path below the root, and its syntax tree."""

    path: Path
    tree: ast.Module

    @classmethod
    def planted(cls, path: str, source: str) -> "Module":
        """A module that is on no disk."""
        return cls(Path(path), ast.parse(source))


Rule = Callable[[Module], list[str]]


def house() -> list[Module]:
    """Every module of `mlplatform` and `serving`."""
    return [
        Module(path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8")))
        for package in ("mlplatform", "serving")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def at_import(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the module is imported; what stands under TYPE_CHECKING does not."""
    for statement in statements:
        yield statement
        match statement:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from at_import(statement.orelse)
            case ast.If() | ast.For() | ast.While():
                yield from at_import(statement.body + statement.orelse)
            case ast.With() | ast.ClassDef():
                yield from at_import(statement.body)
            case ast.Try():
                handled = [inner for handler in statement.handlers for inner in handler.body]
                yield from at_import(statement.body + handled + statement.orelse + statement.finalbody)


def imported(node: ast.AST) -> list[str]:
    """Full names of the modules that an import statement names; none for any other node."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
    return []


def heavy_at_import(module: Module) -> list[str]:
    """Heavy libraries imported outside a function."""
    if module.path == Path("serving/service.py"):
        # A Bento's service is declared by BentoML's decorators, at import.
        allowed = {"bentoml"}
    elif module.path.parent.name == "data":
        # Scripts that say how a domain's data was made; nothing imports them.
        return []
    else:
        allowed = set()
    tops = {name.partition(".")[0] for statement in at_import(module.tree.body) for name in imported(statement)}
    return sorted(tops & HEAVY - allowed)


def more_than_docstring(module: Module) -> list[str]:
    """Statements of an `__init__.py` beyond its docstring, a domain's DOMAIN excepted."""
    if module.path.name != "__init__.py":
        return []
    first, *rest = module.tree.body or [ast.Pass()]
    found = [] if ast.get_docstring(module.tree) else [first]
    if module.path.parent.parent == Path("mlplatform/domains"):
        rest = [statement for statement in rest if not declares_domain(statement)]
    return [ast.unparse(statement).splitlines()[0] for statement in found + rest]


def declares_domain(statement: ast.stmt) -> bool:
    """Whether a statement is an import, or binds DOMAIN."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Assign(targets=[ast.Name("DOMAIN")]) | ast.AnnAssign(target=ast.Name("DOMAIN")):
            return True
    return False


def reads_environment(module: Module) -> list[str]:
    """Uses of the process's environment outside `settings.py`."""
    if module.path == Path("mlplatform/settings.py"):
        return []
    found = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name("os"), attr=name) if name in ENVIRONMENT:
                found.append(f"os.{name}")
            case ast.ImportFrom(module="os"):
                found += [f"os.{alias.name}" for alias in node.names if alias.name in ENVIRONMENT]
    return found


def vague_name(module: Module) -> list[str]:
    """Parts of the module's name that name nothing."""
    words = {word for part in module.path.with_suffix("").parts for word in part.split("_")}
    return sorted(words & VAGUE)


def lacks_docstring(module: Module) -> list[str]:
    """The module itself, if it is public and says nothing about itself."""
    private = module.path.stem.startswith("_") and module.path.stem != "__init__"
    return [] if private or ast.get_docstring(module.tree) else ["no docstring"]


def postpones_annotations(module: Module) -> list[str]:
    """`from __future__ import annotations` where assets are built: Dagster reads the annotation of `context`."""
    names = {name.partition(".")[0] for node in ast.walk(module.tree) for name in imported(node)}
    if "dagster" not in names and module.path.stem not in ADAPTERS:
        return []
    return [
        "annotations"
        for node in module.tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
        if alias.name == "annotations"
    ]


RULES: dict[Rule, list[Module]] = {
    heavy_at_import: [
        Module.planted("mlplatform/training/fit.py", "import xgboost as xgb"),
        Module.planted("mlplatform/training/fit.py", "try:\n    from scipy.stats import norm\nexcept ImportError: ..."),
        Module.planted("serving/service.py", "import bentoml, mlflow"),
    ],
    more_than_docstring: [
        Module.planted("mlplatform/training/__init__.py", '"""Training."""\nfrom mlplatform.training.fit import fit'),
        Module.planted("mlplatform/training/__init__.py", ""),
        Module.planted("mlplatform/domains/weather/__init__.py", '"""Weather."""\nDOMAIN = 1\nSEED = 2'),
    ],
    reads_environment: [
        Module.planted("serving/cache.py", "import os\n\ndef size(): return os.environ['SIZE']"),
        Module.planted("serving/cache.py", "from os import getenv"),
    ],
    vague_name: [
        Module.planted("mlplatform/features/utils.py", ""),
        Module.planted("mlplatform/common/time.py", ""),
        Module.planted("serving/worker_manager.py", ""),
    ],
    lacks_docstring: [Module.planted("mlplatform/features/view.py", "x = 1")],
    postpones_annotations: [
        Module.planted("mlplatform/features/assets.py", "from __future__ import annotations"),
        Module.planted("mlplatform/definitions.py", "from __future__ import annotations\nimport dagster as dg"),
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """No module of the house breaks the rule."""
    assert {str(module.path): found for module in house() if (found := rule(module))} == {}


@pytest.mark.parametrize(
    ("rule", "module"),
    [(rule, module) for rule, planted in RULES.items() for module in planted],
    ids=lambda value: value.__name__ if callable(value) else str(value.path),
)
def test_the_rule_sees_a_planted_offence(rule: Rule, module: Module) -> None:
    """A module that breaks the rule is reported."""
    assert rule(module)


@pytest.mark.parametrize(
    ("rule", "module"),
    [
        (heavy_at_import, Module.planted("mlplatform/training/fit.py", "def fit():\n    import xgboost")),
        (
            heavy_at_import,
            Module.planted("mlplatform/training/fit.py", "if TYPE_CHECKING:\n    import xgboost"),
        ),
        (heavy_at_import, Module.planted("serving/service.py", "import bentoml")),
        (
            more_than_docstring,
            Module.planted("mlplatform/domains/weather/__init__.py", '"""Weather."""\nimport x\nDOMAIN: int = 1'),
        ),
        (reads_environment, Module.planted("mlplatform/settings.py", "import os\nos.environ")),
        (vague_name, Module.planted("mlplatform/features/database.py", "")),
        (postpones_annotations, Module.planted("serving/routing.py", "from __future__ import annotations")),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value.path),
)
def test_the_rule_leaves_the_allowed_alone(rule: Rule, module: Module) -> None:
    """What a rule excepts is not reported."""
    assert rule(module) == []


def test_the_whole_house_is_read() -> None:
    """Modules of both packages are among those that the rules are held against."""
    paths = {str(module.path) for module in house()}
    assert {"mlplatform/errors.py", "serving/__init__.py"} <= paths
