"""The pages of docs/reference, made at build from what they describe: docstrings, settings, the command line.

A hook of MkDocs. Nothing of them is written by hand, so nothing of them can be out of date.
"""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

root = Path(__file__).resolve().parents[1]

documented = {
    "domain": ("A domain", "mlplatform.domain.domain"),
    "contract": ("Columns and contracts", "mlplatform.domain.column"),
    "source": ("Sources", "mlplatform.domain.source"),
    "view": ("Views", "mlplatform.domain.view"),
    "model": ("Models", "mlplatform.domain.model"),
    "monitoring": ("Monitoring", "mlplatform.domain.monitoring"),
    "reproducibility": ("Reproducibility", "mlplatform.domain.reproducibility"),
    "errors": ("Errors", "mlplatform.errors"),
}
"""Page -> title, and the module whose docstrings are shown."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    pages = {name: module_page(*about) for name, about in documented.items()}
    pages |= {"settings": settings_page(), "command": command_page()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def module_page(title: str, module: str) -> str:
    """A page that shows every public class of a module with its fields."""
    return (
        f"# {title}\n\n::: {module}\n    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
    )


def settings_page() -> str:
    """The fields of `Settings` as a table; the variable is named in each one's docstring."""
    tree = ast.parse((root / "mlplatform" / "settings.py").read_text(encoding="utf-8"))
    (declared,) = (each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "Settings")
    lines = ["| variable | meaning |", "|---|---|"]
    for field, text in fields(declared):
        variable, colon, meaning = text.partition(":")
        if not (variable.startswith("`") and colon):
            raise ValueError(
                f"the docstring of Settings.{field} begins with no `VARIABLE`: name the one it is read from"
            )
        lines.append(f"| {variable} | {cell(meaning)} |")
    return (
        "# Settings\n\nEverything works with none of them set. They are read from the environment by "
        "`mlplatform/settings.py` and by nothing else.\n\n" + "\n".join(lines) + "\n"
    )


def fields(declared: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Name and docstring of each field of a class."""
    for field, after in zip(declared.body, [*declared.body[1:], ast.Pass()], strict=True):
        match field, after:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
            case ast.AnnAssign(target=ast.Name(name)), _:
                raise ValueError(
                    f"Settings.{name} has no docstring: say which variable it is read from, and what it does"
                )


def command_page() -> str:
    """Every verb of the command with its arguments and options, as `--help` tells them."""
    asked = [sys.executable, "-m", "typer", "mlplatform.cli.command", "utils", "docs", "--name", "mlplatform"]
    told = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True, timeout=120).stdout
    return told + "Exit codes: 0 done · 1 refused or failed, with one line that says what to do · 2 wrong use.\n"


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
