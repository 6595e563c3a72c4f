"""How a model that has passed its gate comes to answer everybody: step by step, each with its time to be looked at."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from mlplatform.domain.threshold import Threshold
from mlplatform.errors import DeclarationError

DAY = timedelta(days=1)

LARGEST_EXPLORATION = 0.5
"""With more of it, it could not be told from how probable an arm was whether it is that of the key."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A share of the keys, and how long it is kept at least."""

    share: float
    """Of keys that the challenger answers; 0: it scores in the shadow, and answers nobody."""

    bake: timedelta
    """A whole day sees every hour; a week sees every weekday."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The rollout of a model's challengers."""

    sticky: str | None = None
    """Request column that names the user, whose requests all go to one arm. None: the request's own id, so that each is
    drawn for itself."""

    mode: Literal["canary", "a/b"] = "canary"
    """`a/b` stays at its first share above 0 until a person ends it."""

    steps: tuple[Step, ...] = (
        Step(share=0.0, bake=DAY),
        Step(share=0.05, bake=DAY),
        Step(share=0.2, bake=DAY),
        Step(share=0.5, bake=DAY),
        Step(share=1.0, bake=timedelta(0)),
    )

    error: Threshold = Threshold(
        value=0.01, reason="of a hundred challengers that are no worse than their champion, one may be sent back"
    )
    """Probability that a challenger that does no harm is rolled back, over all figures, segments and looks."""

    doubt: Threshold = Threshold(
        value=0.05, reason="of twenty steps up by a challenger that is worse by the margin, one may be a mistake"
    )
    """Probability that a step is taken though the challenger is worse by the margin."""

    margin: Threshold | None = None
    """How much worse still counts as equal, in the unit of the gate's metric; None: the gate's own margin."""

    failures: Threshold = Threshold(
        value=0.01, reason="one answer in a hundred from the fallback chain instead of the model is felt by nobody"
    )
    """How much larger a share of failed, late or fallen-back scores still counts as equal."""

    min_pairs: Threshold = Threshold(
        value=500, reason="with fewer pairs the bounds say nothing anyway; it guards against a broken count"
    )
    """Requests that both arms have scored before a step is taken."""

    exploration: Threshold | None = None
    """Share of requests whose arm is drawn anew, whatever their key, `LARGEST_EXPLORATION` at most; None: none."""

    approval: bool = False
    """Whether a named person must approve of the manifest before it answers anybody."""

    def __post_init__(self) -> None:
        shares = [step.share for step in self.steps]
        if not shares or shares != sorted(set(shares)) or not (shares[0] >= 0 and shares[-1] <= 1):
            raise DeclarationError(
                f"a rollout has one step or more, each of a larger share than the one before, from 0 to 1; not {shares}"
            )
        if any(step.bake < timedelta(0) for step in self.steps):
            raise DeclarationError("a step of a rollout bakes for no time or longer, not for less")
        for name in ("error", "doubt"):
            if not 0 < getattr(self, name).value < 1:
                raise DeclarationError(f"a rollout's `{name}` is a probability between 0 and 1")
        # What no plan can say would be found when the rollout has started, and then by every service at once.
        if self.exploration is not None and not 0 <= self.exploration.value <= LARGEST_EXPLORATION:
            raise DeclarationError(
                f"a rollout's `exploration` is a share of requests, from 0 to {LARGEST_EXPLORATION}; "
                f"not {self.exploration.value}"
            )
