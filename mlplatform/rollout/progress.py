"""How far the rollout of a model has come, as its ledger says, and which step is next.

There is no other state: whoever reads the ledger knows all that the one before knew, so a rollout outlives every
process that works on it. Steps are told apart by their traffic and not by their place, so a declaration that was
changed in the middle of a rollout does no harm: the next step is the first one with more traffic than now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlplatform.domain.rollout import Rollout, Step
from mlplatform.registry.ledger import MOVES, Entry, rolled_back, standing
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.rollout.plan import WHOLE


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A rollout that is under way."""

    champion: str
    """Digest of its manifest; so is `challenger`."""

    challenger: str
    recipe: str
    """Of the challenger."""

    mode: str
    """`shadow`, `canary` or `a/b`; empty: it was not started yet."""

    weight: int
    """Of the challenger, in `WHOLE`."""

    since: datetime
    """When it was started."""

    step_since: datetime
    """When the challenger was given the traffic of now. A pause changes nothing of it."""

    paused: Entry | None
    """The event that paused it; None: it is not paused."""

    last: Entry
    """Of the ledger: what the next event is decided on."""

    @property
    def started(self) -> bool:
        """Whether it has a place in the plan."""
        return bool(self.mode)


def progress(entries: Sequence[Entry]) -> Progress | None:
    """The rollout that a ledger tells of; None: none is under way.

    Parameters
    ----------
    entries : of one model, in order
    """
    now = standing(entries)
    if now.champion is None or now.challenger is None:
        return None
    begun = stepped = now.challenger
    paused = None
    for entry in entries:
        if entry.alias != "challenger" or entry.action not in MOVES:
            continue
        if entry.action in ("promote", "start"):
            begun = entry
        if entry.action in ("promote", "start", "advance"):
            stepped = entry
        if entry.action in ("promote", "start", "pause", "resume"):
            paused = entry if entry.action == "pause" else None
    return Progress(
        champion=now.champion.to_manifest,
        challenger=now.challenger.to_manifest,
        recipe=str(begun.evidence.get("recipe", "")),
        mode=now.mode,
        weight=now.weight,
        since=begun.at,
        step_since=stepped.at,
        paused=paused,
        last=entries[-1],
    )


def sent_back(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Digests of the manifests that were rolled back, and not let in again since, each with its last rollback."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if (digest := rolled_back(entry)) is not None:
            found[digest] = entry
        elif entry.action == "override":
            found.pop(entry.to_manifest, None)
    return found


def where_it_stands(entries: Sequence[Entry], digest: str) -> str:
    """What has become of a version, in a few words: `the champion`, `the challenger, canary 5 %` and so on."""
    now, under_way = standing(entries), progress(entries)
    if now.champion and now.champion.to_manifest == digest:
        return "the champion"
    if under_way and under_way.challenger == digest:
        return f"the challenger, {traffic(under_way.mode, under_way.weight)}"
    if back := [each for each in entries if rolled_back(each) == digest]:
        return f"rolled back by {back[-1].actor}: {back[-1].reason}"
    promoted = any(each.to_manifest == digest and each.action in ("promote", "finish") for each in entries)
    return "the champion of before" if promoted else "not promoted"


def told_move(entry: Entry) -> str:
    """What an event did, in a line."""
    version, back = entry.to_manifest[:SHORT_DIGITS], rolled_back(entry)
    if back is not None:
        did = f"{back[:SHORT_DIGITS]} was sent back, {version} answers"
    elif entry.action == "finish" or entry.alias == "champion":
        did = f"{version} is the champion"
    elif entry.action in ("start", "advance"):
        did = f"{version} has {traffic(str(entry.evidence['mode']), int(entry.evidence['weight']))}"
    else:
        did = f"{version}: {entry.action}"
    return f"{did} (entry {entry.number} of the ledger, by {entry.actor})"


def traffic(mode: str, weight: int) -> str:
    """What a challenger has of it, as people read it."""
    if not mode:
        return "not started"
    return f"{mode} {100 * weight / WHOLE:g} %" if weight else "shadow: it answers nobody"


def told_time(at: datetime) -> str:
    """An instant as people read it."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def weight_of(step: Step) -> int:
    """The traffic of a step, as the plan counts it."""
    return round(step.share * WHOLE)


def mode_of(settings: Rollout, weight: int) -> str:
    """What a share of the traffic is called."""
    return settings.mode if weight else "shadow"


def step_of(settings: Rollout, weight: int) -> int:
    """Place of a step among the declared ones, from 1: the last one with no more traffic; 0: all have more.

    Examples
    --------
    >>> [step_of(Rollout(), weight) for weight in (0, 500, 700, 10_000)]
    [1, 2, 2, 5]
    """
    return max((place for place, step in enumerate(settings.steps, 1) if weight_of(step) <= weight), default=0)


def next_step(settings: Rollout, now: Progress) -> Step | None:
    """The first step with more traffic than now; None: there is none, the rollout is at its last."""
    if not now.started:
        return settings.steps[0]
    return next((step for step in settings.steps if weight_of(step) > now.weight), None)


def ends_it(step: Step | None) -> bool:
    """Whether to take a step is to finish: nothing is to be seen at it, or there is none."""
    return step is None or (step.share >= 1 and not step.bake)
