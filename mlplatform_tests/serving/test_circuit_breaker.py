"""The breaker: against a slow model of itself over random histories, and each rule of resilience4j's alone."""

import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlplatform.domain.serving import BreakerSettings, CountWindow, TimeWindow
from mlplatform.errors import DeclarationError
from serving.circuit_breaker import CircuitBreaker, Permit, Transition

QUICK, SLOW = 0.1, 0.2
"""Seconds that calls take here; the threshold is QUICK itself."""

SETTINGS = BreakerSettings(
    failure_rate=0.5,
    slow_rate=0.8,
    slow_after=timedelta(seconds=QUICK),
    window=CountWindow(calls=10),
    minimum_calls=4,
    open_for=timedelta(seconds=8),
    open_growth=2,
    open_at_most=timedelta(seconds=60),
    jitter=0,
    probes=3,
    half_open_at_most=None,
)


class Bench:
    """A breaker with the time and the dice in our hands."""

    def __init__(self, **changed: Any) -> None:
        self.now = 1000.0
        self.dice = 0.5
        self.told: list[Transition] = []
        self.breaker = CircuitBreaker(
            "model",
            replace(SETTINGS, **changed),
            clock=lambda: self.now,
            random=lambda: self.dice,
            on_transition=self.told.append,
        )

    @property
    def state(self) -> str:
        """As a plain word: that it changes between two looks is the point."""
        return self.breaker.state

    def permit(self) -> Permit:
        permit = self.breaker.permit()
        assert permit is not None
        return permit

    def calls(self, outcomes: str) -> None:
        """One call for each letter: `.` good, `f` failed, `s` slow, `b` both."""
        for outcome in outcomes:
            permit = self.permit()
            took = SLOW if outcome in "sb" else QUICK
            if outcome in "fb":
                permit.failed(took)
            else:
                permit.succeeded(took)

    def opened(self) -> "Bench":
        self.calls("ffff")
        assert self.state == "open"
        return self

    def half_opened(self) -> Permit:
        """Past the wait; the first probe."""
        self.now += self.breaker.retry_after() + 0.001
        return self.permit()

    @property
    def path(self) -> list[str]:
        return [each.after for each in self.told]


class TestClosed:
    @pytest.mark.parametrize(
        ("outcomes", "state"),
        [
            ("fff", "closed"),  # fewer than the minimum of calls
            ("ffff", "open"),
            ("ff..", "open"),  # at the threshold, told by a good call
            ("f...", "closed"),
            ("...ss.s.ss", "closed"),
            ("sss.", "closed"),  # slow 0.75
            ("ssss", "open"),
            ("f.sssss.s", "closed"),  # each rate below its own threshold, though most calls were one or the other
            ("bs..", "closed"),
            ("bf..", "open"),
        ],
    )
    def test_rates_trip_separately_at_their_threshold(self, outcomes: str, state: str) -> None:
        """Over at least the minimum of calls, a failure rate or a slow rate that reaches its threshold opens it."""
        bench = Bench()
        bench.calls(outcomes)
        assert bench.state == state

    def test_forgets_the_oldest_call(self) -> None:
        """A count window holds its number of calls: failures that left it count no more."""
        bench = Bench(window=CountWindow(calls=4))
        bench.calls("..f." + "..f." + "....f..." + "ff")
        assert bench.path == ["open"]

        bench = Bench(window=CountWindow(calls=4))
        bench.calls("..f....f....f....f")
        assert bench.path == []

    def test_smaller_window_lowers_the_minimum(self) -> None:
        """A count window below the minimum of calls decides when it is full."""
        bench = Bench(window=CountWindow(calls=2), minimum_calls=50)
        bench.calls(".f")
        assert bench.state == "open"

    def test_time_window_forgets_by_the_second(self) -> None:
        """The running second and those before it count; what fell out does not, however many calls came since."""
        bench = Bench(window=TimeWindow(seconds=3))
        bench.now = 1000.9
        bench.calls("fff")
        bench.now = 1002.9
        bench.calls(".")
        assert bench.path == ["open"]

        bench = Bench(window=TimeWindow(seconds=3))
        bench.now = 1000.9
        bench.calls("fff")
        bench.now = 1003.0
        bench.calls("...")
        bench.now = 5000.0
        bench.calls("ff.")
        assert bench.path == []
        bench.calls(".")
        assert bench.path == ["open"]

    def test_exactly_the_threshold_is_not_slow(self) -> None:
        """Slow is strictly longer."""
        bench = Bench()
        for _ in range(10):
            bench.permit().succeeded(QUICK)
        assert bench.state == "closed"

    def test_thirds_and_tenths_trip_exactly(self) -> None:
        """A share equal to the declared one trips, whatever floating point makes of its product with the total."""
        bench = Bench(failure_rate=0.7, minimum_calls=10)
        bench.calls("...fffffff")
        assert bench.state == "open"

    def test_cancelled_call_says_nothing(self) -> None:
        """It is in no rate, neither as good nor as bad."""
        bench = Bench()
        bench.calls("fff")
        bench.permit().cancelled()
        assert bench.state == "closed"
        bench.calls("f")
        assert bench.state == "open"


