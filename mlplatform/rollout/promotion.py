"""The promotion: the step that moves an alias, and refuses to without a decision that says `pass`.

It reads the decision itself, so it does not matter who launched it or whether a check was looked at. The decision must
be about this candidate and about the champion of now: what was compared with another champion is compared again. A
version that was rolled back is not promoted again, by whomever, before somebody has said in the ledger why.
"""

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import DataError, PromotionRefused
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.registry.ledger import Entry, Ledger, standing
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.registry.origin import lacking, uncommitted
from mlplatform.rollout.approval import approved
from mlplatform.rollout.judge import load_decision
from mlplatform.rollout.moves import start
from mlplatform.rollout.pointing import point
from mlplatform.rollout.progress import sent_back, weight_of


def promote(
    platform: Platform, domain: Domain, model: ModelSpec, recipe: str, *, actor: str, reason: str = ""
) -> Entry:
    """Make the candidate of a recipe the challenger, and start its rollout.

    The first model of all becomes champion at once, and so does one whose model declares no rollout. Asked again for
    the champion or the challenger of now, it records nothing and returns the entry that made it so; whatever is
    missing of it (the start, the plan) is made good for. Services that run follow within a second.

    Parameters
    ----------
    recipe : its key
    actor, reason : who asks, and why, besides the gate's word

    Raises
    ------
    PromotionRefused
        There is no decision, it does not say `pass`, or it is about another candidate or champion; another challenger's
        rollout is under way; the candidate was rolled back; it would answer people at once, the model demands an
        approval, and there is none; or its record is not whole, or names changes that no commit holds and the domain
        does not let them be stored. Nothing was moved.
    BundleCorrupt
        The candidate's bundle is not what was evaluated.
    StaleRevision
        Another event was recorded meanwhile. Nothing was moved.
    """
    name = f"{domain.name}/{model.name}"
    folder = platform.training(domain.name, model.name, recipe)
    ledger = Ledger(platform)
    events = ledger.entries(name)
    now = standing(events)
    champion = now.champion.to_manifest if now.champion else None
    challenger = now.challenger.to_manifest if now.challenger else None
    try:
        candidate = load_candidate(folder).manifest
        decision = load_decision(folder)
    except DataError as error:
        raise PromotionRefused(name, recipe, [str(error).rstrip(".")]) from error
    # Whoever was killed in the middle is made good for here.
    if now.champion and champion == candidate:
        point(platform, name)
        return now.champion
    if now.challenger and challenger == candidate:
        start(platform, domain, model, by=actor, reason="its promotion is asked for again")
        return next(each for each in reversed(events) if each.action == "promote")
    reasons = []
    if decision.outcome != "pass":
        reasons = [f"the decision is `{decision.outcome}`", *decision.reasons]
    if decision.candidate != candidate:
        reasons.append(f"the decision is about candidate {decision.candidate[:12]}, not {candidate[:12]}")
    if decision.champion != champion:
        reasons.append("the champion has changed since the evaluation; materialise `evaluation` again")
    if challenger is not None:
        reasons.append(
            f"the rollout of {challenger[:SHORT_DIGITS]} is under way; wait for its end, or end it by "
            f"`mlplatform rollout rollback {name} --reason TEXT`"
        )
    if (back := sent_back(events).get(candidate)) is not None:
        reasons.append(
            f"it was rolled back by {back.actor}: {back.reason}. Who wants it all the same runs "
            f"`mlplatform rollout start {name} {candidate[:SHORT_DIGITS]} --override --reason TEXT`"
        )
    rollout = model.rollout if champion is not None else None
    if model.rollout and model.rollout.approval and _answers_at_once(rollout) and approved(events, candidate) is None:
        reasons.append(
            f"nobody has approved of it; run `mlplatform approve {name} {candidate} --by NAME --reason TEXT`, then "
            f"`mlplatform promote {name} {recipe}`"
        )
    bundle = bundle_of(platform, candidate)
    if lacks := lacking(bundle):
        reasons.append(f"its record lacks {', '.join(lacks)}; train it again, by the asset `model`")
    if why := uncommitted(domain, bundle):
        reasons.append(why)
    if reasons:
        raise PromotionRefused(name, recipe, reasons)
    bundle.check_golden()
    said = "; ".join(filter(None, [reason, f"the gate says pass: {len(decision.rules)} rules"]))
    entry = ledger.append(
        name,
        action="promote",
        alias="champion" if rollout is None else "challenger",
        to_manifest=candidate,
        actor=actor,
        reason=said,
        evidence={"recipe": recipe, "decided_at": decision.decided_at.isoformat(), "rules": len(decision.rules)},
        after=len(events),
    )
    if rollout is None:
        point(platform, name)
    else:
        start(platform, domain, model, by=actor, reason=said)
    return entry


def _answers_at_once(rollout: Rollout | None) -> bool:
    return rollout is None or weight_of(rollout.steps[0]) > 0
