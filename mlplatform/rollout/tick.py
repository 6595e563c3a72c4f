"""One look at a rollout, and what follows from it: a step, a wait, or the way back.

It is made again and again by the sensor, and gives the same wherever and whenever the one before it broke off: it reads
the ledger, sets the plan from it, gathers the evidence, and records one event at most. Waiting is no event.

A step is taken only by a verdict that says so; and not while the rollout is paused, in an A/B that answers people (a
person ends it), without an approval that the model demands, or by a ledger that is not whole. The way back waits for
nothing of all that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import LedgerBroken, RolloutRefused, StaleRevision
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Entry, Ledger, broken_at
from mlplatform.rollout import moves
from mlplatform.rollout.analysis import Harm, Look, Trip, Verdict, judge
from mlplatform.rollout.evidence import gather as gather_evidence
from mlplatform.rollout.plan import WHOLE
from mlplatform.rollout.pointing import point
from mlplatform.rollout.progress import Progress, ends_it, next_step, progress, step_of, weight_of

Outcome = Literal["start", "advance", "hold", "roll_back", "finish"]

ACTOR = "mlplatform"
"""Whose name stands in the ledger where nobody has asked."""


class Gather(Protocol):
    """Gives what a verdict is made of; `evidence.gather`, but in tests."""

    def __call__(
        self,
        platform: Platform,
        domain: Domain,
        model: ModelSpec,
        *,
        champion: str,
        challenger: str,
        since: datetime,
        step_since: datetime,
        share: float,
        bake: timedelta,
        now: datetime,
    ) -> Look:
        """What both arms did since the rollout began, as far as it is known now."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one look has found, and done."""

    model: str
    """`domain/model`."""

    champion: str
    """Digests, as they were when it was looked."""

    challenger: str
    recipe: str
    at: datetime
    outcome: Outcome
    reasons: tuple[str, ...]
    """Why; of a `hold`: what it waits for."""

    mode: str
    """After it was done, and so are `weight` and `step`."""

    weight: int
    step: int
    harms: tuple[Harm, ...] = ()
    trips: tuple[Trip, ...] = ()
    entry: Entry | None = None
    """What was recorded; None: nothing was."""


def tick(
    platform: Platform, domain: Domain, model: ModelSpec, *, by: str = ACTOR, gather: Gather = gather_evidence
) -> Tick | None:
    """Look at the rollout of a model, and do what follows; None: none is under way.

    Whatever the plan file says that the ledger does not is set right first.
    """
    name = f"{domain.name}/{model.name}"
    point(platform, name)
    entries = Ledger(platform).entries(name)
    now = progress(entries)
    if now is None:
        return None
    found = see(platform, domain, model, entries, now, gather=gather)
    if found.outcome == "hold":
        return found
    try:
        entry = _act(platform, domain, model, found, now.last.number, by)
    except StaleRevision as error:
        told = "; ".join(getattr(error, "__notes__", ()))
        return replace(found, outcome="hold", reasons=(f"somebody else was first ({told}); the next look goes on",))
    given = entry.evidence
    return replace(found, entry=entry, mode=given["mode"], weight=given["weight"], step=given.get("step", 0))


def see(
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    entries: Sequence[Entry],
    now: Progress,
    *,
    gather: Gather = gather_evidence,
) -> Tick:
    """What the next tick would do, and why. Nothing is done.

    Parameters
    ----------
    entries : of the model, all of them
    now : the rollout that they tell of
    """
    name = f"{domain.name}/{model.name}"
    verdict = look(platform, domain, model, now, gather=gather) if now.started else None
    outcome, reasons = _decided(name, model.rollout, entries, now, verdict)
    return Tick(
        model=name,
        champion=now.champion,
        challenger=now.challenger,
        recipe=now.recipe,
        at=moment(platform, now),
        outcome=outcome,
        reasons=reasons,
        mode=now.mode,
        weight=now.weight,
        step=step_of(model.rollout or Rollout(), now.weight) if now.started else 0,
        harms=verdict.harms if verdict else (),
        trips=verdict.trips if verdict else (),
    )


def look(
    platform: Platform, domain: Domain, model: ModelSpec, now: Progress, *, gather: Gather = gather_evidence
) -> Verdict:
    """What should happen to a rollout, by its evidence alone."""
    settings = model.rollout or Rollout()
    share = now.weight / WHOLE
    place = step_of(settings, now.weight)
    found = gather(
        platform,
        domain,
        model,
        champion=now.champion,
        challenger=now.challenger,
        since=now.since,
        step_since=now.step_since,
        share=share,
        bake=settings.steps[place - 1].bake if place else timedelta(0),
        now=moment(platform, now),
    )
    # With all keys in one arm there is no split to be tested; who has no key goes to the champion even then.
    return judge(found if share < 1 else replace(found, split=None), settings)


