"""Arguments that several verbs take, and what they name."""

from datetime import date
from typing import Annotated

import typer

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.registered import registered_domain, registered_domains
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings

DomainName = Annotated[str, typer.Argument(help="Name of a registered domain, such as `flight_delay`.")]
ModelName = Annotated[str, typer.Argument(help="A model as `domain/model`.")]
First = Annotated[str | None, typer.Option("--from", help="First day, ISO. Default: the domain's first.")]
Last = Annotated[str | None, typer.Option("--to", help="Last day, ISO, included.")]


def model_named(name: str) -> tuple[Domain, ModelSpec]:
    """A declared model, and its domain."""
    domain, separator, model = name.partition("/")
    if not separator:
        raise DeclarationError(f"a model is written `domain/model`, such as flight_delay/late_arrival; not {name!r}")
    declared = registered_domain(domain)
    return declared, declared.model(model)


def domains_named(name: str | None) -> list[Domain]:
    """One domain, or all."""
    return [registered_domain(name)] if name else list(registered_domains().values())


def recorded_model(name: str) -> str:
    """A model that the ledger knows, also one that is no longer declared; else a declared one."""
    from mlplatform.registry.ledger import Ledger

    if name not in Ledger(platform_from_settings()).models():
        model_named(name)
    return name


def day_named(text: str | None) -> date | None:
    """An ISO day; None where none is given."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise DeclarationError(f"{text!r} is no day. Write it as 2013-07-01") from error


def days_between(first: str, last: str) -> list[str]:
    """All days of a range, ISO, both included."""
    from mlplatform.features.tables import day_range

    start, end = day_named(first), day_named(last)
    if start is None or end is None or end < start:
        raise DeclarationError(f"{first} to {last} is no range of days. Give the earlier day first")
    return day_range(start.isoformat(), end.isoformat())
