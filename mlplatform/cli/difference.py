"""`mlplatform diff`: what differs between two versions of a model, and which requests they answer differently."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import day_named
from mlplatform.cli.console import out
from mlplatform.features.resources import platform_from_settings

_version = "the key of its recipe, twelve digits of its manifest or more, or either as `domain/model@…`."


def diff(
    model_a: Annotated[str, typer.Argument(help=f"A version: {_version}")],
    model_b: Annotated[str, typer.Argument(help="Another version of the same model, named likewise.")],
    day: Annotated[str | None, typer.Option(help="ISO day of the requests. Default: the newest ones.")] = None,
    sample: Annotated[int, typer.Option(help="Logged requests to answer with both, drawn by their ids.", min=1)] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with everything that differs.")] = False,
) -> None:
    """Show what two versions were made from, which logged requests they answer differently, and what makes it so."""
    from mlplatform.operations import difference_view as room

    asked = day_named(day)
    found = room.compared(
        platform_from_settings(), model_a, model_b, day=None if asked is None else asked.isoformat(), at_most=sample
    )
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)
