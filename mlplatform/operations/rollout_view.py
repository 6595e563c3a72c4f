"""The rollout of a model for people and scripts: steps, traffic, each bound beside its margin, and what it waits for.

It looks and changes nothing. The evidence that it shows is what the sensor's next look would go by.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
from rich.console import Console
from rich.markup import escape

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import MlplatformError
from mlplatform.operations.ledger_view import plan_differs
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import load_candidate
from mlplatform.registry.ledger import Entry, Ledger, standing
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.rollout.analysis import Harm, Trip
from mlplatform.rollout.evidence import gather as gather_evidence
from mlplatform.rollout.plan import WHOLE
from mlplatform.rollout.pointing import plan_of
from mlplatform.rollout.progress import progress, told_time, traffic, where_it_stands
from mlplatform.rollout.tick import Gather, see
from mlplatform.rollout.trail import looks

cells = 33
"""Of a bar: odd, so that 0 has one of its own."""

segments_shown = 5
"""On a terminal, those with the most harm; `--json` has all."""

looks_shown = 50


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a rollout stands."""

    model: str
    champion: str | None
    plan: str
    """Version of the plan; empty: there is none."""

    last: int
    """Number of the ledger's last entry, for `--after`."""

    ended: str
    """How the last rollout ended; empty: it is under way, or there was none."""

    challenger: str | None = None
    """None: no rollout is under way."""

    recipe: str = ""
    mode: str = "full"
    share: float = 0.0
    """Of the keys that the challenger answers."""

    steps: Sequence[float] = ()
    """Shares of the declared steps."""

    step: int = 0
    """From 1; 0: not started."""

    since: datetime | None = None
    step_since: datetime | None = None
    paused: str = ""
    """By whom, and why; empty: it is not."""

    outcome: str = ""
    """What the sensor's next look would do; empty: there is nothing to look at."""

    reasons: Sequence[str] = ()
    """Why, or what it waits for."""

    harms: Sequence[Harm] = ()
    trips: Sequence[Trip] = ()
    edited: str = ""
    """How the plan file says otherwise than the ledger; empty: it does not."""

    fault: str = ""
    """Why there is no evidence; empty: there is."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was done in a rollout, or a look that was kept."""

    at: datetime
    what: str
    manifest: str
    by: str
    """Empty: a look, which changes nothing."""

    traffic: str
    reason: str
    entry: int | None
    """Of the ledger."""


def standing_of(platform: Platform, domain: Domain, model: ModelSpec, recipe: str) -> str:
    """What has become of the version of a recipe, in a few words."""
    made = load_candidate(platform.training(domain.name, model.name, recipe)).manifest
    return where_it_stands(Ledger(platform).entries(f"{domain.name}/{model.name}"), made)


def history(platform: Platform, domain: Domain, model: ModelSpec, *, last: int = looks_shown) -> list[Event]:
    """The events of a model's rollouts, with the looks in between, oldest first.

    Parameters
    ----------
    last : so many of each
    """
    name = f"{domain.name}/{model.name}"
    done = [
        Event(
            at=each.at,
            what=each.action,
            manifest=each.to_manifest,
            by=each.actor,
            traffic=_given(each),
            reason=each.reason,
            entry=each.number,
        )
        for each in Ledger(platform).entries(name)[-last:]
    ]
    seen = [
        Event(
            at=each.at,
            what="hold",
            manifest=each.challenger,
            by="",
            traffic=traffic(each.mode, each.weight),
            reason="; ".join(each.reasons),
            entry=None,
        )
        for each in looks(platform, domain, model.name, last=last)
        if each.entry is None
    ]
    # A look comes after what was done at the same moment.
    return sorted([*done, *seen], key=lambda each: (each.at, each.entry is None))


def show_history(model: str, found: Sequence[Event], console: Console) -> None:
    """A line for each."""
    if not found:
        console.print(f"nothing was recorded of {escape(model)}", highlight=False)
        return
    for each in found:
        what = each.what.replace("_", " ") + (f" by {each.by}" if each.by else "")
        number = f"{each.entry or ''}".rjust(4)
        line = f"{number}  {told_time(each.at)}  {each.manifest[:SHORT_DIGITS]}  {what}  {each.traffic}"
        console.print(escape(line.rstrip()), highlight=False, soft_wrap=True)
        console.print(f"      {escape(each.reason)}", highlight=False, soft_wrap=True)


def status(platform: Platform, domain: Domain, model: ModelSpec, *, gather: Gather = gather_evidence) -> Status:
    """How the rollout of a model stands now."""
    name = f"{domain.name}/{model.name}"
    entries = Ledger(platform).entries(name)
    champion, under_way, plan = standing(entries).champion, progress(entries), plan_of(name, entries)
    found = Status(
        model=name,
        champion=champion.to_manifest if champion else None,
        plan=plan.version if plan else "",
        last=len(entries),
        edited=plan_differs(platform, name, plan),
        ended="" if under_way else _ended(entries),
    )
    if under_way is None:
        return found
    found = replace(
        found,
        challenger=under_way.challenger,
        recipe=under_way.recipe,
        mode=under_way.mode,
        share=under_way.weight / WHOLE,
        steps=tuple(step.share for step in model.rollout.steps) if model.rollout else (),
        since=under_way.since,
        step_since=under_way.step_since,
        paused=f"{under_way.paused.actor}: {under_way.paused.reason}" if under_way.paused else "",
    )
    try:
        seen = see(platform, domain, model, entries, under_way, gather=gather)
    except MlplatformError as error:
        return replace(found, fault=str(error))
    return replace(
        found, step=seen.step, outcome=seen.outcome, reasons=seen.reasons, harms=seen.harms, trips=seen.trips
    )


