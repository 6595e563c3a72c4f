"""The approval: a named person lets one manifest answer people.

It is an entry of the ledger, bound to the manifest's full digest: another threshold, another model, another view is
another digest, which nobody has approved of. A rollback of that digest voids it; who still wants it approves again.

It is looked for where a model demands it (`Rollout.approval`). It does not stand in for the gate's decision.
"""

from collections.abc import Sequence

from mlplatform.errors import DataError
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import named_bundle
from mlplatform.registry.ledger import Entry, Ledger, rolled_back
from mlplatform.rollout.judge import load_decision


def approved(entries: Sequence[Entry], digest: str) -> Entry | None:
    """The approval of a manifest that is in force; None: there is none, or it was void from a rollback on.

    Parameters
    ----------
    entries : of one model, in order
    digest : of the manifest, all of it
    """
    found = None
    for entry in entries:
        if entry.action == "approve" and entry.to_manifest == digest:
            found = entry
        elif rolled_back(entry) == digest:
            found = None
    return found


def approve(platform: Platform, model: str, manifest: str, *, by: str, reason: str) -> Entry:
    """Record that a person approves of a manifest of `domain/model`.

    Parameters
    ----------
    manifest : its digest, or the beginning of it that people are shown; the entry names all of it
    by, reason : who, and why; neither may be empty

    Raises
    ------
    DataError
        The model has no such manifest.
    BundleCorrupt
        Its bundle is not what the manifest says.
    Unsigned
        Nobody is named, or no reason.
    StaleRevision
        Another event was recorded meanwhile: look again, then approve again.
    """
    bundle = named_bundle(platform, model, manifest)
    recipe = bundle.manifest.model_version
    domain, _, name = model.partition("/")
    try:
        decision = load_decision(platform.training(domain, name, recipe))
        gate = decision.outcome if decision.candidate == bundle.digest else "not recorded"
    except DataError:
        gate = "not recorded"
    ledger = Ledger(platform)
    return ledger.append(
        model,
        action="approve",
        alias="challenger",
        to_manifest=bundle.digest,
        actor=by,
        reason=reason,
        evidence={"recipe": recipe, "gate": gate},
        after=len(ledger.entries(model)),
    )
