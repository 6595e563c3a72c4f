"""The retrain policy: evidence -> train, wait or refuse, with a reason in words.

A pure function, so that history can be asked what it would have done.

Invariants, each held by a test over random evidence:

* More of what asks for a training (rows, labels, drift, loss, outdated rates, age) never turns `train` into another
  outcome.
* Within the cooldown nothing trains, whatever asks for it. What is refused is refused at any time.
* Missing evidence asks for nothing, and is named.

It refuses to guess: a figure that is no number counts as missing, and a model that is served badly by too few outcomes
waits for more of them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mlplatform.domain.model import Retraining

Outcome = Literal["train", "wait", "refuse"]

Kind = Literal[
    "first",
    "rows",
    "drift",
    "loss",
    "calibration",
    "age",
    "nothing",
    "cooldown",
    "labels",
    "data",
    "features",
    "rollout",
    "unknown_partition",
]
"""What a decision turned on. A later decision of the same outcome and kind says the same again."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a model when it is decided whether to train it again."""

    new_rows: int
    """Facts of requests that the newest recipe does not hold."""

    labels: int
    """Those of them that are old enough to have their outcome."""

    newest: str = ""
    """Key of the newest recipe; empty: the model was never trained."""

    age_days: float | None = None
    """Days of data since the newest recipe. None: there is none."""

    since_days: float | None = None
    """Days on the clock since a training was last decided. None: it never was."""

    drift: float | None = None
    """Part of the model's gain that rests on values which have harmfully moved. None: nobody has looked."""

    true_rise: float | None = None
    """By what share the gate's metric is worse on outcomes than at the evaluation; below 0: better. None: unknown."""

    estimated_rise: float | None = None
    """The same, estimated before the outcomes are in; counts only while `true_rise` is unknown."""

    recalibration_gain: float | None = None
    """Share of the evaluation's loss that is lost for nothing but outdated rates. None: unknown."""

    missing: Mapping[str, str] = field(default_factory=dict)
    """Kind of evidence -> why there is none."""

    obstacle: str = ""
    """Why a training by what is there now could only fail; empty: nothing stands in its way."""

    def told(self, declared: Retraining) -> dict[str, dict[str, Any]]:
        """The inputs beside their thresholds, as they are kept."""
        bounds = {
            "new_rows": declared.new_rows.value,
            "labels": declared.labels.value,
            "drift": declared.drift.value,
            "true_rise": declared.loss_rise.value,
            "estimated_rise": declared.loss_rise.value,
            "recalibration_gain": declared.recalibration.value,
            "age_days": declared.max_age.value,
            "since_days": declared.cooldown.value,
        }
        return {name: {"value": asdict(self)[name], "threshold": bound} for name, bound in bounds.items()}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the policy says."""

    outcome: Outcome
    kind: Kind
    reason: str


def weigh(evidence: Evidence, declared: Retraining) -> Verdict:
    """Whether to train a model now.

    Parameters
    ----------
    evidence : what is known
    declared : the model's thresholds

    Examples
    --------
    >>> from mlplatform.domain.threshold import Threshold
    >>> monthly = Retraining(new_rows=Threshold(value=25_000, reason="a month"))
    >>> weigh(Evidence(new_rows=400, labels=400, newest="2013-07-01-ab", age_days=2.0), monthly).reason
    '400 of 25,000 new rows since 2013-07-01-ab; nothing else asks for a training'
    """
    asking = _asking(evidence, declared)
    if not asking:
        return Verdict(outcome="wait", kind="nothing", reason=f"{_rows(evidence, declared)}; {_quiet(evidence)}")
    kind, reason = asking[0]
    if len(asking) > 1:
        reason = f"{reason}; and {'; '.join(more for _, more in asking[1:])}"
    if left := _cooldown_left(evidence, declared):
        return Verdict(
            outcome="wait",
            kind="cooldown",
            reason=f"{reason}; but the last training is {left}, and {declared.cooldown.value:g} days lie between two",
        )
    # Harm and age are mended by outcomes alone; where there are enough rows, these are what was waited for.
    if kind not in ("first", "rows") and evidence.labels < declared.labels.value:
        told = f"{evidence.labels:,} of the {declared.labels.value:,.0f} outcomes that a training needs are known"
        return Verdict(outcome="wait", kind="labels", reason=f"{reason}; but only {told}")
    if evidence.obstacle:
        return Verdict(outcome="wait", kind="data", reason=evidence.obstacle)
    return Verdict(outcome="train", kind=kind, reason=reason)


def _asking(evidence: Evidence, declared: Retraining) -> list[tuple[Kind, str]]:
    """What asks for a training, each in words; rows first, since they need nothing else."""
    found: list[tuple[Kind, str]] = []
    if evidence.new_rows >= declared.new_rows.value:
        found.append(("rows" if evidence.newest else "first", _rows(evidence, declared)))
    if not evidence.newest:
        return found
    drift = _number(evidence.drift)
    if drift is not None and drift >= declared.drift.value:
        bound = f"{declared.drift.value:.1%}"
        found.append(("drift", f"{drift:.1%} of its gain rests on values that have moved ({bound} allowed)"))
    true, estimated = _number(evidence.true_rise), _number(evidence.estimated_rise)
    rise, whence = (true, "on outcomes") if true is not None else (estimated, "as estimated before its outcomes")
    if rise is not None and rise >= declared.loss_rise.value:
        bound = f"{declared.loss_rise.value:.0%}"
        found.append(("loss", f"the model is {rise:.0%} worse than at its evaluation, {whence} ({bound} allowed)"))
    gain = _number(evidence.recalibration_gain)
    if gain is not None and gain >= declared.recalibration.value:
        bound = f"{declared.recalibration.value:.1%}"
        found.append(("calibration", f"its rates are outdated, which costs {gain:.1%} of its loss ({bound} allowed)"))
    age = _number(evidence.age_days)
    if age is not None and age >= declared.max_age.value:
        found.append(("age", f"the model is {age:g} days of data old ({declared.max_age.value:g} allowed)"))
    return found


def _cooldown_left(evidence: Evidence, declared: Retraining) -> str:
    """How long ago the last training is, in words; empty where the cooldown is over.

    Either clock ends it: that of the data, which replays and simulations go by, or the platform's own, by which
    corrections of old days are trained on too.
    """
    if not evidence.newest:
        return ""
    ages = [each for each in (_number(evidence.age_days), _number(evidence.since_days)) if each is not None]
    longest = max(ages, default=math.inf)
    return "" if longest >= declared.cooldown.value else f"{longest:.3g} days old"


def _rows(evidence: Evidence, declared: Retraining) -> str:
    wanted, since = declared.new_rows.value, evidence.newest or "the beginning"
    if evidence.new_rows < wanted:
        return f"{evidence.new_rows:,} of {wanted:,.0f} new rows since {since}"
    return f"{evidence.new_rows:,} new rows since {since}"


def _quiet(evidence: Evidence) -> str:
    if not evidence.missing:
        return "nothing else asks for a training"
    told = "; ".join(f"{kind}: {why}" for kind, why in sorted(evidence.missing.items()))
    return f"nothing else asks for a training, as far as is known ({told})"


def _number(figure: float | None) -> float | None:
    return None if figure is None or not math.isfinite(figure) else figure
