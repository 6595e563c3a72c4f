"""The promotion gate: candidate × champion × thresholds → pass, fail or inconclusive, with a reason per rule.

The decision is data. Whoever moves an alias reads it and refuses without a pass (`rollout.promotion`). Missing
evidence, a NaN, or an interval that reaches over its limit is never a pass: it is inconclusive, and somebody must look
or wait.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.errors import DataError
from mlplatform.training.evaluation import Evaluation
from mlplatform.training.metrics import DIRECTIONS, Interval

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What one rule says."""

    rule: str
    outcome: Outcome
    observed: float | None
    """The figure that was looked at; for a comparison, the upper bound of the harm."""

    threshold: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer of the gate for one candidate against one champion, and every reason."""

    model: str
    outcome: Outcome
    candidate: str
    """Digest or recipe of the candidate."""

    champion: str | None
    """What it was compared with; None: there was no champion. A decision holds for this pair only."""

    rules: tuple[RuleResult, ...]
    decided_at: datetime

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is no pass: the reasons of the rules that did not pass."""
        return tuple(f"{each.rule}: {each.reason}" for each in self.rules if each.outcome != "pass")

    def to_json(self) -> str:
        """The decision as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Decision":
        """What `to_json` wrote.

        Raises
        ------
        DataError
            The text is no decision.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise DataError(f"this is no promotion decision ({error}); run the gate again") from error


def decide(
    spec: ModelSpec, evaluation: Evaluation, *, candidate: str, champion: str | None, decided_at: datetime
) -> Decision:
    """Judge a candidate.

    Parameters
    ----------
    spec : its `gate`, `segments` and `objectives` are the thresholds
    evaluation : the figures
    candidate, champion : digests; None without a champion
    decided_at : aware UTC

    Returns
    -------
    `fail` if any rule fails, else `inconclusive` if any is, else `pass`. Harm is how much worse the candidate is in the
    gate's metric, whichever way that metric points. A rule passes when the upper bound of the harm is at most the
    margin, fails when its lower bound is above it, and is inconclusive between. At 95 % each, a harmless candidate
    fails a single rule once in forty times.

    References
    ----------
    Piaggio et al., "Reporting of noninferiority and equivalence randomized trials", JAMA 308 (2012): margin and bound.
    """
    rules = tuple(_rules(spec, evaluation, champion))
    outcomes = {each.outcome for each in rules}
    outcome: Outcome = "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    return Decision(
        model=spec.name,
        outcome=outcome,
        candidate=candidate,
        champion=champion,
        rules=rules,
        decided_at=decided_at,
    )


def _rules(spec: ModelSpec, evaluation: Evaluation, champion: str | None) -> Iterator[RuleResult]:
    gate, metric = spec.gate, spec.gate.metric
    yield _evidence(spec, evaluation, champion)
    yield _rows(gate.min_rows, evaluation.rows)
    naive = evaluation.differences.get("naive", {}).get(metric)
    yield _better("better than naive", metric, naive)
    simple = evaluation.differences.get("simple", {}).get(metric)
    yield _not_worse("not worse than simple", metric, simple, gate.margin)
    if champion is None:
        yield _first(evaluation)
    else:
        overall = evaluation.differences.get("champion", {}).get(metric)
        yield _not_worse("not worse than champion", metric, overall, gate.margin)
        yield from _segments(spec, evaluation)
    figures = evaluation.metrics.get("candidate", {})
    if gate.max_calibration_error is not None:
        yield _calibrated(figures.get("ece"), gate.max_calibration_error)
    for name, threshold in gate.too_good.items():
        yield _not_too_good(name, figures.get(name), threshold)
    latency = evaluation.latency
    yield _at_most("latency", latency.p99_ms if latency else None, spec.objectives.p99_ms, "p99 of one row, ms")
    yield _at_least(
        "throughput", latency.rows_per_second if latency else None, spec.objectives.rows_per_second, "rows per second"
    )
    yield _parity(evaluation.parity)


