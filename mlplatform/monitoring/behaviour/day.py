"""A day of a domain's models: how they behaved, and what is wrong with it.

What cannot be compared (a bundle that is gone, a training set that is gone, a model that is no longer declared) is told
with its reason; the figures that need neither are there all the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache

from mlplatform.domain.domain import Domain
from mlplatform.features.tables import partition_end
from mlplatform.monitoring.behaviour.behaviour import Behaviour, behaviour_of
from mlplatform.monitoring.behaviour.rescored import Rescored, rescored_finding, rescored_of_day
from mlplatform.monitoring.behaviour.rules import (
    Opened,
    breaker_findings,
    findings_of,
    log_dropped,
    no_traffic,
    opened,
)
from mlplatform.monitoring.behaviour.tables import answers_before
from mlplatform.monitoring.behaviour.usual import Usual, usual_of
from mlplatform.monitoring.breaker_log import BreakerTransition, breaker_folder, files, read
from mlplatform.monitoring.daily import answers_of_days_over, log_settles
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.pickup import dropped_on, logged
from mlplatform.provenance.platform import Platform

silent_days = 7
"""Days without any answer that are still judged after the last one with: a service that was given up stops alarming."""


@dataclass(frozen=True, kw_only=True)
class DayBehaviour:
    """What the models of a domain did on a day."""

    day: str
    behaviours: tuple[Behaviour, ...]
    rescored: tuple[Rescored, ...]
    breakers: tuple[Opened, ...]
    dropped: int
    """Answers that could not be logged."""

    findings: tuple[Finding, ...]
    """The harmful ones first."""

    @property
    def rows(self) -> int:
        """Of the log, those of shadows too."""
        return sum(each.count("answers") for each in self.behaviours)

    @property
    def answers(self) -> int:
        """Given to somebody."""
        return sum(each.count("answers") for each in self.behaviours if not each.is_shadow)

    @property
    def not_compared(self) -> list[str]:
        """In words, what there was nothing to compare with."""
        every: list[Behaviour | Rescored] = [*self.rescored, *self.behaviours]
        told = {(each.model, each.manifest): each.not_compared for each in every if each.not_compared}
        return [f"{model} {manifest[:12]}: {reason}" for (model, manifest), reason in told.items()]


def behaviour_of_day(
    platform: Platform, domain: Domain, day: str, *, observed: Iterable[BreakerTransition] = ()
) -> DayBehaviour:
    """How the models of a domain behaved on a UTC day.

    Parameters
    ----------
    observed : transitions of breakers that are known from elsewhere: the files of gateways that are gone are removed
        once they were told of
    """
    log = logged(platform, domain, day)
    remembered = cache(lambda model, manifest: usual_of(platform, domain, model, manifest))
    models = {each.name: each for each in domain.models}
    found = [] if log is None else behaviour_of(log, models, remembered)
    start = datetime.combine(datetime.fromisoformat(day), time(), UTC)
    in_files = transitions_between(platform, domain, start, partition_end(day))
    breakers = opened(_once(_of_day(observed, start, day), in_files))
    findings = [*breaker_findings(day, breakers)]
    for each in found:
        if (spec := models.get(each.model)) is not None:
            usual = remembered(each.model, each.manifest)
            findings += findings_of(domain, spec, day, each, usual if isinstance(usual, Usual) else None)
    rescored = [] if log is None else rescored_of_day(platform, log)
    findings += [differ for told in rescored if (differ := rescored_finding(domain, day, told)) is not None]
    dropped = dropped_on(platform, domain, day)
    answered = [each for each in found if not each.is_shadow]
    if (lost := log_dropped(domain, day, dropped, sum(each.count("answers") for each in answered))) is not None:
        findings.append(lost)
    findings += _silent(platform, domain, day, {each.model for each in answered})
    return DayBehaviour(
        day=day,
        behaviours=tuple(found),
        rescored=tuple(rescored),
        breakers=tuple(breakers),
        dropped=dropped,
        findings=tuple(sorted(findings, key=lambda each: not each.harmful)),
    )


def transitions_between(platform: Platform, domain: Domain, start: datetime, end: datetime) -> list[BreakerTransition]:
    """What breakers did from `start` to before `end`, by the files of this machine that are left."""
    first, last = start.timestamp() * 1e9, end.timestamp() * 1e9
    found = []
    for path in files(breaker_folder(platform.home, domain.name)):
        try:
            lines = read(path)
        except FileNotFoundError:
            continue  # told of and removed this moment: it is among the observations
        found += [each.transition for each in lines if each.transition and first <= each.transition.at < last]
    return found


def days_to_judge(platform: Platform, domain: Domain) -> dict[str, str]:
    """ISO day -> how many answers the log has of it, for the days that are over: with answers, or silent after them."""
    answers = answers_of_days_over(platform, domain)
    over = platform.clock() - log_settles
    after = {
        (date.fromisoformat(day) + timedelta(days=silent)).isoformat()
        for day in answers
        for silent in range(1, silent_days + 1)
    }
    silent = {day: "0" for day in after if partition_end(day) <= over}
    return dict(sorted((silent | answers).items()))


def _silent(platform: Platform, domain: Domain, day: str, answered: set[str]) -> list[Finding]:
    """Models that had no answer on a day and had some every day before."""
    silent = [each.name for each in domain.models if each.name not in answered]
    if not silent:
        return []
    before = answers_before(platform, domain, day)
    found = (no_traffic(domain, each, day, before.get(each, {}), stretch="all day") for each in silent)
    return [each for each in found if each is not None]


def _once(observed: Sequence[BreakerTransition], in_files: Sequence[BreakerTransition]) -> list[BreakerTransition]:
    """Each transition once: an observation tells its time in seconds, which is not to the nanosecond."""

    def names(each: BreakerTransition, moment: int) -> tuple[str, str, str, str, int]:
        return each.manifest, each.gateway, each.breaker, each.after, moment

    told = {names(each, each.at // 1_000_000 + by) for each in observed for by in (-1, 0, 1)}
    return [*observed, *(each for each in in_files if names(each, each.at // 1_000_000) not in told)]


def _of_day(observed: Iterable[BreakerTransition], start: datetime, day: str) -> Sequence[BreakerTransition]:
    first, last = start.timestamp() * 1e9, partition_end(day).timestamp() * 1e9
    return [each for each in observed if first <= each.at < last]
