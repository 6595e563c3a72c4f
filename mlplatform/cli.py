"""The `mlplatform` command: thin, one call into a room per verb.

Exit codes: 0 done · 1 refused or failed, with one line that says what to do · 2 wrong use of the command.
"""

import logging
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.registered import registered_domain, registered_domains
from mlplatform.errors import DataError, DeclarationError, MlplatformError
from mlplatform.features.resources import platform_from_settings
from mlplatform.settings import settings, silence_telemetry

if TYPE_CHECKING:
    from mlplatform.registry.api_keys import ApiKeys

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
out = Console()
problems = Console(stderr=True)

DomainName = Annotated[str, typer.Argument(help="Name of a registered domain, such as `flight_delay`.")]
ModelName = Annotated[str, typer.Argument(help="A model as `domain/model`.")]
First = Annotated[str | None, typer.Option("--from", help="First day, ISO. Default: the domain's first.")]
Last = Annotated[str | None, typer.Option("--to", help="Last day, ISO, included.")]


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
    start = _day(first) or declared.start
    end = _day(last) or start + timedelta(days=declared.sample.demo_days - 1 if declared.sample else 0)
    _days(start.isoformat(), end.isoformat())
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
    days = _days(first or complete[0], last or complete[-1])
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

    platform = platform_from_settings()
    domain, spec = _model(model)
    day = _day(as_of)
    recipe = add_recipe(platform, domain, spec, as_of=None if day is None else day.isoformat())
    out.print(f"recipe {recipe.key}")
    materialize_recipe(platform, domain, spec, recipe.key)
    out.print(f"{model} {recipe.key} is the champion")


@app.command()
def promote(
    model: ModelName, recipe: Annotated[str, typer.Argument(help="Key of the recipe, as `train` prints it.")]
) -> None:
    """Make an evaluated candidate the champion and build its Bento. Refused without a decision that says pass."""
    from mlplatform.operations.jobs import materialize_recipe

    domain, spec = _model(model)
    materialize_recipe(platform_from_settings(), domain, spec, recipe, stages=["promotion", "bento"])
    out.print(f"{model} {recipe} is the champion")


