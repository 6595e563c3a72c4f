"""Which domains there are: the packages of this folder, and those that installed packages offer.

A folder beside this module with an `__init__.py` that binds `DOMAIN` is a domain: there is no list to edit. An
installed package offers one through the entry-point group `mlplatform.domains`: name -> `package:DOMAIN`.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.errors import DeclarationError, MlplatformError

_folder = Path(__file__).parent


def built_in() -> tuple[str, ...]:
    """Names of the packages in this folder, in order. What begins with a dot is a package that is being written."""
    packages = (path.parent.name for path in _folder.glob("*/__init__.py"))
    return tuple(sorted(name for name in packages if name.isidentifier()))


@cache
def registered_domains() -> dict[str, Domain]:
    """Every domain by its name, those of this folder first.

    Raises
    ------
    DeclarationError
        A package cannot be imported or offers no `Domain`, two domains share a name, or an imported view is not what it
        is said to be.
    """
    found = [(f"mlplatform.domains.{name}", _of_package(name)) for name in built_in()]
    found += [(f"the entry point {entry.name} = {entry.value}", _of_entry(entry)) for entry in _entries()]
    domains: dict[str, Domain] = {}
    for where, domain in found:
        if not isinstance(domain, Domain):
            raise DeclarationError(
                f"{where} is registered as a domain but is {domain!r}. Point it at a DOMAIN = Domain(…)"
            )
        if domain.name in domains:
            raise DeclarationError(f"two domains are called {domain.name!r}, the second by {where}. Rename one of them")
        domains[domain.name] = domain
    for domain in domains.values():
        _check_imports(domain, domains)
    return domains


def registered_domain(name: str) -> Domain:
    """The domain of that name."""
    domains = registered_domains()
    if name not in domains:
        raise DeclarationError(f"no domain is called {name!r}; there is {', '.join(domains)}")
    return domains[name]


def domain_package(name: str) -> Path | None:
    """Folder of the package that offers a domain, whose code goes into its bundles; None: nobody registered it.

    Raises
    ------
    DeclarationError
        The entry point names a module that is no package.
    """
    for package in built_in():
        if getattr(_of_package(package), "name", None) == name:
            return _folder / package
    for entry in _entries():
        if getattr(_of_entry(entry), "name", None) == name:
            path = Path(import_module(entry.module).__file__ or "")
            if path.name != "__init__.py":
                raise DeclarationError(
                    f"domain {name!r} is offered by {entry.module}, which is a module. Point the entry at a package "
                    "whose __init__.py holds DOMAIN: the package's code goes into every bundle"
                )
            return path.parent
    return None


def _entries() -> list[EntryPoint]:
    return list(entry_points(group="mlplatform.domains"))


def _of_package(name: str) -> object:
    """What a package of this folder calls DOMAIN; None: it calls nothing so."""
    module = f"mlplatform.domains.{name}"
    try:
        return getattr(import_module(module), "DOMAIN", None)
    except Exception as error:
        raise _not_imported(module, error) from error


def _of_entry(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        raise _not_imported(f"{entry.module} (entry point {entry.name} = {entry.value})", error) from error


def _not_imported(module: str, error: Exception) -> DeclarationError:
    """One error whatever a package raises while it is imported: every command looks at all domains."""
    told = str(error) if isinstance(error, MlplatformError) else f"{type(error).__name__}: {error}"
    return DeclarationError(
        f"the domain package {module} cannot be imported: {' '.join(told.split())}. Mend it, or take it away: no "
        "command runs without it"
    )


def _check_imports(domain: Domain, domains: dict[str, Domain]) -> None:
    for imported in domain.imported:
        if imported.domain not in domains:
            raise DeclarationError(f"{domain.name} imports a view of {imported.domain!r}, which is not registered")
        _, real = domains[imported.domain].view(imported.name)
        for what in ("entity", "features", "ttl"):
            if getattr(real, what) != getattr(imported, what):
                raise DeclarationError(
                    f"{domain.name} imports {imported.domain}/{imported.name} with another `{what}` than it has. "
                    "State what the owner declares"
                )
