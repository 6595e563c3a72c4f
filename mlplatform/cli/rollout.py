"""`mlplatform rollout`: how a new version comes to answer people, and how it is sent back."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlplatform.cli.arguments import ModelName, model_named, recorded_model
from mlplatform.cli.console import out
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings
from mlplatform.provenance.person import logged_in

if TYPE_CHECKING:
    from mlplatform.registry.ledger import Entry

rollout = typer.Typer(
    help="Rollouts: how a version that passed the gate comes to answer people, step by step, and how it is sent back.",
    no_args_is_help=True,
)

Reason = Annotated[str, typer.Option(help="Why; it stands in the ledger.")]
By = Annotated[str | None, typer.Option(help="Who, by name. Default: who is logged in.")]
After = Annotated[
    int | None,
    typer.Option(help="Number of the ledger's last entry as you have seen it; refused if there is a newer one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@rollout.command("status")
def rollout_status(model: ModelName, as_json: AsJson = False) -> None:
    """The steps, the traffic, each bound beside its margin, and what the next step waits for."""
    from mlplatform.operations import rollout_view as room

    domain, spec = model_named(model)
    found = room.status(platform_from_settings(), domain, spec)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_status(found, out)


@rollout.command("history")
def rollout_history(
    model: ModelName,
    last: Annotated[int, typer.Option(help="So many events, and so many looks.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """What was done, by whom and why, and what was waited for in between."""
    from mlplatform.operations import rollout_view as room

    domain, spec = model_named(model)
    found = room.history(platform_from_settings(), domain, spec, last=last)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_history(model, found, out)


@rollout.command("start")
def start_rollout(
    model: ModelName,
    reason: Reason,
    manifest: Annotated[
        str | None, typer.Argument(help="A version that passed the gate, by its digest. Default: the challenger.")
    ] = None,
    again: Annotated[bool, typer.Option("--override", help="Though it was rolled back.")] = False,
    by: By = None,
) -> None:
    """Start the rollout of a version. What passes the gate starts by itself; this is for what does not."""
    from mlplatform.registry.candidate import named_bundle
    from mlplatform.rollout import moves
    from mlplatform.rollout.promotion import promote

    if again and manifest is None:
        raise DeclarationError("an override is of one version. Name its manifest: `… start MODEL MANIFEST --override`")
    platform, who = platform_from_settings(), by or logged_in()
    domain, spec = model_named(model)
    if manifest is not None:
        if again:
            moves.override(platform, model, manifest, by=who, reason=reason)
        recipe = named_bundle(platform, model, manifest).manifest.model_version
        made = promote(platform, domain, spec, recipe, actor=who, reason=reason)
        if made.alias == "champion":
            _tell(model, made)
            return
    _tell(model, moves.start(platform, domain, spec, by=who, reason=reason))


@rollout.command("pause")
def pause_rollout(model: ModelName, reason: Reason, by: By = None) -> None:
    """Take no more steps. The traffic stays as it is, and certain harm sends the challenger back all the same."""
    from mlplatform.rollout import moves

    domain, spec = model_named(model)
    who = by or logged_in()
    _tell(model, moves.pause(platform_from_settings(), domain, spec, by=who, reason=reason))


@rollout.command("resume")
def resume_rollout(model: ModelName, reason: Reason, by: By = None) -> None:
    """Let a paused rollout take its steps again."""
    from mlplatform.rollout import moves

    domain, spec = model_named(model)
    who = by or logged_in()
    _tell(model, moves.resume(platform_from_settings(), domain, spec, by=who, reason=reason))


@rollout.command("advance")
def advance_rollout(model: ModelName, reason: Reason, by: By = None, after: After = None) -> None:
    """Take the next step now, though the evidence does not suffice yet. Refused where harm is certain."""
    from mlplatform.rollout import tick

    domain, spec = model_named(model)
    who = by or logged_in()
    _tell(model, tick.advance(platform_from_settings(), domain, spec, by=who, reason=reason, after=after))


@rollout.command("finish")
def finish_rollout(model: ModelName, reason: Reason, by: By = None, after: After = None) -> None:
    """End an A/B with the challenger as champion. Refused where harm is certain, or steps are left to take."""
    from mlplatform.rollout import tick

    domain, spec = model_named(model)
    who, platform = by or logged_in(), platform_from_settings()
    _tell(model, tick.advance(platform, domain, spec, by=who, reason=reason, after=after, ending=True))


@rollout.command("rollback")
def roll_back(
    model: ModelName,
    reason: Reason,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="The version to send back, by its digest. Default: the challenger; without one, the champion."
        ),
    ] = None,
    by: By = None,
) -> None:
    """Send a version back: within a second no gateway answers by it. It is not rolled out again by itself."""
    from mlplatform.rollout import moves

    platform, who = platform_from_settings(), by or logged_in()
    _tell(model, moves.roll_back(platform, recorded_model(model), by=who, reason=reason, manifest=manifest))


def _tell(model: str, entry: "Entry") -> None:
    from mlplatform.rollout.progress import told_move

    out.print(f"{model}: {told_move(entry)}", highlight=False, markup=False, soft_wrap=True)
