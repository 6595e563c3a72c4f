"""`mlplatform reproduce`: a model made again, and the first thing that differs."""

from typing import Annotated

import typer

from mlplatform.cli.console import out
from mlplatform.features.resources import platform_from_settings


def reproduce(
    version: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_VERSION",
            help="Key of a recipe as answers and the log name it, or the digest of a manifest, twelve digits at least; "
            "either may stand behind its model: `flight_delay/late_arrival@2013-07-01-ab12cd34`.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with every hash.")] = False,
) -> None:
    """Make a model again from its pinned data and compare every part; exits 1 where one differs. Keeps nothing."""
    from mlplatform.operations import reproduce_view as room
    from mlplatform.reproducibility import reproduce as again

    model, _, named = version.rpartition("@")
    made = again.reproduce(platform_from_settings(), model, named)
    if as_json:
        typer.echo(room.as_json(made))
    else:
        room.show(made, out)
    raise typer.Exit(0 if made.exact else 1)
