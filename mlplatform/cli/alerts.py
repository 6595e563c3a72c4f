"""`mlplatform alerts`: what is wrong, and who was told."""

from typing import Annotated

import typer

from mlplatform.cli.arguments import domains_named
from mlplatform.cli.console import out, problems
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings
from mlplatform.settings import settings

alerts = typer.Typer(help="Alerts: what is wrong, who was told, and what is to be quiet.", no_args_is_help=True)

OneDomain = Annotated[str | None, typer.Argument(help="One domain; default: all.")]
What = Annotated[str, typer.Argument(metavar="RULE[:SUBJECT]", help="Such as `drift:flight_delay/late_arrival`.")]


@alerts.command("list")
def list_alerts(
    domain: OneDomain = None, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """What is open now, why, and who was told. Exit code 0 whatever is open."""
    from mlplatform.monitoring.alerts.send import open_channels
    from mlplatform.operations import alerts as room

    platform, domains = platform_from_settings(), domains_named(domain)
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
    found = room.alerts(platform, domains_named(domain), what=what, ended=True)
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
    for each in domains_named(domain):
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

    until, names = room.silence(platform_from_settings(), domains_named(None), what, lasting=lasting, reason=reason)
    out.print(f"{what} is silent until {until:%Y-%m-%d %H:%M} UTC in {', '.join(names)}", highlight=False, markup=False)


@alerts.command("silences")
def list_silences(domain: OneDomain = None) -> None:
    """What is silent, until when, why, and who wanted it so."""
    from mlplatform.operations import alerts as room

    found = room.silences(platform_from_settings(), domains_named(domain))
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
        domains_named(None),
        what,
        reason=reason,
        channels=lambda: open_channels(told.alerts),
        ui=told.ui,
    ):
        out.print(f"{each.name} is closed in {each.domain}", highlight=False, markup=False, soft_wrap=True)