def as_json(found: Status | Sequence[Event]) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show_status(found: Status, console: Console) -> None:
    """Steps, traffic, bounds and what is waited for."""
    for line in _head(found):
        console.print(line, highlight=False, soft_wrap=True)
    if found.edited:
        told = f"the plan file is not the ledger's: {found.edited}. The next look writes it again"
        console.print(f"  [red]{escape(told)}[/red]", highlight=False, soft_wrap=True)
    for line in _bounds(found.harms) if found.harms else ():
        console.print(line, highlight=False, soft_wrap=True)
    for each in found.trips:
        console.print(f"  [red]{escape(each.name)}[/red]: {escape(each.reason)}", highlight=False, soft_wrap=True)
    if found.fault:
        console.print(f"  [red]no evidence[/red]: {escape(found.fault)}", highlight=False, soft_wrap=True)
    if found.outcome:
        what = "waits" if found.outcome == "hold" else f"next look: {found.outcome.replace('_', ' ')}"
        console.print(f"  {what}", highlight=False)
        for reason in found.reasons:
            console.print(f"    {escape(reason)}", highlight=False, soft_wrap=True)


def bar(harm: Harm) -> str:
    """Bounds on a line from -2 to +2 margins: `│` is equal, `┊` the margin, `●` what was seen.

    Examples
    --------
    >>> from mlplatform.rollout.sequential import Bounds
    >>> bar(Harm(name="late", segment="", bounds=Bounds(n=9, mean=0.0, lower=-0.01, upper=0.005), margin=0.01))
    '········━━━━━━━━●━━━━···┊········'
    """
    line = ["·"] * cells
    middle, of_margin = cells // 2, (cells - 1) // 4

    def cell(value: float) -> int:
        place = middle if math.isnan(value) or not harm.margin else middle + round(value / harm.margin * of_margin)
        return min(max(place, 0), cells - 1)

    line[middle], line[middle + of_margin] = "│", "┊"
    first, last = cell(harm.bounds.lower), cell(harm.bounds.upper)
    line[first : last + 1] = ["━"] * (last + 1 - first)
    if harm.bounds.n:
        line[cell(harm.bounds.mean)] = "●"
    if harm.bounds.lower < -2 * harm.margin:
        line[first] = "◀"
    if harm.bounds.upper > 2 * harm.margin:
        line[last] = "▶"
    return "".join(line)


def _head(found: Status) -> Iterator[str]:
    plan = f"plan {found.plan or 'none'}, entry {found.last} of the ledger"
    yield f"[bold]{escape(found.model)}[/bold]: {_of(found)}, {plan}"
    if found.challenger is None:
        yield f"  no rollout is under way{found.ended and ': ' + escape(found.ended)}"
        return
    yield f"  challenger {found.challenger[:SHORT_DIGITS]}, recipe {found.recipe}, since {_time(found.since)}"
    if found.steps:
        drawn = [
            f"[bold]▶ {_share(share)}[/bold]" if place == found.step else _share(share)
            for place, share in enumerate(found.steps, 1)
        ]
        yield f"  steps    {'  →  '.join(drawn)}"
    filled = round(found.share * cells) or int(found.share > 0)
    told = traffic(found.mode, round(found.share * WHOLE))
    yield f"  traffic  {'█' * filled}{'░' * (cells - filled)} {told}, since {_time(found.step_since)}"
    if found.paused:
        yield f"  [yellow]paused[/yellow] by {escape(found.paused)}"


def _bounds(harms: Sequence[Harm]) -> Iterator[str]:
    """All figures on all requests, and the segments with the most harm."""
    of_segments = sorted((each for each in harms if each.segment), key=lambda each: -each.bounds.lower)
    shown = [*(each for each in harms if not each.segment), *of_segments[:segments_shown]]
    names = [f"{each.name} {each.segment}".rstrip() for each in shown]
    width = max(map(len, names))
    yield f"  worse by {' ' * max(0, width - 8)}{'0'.rjust(cells // 2 + 1)}{'margin'.rjust((cells - 1) // 4 + 3)}"
    for name, each in zip(names, shown, strict=True):
        colour = "red" if each.certain else "green" if each.excluded else "yellow"
        seen = "nothing" if math.isnan(each.bounds.mean) else f"{each.bounds.mean:+.4f}"
        told = f"{seen} ({each.bounds.lower:+.4f} to {each.bounds.upper:+.4f}), {each.bounds.n:,} pairs"
        yield f"  {escape(name.ljust(width))} [{colour}]{bar(each)}[/{colour}] {told}"
    if len(of_segments) > segments_shown:
        yield f"  and {len(of_segments) - segments_shown} more segments"


def _of(found: Status) -> str:
    return f"champion {found.champion[:SHORT_DIGITS]}" if found.champion else "nothing was promoted yet"


def _share(share: float) -> str:
    return f"{100 * share:g} %" if share else "shadow"


def _time(at: datetime | None) -> str:
    return told_time(at) if at else "never"


def _given(entry: Entry) -> str:
    """The traffic that an event gives; empty where it gives none."""
    if entry.action == "finish":
        return "all"
    told = entry.evidence
    return traffic(str(told["mode"]), int(told["weight"])) if entry.action in ("start", "advance") else ""


def _ended(entries: Sequence[Entry]) -> str:
    last = next((each for each in reversed(entries) if each.action in ("finish", "roll_back")), None)
    if last is None:
        return ""
    return f"the last one ended at {told_time(last.at)}, {last.action.replace('_', ' ')} by {last.actor}: {last.reason}"
