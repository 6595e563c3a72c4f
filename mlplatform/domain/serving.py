"""How calls to something that may fail are guarded: the settings of a circuit breaker, and why each is what it is.

The words and the meaning are resilience4j's; its own default is named beside each of ours. Its defaults fit a call
between services that takes seconds, ours a call over a local socket that takes milliseconds.
"""

from dataclasses import dataclass
from datetime import timedelta

from mlplatform.errors import DeclarationError

MAX_GROWTH = 100.0


@dataclass(frozen=True, kw_only=True)
class CountWindow:
    """The newest calls are looked at."""

    calls: int = 100
    """resilience4j: 100. A hundred batches tell a rate to about ten points."""

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise DeclarationError(f"a window of {self.calls} calls shows nothing. Declare one or more")


@dataclass(frozen=True, kw_only=True)
class TimeWindow:
    """The calls of the last seconds are looked at, the running one included: a call is forgotten by the second."""

    seconds: int = 60
    """Whole seconds, as resilience4j's buckets are."""

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise DeclarationError(f"a window of {self.seconds} seconds shows nothing. Declare one or more")


@dataclass(frozen=True, kw_only=True)
class BreakerSettings:
    """When something is no longer asked, for how long, and how it is tried again."""

    failure_rate: float = 0.5
    """Share of failed calls, above 0 up to 1, from which it opens. resilience4j: 50 %. Half of them is no accident."""

    slow_rate: float = 1.0
    """Share of slow calls from which it opens, whether they failed or not. resilience4j: 100 %: nothing is quick."""

    slow_after: timedelta = timedelta(seconds=1)
    """A call that takes longer, by however little, is slow. resilience4j: 60 s. A batch takes milliseconds."""

    window: CountWindow | TimeWindow = CountWindow()

    minimum_calls: int = 20
    """Calls in the window below which nothing is decided; a smaller count window, or fewer probes, take its place.
    resilience4j: 100. Here twenty, since one failure of two says nothing, and a hundred cost their callers too much."""

    open_for: timedelta = timedelta(seconds=1)
    """From opening to the first probe. resilience4j: 60 s. A killed model worker is up again within seconds."""

    open_growth: float = 2.0
    """Each opening without a closing in between waits that many times longer. resilience4j: 1, and 1.5 where
    back-off is switched on. With 2 something that is gone for good is soon left alone."""

    open_at_most: timedelta = timedelta(seconds=4)
    """No wait is longer: model workers are up again within 6 s, and the model is to be back within 10."""

    jitter: float = 0.2
    """Each wait is drawn from ± that share of itself, so that gateways do not probe in step. resilience4j: 0, and 0.5
    where it is switched on."""

    probes: int = 5
    """Calls let through half-open, whose rates decide. resilience4j: 10. Each may cost a caller the model's answer."""

    half_open_at_most: timedelta | None = timedelta(minutes=1)
    """Half-open for that long without a verdict, it opens again: a probe that never ends must not keep everybody out.
    None, as resilience4j: it waits for its probes for ever."""

    def __post_init__(self) -> None:
        wrong = {
            "failure_rate": not 0 < self.failure_rate <= 1,
            "slow_rate": not 0 < self.slow_rate <= 1,
            "slow_after": self.slow_after < timedelta(0),
            "minimum_calls": self.minimum_calls < 1,
            "open_for": self.open_for <= timedelta(0),
            "open_growth": not 1 <= self.open_growth <= MAX_GROWTH,
            "open_at_most": self.open_at_most < self.open_for,
            "jitter": not 0 <= self.jitter <= 1,
            "probes": self.probes < 1,
            "half_open_at_most": self.half_open_at_most is not None and self.half_open_at_most <= timedelta(0),
        }
        if any(wrong.values()):
            named = ", ".join(f"{name}={getattr(self, name)!r}" for name, is_wrong in wrong.items() if is_wrong)
            raise DeclarationError(
                f"a breaker cannot have {named}. Rates are shares above 0 up to 1, jitter one from 0 to 1, growth a "
                f"factor from 1 to {MAX_GROWTH:g}, counts and durations above 0, open_at_most no less than open_for"
            )