@app.command()
def serve(
    model: ModelName,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3001,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the Bento of the champion over HTTP, until interrupted."""
    from mlplatform.operations.servers import serve_champion

    domain, spec = _model(model)
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

    days = _days(first, last)
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


keys = typer.Typer(help="API keys: who may ask a service for predictions, or send it facts.", no_args_is_help=True)
app.add_typer(keys, name="keys")


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


features = typer.Typer(help="Feature views: what there is, and what a model would have seen.", no_args_is_help=True)
app.add_typer(features, name="features")


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


alerts = typer.Typer(help="Alerts: what is wrong, who was told, and what is to be quiet.", no_args_is_help=True)
app.add_typer(alerts, name="alerts")

OneDomain = Annotated[str | None, typer.Argument(help="One domain; default: all.")]
What = Annotated[str, typer.Argument(metavar="RULE[:SUBJECT]", help="Such as `drift:flight_delay/late_arrival`.")]


@alerts.command("list")
def list_alerts(
    domain: OneDomain = None, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """What is open now, why, and who was told. Exit code 0 whatever is open."""
    from mlplatform.monitoring.alerts.send import open_channels
    from mlplatform.operations import alerts as room

    platform, domains = platform_from_settings(), _domains(domain)
    found = room.alerts(platform, domains)
    if as_json:
        typer.echo(room.as_json(found))
        return
    room.show(found, platform.clock(), out, nothing="no alert is open")
    for message, why in room.waiting(platform, domains, lambda: open_channels(settings().alerts)):
        problems.print(f"message {message.id} waits ({why}): {message.subject}", markup=False, soft_wrap=True)


@alerts.command("history")
def alerts_history(
    what: Annotated[str, typer.Argument(metavar="[RULE[:SUBJECT]]", help="Default: all.")] = "",
    domain: Annotated[str | None, typer.Option(help="One domain; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Every alert there was, the newest first: since when, how long, who was told."""
    from mlplatform.operations import alerts as room

    platform = platform_from_settings()
    found = room.alerts(platform, _domains(domain), what=what, ended=True)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show(found, platform.clock(), out, nothing=f"there was no alert {what}".rstrip())


@alerts.command("test")
def send_test_alerts(domain: OneDomain = None) -> None:
    """Send a message to each tag that a domain names, and say who took it."""
    from mlplatform.monitoring.alerts.send import AppriseChannels
    from mlplatform.operations import alerts as room

    configuration = settings().alerts
    if configuration is None:
        raise DeclarationError("MLPLATFORM_ALERTS is not set. Set it to an Apprise configuration file")
    channels, failed = AppriseChannels(configuration), 0
    for each in _domains(domain):
        for tag, receiver, why in room.send_test(each, channels, platform_from_settings().clock()):
            out.print(f"{each.name}  {tag}  {receiver}  {why or 'taken'}", highlight=False, markup=False)
            failed += bool(why)
    raise typer.Exit(1 if failed else 0)


@alerts.command("silence")
def silence_alerts(
    what: What,
    lasting: Annotated[str, typer.Option("--for", help="30m, 4h or 2d; 0m ends a silence.")],
    reason: Annotated[str, typer.Option(help="Why; it is shown with the alert.")],
) -> None:
    """Tell nobody of a rule, or of a rule about one subject, for a while. It is found and shown all the same."""
    from mlplatform.operations import alerts as room

    until, names = room.silence(platform_from_settings(), _domains(None), what, lasting=lasting, reason=reason)
    out.print(f"{what} is silent until {until:%Y-%m-%d %H:%M} UTC in {', '.join(names)}", highlight=False, markup=False)


@alerts.command("silences")
def list_silences(domain: OneDomain = None) -> None:
    """What is silent, until when, why, and who wanted it so."""
    from mlplatform.operations import alerts as room

    found = room.silences(platform_from_settings(), _domains(domain))
    for each in found:
        until = f"until {each.until:%Y-%m-%d %H:%M} UTC" if each.until else "for ever"
        line = f"{each.what} is silent {until} in {each.domain}: {each.reason} ({each.actor})"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not found:
        out.print("nothing is silent")


@alerts.command("close")
def close_alerts(
    what: What, reason: Annotated[str, typer.Option(help="Why; it is shown in the history, and told.")]
) -> None:
    """End what no monitor will end: an alert of a model or a rule that is no longer declared."""
    from mlplatform.monitoring.alerts.send import open_channels
    from mlplatform.operations import alerts as room

    told = settings()
    for each in room.close(
        platform_from_settings(),
        _domains(None),
        what,
        reason=reason,
        channels=lambda: open_channels(told.alerts),
        ui=told.ui,
    ):
        out.print(f"{each.name} is closed in {each.domain}", highlight=False, markup=False, soft_wrap=True)


retrain = typer.Typer(help="Retraining: why a model was trained again or not, then and now.", no_args_is_help=True)
app.add_typer(retrain, name="retrain")


@retrain.command("explain")
def explain_retraining(
    model: ModelName, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """The last decisions on a model: when, outcome, reason, inputs against thresholds, run."""
    from mlplatform.operations import retraining as room

    domain, spec = _model(model)
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

    domain, spec = _model(model)
    start, end = _day(first), _day(last)
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


def _model(name: str) -> tuple[Domain, ModelSpec]:
    domain, separator, model = name.partition("/")
    if not separator:
        raise DeclarationError(f"a model is written `domain/model`, such as flight_delay/late_arrival; not {name!r}")
    declared = registered_domain(domain)
    return declared, declared.model(model)


def _domains(name: str | None) -> list[Domain]:
    return [registered_domain(name)] if name else list(registered_domains().values())


def _api_keys() -> "ApiKeys":
    from mlplatform.registry.api_keys import ApiKeys, keys_folder

    return ApiKeys(keys_folder(settings().home))


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise DeclarationError(f"{text!r} is no day. Write it as 2013-07-01") from error


def _days(first: str, last: str) -> list[str]:
    from mlplatform.features.tables import day_range

    start, end = _day(first), _day(last)
    if start is None or end is None or end < start:
        raise DeclarationError(f"{first} to {last} is no range of days. Give the earlier day first")
    return day_range(start.isoformat(), end.isoformat())
