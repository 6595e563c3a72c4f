"""A model that was made again, for people and scripts: what it was made under, each part, the first difference."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from mlplatform.reproducibility.conditions import Step
from mlplatform.reproducibility.reproduce import Reproduced

digits = 12
"""Of a hash on a terminal; `--json` has all."""


def show(made: Reproduced, console: Console) -> None:
    """What differs is told in full; what is the same by its name."""
    console.print(f"{made.model}@{made.model_version}, manifest {made.manifest[:digits]}", highlight=False)
    other = made.other_conditions
    if other:
        told = ", ".join(each.name for each in other)
        console.print(f"not made under what is recorded: {told}", style="yellow", highlight=False)
    for step in made.steps:
        _line(step, console)
    first = made.first_difference
    if first is None:
        under = ", though not under what is recorded" if other else ""
        console.print(f"reproduced to the bit{under}", style="green", highlight=False)
        return
    told = f"first difference: {first.name}" + (f": {first.note}" if first.note else "")
    # Code and machine make parts differ, never what lies in a table.
    if other and not first.name.startswith("table "):
        told += f". It was not made under what is recorded ({', '.join(each.name for each in other)}): look there first"
    console.print(escape(told), style="red", highlight=False, soft_wrap=True)


def as_json(made: Reproduced) -> str:
    """For scripts."""
    first = made.first_difference
    told = {"exact": made.exact, "first_difference": first.name if first else None}
    return json.dumps(asdict(made) | told, indent=1)


def _line(step: Step, console: Console) -> None:
    sign, style = ("same   ", "green") if step.same else ("differs", "yellow" if step.condition else "red")
    console.print(f"  [{style}]{sign}[/] {escape(step.name)}", highlight=False, soft_wrap=True)
    if not step.same:
        for side, told in (("recorded", step.expected), ("now", step.found), ("", step.note)):
            if told:
                console.print(
                    f"            {escape(f'{side}: {told}' if side else told)}", highlight=False, soft_wrap=True
                )
