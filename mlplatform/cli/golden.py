"""`mlplatform golden`: a stored sample of requests and answers that every change of code is held against."""

from pathlib import Path
from typing import Annotated

import typer

from mlplatform.cli.arguments import ModelName, model_named
from mlplatform.cli.console import out
from mlplatform.errors import DataError
from mlplatform.features.resources import platform_from_settings

golden = typer.Typer(
    help="Golden traffic: logged requests kept beside the code, whose answers no change of code may move unsaid.",
    no_args_is_help=True,
)


@golden.command("record")
def golden_record(
    model: ModelName,
    rows: Annotated[int, typer.Option(help="Requests at most.", min=1)] = 60,
    trees: Annotated[
        int | None, typer.Option(help="Keep only the first so many rounds of the booster: a smaller folder.", min=1)
    ] = None,
    into: Annotated[Path | None, typer.Option(help="Folder. Default: `golden/<domain>/<model>`.")] = None,
    reason: Annotated[str, typer.Option(help="Why answers may move; needed where the folder is there already.")] = "",
    by: Annotated[str | None, typer.Option(help="Who records it. Default: who is logged in.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Answer the stored requests anew, with the stored weights: needs no home.")
    ] = False,
) -> None:
    """Store a sample of logged requests, the values they saw, the champion's weights, and what each way answers."""
    from mlplatform.operations import golden_view as room
    from mlplatform.provenance.person import logged_in
    from mlplatform.provenance.platform import wall_clock
    from mlplatform.reproducibility.golden.golden import Golden, default_root
    from mlplatform.reproducibility.golden.record import answer_again, record

    domain, spec = model_named(model)
    folder = into or default_root / domain.name / spec.name
    who = by or logged_in()
    if again:
        recorded = answer_again(Golden(folder), domain, by=who, reason=reason, now=wall_clock())
    else:
        platform = platform_from_settings()
        recorded = record(platform, domain, spec, folder, by=who, rows=rows, trees=trees, reason=reason)
    room.show_recorded(recorded, out)


@golden.command("check")
def golden_check(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders. Default: all below `golden/`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with each request that moved.")] = False,
) -> None:
    """Answer the stored requests with the code of now; exit 1 where an answer, or what it is made of, has moved."""
    from mlplatform.operations import golden_view as room
    from mlplatform.reproducibility.golden.golden import Golden, default_root, found_in

    stored = [each for folder in folders or [default_root] for each in found_in(folder)]
    if not stored:
        looked = ", ".join(map(str, folders or [default_root]))
        raise DataError(f"{looked} holds no golden traffic. Store some with `mlplatform golden record MODEL`")
    found = [room.checked(Golden(each)) for each in stored]
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)
    raise typer.Exit(1 if any(each.moved for each in found) else 0)
