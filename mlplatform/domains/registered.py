"""Which domains there are: those of this repository, one line each, and those that installed packages offer.

A package offers a domain through the entry-point group `mlplatform.domains`: name -> `package:DOMAIN`.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.errors import DeclarationError

built_in = (
    "flight_delay",
    "synthetic",
)
"""Packages in this folder. To register a domain of this repository, add its line."""


@cache
def registered_domains() -> dict[str, Domain]:
    """Every domain by its name, the built-in ones first.

    Raises
    ------
    DeclarationError
        Two domains share a name, something registered is no `Domain`, or an imported view is not what it is said to be.
    """
    found = [import_module(f"mlplatform.domains.{name}").DOMAIN for name in built_in]
    found += [entry.load() for entry in entry_points(group="mlplatform.domains")]
    domains: dict[str, Domain] = {}
    for domain in found:
        if not isinstance(domain, Domain):
            raise DeclarationError(f"{domain!r} is registered as a domain but is none. Point the entry at its DOMAIN")
        if domain.name in domains:
            raise DeclarationError(f"two domains are called {domain.name!r}. Rename one of them")
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
    if name in built_in:
        return Path(__file__).parent / name
    for entry in entry_points(group="mlplatform.domains"):
        if getattr(entry.load(), "name", None) == name:
            path = Path(import_module(entry.module).__file__ or "")
            if path.name != "__init__.py":
                raise DeclarationError(
                    f"domain {name!r} is offered by {entry.module}, which is a module. Point the entry at a package "
                    "whose __init__.py holds DOMAIN: the package's code goes into every bundle"
                )
            return path.parent
    return None


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
