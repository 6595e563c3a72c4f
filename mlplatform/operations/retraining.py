"""Retraining for people and scripts: the last decisions on a model, and what the policy would have done in the past."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.operations.jobs import runs_of_recipes
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.backtest import Backtest, compared_with
from mlplatform.retraining.tables import trail

explained_at_most = 20


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A decision, and the run that came of it."""

    at: datetime
    outcome: str
    kind: str
    reason: str
    recipe: str
    run: str
    """Id and status of the newest run of the recipe; empty: there is none."""

    inputs: Mapping[str, Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]


def explain(platform: Platform, domain: Domain, model: ModelSpec, *, last: int = explained_at_most) -> list[Explained]:
    """The last decisions on a model, newest first."""
    records = trail(platform, domain, model.name, at_least=last).records[:last]
    runs = runs_of_recipes(platform, domain, model, {each.recipe for each in records if each.recipe})
    return [
        Explained(
            at=each.at,
            outcome=each.outcome,
            kind=each.kind,
            reason=each.reason,
            recipe=each.recipe,
            run=runs.get(each.recipe, ""),
            inputs=each.inputs,
            events=each.events,
        )
        for each in records
    ]


def show_explained(name: str, found: Sequence[Explained], console: Console) -> None:
    """Print decisions as a table, and the inputs of the newest one beside their thresholds."""
    if not found:
        nothing = f"nothing was decided on {name} yet: the sensor does, under `mlplatform ui`"
        console.print(nothing, highlight=False, soft_wrap=True)
        return
    table = Table("when", "outcome", "reason", "run", title=f"retraining of {name}", title_justify="left")
    for each in found:
        events = f" [events: {', '.join(str(event.get('id', '…')) for event in each.events)}]" if each.events else ""
        table.add_row(f"{each.at:%Y-%m-%d %H:%M}", each.outcome, escape(each.reason + events), each.run or each.recipe)
    console.print(table)
    newest = next((each for each in found if each.inputs), None)
    if newest is not None:
        inputs = Table("input", "value", "threshold", title=f"at {newest.at:%Y-%m-%d %H:%M}", title_justify="left")
        for name_, told in newest.inputs.items():
            inputs.add_row(name_.replace("_", " "), _figure(told["value"]), _figure(told["threshold"]))
        console.print(inputs)


def show_backtest(found: Backtest, console: Console) -> None:
    """Print the arms as a table, and when and why the policy trained."""
    told = f"{found.model}: {found.requests:,} requests, {found.first} to {found.last}"
    table = Table("retrained", "trainings", "seconds", found.metric, f"- {compared_with}", "95 % interval", title=told)
    for arm in found.arms:
        point, low, high = arm.difference.point, arm.difference.low, arm.difference.high
        span = "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
        difference = "" if point is None or arm.name == compared_with else f"{point:+.4f}"
        table.add_row(
            arm.name,
            str(len(arm.trainings)),
            f"{arm.seconds:.0f}",
            f"{arm.loss:.4f}",
            difference,
            span if difference else "",
        )
    console.print(table)
    for step in next(arm.trainings for arm in found.arms if arm.name == "policy"):
        console.print(f"{step.day}  {step.reason}", highlight=False, markup=False)
    if found.differing_values:
        console.print(f"{found.differing_values:,} feature values were corrected since, and count as they are now")


def as_json(found: Sequence[Explained] | Backtest) -> str:
    """For scripts."""
    told = asdict(found) if isinstance(found, Backtest) else [asdict(each) for each in found]
    return msgspec.json.format(msgspec.json.encode(told), indent=1).decode()


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"
