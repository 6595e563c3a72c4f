"""What is wrong with how models behaved: findings, from figures and from what is usual.

Each rule says in its docstring what earns its bound. What few answers could show by chance is never a finding.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.behaviour.behaviour import Behaviour, normal_995
from mlplatform.monitoring.behaviour.usual import Usual
from mlplatform.monitoring.breaker_log import BreakerTransition
from mlplatform.monitoring.finding import Finding, Layer
from mlplatform.monitoring.prediction_log import phases

LAYER: Layer = "model_behaviour"

steady_answers = 20
"""Answers that a stretch of time must have had each day before: with 20 expected, none at all comes by chance once in
half a billion."""

days_steady = 7
"""Days in a row that show whether traffic is steady."""

weeks_steady = 3
"""The same weekday of so many weeks shows it too: a shop that is closed on Sundays."""

rare_answers = 30.0
"""Answers of the rarest class that are expected, at the least share that any day had, before their absence says
anything: with 30 expected, none comes by chance once in 10^13; days that hang together are covered by that."""

openings_many = 3
"""A breaker that opens so often on a day is no hiccup, though it is closed at the end."""

dropped_much = 0.01
"""Share of answers missing from the log from which the figures of a day are in doubt."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What one breaker did."""

    model: str
    """`domain/model`."""

    manifest: str
    breaker: str
    times: int
    """Over all gateways."""

    still: int
    """Gateways on which it is not closed at the end."""

    reason: str
    """Of the last opening."""


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """The interval of a share that is wrong once in 200 on each side.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Examples
    --------
    >>> [round(each, 3) for each in wilson(30, 300)], wilson(0, 0)
    ([0.064, 0.154], (0.0, 1.0))
    """
    if not rows:
        return 0.0, 1.0
    share, spread = hits / rows, normal_995**2 / rows
    centre = (share + spread / 2.0) / (1.0 + spread)
    reach = normal_995 * sqrt(share * (1.0 - share) / rows + spread / (4.0 * rows)) / (1.0 + spread)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def opened(transitions: Iterable[BreakerTransition]) -> list[Opened]:
    """What breakers did that opened, those that still are first."""
    by_breaker: dict[tuple[str, str, str], list[BreakerTransition]] = {}
    for each in sorted(transitions, key=lambda each: each.at):
        by_breaker.setdefault((each.model, each.manifest, each.breaker), []).append(each)
    found = []
    for (model, manifest, breaker), told in by_breaker.items():
        openings = [each for each in told if each.after == "open"]
        last = {each.gateway: each.after for each in told}
        if openings:
            still = sum(state in ("open", "half_open") for state in last.values())
            found.append(
                Opened(
                    model=model,
                    manifest=manifest,
                    breaker=breaker,
                    times=len(openings),
                    still=still,
                    reason=openings[-1].reason,
                )
            )
    return sorted(found, key=lambda each: (-each.still, -each.times, each.model, each.breaker))


def findings_of(
    domain: Domain, spec: ModelSpec, day: str, found: Behaviour, usual: Usual | None, *, whole_day: bool = True
) -> list[Finding]:
    """What is wrong with how one model, version and arm behaved.

    Parameters
    ----------
    spec : as the domain declares it now
    usual : None: nothing to compare with
    whole_day : False: of a window within a day, whose scores have no usual values; only what needs none is judged
    """
    # Shadow rows are nobody's answers, and who rolls out judges them.
    if found.is_shadow:
        return []
    told = _Told(domain, spec, day, found)
    findings = [*_fallback_share(told), *_latency(told), *_constant_scores(told, usual)]
    if whole_day and usual is not None and _enough(told, usual):
        findings += _estimated_performance(told, usual)
        worse = {each.rule for each in findings} & {"estimated_performance", "constant_scores"}
        findings += _score_shift(told, usual, harmful=bool(worse))
    return findings


@dataclass(frozen=True)
class _Told:
    """What every finding of one behaviour has in common."""

    domain: Domain
    spec: ModelSpec
    day: str
    found: Behaviour

    @property
    def min_rows(self) -> float:
        return self.spec.monitoring.min_rows.value

    @property
    def answers(self) -> int:
        return self.found.count("answers")

    def finding(self, rule: str, summary: str, *, value: float, bound: float, harmful: bool = True) -> Finding:
        arm = "" if self.found.arm == "champion" else f" as {self.found.arm}"
        return Finding(
            layer=LAYER,
            rule=rule,
            subject=f"{self.domain.name}/{self.spec.name}",
            day=self.day,
            manifest=self.found.manifest,
            summary=f"{self.found.manifest[:12]}{arm}: {summary}",
            harmful=harmful,
            figures={"value": value, "bound": bound, "answers": float(self.answers)},
        )