class TestOpen:
    def test_nobody_until_strictly_after_the_wait(self) -> None:
        """At the end of the wait itself nobody is let through; after it the next who asks is the first probe."""
        bench = Bench().opened()
        assert bench.breaker.retry_after() == 8.0
        bench.now += 8
        assert bench.breaker.permit() is None
        assert bench.breaker.retry_after() == 0.0
        bench.now += 0.001
        assert bench.state == "open"
        assert bench.breaker.permit() is not None
        assert bench.path == ["open", "half_open"]

    def test_waits_grow_and_closing_forgets_it(self) -> None:
        """Each opening without a closing waits twice as long, up to the most; after a closing it starts again."""
        bench = Bench().opened()
        waits = [bench.breaker.retry_after()]
        for _ in range(4):
            probe = bench.half_opened()
            probe.failed(QUICK)
            bench.calls("ff")
            waits.append(bench.breaker.retry_after())
        assert waits == [8, 16, 32, 60, 60]
        bench.half_opened().succeeded(QUICK)
        bench.calls("..")
        assert bench.state == "closed"
        bench.opened()
        assert bench.breaker.retry_after() == 8

    def test_waits_have_an_end_after_years(self) -> None:
        """A back-off of thousands of openings is the longest wait, not an overflow."""
        bench = Bench(probes=1, open_growth=100).opened()
        for _ in range(2000):
            bench.half_opened().failed(QUICK)
        assert bench.breaker.retry_after() == 60

    @pytest.mark.parametrize(("dice", "wait"), [(0.0, 6.0), (0.5, 8.0), (0.75, 9.0), (0.999, 9.996)])
    def test_jitter_spreads_around_the_wait(self, dice: float, wait: float) -> None:
        """A jitter of a quarter draws from three quarters to five quarters of the wait."""
        bench = Bench(jitter=0.25)
        bench.dice = dice
        bench.opened()
        assert bench.breaker.retry_after() == pytest.approx(wait)

    def test_no_jitter_beyond_the_most(self) -> None:
        """The longest wait holds for the drawn one too."""
        bench = Bench(jitter=0.5, open_at_most=timedelta(seconds=9))
        bench.dice = 0.9
        bench.opened()
        assert bench.breaker.retry_after() == 9

    def test_late_results_count_nowhere(self) -> None:
        """What was asked before the opening is no probe: neither its result nor its cancelling."""
        bench = Bench()
        early = [bench.permit() for _ in range(8)]
        bench.opened()
        early.pop().failed(QUICK)
        bench.half_opened().succeeded(QUICK)
        for each in early[:4]:
            each.failed(QUICK)
        for each in early[4:]:
            each.cancelled()
        bench.permit()
        bench.permit()
        assert bench.breaker.permit() is None
        assert bench.state == "half_open"