def _evidence(spec: ModelSpec, evaluation: Evaluation, champion: str | None) -> RuleResult:
    """Everything an evaluation promises is there, whether or not a rule reads it: a hole is a sign of a fault."""
    missing = [] if evaluation.model == spec.name else [f"an evaluation of {spec.name} (this is of {evaluation.model})"]
    others = ["naive", "simple", *(["champion"] if champion else [])]
    for kind, tables, names in (
        ("metric", evaluation.metrics, ["candidate", *others]),
        ("difference to", evaluation.differences, others),
    ):
        for name in names:
            figures = tables.get(name, {})
            missing += [f"{kind} {name}"] if not figures else []
            missing += [f"{kind} {name} {metric}" for metric, each in figures.items() if _bounds(each) is None]
    missing += [f"importance of {name}" for name, share in evaluation.importance.items() if not _real(share)]
    for position, each in enumerate(evaluation.calibration_curve):
        missing += [] if _real(each.mean_score) and _real(each.observed) else [f"calibration curve, bin {position}"]
    if missing:
        listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        return RuleResult(
            rule="evidence", outcome="inconclusive", observed=None, threshold=None, reason=f"missing: {listed}"
        )
    return RuleResult(rule="evidence", outcome="pass", observed=None, threshold=None, reason="every figure is there")


def _rows(least: Threshold, rows: int | None) -> RuleResult:
    enough = rows is not None and rows >= least.value
    reason = f"{rows} evaluation rows, at least {least.value:g} wanted: {least.reason}"
    return RuleResult(
        rule="rows",
        outcome="pass" if enough else "inconclusive",
        observed=rows,
        threshold=least.value,
        reason=reason,
    )


def _better(rule: str, metric: str, difference: Interval | None) -> RuleResult:
    harm = _harm(metric, difference)
    if harm is None:
        return _missing(rule, 0.0, f"no interval of the difference in {metric}")
    low, high = harm
    outcome: Outcome = "pass" if high < 0 else "fail" if low >= 0 else "inconclusive"
    reason = f"harm in {metric} between {low:.5g} and {high:.5g}; it must be below 0 throughout"
    return RuleResult(rule=rule, outcome=outcome, observed=high, threshold=0.0, reason=reason)


def _not_worse(rule: str, metric: str, difference: Interval | None, margin: Threshold) -> RuleResult:
    harm = _harm(metric, difference)
    if harm is None or not _real(margin.value):
        return _missing(rule, margin.value, f"no interval of the difference in {metric}")
    low, high = harm
    outcome: Outcome = "pass" if high <= margin.value else "fail" if low > margin.value else "inconclusive"
    reason = f"harm in {metric} between {low:.5g} and {high:.5g}, margin {margin.value:g}: {margin.reason}"
    return RuleResult(rule=rule, outcome=outcome, observed=high, threshold=margin.value, reason=reason)


def _first(evaluation: Evaluation) -> RuleResult:
    rule = "not worse than champion"
    if "champion" in evaluation.metrics or "champion" in evaluation.differences:
        return _missing(rule, None, "the evaluation compares with a champion, but none was named to the gate")
    return RuleResult(
        rule=rule, outcome="pass", observed=None, threshold=None, reason="the first model: no champion yet"
    )


def _segments(spec: ModelSpec, evaluation: Evaluation) -> Iterator[RuleResult]:
    margin, metric = spec.gate.segment_margin, spec.gate.metric
    for segment in spec.segments:
        found = [each for each in evaluation.segments if each.segment == segment.name]
        judged = [each for each in found if each.judged]
        if not judged:
            yield _missing(
                f"segment {segment.name}",
                margin.value,
                f"none of its values has {segment.min_rows} rows to be judged by",
            )
        for each in found:
            rule = f"segment {segment.name} {each.value}"
            if each.judged:
                yield _not_worse(rule, metric, each.differences.get("champion", {}).get(metric), margin)
            elif not _real(each.rows) or each.rows >= segment.min_rows:
                yield _missing(rule, margin.value, f"{each.rows} rows are enough, yet it was not judged")


