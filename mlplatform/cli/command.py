"""The `mlplatform` command: thin, one call into a room per verb.

Exit codes: 0 done · 1 refused or failed, with one line that says what to do · 2 wrong use of the command.
"""

import logging
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlplatform.cli import (
    alerts,
    difference,
    features,
    golden,
    keys,
    ledger,
    replay,
    reproduce,
    retention,
    retrain,
    rollout,
)
from mlplatform.cli.arguments import (
    DomainName,
    First,
    Last,
    ModelName,
    day_named,
    days_between,
    model_named,
)
from mlplatform.cli.console import out, problems
from mlplatform.domains.registered import registered_domain, registered_domains
from mlplatform.errors import DataError, MlplatformError
from mlplatform.features.resources import platform_from_settings
from mlplatform.settings import silence_telemetry

app = typer.Typer(
    name="mlplatform",
    help="The production pipeline around a tabular model: land data, backfill features, train, promote, serve.\n\n"
    "State lies in `var/` (`MLPLATFORM_HOME` moves it). MODEL is written `domain/model`, such as "
    "`flight_delay/late_arrival`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(keys.keys, name="keys")
app.add_typer(features.features, name="features")
app.add_typer(alerts.alerts, name="alerts")
app.add_typer(retrain.retrain, name="retrain")
app.add_typer(ledger.ledger, name="ledger")
app.add_typer(rollout.rollout, name="rollout")
app.add_typer(retention.retention, name="retention")
app.command()(replay.replay)
app.command()(reproduce.reproduce)
app.add_typer(golden.golden, name="golden")
app.command("diff")(difference.diff)


@app.callback()
def main(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False) -> None:
    """Read by `app_main`, which shows a traceback only with it."""
    silence_telemetry()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    platform_log = logging.getLogger("mlplatform")
    platform_log.handlers = [handler]
    platform_log.propagate = False
    platform_log.setLevel(logging.DEBUG if debug else logging.INFO)


@app.command()
def demo(
    domain: Annotated[
        str, typer.Option(help="The domain to take from its sample to a served prediction.")
    ] = "flight_delay",
    leave: Annotated[
        bool, typer.Option("--exit", help="Stop the servers and exit once the answer has been checked.")
    ] = False,
    ui_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    port: Annotated[int, typer.Option(help="Port of the predictions.")] = 3001,
) -> None:
    """Run the main job on the domain's own sample and serve: land, six stages, train, promote, Bento, first answer."""
    from mlplatform.operations.demo import run_demo

    met = run_demo(
        platform_from_settings(), registered_domain(domain), ui_port=ui_port, port=port, leave=leave, console=out
    )
    raise typer.Exit(0 if met else 1)


@app.command()
def land(domain: DomainName, first: First = None, last: Last = None) -> None:
    """Put the sample's files into the landing folder, day by day, as the sources would."""
    from mlplatform.features.landing.landing import land_sample

    declared = registered_domain(domain)
    start = day_named(first) or declared.start
    end = day_named(last) or start + timedelta(days=declared.sample.demo_days - 1 if declared.sample else 0)
    days_between(start.isoformat(), end.isoformat())
    files = land_sample(platform_from_settings(), declared, start, end)
    out.print(f"landed {files} files, {start} to {end}")


@app.command()
def backfill(domain: DomainName, first: First = None, last: Last = None) -> None:
    """Take landed days through the six stages, in one run. What is up to date is recomputed and changes nothing."""
    from mlplatform.features.landing.landing import days_landed_by_all, landed, place_of
    from mlplatform.operations.jobs import materialize_days
    from mlplatform.operations.status import what_is_missing

    platform, declared = platform_from_settings(), registered_domain(domain)
    complete = days_landed_by_all(platform, declared)
    if not complete:
        found = {source.name: landed(platform, declared, source) for source in declared.sources}
        silent = [source for source in declared.sources if not found[source.name].days] or declared.sources
        places = ", ".join(str(place_of(platform, declared, source)) for source in silent)
        missing = what_is_missing(declared, found) or "nothing has landed"
        what = f"Run `mlplatform land {domain}` for the sample" if declared.sample else "Land a day there"
        raise DataError(f"{missing} in {places}. {what}; `mlplatform status` tells what waits")
    days = days_between(first or complete[0], last or complete[-1])
    run = materialize_days(platform, declared, days)
    out.print(f"{len(days)} days, {days[0]} to {days[-1]}, run {run}")


@app.command()
def stream(
    domain: DomainName,
    address: Annotated[
        str | None, typer.Option("--from", help="redis://host:port to take facts from, beside those the gateways take.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Publish what is there and exit.")] = False,
) -> None:
    """Publish features within a second of the facts, for views that are declared so, until interrupted."""
    from mlplatform.features.streaming.process import stream as publish_as_facts_arrive

    done = publish_as_facts_arrive(platform_from_settings(), registered_domain(domain), address=address, once=once)
    out.print(f"{done.published} values published, {done.failed} failed, {done.held} facts are dated later than now")


@app.command()
def train(
    model: ModelName,
    as_of: Annotated[
        str | None, typer.Option(help="ISO day; data before it is used. Default: after the newest features.")
    ] = None,
) -> None:
    """Make the recipe of now and take it from training set to Bento, if the gate says pass."""
    from mlplatform.operations.jobs import add_recipe, materialize_recipe
    from mlplatform.operations.rollout_view import standing_of

    platform = platform_from_settings()
    domain, spec = model_named(model)
    day = day_named(as_of)
    recipe = add_recipe(platform, domain, spec, as_of=None if day is None else day.isoformat())
    out.print(f"recipe {recipe.key}")
    materialize_recipe(platform, domain, spec, recipe.key)
    out.print(f"{model} {recipe.key} is {standing_of(platform, domain, spec, recipe.key)}")


@app.command()
def promote(
    model: ModelName, recipe: Annotated[str, typer.Argument(help="Key of the recipe, as `train` prints it.")]
) -> None:
    """Start the rollout of an evaluated candidate (the first of all is champion at once) and build its Bento.

    Refused without a decision that says pass.
    """
    from mlplatform.operations.jobs import materialize_recipe
    from mlplatform.operations.rollout_view import standing_of

    platform = platform_from_settings()
    domain, spec = model_named(model)
    materialize_recipe(platform, domain, spec, recipe, stages=["promotion", "rollout", "dossier", "bento"])
    out.print(f"{model} {recipe} is {standing_of(platform, domain, spec, recipe)}")


@app.command()
def approve(
    model: ModelName,
    manifest: Annotated[str, typer.Argument(help="Digest of the manifest, or its first twelve digits.")],
    by: Annotated[str, typer.Option(help="Who approves, by name.")],
    reason: Annotated[str, typer.Option(help="Why it may answer people.")],
) -> None:
    """Let a manifest answer people, where its model demands that a named person does."""
    from mlplatform.rollout import approval

    model_named(model)
    entry = approval.approve(platform_from_settings(), model, manifest, by=by, reason=reason)
    out.print(
        f"{model} {entry.to_manifest} is approved of by {entry.actor}, entry {entry.number} of the ledger",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def dossier(
    model: ModelName,
    manifest: Annotated[
        str | None, typer.Option(help="Digest of a manifest, or its first twelve digits. Default: the champion's.")
    ] = None,
) -> None:
    """Write the release dossier of a version from what is recorded now: Markdown, and one page of HTML."""
    from mlplatform.rollout.dossier_page import write_dossier

    model_named(model)
    for path in write_dossier(platform_from_settings(), model, manifest):
        out.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def serve(
    model: ModelName,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3001,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the Bento of the champion over HTTP, until interrupted."""
    from mlplatform.operations.servers import serve_champion

    domain, spec = model_named(model)
    raise typer.Exit(serve_champion(platform_from_settings(), domain, spec, host=host, port=port))


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI, on the loopback address.")] = 3000) -> None:
    """Run the Dagster UI, and the daemon whose sensors take in what lands, until interrupted."""
    from mlplatform.operations.jobs import dagster_instance
    from mlplatform.operations.servers import serve_ui

    platform = platform_from_settings()
    with dagster_instance(platform):
        pass  # made by one process, before two open it at once
    raise typer.Exit(serve_ui(platform, port=port))


@app.command()
def status(
    domain: Annotated[str | None, typer.Argument(help="One domain; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show how far each domain's days have come, what waits or has failed, and which model is champion."""
    from mlplatform.operations import status as room

    domains = [registered_domain(domain)] if domain else list(registered_domains().values())
    found = room.status(platform_from_settings(), domains)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)
    raise typer.Exit(1 if all(each.unreadable for each in found) else 0)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Check the installation and every configured outside part, and say how to mend what is broken."""
    from mlplatform.operations import doctor as room

    found = room.examine(platform_from_settings())
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, out)
    raise typer.Exit(1 if any(each.verdict == "broken" for each in found) else 0)


@app.command()
def simulate(
    domain: DomainName,
    first: Annotated[str, typer.Option("--from", help="First day, ISO.")],
    last: Annotated[str, typer.Option("--to", help="Last day, ISO, included.")],
    inject: Annotated[
        list[str] | None,
        typer.Option(
            help="A fault and its first day, such as `drift@2013-09-01`: drift, nulls, break-feed, repeat-feed, "
            "label-shift, leak. May be given several times."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the faults. Default: the one that weighs most in the model.")
    ] = None,
    rows_per_day: Annotated[
        int | None, typer.Option(help="Requests of a day, drawn evenly. Default: all. What lands is whole.", min=1)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask. Default: the first with a champion.")] = None,
    url: Annotated[
        str | None, typer.Option(help="A service of this home, on this machine. Default: one is started.")
    ] = None,
    ui_port: Annotated[int | None, typer.Option(help="Show the Dagster UI on this port meanwhile.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each day, for scripts.")] = False,
) -> None:
    """Replay recorded days as live traffic on a simulated clock: ask, land, compute, monitor, retrain, day by day."""
    from mlplatform.simulation.command import simulate as replay_days

    days = days_between(first, last)
    replay_days(
        platform_from_settings(),
        registered_domain(domain),
        date.fromisoformat(days[0]),
        date.fromisoformat(days[-1]),
        model=model,
        inject=inject or (),
        column=column,
        rows_per_day=rows_per_day,
        url=url,
        ui_port=ui_port,
        as_json=as_json,
        console=out,
    )


@app.command("check-domain")
def check_domain(
    domain: DomainName,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Hold a domain against what every domain must pass, and name the column, row or day at fault."""
    from mlplatform.domain_checks import battery

    declared = registered_domain(domain)
    findings = []
    for finding in battery.run(battery.evidence_of(platform_from_settings(), declared)):
        findings.append(finding)
        if not as_json:
            battery.show(finding, out)
    if as_json:
        typer.echo(battery.as_json(declared, findings))
    raise typer.Exit(1 if any(each.verdict == "failed" for each in findings) else 0)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new domain: a word that can name a Python package.")],
    sample: Annotated[Path, typer.Option(help="CSV, Parquet or JSON-lines file with some weeks of rows.")],
    entity: Annotated[
        list[str] | None,
        typer.Option(help="Column (or columns, parted by commas) whose history counts; may be given several times."),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column that tells when a prediction is asked for.")] = None,
    known_at: Annotated[str | None, typer.Option(help="Column that tells when the outcome was known.")] = None,
    known_after: Annotated[
        float | None, typer.Option(help="Hours until the outcome is known, if no column tells.", min=0)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column that is to be predicted.")] = None,
    task: Annotated[
        Literal["binary", "multiclass", "regression"] | None, typer.Option(help="Default: by the label's values.")
    ] = None,
    outcome_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns written only afterwards, parted by commas, or `none`. Default: by a look at the data."
        ),
    ] = None,
    zone: Annotated[str, typer.Option(help="Time zone of times that name none.")] = "UTC",
    into: Annotated[
        Path | None, typer.Option(help="New folder for a package of its own. Default: a domain of this checkout.")
    ] = None,
) -> None:
    """Write a new domain from a sample file: contract, views, model and tests. What is not given is asked."""
    from mlplatform.new_domain.command import new_domain
    from mlplatform.new_domain.questions import Given

    given = Given(
        entity=tuple(entity or ()),
        time=time,
        known_at=known_at,
        known_after=None if known_after is None else timedelta(hours=known_after),
        label=label,
        task=task,
        outcome_columns=outcome_columns,
    )
    ask = (lambda question, proposed: typer.prompt(question, default=proposed or None)) if sys.stdin.isatty() else None
    new_domain(name, sample, given, zone=zone, into=into, existing=registered_domains(), ask=ask, console=out)


def app_main() -> None:
    """Run the command; a refusal of the platform is one line and exit code 1."""
    try:
        app()
    except MlplatformError as error:
        if "--debug" in sys.argv:
            raise
        problems.print(f"mlplatform: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            problems.print(f"  {note}", markup=False, soft_wrap=True)
        sys.exit(1)
    except Exception as error:  # the outermost edge: a person gets a line, `--debug` gives the rest
        if "--debug" in sys.argv:
            raise
        problems.print(f"mlplatform: {type(error).__name__}: {error}", style="red", highlight=False, markup=False)
        problems.print("  This was not foreseen. Run it again with `mlplatform --debug …` to see where it happened")
        sys.exit(1)
