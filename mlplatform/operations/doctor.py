"""The doctor: looks at the installation and at every configured outside part, and says how to mend what is broken.

Each look is a small real use of the part: a lock is taken, a table is listed, a bundle's files are hashed. It changes
nothing but a scratch folder that it removes, and each look is bounded in time. It mends nothing itself.
"""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from mlplatform.domains.registered import registered_domains
from mlplatform.operations.finding import Check, Finding, Said, Verdict, made, ok
from mlplatform.operations.installation import installation_checks
from mlplatform.operations.outside_parts import domain_checks, platform_checks
from mlplatform.provenance.platform import Platform

marks: dict[Verdict, str] = {
    "ok": "[green]ok[/green]     ",
    "warning": "[yellow]warning[/yellow]",
    "broken": "[red]broken[/red] ",
}


def examine(platform: Platform, project: Path = Path()) -> list[Finding]:
    """Make every check.

    Parameters
    ----------
    project : folder with `workspace.yaml`; the current one
    """
    found = made(installation_checks(platform, project.absolute()))
    domains = Check(
        part="domains",
        looked_at="mlplatform.domains and the entry points of that name",
        look=lambda: _domains(),
        mend="correct the declaration that is named, or take its package away",
    )
    (told,) = made([domains])
    parts = platform_checks(platform)
    if told.verdict == "ok":
        parts += [check for domain in registered_domains().values() for check in domain_checks(platform, domain)]
    return [*found, told, *made(parts)]


def as_json(found: list[Finding]) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show(found: list[Finding], console: Console) -> None:
    """For people: a line each, and what to do beneath it."""
    for each in found:
        console.print(
            f"{marks[each.verdict]} {escape(each.part)}: {escape(each.told)}", highlight=False, soft_wrap=True
        )
        if each.mend:
            console.print(f"        {escape(each.looked_at)}: {escape(each.mend)}", highlight=False, soft_wrap=True)


def _domains() -> Said:
    return ok(", ".join(registered_domains()))