class TestHalfOpen:
    def test_lets_its_probes_through_and_nobody_else(self) -> None:
        """As many permits as probes, until they are judged."""
        bench = Bench().opened()
        first = bench.half_opened()
        second, third = bench.permit(), bench.permit()
        assert bench.breaker.permit() is None
        first.succeeded(QUICK)
        second.succeeded(QUICK)
        assert bench.breaker.permit() is None
        third.failed(QUICK)
        assert bench.path == ["open", "half_open", "closed"]

    @pytest.mark.parametrize(
        ("outcomes", "state"), [("f..", "closed"), ("ff.", "open"), ("sss", "open"), ("ss.", "closed")]
    )
    def test_rates_of_the_probes_decide(self, outcomes: str, state: str) -> None:
        """The same thresholds over the probes close it or open it again; fewer results decide nothing."""
        bench = Bench().opened()
        bench.half_opened().cancelled()
        bench.calls(outcomes[:2])
        assert bench.state == "half_open"
        bench.calls(outcomes[2])
        assert bench.state == state

    def test_minimum_below_the_probes_decides_sooner(self) -> None:
        """With a minimum of two calls two probes are enough."""
        bench = Bench(minimum_calls=2)
        bench.calls("ff")
        bench.half_opened().succeeded(QUICK)
        bench.calls(".")
        assert bench.state == "closed"

    def test_cancelled_probe_gives_its_permit_back(self) -> None:
        """Cancelled probes are replaced by others, as often as it happens."""
        bench = Bench().opened()
        probe = bench.half_opened()
        for _ in range(10):
            probe.cancelled()
            probe = bench.permit()
        others = [bench.permit(), bench.permit()]
        assert bench.breaker.permit() is None
        for each in [probe, *others]:
            each.succeeded(QUICK)
        assert bench.state == "closed"

    def test_starts_with_an_empty_window_when_closed(self) -> None:
        """Failures of the probes, or of before, are not held against what has come back."""
        bench = Bench(failure_rate=0.4).opened()
        bench.half_opened().failed(QUICK)
        bench.calls("..")
        assert bench.state == "closed"
        bench.calls("fff")
        assert bench.state == "closed"
        bench.calls("f")
        assert bench.state == "open"

    def test_opens_again_without_a_verdict(self) -> None:
        """Probes that never end do not keep everybody out for ever: it opens as of that moment, for longer."""
        bench = Bench(half_open_at_most=timedelta(seconds=5)).opened()
        hanging = bench.half_opened()
        began = bench.now
        bench.now = began + 4.999
        assert bench.state == "half_open"
        bench.now = began + 6
        hanging.succeeded(6)
        assert bench.state == "open"
        assert bench.told[-1].at == began + 5
        assert bench.breaker.retry_after() == 15
        bench.now = began + 5 + 16.001
        assert bench.breaker.permit() is not None
        assert bench.state == "half_open"


class TestByHand:
    def test_forced_open_lets_nobody_through(self) -> None:
        """However long ago, until it is reset."""
        bench = Bench()
        running = bench.permit()
        bench.breaker.force_open()
        bench.now += 1e6
        running.succeeded(QUICK)
        assert bench.breaker.permit() is None
        assert bench.breaker.retry_after() == 60
        bench.breaker.reset()
        bench.calls("....")
        assert bench.path == ["forced_open", "closed"]

    def test_disabled_records_nothing(self) -> None:
        """Everybody is let through, and nothing opens it."""
        bench = Bench()
        bench.breaker.disable()
        bench.calls("f" * 100)
        assert bench.state == "disabled"
        bench.breaker.reset()
        bench.calls("fff")
        assert bench.state == "closed"

    def test_metrics_only_tells_once_of_each_rate(self) -> None:
        """Everybody is let through; that it would open is told once for failures, once for slow calls."""
        bench = Bench()
        bench.breaker.metrics_only()
        bench.calls("f" * 20)
        bench.calls("s" * 20)
        bench.calls("b" * 20)
        assert bench.path == ["metrics_only"] * 3
        assert ["failure rate" in each.reason for each in bench.told[1:]] == [True, False]
        assert ["slow rate" in each.reason for each in bench.told[1:]] == [False, True]

    def test_told_transition_reads_as_a_sentence(self) -> None:
        """A log line says from where to where, and why."""
        bench = Bench().opened()
        assert str(bench.told[0]) == (
            "closed -> open: failure rate 1.00 of 4 calls, threshold 0.5; next probe in 8.0 s"
        )
        bench.breaker.reset()
        assert str(bench.told[1]) == "open -> closed: reset"


