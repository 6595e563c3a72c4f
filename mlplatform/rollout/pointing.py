"""From the ledger to the plan: what it says served last is what services are told.

The plan is derived and nothing else, so whoever was killed between the two, edited the file or lost it is made good for
by the next call, and of two writers the later one reads all that the earlier one wrote.

It does not ask whether the chain of the ledger is whole: a rollback must go through whatever became of last year's
entries. `ledger verify` asks.
"""

from collections.abc import Sequence
from typing import cast, get_args

from mlplatform.errors import PlanInvalid
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import MOVES, Action, Entry, Ledger, standing
from mlplatform.rollout.plan import Mode, Plan
from mlplatform.rollout.plan_file import plan_path, write_plan

STILL: frozenset[Action] = frozenset({"pause", "resume"})
"""Moves of the ledger that leave the traffic as it is: the plan keeps its number."""


def plan_of(model: str, entries: Sequence[Entry]) -> Plan | None:
    """The plan that a ledger asks for; None: there has been no champion yet.

    A challenger whose rollout was not started is in no plan. The event that starts one says by its hash which keys
    come first (another rollout tries others), and may give an `exploration` as evidence.

    Parameters
    ----------
    model : `domain/model`
    entries : all of it, in order; fewer: the plan of then

    Raises
    ------
    PlanInvalid
        The ledger asks for what no plan can say.
    """
    now = standing(entries)
    if now.champion is None:
        return None
    number = max((entry.number for entry in entries if entry.action in MOVES - STILL), default=0)
    champion = now.champion.to_manifest
    # One that is the champion itself has nothing to win; no plan can say it.
    if now.challenger is None or not now.mode or now.challenger.to_manifest == champion:
        return Plan(model=model, champion=champion, number=number)
    if now.mode not in get_args(Mode):
        raise PlanInvalid(model, f"the ledger names a mode {now.mode!r} that there is not")
    begun = [entry for entry in entries if entry.alias == "challenger" and entry.action in ("promote", "start")]
    start = begun[-1] if begun else now.challenger
    return Plan(
        model=model,
        champion=champion,
        challenger=now.challenger.to_manifest,
        mode=cast(Mode, now.mode),
        weight=now.weight,
        salt=start.hash[:16],
        number=number,
        exploration=float(start.evidence.get("exploration", 0.0)),
    )


def point(platform: Platform, model: str) -> Plan | None:
    """Let the services of a model follow its ledger, within a second; gives the plan, None where there is none yet.

    Raises
    ------
    PlanInvalid
        The ledger asks for what no plan can say. The services go on as they were.
    """
    # Held from the reading on: whoever read an older ledger cannot write after us.
    with alone(plan_path(platform.home, model).with_suffix(".lock")):
        plan = plan_of(model, Ledger(platform).entries(model))
        if plan is not None:
            write_plan(platform.home, plan)
    return plan
