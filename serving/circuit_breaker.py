"""The circuit breaker: it stops asking what fails, and asks again carefully.

Closed, it lets every call through and looks at the newest ones. From a failure rate, or a rate of slow calls, it opens:
nobody is let through for a while. Then it is half-open: a few probes are let through, and their rates close it or open
it again, for longer. The meaning of states, windows, rates and waits is resilience4j's:

- a rate is looked at when a result comes, over at least the minimum of calls, and trips at the threshold itself;
- a call is slow when it took strictly longer than the threshold, whether it failed or not;
- open becomes half-open with the first call that is asked for strictly after the wait, not by itself;
- half-open decides over as many results as there are probes, or over the minimum of calls where that is less;
- a cancelled probe gives its permit back; forced-open lets nobody through, disabled everybody and records nothing,
  metrics-only everybody and tells once of each rate when it would have opened.

One thing differs, since here a permit is an object: a result counts in the state period that gave the permit, and
nowhere else. There a failure from before the opening, told late, counts as a probe's, and a cancelled old call adds a
probe; so more calls than the declared probes would meet something that has just come back.

It refuses to know the time, to sleep, to draw random numbers and to run calls: all that is its owner's. One event loop,
or one thread, only: it holds no lock, because it never waits.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlplatform.domain.serving import BreakerSettings, CountWindow

State = Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]


@dataclass(frozen=True)
class Transition:
    """A breaker went from one state to another; from `metrics_only` to itself: it would have opened."""

    name: str
    before: State
    after: State
    at: float
    """Seconds on the breaker's clock."""

    reason: str

    def __str__(self) -> str:
        return f"{self.before} -> {self.after}: {self.reason}"


class _CountedCalls:
    """The newest `calls` results, in a ring, with their sums."""

    __slots__ = ("_next", "_ring", "calls", "failed", "slow")

    def __init__(self, calls: int) -> None:
        self._ring = bytearray(calls)
        self._next = 0
        self.calls = self.failed = self.slow = 0

    def add(self, failed: bool, slow: bool) -> None:
        ring, place = self._ring, self._next
        if self.calls == len(ring):
            old = ring[place]
            self.failed -= old & 1
            self.slow -= old >> 1
        else:
            self.calls += 1
        ring[place] = failed + 2 * slow
        self.failed += failed
        self.slow += slow
        self._next = (place + 1) % len(ring)


