"""`mlplatform ledger`: what was promoted, rolled out and rolled back."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import ModelName, recorded_model
from mlplatform.cli.console import out
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings

ledger = typer.Typer(
    help="The ledger: what was promoted, rolled out and rolled back, by whom and why.", no_args_is_help=True
)


@ledger.command("show")
def ledger_show(
    model: ModelName,
    limit: Annotated[int | None, typer.Option(help="Only so many, the newest ones.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with the evidence of each.")] = False,
) -> None:
    """Every event of a model, oldest first."""
    from mlplatform.operations import ledger_view as room

    platform = platform_from_settings()
    found = room.history(platform, recorded_model(model), limit=limit)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_history(model, found, out)


@ledger.command("verify")
def ledger_verify(
    model: Annotated[str | None, typer.Argument(help="One model as `domain/model`; default: all.")] = None,
    holds: Annotated[
        str, typer.Option(help="Hash of an entry that MODEL's ledger must still hold, as a dossier names it.")
    ] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Set from the ledger what does not agree with it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check that no entry was changed or left out, and that MLflow and the running services follow the ledger."""
    from mlplatform.operations import ledger_view as room

    if holds and model is None:
        raise DeclarationError("a hash is of one model's ledger. Name the model: `mlplatform ledger verify MODEL …`")
    platform = platform_from_settings()
    found = room.verify(platform, None if model is None else recorded_model(model), holds=holds, repair=repair)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_verified(found, out)
    raise typer.Exit(0 if all(each.good for each in found) else 1)


@ledger.command("at")
def ledger_at(
    model: ModelName,
    instant: Annotated[str, typer.Argument(help="With its offset: `2013-03-15T14:47:00-04:00`.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """What served at an instant, to whom, and under which plan."""
    from mlplatform.features.as_of import parse_instant
    from mlplatform.operations import ledger_view as room

    platform = platform_from_settings()
    found = room.served(platform, recorded_model(model), parse_instant(instant, "INSTANT"))
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_served(found, out)
