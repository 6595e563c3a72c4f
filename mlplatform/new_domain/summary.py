"""What `mlplatform new` tells when it is done: everything that it inferred, and what to do next."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlplatform.new_domain.package import Place
from mlplatform.new_domain.proposal import Proposal


def show(proposal: Proposal, place: Place, console: Console) -> None:
    """Print the summary."""
    horizon = proposal.horizon
    console.print(
        f"{escape(proposal.sampled.file)}: {proposal.rows.height:,} rows of {horizon.days} days, {horizon.first} to "
        f"{horizon.last}",
        style="bold",
        highlight=False,
    )
    for note in proposal.notes:
        console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
    table = Table("column", "what it holds", "what for", box=None, header_style="bold")
    for each in proposal.columns:
        name = each.column.name
        table.add_row(
            escape(_named(proposal, name)),
            escape(each.why),
            escape(_use(proposal, name)),
        )
    console.print(table)
    for what, told in decided(proposal):
        console.print(f"  [bold]{what:<8}[/bold] {escape(told)}", highlight=False, soft_wrap=True)
    console.print(f"\nwritten: {place.project or place.package}", highlight=False, markup=False, soft_wrap=True)
    if place.project is None:
        console.print(f"tests:   {place.tests}", highlight=False, markup=False, soft_wrap=True)
    console.print("next:", style="bold")
    for command in next_commands(proposal.name, place):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def decided(proposal: Proposal) -> Iterator[tuple[str, str]]:
    """What was decided beside the columns, each with its reason."""
    horizon = proposal.horizon
    yield "key", f"{', '.join(proposal.key)}: {proposal.key_why}"
    yield "label", f"{proposal.outcome.label}, {proposal.outcome.why}"
    hours = proposal.known_after / timedelta(hours=1)
    known = f"at {proposal.known_at}" if proposal.known_at else f"{hours:g} h after {proposal.time}"
    yield "known", f"{known}, {proposal.known_after_why}; label delay {horizon.label_delay}"
    yield "window", f"{horizon.window} days: {horizon.window_why}"
    cut = horizon.split
    parts = f"warm-up {cut.warm_up.days} d, calibration {cut.calibration.days} d, evaluation {cut.evaluation.days} d"
    rows = f"{horizon.training_rows:,} rows to train on, {horizon.evaluation_rows:,} to judge by"
    yield "split", f"{parts}, the rest trains: {rows}"


def next_commands(name: str, place: Place) -> list[str]:
    """Commands that take the new domain on."""
    tests = place.tests if place.project is None else place.project
    installed = (
        [] if place.project is None else [f"uv pip install --python {sys.executable} --no-deps -e {place.project}"]
    )
    return [
        *installed,
        f"pytest {_short(tests)}",
        f"mlplatform check-domain {name}",
        f"mlplatform demo --domain {name}",
    ]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _named(proposal: Proposal, name: str) -> str:
    written = proposal.sampled.written[name]
    return name if written == name else f"{name} ({written})"


def _use(proposal: Proposal, name: str) -> str:
    if name in proposal.left_out:
        return f"not asked for: {proposal.left_out[name]}"
    if name == proposal.time:
        return "time of the request"
    keys = [key for key in proposal.entity if name in key]
    if keys:
        return "entity key"
    if name in (*proposal.numbers, *proposal.flags):
        return "feature"
    if name in proposal.words:
        return "feature, by its category"
    return "asked for"
