"""The moves of a rollout. Each is one entry of the ledger, and then the plan follows from it.

Every move is decided on a ledger that was read, and is recorded only if nothing was recorded since (`StaleRevision`).
So of two who take the same step at once one takes it, and nobody takes it twice. Killed between entry and plan, a move
counts: the next look at the ledger writes the plan.

None of them asks whether the challenger is any good; who has looked says so in `evidence`. What they do refuse, whoever
asks: a version that was sent back, traffic that a person has to approve of, a step that is not the next one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import RolloutRefused, StaleRevision
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import named_bundle
from mlplatform.registry.ledger import MOVES, Action, Alias, Entry, Ledger, rolled_back, standing
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.rollout.approval import approved
from mlplatform.rollout.pointing import point
from mlplatform.rollout.progress import (
    Progress,
    ends_it,
    mode_of,
    next_step,
    progress,
    sent_back,
    step_of,
    told_time,
    weight_of,
)

Evidence = Mapping[str, Any]


def start(platform: Platform, domain: Domain, model: ModelSpec, *, by: str, reason: str) -> Entry:
    """Give the challenger the first step of its rollout. Asked again, it gives the event that did.

    Raises
    ------
    RolloutRefused
        There is no challenger, or its first step answers people and nobody has approved of it.
    StaleRevision
        Another event was recorded meanwhile.
    """
    name, entries = _read(platform, domain, model)
    now = _under_way(name, "start", entries)
    settings = model.rollout or Rollout()
    if now.started:
        point(platform, name)
        return next(each for each in reversed(entries) if each.action == "start")
    step = next_step(settings, now)
    weight = weight_of(step) if step else 0
    if weight and (missing := approval_missing(name, settings, entries, now.challenger)):
        raise RolloutRefused(name, "start", missing)
    evidence: dict[str, Any] = {"recipe": now.recipe, **_traffic(settings, weight)}
    if settings.exploration:
        evidence["exploration"] = settings.exploration.value
    try:
        return _append(platform, name, entries, "start", "challenger", now.challenger, by, reason, evidence)
    except StaleRevision:
        # The sensor starts what is promoted as well, perhaps in this very moment.
        other = progress(Ledger(platform).entries(name))
        if other is None or not other.started or other.challenger != now.challenger:
            raise
    return start(platform, domain, model, by=by, reason=reason)


def step_up(
    platform: Platform, domain: Domain, model: ModelSpec, *, by: str, reason: str, evidence: Evidence, after: int
) -> Entry:
    """Take the next step; the last one makes the challenger the champion.

    Parameters
    ----------
    evidence : what was looked at
    after : number of the last event that was looked at

    Raises
    ------
    RolloutRefused
        No rollout is under way, it was not started or is paused, or nobody has approved of the challenger.
    StaleRevision
        Another event was recorded meanwhile: it may have been this very step.
    """
    name, entries = _read(platform, domain, model, after)
    now = _under_way(name, "advance", entries)
    settings = model.rollout or Rollout()
    if not now.started:
        raise RolloutRefused(name, "advance", "it was not started yet")
    if now.paused:
        raise RolloutRefused(name, "advance", f"it is paused ({now.paused.reason}). `mlplatform rollout resume` first")
    if missing := approval_missing(name, settings, entries, now.challenger):
        raise RolloutRefused(name, "advance", missing)
    step = next_step(settings, now)
    if step is None or ends_it(step):
        return _finish(platform, name, entries, now, by, reason, evidence)
    told = {"recipe": now.recipe, **_traffic(settings, weight_of(step)), **evidence}
    return _append(platform, name, entries, "advance", "challenger", now.challenger, by, reason, told)


def finish(
    platform: Platform, domain: Domain, model: ModelSpec, *, by: str, reason: str, evidence: Evidence, after: int
) -> Entry:
    """Make the challenger the champion: from an A/B, whatever its share, or from the last step.

    Parameters
    ----------
    evidence : what was looked at
    after : number of the last event that was looked at

    Raises
    ------
    RolloutRefused
        No rollout is under way, it is paused, or it has steps to take before.
    StaleRevision
        Another event was recorded meanwhile.
    """
    name, entries = _read(platform, domain, model, after)
    now = _under_way(name, "finish", entries)
    settings = model.rollout or Rollout()
    if now.paused:
        raise RolloutRefused(name, "finish", f"it is paused ({now.paused.reason}). `mlplatform rollout resume` first")
    if now.mode != "a/b" and not (now.started and ends_it(next_step(settings, now))):
        raise RolloutRefused(
            name, "finish", "it has steps to take before. `mlplatform rollout advance` takes the next one"
        )
    if missing := approval_missing(name, settings, entries, now.challenger):
        raise RolloutRefused(name, "finish", missing)
    return _finish(platform, name, entries, now, by, reason, evidence)


def pause(platform: Platform, domain: Domain, model: ModelSpec, *, by: str, reason: str) -> Entry:
    """Take no more steps until it is resumed; the traffic stays as it is, and harm sends the challenger back still.

    Raises
    ------
    RolloutRefused
        No rollout is under way, or it is paused already.
    """
    name, entries = _read(platform, domain, model)
    now = _under_way(name, "pause", entries)
    if now.paused:
        raise RolloutRefused(name, "pause", f"it is paused already, by {now.paused.actor}: {now.paused.reason}")
    evidence = {"recipe": now.recipe, "mode": now.mode, "weight": now.weight}
    return _append(platform, name, entries, "pause", "challenger", now.challenger, by, reason, evidence)


def resume(platform: Platform, domain: Domain, model: ModelSpec, *, by: str, reason: str) -> Entry:
    """Let a paused rollout take its steps again.

    Raises
    ------
    RolloutRefused
        No rollout is under way, or it is not paused.
    """
    name, entries = _read(platform, domain, model)
    now = _under_way(name, "resume", entries)
    if not now.paused:
        raise RolloutRefused(name, "resume", "it is not paused")
    evidence = {"recipe": now.recipe, "mode": now.mode, "weight": now.weight}
    return _append(platform, name, entries, "resume", "challenger", now.challenger, by, reason, evidence)


def roll_back(
    platform: Platform,
    name: str,
    *,
    by: str,
    reason: str,
    manifest: str | None = None,
    evidence: Evidence | None = None,
    after: int | None = None,
) -> Entry:
    """Send the challenger back; where there is none, the champion: the one before it answers again.

    A person's rollback is not lost to a step that was taken meanwhile: it is about a version, wherever that stands.

    Parameters
    ----------
    name : `domain/model`; it need not be declared any more
    manifest : the version to send back, by its digest or the beginning of it; None: the newest one that answers
    after : number of the last event that was looked at; None: whatever was recorded meanwhile

    Raises
    ------
    RolloutRefused
        That version answers nobody, it was sent back already, or there is none to go back to.
    StaleRevision
        `after` is given, and another event was recorded meanwhile.
    """
    ledger, wanted = Ledger(platform), manifest
    while True:
        entries = ledger.entries(name)[:after]
        alias, version, to = _way_back(platform, name, entries, wanted)
        recipe = next((str(e.evidence["recipe"]) for e in reversed(entries) if _made(e, version)), "")
        told = {"recipe": recipe, "mode": "full", "weight": 0, **(evidence or {})}
        try:
            return _append(platform, name, entries, "roll_back", alias, to, by, reason, told)
        except StaleRevision:
            if after is not None:
                raise
            wanted = version


def override(platform: Platform, name: str, manifest: str, *, by: str, reason: str) -> Entry:
    """Let a version in again that was sent back. It moves nothing; its approval stays void.

    Raises
    ------
    DataError
        The model has no such manifest.
    RolloutRefused
        It was not sent back.
    """
    bundle = named_bundle(platform, name, manifest)
    entries = Ledger(platform).entries(name)
    if bundle.digest not in sent_back(entries):
        raise RolloutRefused(name, "override", f"{bundle.digest[:SHORT_DIGITS]} was not rolled back")
    evidence = {"recipe": bundle.manifest.model_version}
    return _append(platform, name, entries, "override", "challenger", bundle.digest, by, reason, evidence)


def approval_missing(name: str, settings: Rollout, entries: Sequence[Entry], digest: str) -> str:
    """What is to be done before a version may answer people; empty: it may."""
    if not settings.approval or approved(entries, digest) is not None:
        return ""
    return (
        "nobody has approved of it, and it may answer people only then: "
        f"`mlplatform approve {name} {digest[:SHORT_DIGITS]} --by NAME --reason TEXT`"
    )


def _finish(
    platform: Platform, name: str, entries: Sequence[Entry], now: Progress, by: str, reason: str, evidence: Evidence
) -> Entry:
    told = {"recipe": now.recipe, "mode": "full", "weight": 0, **evidence}
    return _append(platform, name, entries, "finish", "champion", now.challenger, by, reason, told)


def _append(
    platform: Platform,
    name: str,
    entries: Sequence[Entry],
    action: Action,
    alias: Alias,
    to: str,
    by: str,
    reason: str,
    evidence: Evidence,
) -> Entry:
    ledger = Ledger(platform)
    try:
        made = ledger.append(
            name,
            action=action,
            alias=alias,
            to_manifest=to,
            actor=by,
            reason=reason,
            evidence=evidence,
            after=len(entries),
        )
    except StaleRevision as error:
        for other in ledger.entries(name)[len(entries) :]:
            error.add_note(
                f"entry {other.number}: `{other.action}` by {other.actor} at {told_time(other.at)}: {other.reason}"
            )
        raise
    point(platform, name)
    return made


def _read(platform: Platform, domain: Domain, model: ModelSpec, after: int | None = None) -> tuple[str, list[Entry]]:
    name = f"{domain.name}/{model.name}"
    return name, Ledger(platform).entries(name)[:after]


def _under_way(name: str, action: str, entries: Sequence[Entry]) -> Progress:
    now = progress(entries)
    if now is not None:
        return now
    ended = next((each for each in reversed(entries) if each.action in ("roll_back", "finish")), None)
    last = f"; the last one ended at {told_time(ended.at)} ({ended.action}: {ended.reason})" if ended else ""
    raise RolloutRefused(name, action, f"no rollout is under way{last}")


def _traffic(settings: Rollout, weight: int) -> dict[str, Any]:
    return {"mode": mode_of(settings, weight), "weight": weight, "step": step_of(settings, weight)}


def _way_back(platform: Platform, name: str, entries: Sequence[Entry], manifest: str | None) -> tuple[Alias, str, str]:
    """Which alias leaves which version for which."""
    now = standing(entries)
    if now.champion is None:
        raise RolloutRefused(name, "rollback", "no version of it was ever promoted")
    champion = now.champion.to_manifest
    challenger = now.challenger.to_manifest if now.challenger else None
    if challenger and (manifest is None or _names(manifest, challenger)):
        return "challenger", challenger, champion
    if manifest is not None and not _names(manifest, champion):
        answers = f"the champion is {champion[:SHORT_DIGITS]}" + (
            f", the challenger {challenger[:SHORT_DIGITS]}" if challenger else ""
        )
        raise RolloutRefused(name, "rollback", f"{manifest[:SHORT_DIGITS]} answers nobody now; {answers}")
    last = next(each for each in reversed(entries) if each.action in MOVES)
    if manifest is None and (gone := rolled_back(last)) is not None:
        # Who asks for a rollback a second after the automatic one means the same version, not the one before it.
        raise RolloutRefused(
            name,
            "rollback",
            f"{gone[:SHORT_DIGITS]} was sent back already, at {told_time(last.at)} by {last.actor}: {last.reason}. To "
            f"send the champion back too, name it: `--manifest {champion[:SHORT_DIGITS]}`",
        )
    away = sent_back(entries)
    for entry in reversed(entries):
        before = entry.to_manifest
        is_other = entry.alias == "champion" and entry.action in MOVES and before != champion
        if is_other and before not in away and (platform.bundles / before).is_dir():
            return "champion", champion, before
    raise RolloutRefused(name, "rollback", "no champion before this one is there that was not sent back itself")


def _names(named: str, digest: str) -> bool:
    return len(named) >= SHORT_DIGITS and digest.startswith(named)


def _made(entry: Entry, version: str) -> bool:
    return entry.to_manifest == version and "recipe" in entry.evidence and entry.action != "roll_back"