def moment(platform: Platform, now: Progress) -> datetime:
    """What time it is for a rollout: a clock that was put back does not undo what was recorded."""
    return max(platform.clock(), now.last.at)


def advance(
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    *,
    by: str,
    reason: str,
    after: int | None = None,
    ending: bool = False,
    gather: Gather = gather_evidence,
) -> Entry:
    """Take the next step because a person says so, though it still waits for something.

    Parameters
    ----------
    after : number of the last event that the person has seen; None: the last one there is
    ending : make the challenger the champion, as the end of an A/B

    Raises
    ------
    RolloutRefused
        No rollout is under way, it is paused, was not approved of, or the evidence says that it must go back.
    StaleRevision
        Another event was recorded meanwhile, or since `after`.
    """
    name = f"{domain.name}/{model.name}"
    entries = Ledger(platform).entries(name)[:after]
    now = progress(entries)
    evidence: dict[str, Any] = {}
    if now is not None and now.started:
        verdict = look(platform, domain, model, now, gather=gather)
        if verdict.outcome == "roll_back":
            told = "; ".join(verdict.reasons)
            raise RolloutRefused(name, "advance", f"it is to go back: {told}. `mlplatform rollout rollback` does it")
        evidence = as_evidence(verdict)
    move = moves.finish if ending else moves.step_up
    return move(platform, domain, model, by=by, reason=reason, evidence=evidence, after=len(entries))


def as_evidence(found: Verdict | Tick) -> dict[str, Any]:
    """What was looked at, as the ledger keeps it."""
    return {
        "verdict": found.outcome,
        "reasons": list(found.reasons),
        "harms": [harm_as_record(each) for each in found.harms],
        "trips": [{"trip": each.name, "reason": each.reason} for each in found.trips],
    }


def harm_as_record(harm: Harm) -> dict[str, Any]:
    """One figure with its bounds; what is no number is null."""
    return {
        "figure": harm.name,
        "segment": harm.segment,
        "pairs": harm.bounds.n,
        "worse_by": None if math.isnan(harm.bounds.mean) else harm.bounds.mean,
        "at_least": harm.bounds.lower,
        "at_most": harm.bounds.upper,
        "margin": harm.margin,
    }


def _decided(
    name: str, settings: Rollout | None, entries: Sequence[Entry], now: Progress, verdict: Verdict | None
) -> tuple[Outcome, tuple[str, ...]]:
    """What is to be done, and why."""
    if verdict is not None and verdict.outcome == "roll_back":
        return "roll_back", verdict.reasons
    waits = tuple(_waits(name, settings, entries, now))
    if verdict is not None and verdict.outcome == "hold":
        return "hold", (*verdict.reasons, *waits)
    if waits or settings is None:
        return "hold", waits
    if verdict is None:
        return "start", ("it passed the gate",)
    return "finish" if ends_it(next_step(settings, now)) else "advance", verdict.reasons


def _act(platform: Platform, domain: Domain, model: ModelSpec, found: Tick, after: int, by: str) -> Entry:
    reason, evidence = "; ".join(found.reasons), as_evidence(found)
    if found.outcome == "start":
        return moves.start(platform, domain, model, by=by, reason=reason)
    if found.outcome == "roll_back":
        return moves.roll_back(platform, found.model, by=by, reason=reason, evidence=evidence, after=after)
    return moves.step_up(platform, domain, model, by=by, reason=reason, evidence=evidence, after=after)


def _waits(name: str, settings: Rollout | None, entries: Sequence[Entry], now: Progress) -> Iterator[str]:
    """What the next step waits for, besides its evidence."""
    if settings is None:
        yield "the model declares no rollout any more. `mlplatform rollout rollback` ends it; or declare one again"
        return
    if (broken := broken_at(entries)) is not None:
        yield str(LedgerBroken(name, broken, "its hash does not follow from what it says"))
    if now.paused:
        yield f"paused by {now.paused.actor}: {now.paused.reason}. `mlplatform rollout resume` lets it go on"
    if now.mode == "a/b":
        yield "an A/B stays as it is until a person ends it: `mlplatform rollout finish`, or `rollback`"
    step = next_step(settings, now)
    answers = step is None or weight_of(step) > 0
    if answers and (missing := moves.approval_missing(name, settings, entries, now.challenger)):
        yield missing
