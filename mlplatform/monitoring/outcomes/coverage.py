"""Whether the labels of a day came: its facts, and what they say."""

from collections.abc import Sequence
from typing import NamedTuple

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.outcomes.bounds import expected
from mlplatform.monitoring.outcomes.judge import alarms_per_week


class Coverage(NamedTuple):
    """What there is of a day's answers."""

    come: int
    """Whose case has a fact."""

    labelled: int
    """Whose fact gives a label."""

    answers: int


def coverage_finding(
    domain: Domain, model: ModelSpec, day: str, now: Coverage, earlier: Sequence[Coverage], *, manifest: str
) -> Finding | None:
    """Whether facts that are due did not come, or came without their labels.

    A fact may say that there is no label: a flight was cancelled. A day of storms has many of those, and nothing is
    wrong with the labels; more than half of the usual ones missing is more than a storm.

    Parameters
    ----------
    earlier : mature days before it, that had no such finding
    """
    if now.answers < model.monitoring.min_rows.value:
        return None
    earlier = [each for each in earlier if each.answers]
    shares = [each.come / each.answers for each in earlier]
    told = expected(
        shares,
        [each.answers for each in earlier],
        [(each * (1 - each)) ** 0.5 for each in shares],
        days=1,
        of_rows=now.answers,
        chance=alarms_per_week / 7 / len(domain.models),
    )
    usual = sum(each.labelled for each in earlier) / sum(each.answers for each in earlier) if earlier else 1.0
    # Before it is known how many are usual: half of them.
    bound = min(told.low, told.figure - model.monitoring.coverage_drop.value) if told else 0.5
    subject = f"{domain.name}/{model.name}"
    if (share := now.come / now.answers) < bound:
        before = f"{told.figure:.1%} on earlier days" if told else "no earlier day to compare with"
        summary = (
            f"{subject}: {share:.1%} of {now.answers:,} answers of {day} have their fact, though all are due "
            f"({before}, bound {bound:.1%}). Look whether {domain.requests.facts} has landed for the days after it, "
            "and whether its cases are still named as requests name them"
        )
    elif (share := now.labelled / now.answers) < (bound := usual / 2):
        summary = (
            f"{subject}: {share:.1%} of {now.answers:,} answers of {day} have a label, though their facts have come "
            f"(bound {bound:.1%}: half of what is usual). Look at what the facts of {domain.requests.facts} say"
        )
    else:
        return None
    return Finding(
        layer="outcomes",
        rule="label_coverage",
        subject=subject,
        manifest=manifest,
        day=day,
        summary=summary,
        figures={"value": share, "bound": bound, "rows": float(now.answers)},
    )
