"""The feature code of a bundle: what is taken along at training, and how it is imported at serving.

A model is only served with the very code it was trained with. That code is loaded under a module name made from the
bundle's digest, so that two versions of one domain live side by side in one process. This works because a domain
package imports only the standard library, Polars, the platform's declarations and, by relative imports, its own modules
and those of a sibling domain; anything else is refused when the bundle is written, not when it is served.

It reads no byte code from disk and writes none: what runs is the source whose hash the manifest holds.
"""

import ast
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mlplatform.domain.domain import Domain
from mlplatform.errors import BundleCorrupt, DeclarationError

DATA_FOLDERS = frozenset({"data", "__pycache__"})
"""Folders of a domain package that hold samples and how they were made, never feature code."""

PLATFORM_MODULES = ("mlplatform.domain", "mlplatform.errors", "mlplatform.features.view")
"""What feature code may import of the platform: declarations, which a serving host has too."""


def domain_folder(name: str) -> Path:
    """The package of a domain that ships in this tree.

    Raises
    ------
    DeclarationError
        There is no such package.
    """
    spec = find_spec(f"mlplatform.domains.{name}")
    if spec is None or spec.origin is None:
        raise DeclarationError(
            f"mlplatform.domains has no package {name!r}, so its code cannot be bundled. Pass its folder"
        )
    return Path(spec.origin).parent


def feature_code(package: Path) -> dict[str, bytes]:
    """The Python files of a domain package, and of the sibling packages that it imports relatively.

    Parameters
    ----------
    package : folder of the domain package; its parent holds the siblings

    Returns
    -------
    files : path relative to the parent, such as `flight_delay/features.py`, -> content

    Raises
    ------
    DeclarationError
        A file imports what a serving host does not have.
    """
    files: dict[str, bytes] = {}
    waiting = [package]
    while waiting:
        folder = waiting.pop()
        if f"{folder.name}/__init__.py" in files:
            continue
        if not (folder / "__init__.py").is_file():
            raise DeclarationError(
                f"{folder.name} has no __init__.py, so it is no domain package. Give it one with DOMAIN in it"
            )
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if DATA_FOLDERS.isdisjoint(inside.parts[:-1]):
                source = path.read_bytes()
                files[f"{folder.name}/{inside.as_posix()}"] = source
                siblings = _check_imports(f"{folder.name}/{inside.as_posix()}", source)
                waiting += [package.parent / sibling for sibling in siblings]
    return dict(sorted(files.items()))


def load_domain(code: Path, package: str, *, name: str, digest: str, files: Sequence[str]) -> Domain:
    """Import a bundled domain under a name of its own.

    Parameters
    ----------
    code : folder that holds the domain's package
    package : its name there; a domain from an installed package may be called otherwise
    name : of the domain
    digest : of the bundle; its first twelve digits are in the module's name
    files : paths below `code` that the manifest lists; no other can be imported

    Raises
    ------
    BundleCorrupt
        The package gives no `DOMAIN` of that name.
    """
    root = f"mlplatform_bundle_{digest[:12]}"
    if root not in sys.modules:
        finder = _BundledFinder(root, code, files)
        sys.meta_path.insert(0, finder)
        parent = ModuleType(root, f"Feature code of bundle {digest}.")
        parent.__path__ = [str(code)]
        sys.modules[root] = parent
        try:
            importlib.import_module(f"{root}.{package}")
        except Exception as error:  # a domain's code may raise anything, and an older one what it did not then
            # Nothing half-imported stays behind: the next attempt may be of a repaired copy elsewhere.
            sys.meta_path.remove(finder)
            for module in [each for each in sys.modules if each == root or each.startswith(f"{root}.")]:
                del sys.modules[module]
            raise BundleCorrupt(
                f"code/{package}", f"its code cannot be imported here ({type(error).__name__}: {error})"
            ) from error
    domain = getattr(sys.modules.get(f"{root}.{package}"), "DOMAIN", None)
    if not isinstance(domain, Domain) or domain.name != name:
        raise BundleCorrupt(f"code/{package}", f"its __init__.py gives no DOMAIN called {name}")
    return domain


class _FromSource(SourceFileLoader):
    """Compiles the source at every import: a cached `.pyc` is not covered by the manifest."""

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        raise OSError("bundled code keeps no byte code")


class _BundledFinder(MetaPathFinder):
    """Finds the listed files of one bundle, under its own root name."""

    def __init__(self, root: str, code: Path, files: Sequence[str]) -> None:
        self._root = f"{root}."
        self._code = code
        self._files = frozenset(files)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of this bundle; None for every other."""
        if not fullname.startswith(self._root):
            return None
        inside = fullname.removeprefix(self._root).replace(".", "/")
        for candidate, folder in ((f"{inside}/__init__.py", [str(self._code / inside)]), (f"{inside}.py", None)):
            if candidate in self._files:
                location = str(self._code / candidate)
                return spec_from_file_location(
                    fullname, location, loader=_FromSource(fullname, location), submodule_search_locations=folder
                )
        return None


def _check_imports(path: str, source: bytes) -> set[str]:
    """Refuse imports that a serving host cannot follow; give the sibling packages that are imported relatively."""
    siblings = set()
    depth = path.count("/")
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from mlplatform.features import view` names a module by its last word.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level == depth + 1:
                siblings |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            elif node.level > depth + 1:
                raise DeclarationError(
                    f"{path}, line {node.lineno}: a relative import that leaves the domains. Import from one of them"
                )
            continue
        else:
            continue
        for name in names:
            if not _servable(name):
                raise DeclarationError(
                    f"{path}, line {node.lineno}: {name} cannot be bundled. Feature code imports the standard library, "
                    f"polars, {', '.join(PLATFORM_MODULES)} and, relatively, domain packages"
                )
    return siblings


def _servable(name: str) -> bool:
    top = name.split(".")[0]
    if top == "polars" or top in sys.stdlib_module_names:
        return True
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in PLATFORM_MODULES)
