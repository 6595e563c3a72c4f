"""`mlplatform replay`: an answer given again, and where it came from."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import day_named, domains_named
from mlplatform.cli.console import out
from mlplatform.errors import DataError
from mlplatform.features.resources import platform_from_settings


def replay(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="REQUEST_ID", help="Of the request, as its answer says. With --sample: the domain, if not all."
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Whose answer it is. Default: whichever domain has one of that id.")
    ] = None,
    day: Annotated[
        str | None, typer.Option(help="UTC day on which it came. Default: any; of a sample, the newest.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Replay so many requests of the day, drawn by their ids.", min=1)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all that the trail names, and say what was altered.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with the whole trail.")] = False,
) -> None:
    """Give a logged answer again from what was known then, say whether it is the same, and show where it came from.

    Exit code 0: exact, or within tolerance. 1: anything else, and with --verify whatever was altered.
    """
    from mlplatform.operations import replay_view as room

    if name is None and sample is None:
        raise DataError("name a request, or ask for a sample: `mlplatform replay REQUEST_ID`, or `--sample 100`")
    if sample and verify:
        raise DataError("--verify goes with one request. A replay checks the data that it reads by itself")
    when = day_named(day)
    iso = when.isoformat() if when else None
    platform = platform_from_settings()
    if sample is not None:
        drawn = room.of_sample(platform, domains_named(name or domain), sample, day=iso)
        if as_json:
            typer.echo(room.sample_as_json(drawn))
        else:
            room.show_sample(drawn, out)
        raise typer.Exit(0 if drawn.given_again else 1)
    assert name is not None
    found = room.of_request(platform, domains_named(domain), name, day=iso, verify=verify)
    if as_json:
        typer.echo(room.request_as_json(found))
    else:
        room.show_request(found, out)
    raise typer.Exit(0 if found.given_again and not (verify and found.faults) else 1)