@pytest.mark.parametrize("first", ["succeeded", "failed", "cancelled"])
@pytest.mark.parametrize("second", ["succeeded", "failed", "cancelled"])
def test_permit_takes_one_result(first: str, second: str) -> None:
    """A second result of one call is a fault of the caller, and counts nowhere."""
    bench = Bench().opened()
    permit = bench.half_opened()

    def tell(outcome: str) -> None:
        getattr(permit, outcome)(*([] if outcome == "cancelled" else [QUICK]))

    tell(first)
    with pytest.raises(RuntimeError, match="one result"):
        tell(second)
    remaining = 3 if first == "cancelled" else 2
    assert sum(bench.breaker.permit() is not None for _ in range(5)) == remaining


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_rate": 0},
        {"failure_rate": 50},
        {"failure_rate": float("nan")},
        {"slow_rate": 1.01},
        {"minimum_calls": 0},
        {"open_for": timedelta(0)},
        {"open_growth": 0.5},
        {"open_at_most": timedelta(seconds=1)},
        {"jitter": 1.1},
        {"probes": 0},
        {"half_open_at_most": timedelta(0)},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    """When they are declared, by name."""
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)
    with pytest.raises(DeclarationError, match="window"):
        CountWindow(calls=0)
    with pytest.raises(DeclarationError, match="window"):
        TimeWindow(seconds=0)


@dataclass(frozen=True)
class Ended:
    """A result as the model below remembers it."""

    second: int
    failed: bool
    slow: bool


