"""`mlplatform keys`: who may ask."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlplatform.cli.console import out, problems
from mlplatform.settings import settings

if TYPE_CHECKING:
    from mlplatform.registry.api_keys import ApiKeys

keys = typer.Typer(help="API keys: who may ask a service for predictions, or send it facts.", no_args_is_help=True)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.")],
    requests_per_minute: Annotated[
        int | None, typer.Option(help="How often it may ask. Default: as often as the service can answer.", min=1)
    ] = None,
    may: Annotated[
        Literal["predictions", "facts", "both"],
        typer.Option(help="What it is good for: to ask, to send facts, or both."),
    ] = "predictions",
) -> None:
    """Make a key and print it: the only time it is shown."""
    key_id, token = _api_keys().create(
        name, requests_per_minute=requests_per_minute, may=("predictions", "facts") if may == "both" else (may,)
    )
    # The key alone on standard output, so that a script can take it.
    print(token)
    problems.print(f"key {key_id} of {name}; it cannot be shown again", highlight=False, markup=False, soft_wrap=True)


@keys.command("list")
def list_keys() -> None:
    """Every key there ever was, without its secret."""
    for key in _api_keys().listed():
        limit = "no limit" if key.requests_per_minute is None else f"{key.requests_per_minute} per minute"
        until = "" if key.revoked is None else f"  revoked {key.revoked:%Y-%m-%d %H:%M}"
        line = f"{key.id}  {key.name}  {', '.join(key.may)}  {limit}  since {key.created:%Y-%m-%d %H:%M}{until}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `mlplatform keys list` shows it.")],
) -> None:
    """End a key; a running service refuses it within a second."""
    key = _api_keys().revoke(key_id)
    out.print(f"key {key.id} of {key.name} is revoked", highlight=False, markup=False, soft_wrap=True)


def _api_keys() -> "ApiKeys":
    from mlplatform.registry.api_keys import ApiKeys, keys_folder

    return ApiKeys(keys_folder(settings().home))