def _fallback_share(told: _Told) -> Iterator[Finding]:
    """More answers without the model than `max_fallback_share`, so surely that the interval of the share is above it.

    Declared: it is what users bear, and no past makes it bearable.
    """
    fallbacks, bound = told.found.count("fallbacks"), told.spec.monitoring.max_fallback_share.value
    low, _ = wilson(fallbacks, told.answers)
    if told.answers < told.min_rows or low <= bound:
        return
    tiers = ", ".join(
        f"{tier} {share:.1%}" for tier, share in told.found.parts("source_share").items() if tier != "model"
    )
    reasons = told.found.parts("reason")
    why = f"; most often: {next(iter(reasons))}" if reasons else ""
    yield told.finding(
        "fallback_share",
        f"{fallbacks / told.answers:.1%} of {told.answers:,} answers were not the model's ({tiers}), more than "
        f"{bound:.1%}{why}. Look at the model workers and at the online store",
        value=fallbacks / told.answers,
        bound=bound,
    )


def _latency(told: _Told) -> Iterator[Finding]:
    """More answers past the deadline than `max_late_share`, so surely that the interval of the share is above it."""
    figure, bound = told.found.figure("late"), told.spec.monitoring.max_late_share.value
    if figure is None or told.answers < told.min_rows or wilson(int(figure.value), told.answers)[0] <= bound:
        return
    late, deadline = figure.value, figure.high or 0.0
    slowest = max(phases[:-1], key=lambda phase: told.found.parts("latency_ms").get(f"{phase} p99", 0.0))
    yield told.finding(
        "latency",
        f"{late / told.answers:.1%} of {told.answers:,} answers took longer than the deadline of {deadline:.0f} ms, "
        f"more than {bound:.1%}; p99 {told.found.value('latency_ms', 'total p99'):.0f} ms, most of it in {slowest} "
        f"({told.found.value('latency_ms', f'{slowest} p99'):.0f} ms). Look at the load, and at that phase",
        value=late / told.answers,
        bound=bound,
    )


def _constant_scores(told: _Told, usual: Usual | None) -> Iterator[Finding]:
    """Scores that no working model gives: not finite, all one value, or one class only where every day had others."""
    answers = told.found.count("model_answers")
    if broken := told.found.count("not_finite"):
        yield told.finding(
            "constant_scores",
            f"{broken:,} of {answers:,} answers of the model have a score that is no number. Replay one of them",
            value=broken / answers,
            bound=0.0,
        )
        return
    if answers < told.min_rows or usual is None:
        return
    if told.found.count("distinct_scores") == 1 and len(usual.edges) > 1:
        yield told.finding(
            "constant_scores",
            f"all {answers:,} scores are {told.found.value('score', 'mean'):.4g}. Look at the features that were "
            "served: most likely they are the same, or missing, in every row",
            value=1.0,
            bound=2.0,
        )
        return
    predicted = told.found.parts("predicted")
    expected = usual.rarest_class * answers
    if len(predicted) == 1 and expected >= rare_answers:
        yield told.finding(
            "constant_scores",
            f"all {answers:,} predictions are {next(iter(predicted))}; on every day of the evaluation at least "
            f"{usual.rarest_class:.1%} were another class. Look at the features that were served, and at `decision`",
            value=0.0,
            bound=usual.rarest_class,
        )


def _enough(told: _Told, usual: Usual) -> bool:
    """Whether it was a day like those it is held against: rows, and hours. One that began at noon is not."""
    return told.found.count("model_answers") >= told.min_rows and 2 * told.found.count("hours") >= usual.hours


def _estimated_performance(told: _Told, usual: Usual) -> Iterator[Finding]:
    """An expected log loss that is higher than on any usual day, by more than its rows may show by chance.

    The bound is made of daily values (`usual.band`). Better than usual is no harm; what made it so is told by
    `score_shift`.
    """
    loss = told.found.figure("estimated", "log_loss")
    if loss is None or loss.low is None or "log_loss" not in usual.bands:
        return
    bound = usual.bands["log_loss"].high
    at_evaluation = usual.evaluation["log_loss"]
    if loss.low > bound:
        yield told.finding(
            "estimated_performance",
            f"log loss is estimated at {loss.value:.4f} from the scores of {told.found.count('model_answers'):,} "
            f"answers; usual days stay below {bound:.4f}, and the evaluation's was estimated at "
            f"{at_evaluation.estimated:.4f} (it was {at_evaluation.truth:.4f}). Labels will tell; look at the features "
            "that have changed",
            value=loss.value,
            bound=bound,
        )