def _calibrated(error: Interval | None, most: Threshold) -> RuleResult:
    bounds = _bounds(error)
    if error is None or error.point is None or bounds is None:
        return _missing("calibration", most.value, "no calibration error with an interval")
    outcome: Outcome = "pass" if error.point <= most.value else "fail" if bounds[0] > most.value else "inconclusive"
    seen = f"calibration error {error.point:.4g} ({bounds[0]:.4g} to {bounds[1]:.4g})"
    reason = f"{seen}, at most {most.value:g}: {most.reason}"
    return RuleResult(rule="calibration", outcome=outcome, observed=error.point, threshold=most.value, reason=reason)


def _not_too_good(metric: str, figure: Interval | None, threshold: Threshold) -> RuleResult:
    rule, direction = f"not too good in {metric}", DIRECTIONS.get(metric)
    if figure is None or figure.point is None or not _real(figure.point) or direction is None:
        return _missing(rule, threshold.value, f"no {metric}")
    leak = figure.point >= threshold.value if direction == "higher" else figure.point <= threshold.value
    reason = f"{metric} {figure.point:.5g}; from {threshold.value:g} on a leak is likelier: {threshold.reason}"
    return RuleResult(
        rule=rule,
        outcome="fail" if leak else "pass",
        observed=figure.point,
        threshold=threshold.value,
        reason=reason,
    )


def _at_most(rule: str, observed: float | None, most: Threshold, what: str) -> RuleResult:
    if observed is None or not _real(observed):
        return _missing(rule, most.value, f"no {what}")
    reason = f"{what}: {observed:.4g}, at most {most.value:g}: {most.reason}"
    outcome: Outcome = "pass" if observed <= most.value else "fail"
    return RuleResult(rule=rule, outcome=outcome, observed=observed, threshold=most.value, reason=reason)


def _at_least(rule: str, observed: float | None, least: Threshold, what: str) -> RuleResult:
    if observed is None or not _real(observed):
        return _missing(rule, least.value, f"no {what}")
    reason = f"{what}: {observed:.0f}, at least {least.value:g}: {least.reason}"
    outcome: Outcome = "pass" if observed >= least.value else "fail"
    return RuleResult(rule=rule, outcome=outcome, observed=observed, threshold=least.value, reason=reason)


def _parity(difference: float | None) -> RuleResult:
    if difference is None or not _real(difference):
        return _missing("parity", 0.0, "the exported bundle was not compared with the trained model")
    outcome: Outcome = "pass" if difference == 0 else "fail"
    reason = f"scores of the exported bundle differ from the trained model's by at most {difference:g}"
    return RuleResult(rule="parity", outcome=outcome, observed=difference, threshold=0.0, reason=reason)


def _missing(rule: str, threshold: float | None, reason: str) -> RuleResult:
    return RuleResult(rule=rule, outcome="inconclusive", observed=None, threshold=threshold, reason=reason)


def _harm(metric: str, difference: Interval | None) -> tuple[float, float] | None:
    """Bounds of how much worse the candidate is; the sign is turned where more is better."""
    bounds, direction = _bounds(difference), DIRECTIONS.get(metric)
    if bounds is None or direction is None:
        return None
    low, high = bounds
    return (low, high) if direction == "lower" else (-high, -low)


def _bounds(figure: Interval | None) -> tuple[float, float] | None:
    """Low and high, if point, low and high are all numbers and in order."""
    if figure is None or figure.point is None or figure.low is None or figure.high is None:
        return None
    if not (_real(figure.point) and _real(figure.low) and _real(figure.high)) or figure.low > figure.high:
        return None
    return figure.low, figure.high


def _real(number: float | None) -> bool:
    return number is not None and math.isfinite(number)
