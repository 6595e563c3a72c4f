"""The promotion: the step that moves an alias, and refuses to without a decision that says `pass`.

It reads the decision itself, so it does not matter who launched it or whether a check was looked at. The decision must
be about this candidate and about the champion of now: what was compared with another champion is compared again.
"""

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, PromotionRefused
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.registry.pointer import write_pointer
from mlplatform.rollout.judge import load_decision


def promote(platform: Platform, domain: Domain, model: ModelSpec, recipe: str, *, actor: str) -> Entry:
    """Make the candidate of a recipe the champion.

    There are no rollout steps yet: a model that passes becomes champion at once. Asked again for the champion of now,
    it changes nothing and returns the entry that made it so. Services that run follow within a second.

    Raises
    ------
    PromotionRefused
        There is no decision, it does not say `pass`, or it is about another candidate or champion. Nothing was moved.
    BundleCorrupt
        The candidate's bundle is not what was evaluated.
    StaleRevision
        Another event was recorded meanwhile. Nothing was moved.
    """
    name = f"{domain.name}/{model.name}"
    folder = platform.training(domain.name, model.name, recipe)
    ledger = Ledger(platform)
    events = ledger.entries(name)
    moves = [entry for entry in events if entry.alias == "champion"]
    champion = moves[-1].to_manifest if moves else None
    try:
        candidate = load_candidate(folder).manifest
        decision = load_decision(folder)
    except DataError as error:
        raise PromotionRefused(name, recipe, [str(error).rstrip(".")]) from error
    if champion == candidate:
        # Whoever was killed between the two is made good for here.
        write_pointer(platform.home, name, candidate)
        return moves[-1]
    reasons = []
    if decision.outcome != "pass":
        reasons = [f"the decision is `{decision.outcome}`", *decision.reasons]
    if decision.candidate != candidate:
        reasons.append(f"the decision is about candidate {decision.candidate[:12]}, not {candidate[:12]}")
    if decision.champion != champion:
        reasons.append("the champion has changed since the evaluation; materialise `evaluation` again")
    if reasons:
        raise PromotionRefused(name, recipe, reasons)
    bundle_of(platform, candidate).check_golden()
    entry = ledger.append(
        name,
        action="promote",
        alias="champion",
        to_manifest=candidate,
        actor=actor,
        reason=f"the gate says pass: {len(decision.rules)} rules",
        evidence={"recipe": recipe, "decided_at": decision.decided_at.isoformat(), "rules": len(decision.rules)},
        after=len(events),
    )
    write_pointer(platform.home, name, candidate)
    return entry