def _score_shift(told: _Told, usual: Usual, *, harmful: bool) -> Iterator[Finding]:
    """A mean score outside of every usual day. Days differ for good reasons, so alone it is shown and wakes nobody."""
    if "mean_score" not in usual.bands:
        return
    band = usual.bands["mean_score"]
    mean = told.found.figure("score", "mean")
    if mean is None or mean.low is None or mean.high is None or (mean.low <= band.high and mean.high >= band.low):
        return
    yield told.finding(
        "score_shift",
        f"the mean score is {mean.value:.4g}; usual days lie between {band.low:.4g} and {band.high:.4g}. "
        + ("It comes with scores that are worse" if harmful else "The scores may be right: labels will tell"),
        value=mean.value,
        bound=band.low if mean.value < band.low else band.high,
        harmful=harmful,
    )


def breaker_findings(day: str, breakers: Iterable[Opened]) -> Iterator[Finding]:
    """Breakers that opened. One that is closed again did what it is for: harmful are those that are not, or keep on."""
    for each in breakers:
        harmful = bool(each.still) or each.times >= openings_many
        now = f"still open on {each.still} gateway workers" if each.still else "closed again"
        yield Finding(
            layer=LAYER,
            rule="breaker_open",
            subject=each.model,
            day=day,
            manifest=each.manifest,
            summary=f"the breaker of {each.breaker} opened {each.times} times, {now}: {each.reason}. "
            "Look at what it guards",
            harmful=harmful,
            figures={"value": float(each.times), "bound": float(openings_many), "still": float(each.still)},
        )


def is_steady(before: Mapping[int, float]) -> bool:
    """Whether so much comes in a stretch of time, day after day, that nothing at all means something.

    Parameters
    ----------
    before : how many days ago (1: the day before) -> answers in the same stretch; a day that nobody knows of is absent

    Examples
    --------
    >>> is_steady({day: 50 for day in range(1, 8)}), is_steady({day: 50 for day in range(1, 5)})
    (True, False)
    >>> on_a_sunday = {day: 0 if day % 7 == 0 else 50 for day in range(1, 28)}
    >>> on_a_monday = {day: 0 if day % 7 == 1 else 50 for day in range(1, 28)}
    >>> is_steady(on_a_sunday), is_steady(on_a_monday)
    (False, True)
    """
    # A silence that goes on is the same one: what counts is how it was before it began.
    last = next((day for day in range(1, days_steady + 1) if before.get(day, 0)), 1)
    in_a_row = [before.get(day, 0) for day in range(last, last + days_steady)]
    same_weekday = [before.get(7 * week, 0) for week in range(1, weeks_steady + 1)]
    return min(in_a_row) >= steady_answers or min(same_weekday) >= steady_answers


def no_traffic(domain: Domain, model: str, day: str, before: Mapping[int, float], *, stretch: str) -> Finding | None:
    """No answer at all, where there were some every day before; the bound is the traffic that there was.

    Parameters
    ----------
    model : its name
    before : see `is_steady`
    stretch : in words, what had no answer
    """
    if not is_steady(before):
        return None
    usual = sorted(before.values())[len(before) // 2]
    return Finding(
        layer=LAYER,
        rule="no_traffic",
        subject=f"{domain.name}/{model}",
        day=day,
        summary=f"nothing was answered {stretch}; usual are some {usual:,.0f} answers. Look whether the gateways run, "
        "whether anybody asks them, and whether the log is picked up",
        figures={"value": 0.0, "bound": float(steady_answers), "usual": float(usual)},
    )


def log_dropped(domain: Domain, day: str, dropped: int, answers: int) -> Finding | None:
    """Answers that could not be logged. None is usual; from one in a hundred on the figures of the day are in doubt."""
    if not dropped:
        return None
    share = dropped / (dropped + answers)
    return Finding(
        layer=LAYER,
        rule="log_dropped",
        subject=f"{domain.name}/prediction_log",
        day=day,
        summary=f"{dropped:,} answers ({share:.2%}) were given and could not be logged. Look at the gateways' disk",
        harmful=share >= dropped_much,
        figures={"value": float(dropped), "bound": 0.0, "share": share},
    )