class _RecentCalls:
    """The results of the last `seconds`, in one bucket for each second of the clock, with their sums."""

    __slots__ = ("_buckets", "_clock", "_seconds", "calls", "failed", "slow")

    def __init__(self, seconds: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._buckets: deque[list[int]] = deque()
        self.calls = self.failed = self.slow = 0

    def add(self, failed: bool, slow: bool) -> None:
        now = int(self._clock() // 1)
        buckets = self._buckets
        while buckets and buckets[0][0] <= now - self._seconds:
            _, calls, old_failed, old_slow = buckets.popleft()
            self.calls -= calls
            self.failed -= old_failed
            self.slow -= old_slow
        if not buckets or buckets[-1][0] != now:
            buckets.append([now, 0, 0, 0])
        newest = buckets[-1]
        newest[1] += 1
        newest[2] += failed
        newest[3] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow


class _Period:
    """One stay in one state. Permits point to it: a permit of another stay counts no more."""

    __slots__ = ("calls", "minimum", "openings", "probes", "state", "told", "until")

    def __init__(
        self,
        state: State,
        *,
        calls: _CountedCalls | _RecentCalls | None = None,
        minimum: int = 0,
        openings: int = 0,
        probes: int = 0,
        until: float | None = None,
    ) -> None:
        self.state = state
        self.calls = calls
        """None: results are not recorded."""

        self.minimum = minimum
        self.openings = openings
        """How often it has opened since it was closed."""

        self.probes = probes
        """Permits left, half-open."""

        self.until = until
        """End of the wait, open; moment from which it opens again, half-open."""

        self.told: set[str] = set()
        """Rates that were told of, metrics-only."""


class Permit:
    """Leave for one call. Exactly one of its three methods is called, once, when the call has ended."""

    __slots__ = ("_breaker", "_period")

    def __init__(self, breaker: "CircuitBreaker", period: _Period) -> None:
        self._breaker = breaker
        self._period: _Period | None = period

    def succeeded(self, took: float) -> None:
        """The call answered after `took` seconds."""
        period = self._period
        if period is None:
            raise _spent()
        self._period = None
        self._breaker._record(period, False, took)

    def failed(self, took: float) -> None:
        """The call failed after `took` seconds."""
        period = self._period
        if period is None:
            raise _spent()
        self._period = None
        self._breaker._record(period, True, took)

    def cancelled(self) -> None:
        """The call says nothing about whom it asked: it was broken off, or its caller was at fault."""
        period = self._period
        if period is None:
            raise _spent()
        self._period = None
        period.probes += 1


class CircuitBreaker:
    """One breaker, for one thing that is asked.

    Parameters
    ----------
    name : what is asked, for people
    settings : when it opens, and for how long
    clock : seconds, never going back
    random : from 0 up to 1, for the jitter
    on_transition : is told of each transition, once the state has changed; must not raise
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        on_transition: Callable[[Transition], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self._clock = clock
        self._random = random
        self._on_transition = on_transition
        self._slow_after = settings.slow_after.total_seconds()
        self._failure_rate = settings.failure_rate
        self._slow_rate = settings.slow_rate
        self._period = self._watching("closed")

    @property
    def state(self) -> State:
        """The state now. Open lasts until somebody asks for a permit, even when the wait is over."""
        self._expire()
        return self._period.state

    def permit(self) -> Permit | None:
        """Leave for one call, or None: do not call."""
        period = self._period
        if period.state == "closed":
            return Permit(self, period)
        return self._careful_permit()

    def retry_after(self) -> float:
        """Seconds until it is worth asking again; 0 unless it is open, the longest wait where it is forced open."""
        self._expire()
        period = self._period
        if period.state == "forced_open":
            return self.settings.open_at_most.total_seconds()
        if period.state == "open" and period.until is not None:
            return max(0.0, period.until - self._clock())
        return 0.0

    def force_open(self) -> None:
        """Let nobody through until `reset`."""
        self._set(_Period("forced_open"))

    def disable(self) -> None:
        """Let everybody through and record nothing, until `reset`."""
        self._set(_Period("disabled"))

    def metrics_only(self) -> None:
        """Let everybody through, record, and tell when it would have opened, until `reset`."""
        self._set(self._watching("metrics_only"))

    def reset(self) -> None:
        """Close, with an empty window and the shortest wait, whatever the state."""
        self._expire()
        self._go(self._watching("closed"), "reset", self._clock())

    def _set(self, period: _Period) -> None:
        self._expire()
        if period.state != self._period.state:
            self._go(period, "set by hand", self._clock())

    def _careful_permit(self) -> Permit | None:
        self._expire()
        period = self._period
        if period.state == "open" and period.until is not None and (now := self._clock()) > period.until:
            self._half_open(period, now)
            period = self._period
        if period.state in ("closed", "disabled", "metrics_only"):
            return Permit(self, period)
        if period.state == "half_open" and period.probes > 0:
            period.probes -= 1
            return Permit(self, period)
        return None

    def _record(self, period: _Period, failed: bool, took: float) -> None:
        if period.state == "half_open":
            self._expire()
        calls = period.calls
        if period is not self._period or calls is None:
            return
        calls.add(failed, took > self._slow_after)
        total = calls.calls
        if total < period.minimum:
            return
        # A share, and not a product with the total, which is compared: 0.7 × 10 is more than 7 in floating point.
        if calls.failed / total >= self._failure_rate or calls.slow / total >= self._slow_rate:
            self._tripped(period, calls)
        elif period.state == "half_open":
            self._go(self._watching("closed"), f"{total} probes were good enough", self._clock())

    def _tripped(self, period: _Period, calls: _CountedCalls | _RecentCalls) -> None:
        reasons = {
            f"{kind} rate": f"{kind} rate {count / calls.calls:.2f} of {calls.calls} calls, threshold {threshold:g}"
            for kind, count, threshold in (
                ("failure", calls.failed, self.settings.failure_rate),
                ("slow", calls.slow, self.settings.slow_rate),
            )
            if count / calls.calls >= threshold
        }
        if period.state != "metrics_only":
            self._open(period, " and ".join(reasons.values()), self._clock())
            return
        untold = [reason for rate, reason in reasons.items() if rate not in period.told]
        period.told |= reasons.keys()
        if untold:
            reason = f"it would open: {' and '.join(untold)}"
            self._on_transition(Transition(self.name, "metrics_only", "metrics_only", self._clock(), reason))

    def _expire(self) -> None:
        """Open again where half-open has lasted too long: as of that moment, whenever it is noticed."""
        period = self._period
        if period.state == "half_open" and period.until is not None and self._clock() >= period.until:
            self._open(period, "no verdict of the probes in time", period.until)

    def _open(self, period: _Period, reason: str, at: float) -> None:
        settings = self.settings
        openings = period.openings + 1
        # Beyond some hundred openings the wait is the longest one by far, and the power would overflow.
        wait = settings.open_for.total_seconds() * settings.open_growth ** min(openings - 1, 100)
        wait *= 1 - settings.jitter + 2 * settings.jitter * self._random()
        wait = min(wait, settings.open_at_most.total_seconds())
        self._go(_Period("open", openings=openings, until=at + wait), f"{reason}; next probe in {wait:.1f} s", at)

    def _half_open(self, period: _Period, now: float) -> None:
        settings = self.settings
        at_most = settings.half_open_at_most
        half_open = _Period(
            "half_open",
            calls=_CountedCalls(settings.probes),
            minimum=min(settings.minimum_calls, settings.probes),
            openings=period.openings,
            probes=settings.probes,
            until=None if at_most is None else now + at_most.total_seconds(),
        )
        self._go(half_open, "the wait is over", now)

    def _watching(self, state: Literal["closed", "metrics_only"]) -> _Period:
        window, minimum = self.settings.window, self.settings.minimum_calls
        if isinstance(window, CountWindow):
            return _Period(state, calls=_CountedCalls(window.calls), minimum=min(minimum, window.calls))
        return _Period(state, calls=_RecentCalls(window.seconds, self._clock), minimum=minimum)

    def _go(self, period: _Period, reason: str, at: float) -> None:
        before, self._period = self._period.state, period
        self._on_transition(Transition(self.name, before, period.state, at, reason))


def _spent() -> RuntimeError:
    return RuntimeError("a permit is for one call and takes one result; ask the breaker for another one")
