"""`mlplatform retention`: what goes by policy, what stays and why, legal holds, and what is gone."""

from datetime import date
from typing import Annotated

import typer

from mlplatform.cli.arguments import DomainName, day_named
from mlplatform.cli.console import out
from mlplatform.domains.registered import registered_domain
from mlplatform.features.resources import platform_from_settings
from mlplatform.provenance.person import logged_in

retention = typer.Typer(
    help="Retention: what is removed by a domain's policy, what stays and why, and legal holds.", no_args_is_help=True
)

By = Annotated[str | None, typer.Option(help="Who, by name. Default: who is logged in.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@retention.command("plan")
def retention_plan(domain: DomainName, as_json: AsJson = False) -> None:
    """What would be removed now, and what has the age and stays. Nothing is removed."""
    from mlplatform.operations import retention_view as room
    from mlplatform.reproducibility.retention.retention import plan

    declared = registered_domain(domain)
    found = plan(platform_from_settings(), declared)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_plan(declared, found, out, done=False)


@retention.command("apply")
def retention_apply(domain: DomainName, by: By = None, as_json: AsJson = False) -> None:
    """Remove what the policy lets go; each thing leaves a tombstone. Asked again, it goes on where it was stopped."""
    from mlplatform.operations import retention_view as room
    from mlplatform.reproducibility.retention.retention import apply

    declared = registered_domain(domain)
    found = apply(platform_from_settings(), declared, actor=logged_in() if by is None else by)
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_plan(declared, found, out, done=True)


@retention.command("hold")
def retention_hold(
    domain: DomainName,
    reason: Reason,
    by: By = None,
    model: Annotated[str, typer.Option(help="A model of the domain, by its name.")] = "",
    manifest: Annotated[str, typer.Option(help="One version of --model: its manifest, or its recipe.")] = "",
    first: Annotated[str | None, typer.Option("--from", help="First day of answers, ISO, UTC.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, included. Default: the first.")] = None,
    request: Annotated[str, typer.Option(help="Id of a request that was answered.")] = "",
) -> None:
    """Keep something whatever the policy says: a model, a version, days of answers, or a request."""
    from mlplatform.reproducibility.retention.holds import hold

    placed = hold(
        platform_from_settings(),
        registered_domain(domain),
        by=logged_in() if by is None else by,
        reason=reason,
        model=model,
        manifest=manifest,
        days=_days(first, last),
        request_id=request,
    )
    out.print(str(placed), markup=False, soft_wrap=True)


@retention.command("release")
def retention_release(
    domain: DomainName,
    name: Annotated[str, typer.Argument(help="Of the hold, as `holds` lists it.")],
    reason: Reason,
    by: By = None,
) -> None:
    """End a legal hold; what it held goes by the policy again."""
    from mlplatform.reproducibility.retention.holds import release

    ended = release(
        platform_from_settings(), registered_domain(domain), name, by=logged_in() if by is None else by, reason=reason
    )
    out.print(f"{ended}, released by {ended.released_by}: {ended.released_for}", markup=False, soft_wrap=True)


@retention.command("holds")
def retention_holds(domain: DomainName, as_json: AsJson = False) -> None:
    """Every legal hold, also those that were released, oldest first."""
    from mlplatform.operations import retention_view as room
    from mlplatform.reproducibility.retention.holds import holds

    found = holds(platform_from_settings(), registered_domain(domain))
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_holds(domain, found, out)


@retention.command("tombstones")
def retention_tombstones(domain: DomainName, as_json: AsJson = False) -> None:
    """What was removed: when, by whom and by which rule."""
    from mlplatform.features.tombstones import tombstones
    from mlplatform.operations import retention_view as room

    found = list(tombstones(platform_from_settings(), registered_domain(domain)).values())
    if as_json:
        typer.echo(room.as_json(found))
    else:
        room.show_tombstones(domain, found, out)


def _days(first: str | None, last: str | None) -> tuple[date, date] | None:
    start, end = day_named(first or last), day_named(last or first)
    return None if start is None or end is None else (start, end)
