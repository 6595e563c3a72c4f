"""The package on disk: all of its files or none, tried before anybody sees it.

It is written beside its place under a hidden name, imported, its declaration built and its sample held against its own
contract; then it is renamed. Whatever goes wrong before that leaves nothing behind.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import mlplatform
from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.rules import check
from mlplatform.new_domain.model_text import models_text
from mlplatform.new_domain.names import check_name
from mlplatform.new_domain.proposal import Proposal
from mlplatform.new_domain.source_text import init_text, sample_text, sources_text
from mlplatform.new_domain.view_text import views_text
from mlplatform.new_domain.written_tests import tests_text

checkout = Path(mlplatform.__file__).parent.parent
"""Where this repository stands, or where mlplatform is installed."""

PROJECT = """[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "The domain {name} for mlplatform"
requires-python = ">=3.11"
dependencies = ["mlplatform"]

[project.entry-points."mlplatform.domains"]
{name} = "{name}:DOMAIN"

[tool.setuptools]
packages = ["{name}"]
package-dir = {{ "" = "src" }}

[tool.setuptools.package-data]
{name} = ["data/*.parquet", "py.typed"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--import-mode=importlib"]
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a new domain goes."""

    package: Path
    tests: Path
    """Folder of its tests."""

    project: Path | None
    """Folder of a project of its own; None: a package of this checkout."""

    module: str
    """Name under which the package is imported."""


def place_of(name: str, into: Path | None, existing: Mapping[str, Domain], root: Path = checkout) -> Place:
    """Where a domain of that name would go.

    Parameters
    ----------
    into : new folder for a project of its own; None: the checkout
    existing : registered domains, by name
    root : of the checkout

    Raises
    ------
    DeclarationError
        The name cannot be one or is taken, there is something in its place, or this is no checkout to write into.
    """
    check_name(name, set(existing))
    if into is None:
        if not (root / "mlplatform_tests").is_dir():
            raise DeclarationError(
                "mlplatform is installed here, it is no checkout to write a domain into. Name a folder for a package "
                "of its own with --into"
            )
        place = Place(
            package=root / "mlplatform" / "domains" / name,
            tests=root / "mlplatform_tests" / "domains" / name,
            project=None,
            module=f"mlplatform.domains.{name}",
        )
        taken = find_spec(place.module) is not None
    else:
        folder = into.resolve()
        # Not beside pyproject.toml: a folder called as its package would hide it from Python in the folder above.
        place = Place(package=folder / "src" / name, tests=folder / "tests", project=folder, module=name)
        taken = find_spec(name) is not None
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DeclarationError(f"--into: {into} is there and not empty. Name a new folder; nothing was written")
    if taken:
        raise DeclarationError(f"{name!r} is the name of a module of this Python. Take another; nothing was written")
    for path in (place.package, place.tests):
        if path.exists():
            raise DeclarationError(f"{path} is there already. Take another name, or remove it; nothing was written")
    return place


def write_package(proposal: Proposal, place: Place) -> Domain:
    """Write, try and put in place the package of a proposal; gives its declaration.

    Raises
    ------
    DataError
        The sample breaks the contract that was proposed from it.
    """
    files = {
        "__init__.py": init_text(proposal),
        "sources.py": sources_text(proposal),
        "views.py": views_text(proposal),
        "models.py": models_text(proposal),
        "sample.py": sample_text(proposal),
    }
    tests = f"test_{proposal.name}.py"
    target = place.project or place.package
    with _draft_of(target) as draft:
        package = draft / "src" / proposal.name if place.project else draft
        _write(package, files)
        (package / "data").mkdir()
        proposal.rows.write_parquet(package / "data" / "sample.parquet")
        domain = _tried(package)
        if place.project is not None:
            _write(draft, {"pyproject.toml": PROJECT.format(name=proposal.name)})
            _write(package, {"py.typed": ""})
            _write(draft / "tests", {tests: tests_text(proposal, place.module)})
            if target.exists():
                target.rmdir()
            os.replace(draft, target)
            return domain
        with _draft_of(place.tests) as tests_draft:
            _write(tests_draft, {tests: tests_text(proposal, place.module)})
            os.replace(tests_draft, place.tests)
        try:
            os.replace(draft, place.package)
        except OSError:
            shutil.rmtree(place.tests)
            raise
    return domain


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, gone afterwards if it was not renamed."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _tried(package: Path) -> Domain:
    """The declaration of a written package, every day of its sample held against its contract."""
    name = f"new_domain_{uuid.uuid4().hex}"
    spec = spec_from_file_location(name, package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        domain: Domain = module.DOMAIN
        _keeps_contract(domain)
    finally:
        for each in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[each]
        shutil.rmtree(package / "__pycache__", ignore_errors=True)
    return domain


def _keeps_contract(domain: Domain) -> None:
    sample, (source,) = domain.sample, domain.sources
    assert sample is not None
    for number in range(sample.demo_days):
        day = sample.start.fromordinal(sample.start.toordinal() + number)
        found = check(sample.read(source.name, day), source.contract)
        if found.blocking or found.refused.height:
            broken = [rule for rule, count in found.counts.items() if count]
            raise DataError(
                f"the sample of {day} breaks the contract proposed from it ({', '.join(broken[:3])}); nothing was "
                "written. Look at the rows of that day"
            )
