"""`mlplatform retrain`: why a model was trained again, or not."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import ModelName, day_named, model_named
from mlplatform.cli.console import out
from mlplatform.features.resources import platform_from_settings

retrain = typer.Typer(help="Retraining: why a model was trained again or not, then and now.", no_args_is_help=True)


@retrain.command("explain")
def explain_retraining(
    model: ModelName, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """The last decisions on a model: when, outcome, reason, inputs against thresholds, run."""
    from mlplatform.operations import retraining as room

    domain, spec = model_named(model)
    found = room.explain(platform_from_settings(), domain, spec)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_explained(model, found, out)


@retrain.command("backtest")
def backtest_retraining(
    model: ModelName,
    first: Annotated[
        str | None, typer.Option("--from", help="Day on which it begins, ISO. Default: when half of the days are over.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, ISO. Default: the last recorded one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Replay the retrain policy over recorded days, beside never, monthly, weekly and always: loss against cost."""
    from mlplatform.operations import retraining as room
    from mlplatform.retraining.backtest import backtest

    domain, spec = model_named(model)
    start, end = day_named(first), day_named(last)
    found = backtest(
        platform_from_settings(),
        domain,
        spec,
        first=None if start is None else start.isoformat(),
        last=None if end is None else end.isoformat(),
    )
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_backtest(found, out)
