"""The decision on a model: its evidence, what the policy says of it, and the recipe to train by.

It refuses to guess: where a training could only fail, it waits and says for what. What is decided is worth a record
when it says something new, when an event asked for it, and once a day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.features.landing.landing import landed
from mlplatform.features.tables import Tables, is_of
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.events import Event, News
from mlplatform.retraining.evidence import gather
from mlplatform.retraining.policy import Evidence, Verdict, weigh
from mlplatform.retraining.tables import Recorded, Trail
from mlplatform.training.recipe import Recipe, recipe
from mlplatform.training.split import windows

events_named = 20
"""Events whose ids, and why they are refused, stand in a decision; all that came with them are counted."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the policy says now, from which evidence, and the recipe to train by."""

    verdict: Verdict
    evidence: Evidence
    recipe: Recipe | None
    """There exactly where the outcome is `train`."""

    def waits_for(self, kind: Literal["features", "rollout"], why: str) -> "Decision":
        """The same, put off: until the features are up to date, or the rollout of a challenger has ended."""
        verdict = Verdict(outcome="wait", kind=kind, reason=f"{self.verdict.reason}; {why}")
        return replace(self, verdict=verdict, recipe=None)


def decide(
    platform: Platform, domain: Domain, model: ModelSpec, newest: Recipe | None, trained_at: datetime | None = None
) -> Decision:
    """Whether to train a model now.

    Parameters
    ----------
    newest : the recipe that was trained by last, whatever became of it; None: none yet
    trained_at : when a training was last decided; None: never
    """
    evidence = gather(platform, domain, model, newest, trained_at)
    verdict, made = weigh(evidence, model.retraining), None
    if verdict.outcome == "train":
        try:
            made = _trainable(platform, domain, model, newest)
        except DataError as error:
            evidence = replace(evidence, obstacle=str(error))
            verdict = weigh(evidence, model.retraining)
    return Decision(verdict=verdict, evidence=evidence, recipe=made)


def refused(platform: Platform, domain: Domain, events: Sequence[Event]) -> dict[str, str]:
    """Id of each event that tells of a partition which is none -> why it is none."""
    known: dict[str, set[str]] = {}
    found = {}
    for event in events:
        day, source = event.said.partition, event.said.source
        if not is_of(domain, day):
            last = f" to {domain.end}" if domain.end else " on"
            found[event.id] = f"{day} is no day of {domain.name}, which has {domain.start}{last}"
            continue
        if source not in known:
            known[source] = _days(platform, domain, source)
        if day not in known[source]:
            found[event.id] = f"nothing of {source} has landed for {day}"
    return found


def to_record(
    domain: Domain,
    model: ModelSpec,
    decision: Decision,
    before: Trail,
    *,
    read: News,
    refusals: Mapping[str, str],
    at: datetime,
) -> list[Recorded]:
    """What is to be kept of a decision: nothing where it says again what was said today.

    Parameters
    ----------
    before : what was kept so far
    read : the events that nobody has decided on
    refusals : as `refused` gives them
    """
    last = before.weighed
    trained_at = before.records[0].trained_at if before.records else None
    made = decision.recipe
    common: dict[str, Any] = {"model": f"{domain.name}/{model.name}", "at": at, "reached": read.reached}
    kept = []
    if refusals:
        told = [event for event in read.events if event.id in refusals]
        reasons = list(dict.fromkeys(refusals.values()))
        more = [f"and {len(reasons) - events_named} more"] if len(reasons) > events_named else []
        kept.append(
            Recorded(
                **common,
                outcome="refuse",
                kind="unknown_partition",
                reason="; ".join([*reasons[:events_named], *more]),
                recipe="",
                inputs={},
                events=_named(told),
                trained_at=trained_at,
            )
        )
    accepted = [event for event in read.events if event.id not in refusals]
    verdict = decision.verdict
    says_again = (
        last is not None
        and (last.outcome, last.kind, last.recipe) == (verdict.outcome, verdict.kind, made.key if made else "")
        and last.at.astimezone(UTC).date() == at.astimezone(UTC).date()
    )
    if accepted or not says_again:
        kept.append(
            Recorded(
                **common,
                outcome=verdict.outcome,
                kind=verdict.kind,
                reason=verdict.reason,
                recipe=made.key if made else "",
                inputs=decision.evidence.told(model.retraining),
                events=_named(accepted),
                trained_at=at if made else trained_at,
            )
        )
    return kept


def _trainable(platform: Platform, domain: Domain, model: ModelSpec, newest: Recipe | None) -> Recipe:
    made = recipe(platform, domain, model)
    start, as_of = (datetime.combine(date.fromisoformat(day), time(), UTC) for day in (made.start, made.as_of))
    windows(start=start, as_of=as_of, spec=model.split, gap=model.label.delay)
    if newest is not None and made.key == newest.key:
        raise DataError(f"rows are new since {newest.key}, but their features are not published yet")
    return made


def _days(platform: Platform, domain: Domain, source: str) -> set[str]:
    """Days that a source has landed, or that were taken in; of the domain's name: any source."""
    found: set[str] = set()
    for each in domain.sources:
        if source in (each.name, domain.name):
            found |= {*landed(platform, domain, each).days, *Tables(platform, domain).raw(each.name).current()}
    return found


def _named(events: Sequence[Event]) -> list[dict[str, object]]:
    """What an event said, of some of them; the last line counts the others."""
    told: list[dict[str, object]] = [
        {
            "id": each.id,
            "source": each.said.source,
            "partition": each.said.partition,
            "rows_added": each.said.rows_added,
            "dataset_version": each.said.dataset_version,
        }
        for each in events[:events_named]
    ]
    return told if len(events) <= events_named else [*told, {"more": len(events) - events_named}]