class Model:
    """The breaker written for the eye: it keeps every result of a period, and counts them anew each time."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.enter("closed", openings=0)

    def enter(self, state: str, *, openings: int, until: float | None = None) -> None:
        self.state, self.openings, self.until = state, openings, until
        self.results: list[Ended] = []
        self.given = self.returned = 0
        self.period = object()

    def open(self, at: float, dice: float) -> None:
        settings = self.settings
        wait = settings.open_for.total_seconds()
        for _ in range(self.openings):
            wait *= settings.open_growth
        wait += wait * settings.jitter * (2 * dice - 1)
        until = at + min(wait, settings.open_at_most.total_seconds())
        self.enter("open", openings=self.openings + 1, until=until)

    def pass_time(self, now: float, dice: float) -> None:
        if self.state == "half_open" and self.until is not None and now >= self.until:
            self.open(self.until, dice)

    def permit(self, now: float) -> bool:
        if self.state == "open" and self.until is not None and now > self.until:
            at_most = self.settings.half_open_at_most
            until = None if at_most is None else now + at_most.total_seconds()
            self.enter("half_open", openings=self.openings, until=until)
        if self.state == "half_open":
            if self.given - self.returned >= self.settings.probes:
                return False
            self.given += 1
            return True
        return self.state in ("closed", "disabled", "metrics_only")

    def judged(self, now: float) -> Sequence[Ended]:
        window = self.settings.window
        if self.state == "half_open":
            return self.results
        if isinstance(window, CountWindow):
            return self.results[-window.calls :]
        return [each for each in self.results if each.second > int(now) - window.seconds]

    def minimum(self) -> int:
        most = [self.settings.minimum_calls]
        if self.state == "half_open":
            most.append(self.settings.probes)
        elif isinstance(self.settings.window, CountWindow):
            most.append(self.settings.window.calls)
        return min(most)

    def result(self, now: float, failed: bool, slow: bool, dice: float) -> None:
        if self.state not in ("closed", "half_open", "metrics_only"):
            return
        self.results.append(Ended(int(now), failed, slow))
        judged = self.judged(now)
        if len(judged) < self.minimum():
            return
        failures = sum(each.failed for each in judged) / len(judged)
        slows = sum(each.slow for each in judged) / len(judged)
        trips = failures >= self.settings.failure_rate or slows >= self.settings.slow_rate
        if self.state == "metrics_only":
            return
        if trips:
            self.open(now, dice)
        elif self.state == "half_open":
            self.enter("closed", openings=0)


windows = st.one_of(
    st.integers(1, 8).map(lambda calls: CountWindow(calls=calls)),
    st.integers(1, 4).map(lambda seconds: TimeWindow(seconds=seconds)),
)
shares = st.sampled_from([0.1, 0.3, 1 / 3, 0.5, 0.7, 1.0])
declared = st.builds(
    BreakerSettings,
    failure_rate=shares,
    slow_rate=shares,
    slow_after=st.just(timedelta(seconds=QUICK)),
    window=windows,
    minimum_calls=st.integers(1, 6),
    open_for=st.just(timedelta(seconds=2)),
    open_growth=st.sampled_from([1.0, 2.0, 4.0]),
    open_at_most=st.sampled_from([timedelta(seconds=2), timedelta(seconds=12)]),
    jitter=st.sampled_from([0.0, 0.5, 1.0]),
    probes=st.integers(1, 4),
    half_open_at_most=st.sampled_from([None, timedelta(seconds=3)]),
)


class BreakerAndModel(RuleBasedStateMachine):
    """The same history for both; times and dice are such that floating point holds them exactly."""

    @initialize(settings=declared)
    def begin(self, settings: BreakerSettings) -> None:
        self.now, self.dice = 0.0, 0.5
        self.told: list[Transition] = []
        self.model = Model(settings)
        self.breaker = CircuitBreaker(
            "model", settings, clock=lambda: self.now, random=lambda: self.dice, on_transition=self.told.append
        )
        self.permits: list[tuple[Permit, object]] = []

    @rule(quarters=st.integers(0, 16), dice=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
    def time_passes(self, quarters: int, dice: float) -> None:
        self.now += quarters / 4
        self.model.pass_time(self.now, self.dice)
        assert self.breaker.state == self.model.state
        self.dice = dice

    @rule(how_many=st.integers(1, 6))
    def ask(self, how_many: int) -> None:
        for _ in range(how_many):
            allowed = self.model.permit(self.now)
            permit = self.breaker.permit()
            assert (permit is not None) == allowed
            if permit is not None:
                self.permits.append((permit, self.model.period))

    @precondition(lambda self: self.permits)
    @rule(
        data=st.data(),
        outcomes=st.lists(st.sampled_from(["good", "failed", "slow", "both", "cancelled"]), min_size=1, max_size=6),
    )
    def end(self, data: st.DataObject, outcomes: list[str]) -> None:
        for outcome in outcomes[: len(self.permits)]:
            permit, period = self.permits.pop(data.draw(st.integers(0, len(self.permits) - 1)))
            current = period is self.model.period
            failed, slow = outcome in ("failed", "both"), outcome in ("slow", "both")
            if outcome == "cancelled":
                self.model.returned += current
                permit.cancelled()
                continue
            if current:
                self.model.result(self.now, failed, slow, self.dice)
            took = SLOW if slow else QUICK
            (permit.failed if failed else permit.succeeded)(took)

    @rule(state=st.sampled_from(["forced_open", "disabled", "metrics_only", "closed"]))
    def by_hand(self, state: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            "forced_open": self.breaker.force_open,
            "disabled": self.breaker.disable,
            "metrics_only": self.breaker.metrics_only,
            "closed": self.breaker.reset,
        }
        actions[state]()
        if state == "closed" or state != self.model.state:
            self.model.enter(state, openings=0)

    @invariant()
    def same(self) -> None:
        """Both are in the same state, for as long, and what was told leads there without a gap."""
        assert self.breaker.state == self.model.state
        if self.model.state == "open":
            assert self.model.until is not None
            assert self.breaker.retry_after() == max(0.0, self.model.until - self.now)
        told: list[str] = ["closed"]
        for each in self.told:
            assert each.before == told[-1]
            told.append(each.after)
        assert told[-1] == self.model.state


TestAgainstItsModel = BreakerAndModel.TestCase
TestAgainstItsModel.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)


def test_costs_microseconds() -> None:
    """A permit and its result cost some 2 µs; the bound is wide, since test machines are busy."""
    breaker = Bench(window=CountWindow(calls=100)).breaker

    def call() -> None:
        permit = breaker.permit()
        assert permit is not None
        permit.succeeded(QUICK)

    assert min(timeit.repeat(call, number=2000, repeat=5)) / 2000 < 20e-6
