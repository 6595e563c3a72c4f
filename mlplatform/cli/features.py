"""`mlplatform features`: what is known of whom."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import DomainName
from mlplatform.cli.console import out
from mlplatform.domains.registered import registered_domain
from mlplatform.features.resources import platform_from_settings

features = typer.Typer(help="Feature views: what there is, and what a model would have seen.", no_args_is_help=True)


@features.command("list")
def list_features(
    domain: DomainName, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Every view of a domain: how fresh, how complete, how large, and which models read it."""
    from mlplatform.operations import feature_catalogue as room

    platform = platform_from_settings()
    found = room.describe(platform, registered_domain(domain))
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_list(found, out)


@features.command("describe")
def describe_features(
    domain: DomainName,
    view: Annotated[str | None, typer.Argument(help="One view; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """All there is to say of a view and its features: meaning, unit, range, key, window, time to live, version."""
    from mlplatform.operations import feature_catalogue as room

    platform = platform_from_settings()
    found = room.describe(platform, registered_domain(domain), view)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)


@features.command("as-of")
def features_as_of(
    domain: DomainName,
    entity: Annotated[list[str], typer.Option(help="Keys and values, such as `carrier=UA,origin=JFK`.")],
    at: Annotated[str, typer.Option(help="When it was asked, with its offset: `2013-03-15T14:47:00-04:00`.")],
    known_at: Annotated[
        str | None, typer.Option(help="As known at this time. Default: as known when it was asked.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that asked. Default: every view whose keys are given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """What a model would have seen of an entity at an instant, where that came from, and what is believed now."""
    from mlplatform.features.as_of import as_of, parse_entity, parse_instant
    from mlplatform.operations import as_of as room

    declared = registered_domain(domain)
    found = as_of(
        platform_from_settings(),
        declared,
        parse_entity(entity),
        parse_instant(at, "--at"),
        known_at=None if known_at is None else parse_instant(known_at, "--known-at"),
        model=None if model is None else declared.model(model.removeprefix(f"{domain}/")),
    )
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)
