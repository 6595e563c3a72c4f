"""Which domains are found: the packages of the folder, and those that an installed package offers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlplatform.domains
from mlplatform.domains import registered
from mlplatform.domains.registered import domain_package, registered_domain, registered_domains
from mlplatform.errors import DeclarationError

PACKAGE = '''
"""A domain in a package of its own, made of the synthetic one."""

from dataclasses import replace
from datetime import timedelta

from mlplatform.domain.view import ImportedView
from mlplatform.domains.synthetic import DOMAIN as SYNTHETIC

view = SYNTHETIC.views[0]
imported = ImportedView(domain=OWNER, name=VIEW, entity=view.entity, features=view.features, ttl=TTL)
DOMAIN = replace(SYNTHETIC, name=NAME, views=(), imported=(imported,), models=())
'''


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing that was found before counts, and nothing found here stays."""
    registered_domains.cache_clear()
    yield
    registered_domains.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in [name for name in sys.modules if name.startswith("offered_")]:
        del sys.modules[module]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of domain packages: the real ones, and room for more."""
    real = Path(registered.__file__).parent
    for name in registered.built_in():
        (tmp_path / name).symlink_to(real / name)
    monkeypatch.setattr(registered, "_folder", tmp_path)
    monkeypatch.setattr(mlplatform.domains, "__path__", [str(tmp_path), *mlplatform.domains.__path__])
    yield tmp_path
    sys.modules.pop("mlplatform.domains.errands", None)


def put(package: Path, *, name: str, owner: str = "synthetic", view: str = "courier", ttl: str = "view.ttl") -> None:
    """Write a domain package."""
    source = PACKAGE.replace("OWNER", repr(owner)).replace("=VIEW", f"={view!r}").replace("TTL", ttl)
    package.mkdir()
    (package / "__init__.py").write_text(source.replace("NAME", repr(name)))


def install(
    site: Path,
    package: str,
    *,
    name: str = "errands",
    owner: str = "synthetic",
    view: str = "courier",
    ttl: str = "view.ttl",
    entry: str = "DOMAIN",
) -> None:
    """Install a distribution as an installer would: the package, its metadata, its entry point."""
    put(site / package, name=name, owner=owner, view=view, ttl=ttl)
    information = site / f"{package}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[mlplatform.domains]\n{name} = {package}:{entry}\n")


def test_the_domains_of_this_repository_are_found() -> None:
    """Every package of the folder gives a domain of its own name; an unknown name is told with the known ones."""
    found = registered_domains()
    assert {"flight_delay", "synthetic"} <= set(found)
    assert tuple(found)[: len(registered.built_in())] == registered.built_in()
    assert registered_domain("synthetic").name == "synthetic"
    with pytest.raises(DeclarationError, match=r"no domain is called 'rail'; there is .*flight_delay.*synthetic"):
        registered_domain("rail")


def test_a_package_in_the_folder_is_registered_by_being_there(folder: Path) -> None:
    """There is no list to edit; a plain module, a folder of data and a package that is being written are no domains."""
    before = registered.built_in()
    put(folder / "errands", name="errands")
    put(folder / ".draft.0a1b", name="draft")
    (folder / "plain.py").write_text("DOMAIN = 1")
    (folder / "data").mkdir()
    assert registered.built_in() == tuple(sorted([*before, "errands"]))
    assert registered_domain("errands").imported[0].name == "courier"
    assert domain_package("errands") == folder / "errands"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('no reason')", "RuntimeError: no reason"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(folder: Path, source: str, told: str) -> None:
    """Whatever it raises is one refusal that says which package it is and what is wrong with it."""
    (folder / "errands").mkdir()
    (folder / "errands" / "__init__.py").write_text(source)
    with pytest.raises(DeclarationError) as refused:
        registered_domains()
    assert f"the domain package mlplatform.domains.errands cannot be imported: {told}" in str(refused.value)


def test_a_package_without_a_domain_is_named(folder: Path) -> None:
    """A package that binds no DOMAIN is refused, not passed over: somebody meant it to be one."""
    (folder / "errands").mkdir()
    (folder / "errands" / "__init__.py").write_text('"""Nothing yet."""')
    with pytest.raises(DeclarationError, match=r"mlplatform\.domains\.errands is registered as a domain but is None"):
        registered_domains()


def test_an_installed_package_offers_its_domain(site: Path) -> None:
    """Its entry point suffices; nothing here knows its name."""
    install(site, "offered_errands")
    assert registered_domain("errands").imported[0].name == "courier"


def test_two_domains_of_one_name_are_refused(site: Path) -> None:
    """Tables, bundles and models are named after the domain, so its name is its own."""
    install(site, "offered_copy", name="synthetic", owner="flight_delay", view="carrier")
    with pytest.raises(DeclarationError, match="two domains are called 'synthetic'"):
        registered_domains()


def test_what_is_no_domain_is_refused(site: Path) -> None:
    """An entry point may name anything; only a `Domain` is one."""
    install(site, "offered_view", entry="view")
    with pytest.raises(DeclarationError, match="is registered as a domain but is"):
        registered_domains()


def test_an_imported_view_is_what_its_owner_declares(site: Path) -> None:
    """A domain that relies on another time to live than the view has is refused, and told so."""
    install(site, "offered_stale", ttl="timedelta(days=9)")
    with pytest.raises(DeclarationError, match="imports synthetic/courier with another `ttl` than it has"):
        registered_domains()


@pytest.mark.parametrize(
    ("owner", "view", "told"),
    [
        ("rail", "courier", "imports a view of 'rail', which is not registered"),
        ("synthetic", "van", "no view of synthetic is called 'van'"),
    ],
)
def test_an_imported_view_must_exist(site: Path, owner: str, view: str, told: str) -> None:
    """Neither an unknown domain nor an unknown view can be imported."""
    install(site, "offered_lost", owner=owner, view=view)
    with pytest.raises(DeclarationError, match=told):
        registered_domains()


def test_the_code_of_an_installed_domain_can_be_bundled(site: Path) -> None:
    """Its package's folder is known, whatever the package is called; a plain module has none to bundle."""
    install(site, "offered_errands")
    assert domain_package("errands") == site / "offered_errands"
    assert domain_package("synthetic") == Path(registered.__file__).parent / "synthetic"
    assert domain_package("nobody") is None


def test_a_domain_in_a_plain_module_is_told_to_become_a_package(site: Path) -> None:
    """A bundle takes the package's code along, so there must be one."""
    install(site, "offered_errands")
    (site / "offered_errands" / "__init__.py").rename(site / "offered_plain.py")
    points = site / "offered_errands-1.0.dist-info" / "entry_points.txt"
    points.write_text("[mlplatform.domains]\nerrands = offered_plain:DOMAIN\n")
    with pytest.raises(DeclarationError, match="Point the entry at a package"):
        domain_package("errands")
