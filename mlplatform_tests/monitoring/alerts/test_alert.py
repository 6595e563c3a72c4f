"""The state of alerts: one beginning, one end, nothing lost, whatever comes in whatever order."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import given, settings

from mlplatform.monitoring.alerts.alert import Alert, Look, Notice, State, step
from mlplatform.monitoring.finding import Finding

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EMPTY = State(domain="shop")


def finding(rule: str = "drift", subject: str = "shop/late", **changes: object) -> Finding:
    """Something harmful."""
    told = Finding(
        layer="data_quality", rule=rule, subject=subject, day="2024-03-01", summary="it moved", figures={"value": 1.0}
    )
    return replace(told, **changes)  # type: ignore[arg-type]  # whatever a test wants


def day(number: int, *findings: Finding, monitor: str = "data_quality") -> Look:
    """What a daily monitor said of the day after so many days."""
    return Look(monitor=monitor, since=FIRST + number * DAY, until=FIRST + (number + 1) * DAY, findings=findings)


def minutes(at: int, *findings: Finding) -> Look:
    """What a look at the last quarter of an hour said, so many minutes after the start."""
    until = FIRST + timedelta(minutes=at)
    return Look(monitor="live", since=until - timedelta(minutes=15), until=until, findings=findings)


def run(looks: Iterable[Look], state: State = EMPTY, *, hush: Sequence[str] = ()) -> tuple[State, list[str]]:
    """Hand in one look after the other, at the time at which it ends; gives what was told."""
    told = []
    for look in looks:
        state, notices = step(state, [look], look.until, lambda alert: alert.rule in hush)
        told += [f"{each.kind} {each.alert.rule}" for each in notices]
    return state, told


def test_what_goes_on_is_told_once_and_its_end_once() -> None:
    """A fault of some days begins once, is over after two days without it, and says how long it lasted."""
    state, told = run([day(0, finding()), day(1, finding()), day(2)])
    assert told == ["opened drift", "still drift"]
    assert [each.rule for each in state.open] == ["drift"]
    state, told = run([day(3), day(4)], state)
    assert told == ["over drift"]
    (alert,) = state.alerts.values()
    assert (alert.since, alert.last) == (FIRST, FIRST + 2 * DAY)


def test_flapping_is_one_alert() -> None:
    """A fault of every second day neither ends nor begins anew; one of every quarter of an hour neither."""
    assert run([day(number, *[finding()] * (number % 2)) for number in range(1, 9)])[1].count("over drift") == 0
    _, told = run([minutes(at, *[finding()] * (at % 20 == 0)) for at in range(0, 120, 5)])
    assert told == ["opened drift"]


def test_a_fault_of_minutes_is_over_within_the_hour() -> None:
    """Half an hour after the last window in which it was found."""
    _, told = run([minutes(0, finding()), minutes(15, finding()), minutes(40)])
    assert told == ["opened drift"]
    assert run([minutes(0, finding()), minutes(15, finding()), minutes(40), minutes(45)])[1][-1] == "over drift"


def test_harmless_findings_open_nothing_and_end_what_was() -> None:
    """What is merely unusual is no alert."""
    harmless = finding(harmful=False)
    assert run([day(0, harmless)]) == (replace(EMPTY, judged={"data_quality": FIRST + DAY}), [])
    assert run([day(0, finding()), day(1, harmless), day(2, harmless)])[1] == ["opened drift", "over drift"]


def test_several_features_of_a_model_are_one_alert_that_names_the_worst() -> None:
    """The first finding speaks for all; the features of all are named."""
    worst = finding(summary="a is worst", features=("a",))
    state, told = run([day(0, worst, finding(features=("b", "a")), finding(features=("c",)))])
    assert told == ["opened drift"]
    (alert,) = state.open
    assert (alert.summary, alert.features) == ("a is worst (and 2 more)", ("a", "b", "c"))


def test_a_silent_monitor_ends_nothing() -> None:
    """Only its own look does, neither time nor another monitor."""
    state, _ = run([day(0, finding())])
    state, told = run([day(number, monitor="outcomes") for number in range(1, 9)], state)
    assert set(told) == {"still drift"}
    assert len(state.open) == 1


def test_one_alert_does_not_begin_in_the_time_of_the_one_before() -> None:
    """After a restart all is handed in again: an open alert does not take the days of the one that is over."""
    looks = [day(0, finding()), *map(day, range(1, 5)), day(5, finding())]
    state, _ = run(looks)
    again, told = step(replace(state, judged={}), looks, FIRST + 6 * DAY)
    assert (again.alerts, told) == (state.alerts, [])
    # Also where the second begins in the moment in which the first is over.
    looks = [day(0, finding()), day(1), day(2), day(3, finding())]
    state, told_first = run(looks)
    assert told_first == ["opened drift", "over drift", "opened drift"]
    assert step(replace(state, judged={}), looks, FIRST + 4 * DAY)[0].alerts == state.alerts


def test_what_two_monitors_found_is_over_when_both_say_so() -> None:
    """The minutes found it and so did the day: one alert, until the day is clear too."""
    state, told = run([minutes(600, finding()), day(0, finding())])
    assert told == ["opened drift"]
    state, told = run([minutes(60 * 24 + at) for at in range(0, 60, 15)], state)
    assert told == []
    assert run([day(1), day(2)], state)[1][-1] == "over drift"


def test_the_day_brings_no_news_of_what_its_minutes_have_told() -> None:
    """An incident of the morning, over at noon, is in the day's figures at midnight, and nobody hears of it again."""
    state, told = run([minutes(600, finding()), minutes(640), day(0, finding())])
    assert told == ["opened drift", "over drift"]
    assert run([day(1, finding())], state)[1] == ["opened drift"]


def test_a_day_judged_again_without_it_takes_it_back() -> None:
    """Labels came in, and it never was: over at once."""
    assert run([day(0, finding()), day(0)])[1] == ["opened drift", "over drift"]


def test_what_nobody_heard_of_before_its_end_has_passed() -> None:
    """After days of standstill, a fault that is over by now is told in one notice, not in two."""
    _, notices = step(EMPTY, [day(0, finding()), day(1), day(2), day(3, finding("nulls"))], FIRST + 5 * DAY)
    assert [(each.kind, each.alert.rule) for each in notices] == [("passed", "drift"), ("opened", "nulls")]


def test_the_hushed_is_kept_and_told_when_it_is_not_hushed_any_more() -> None:
    """A silence that ends before the fault does lets it be heard; one that outlives it does not."""
    state, told = run([day(0, finding())], hush=["drift"])
    assert told == []
    assert len(state.open) == 1
    assert run([day(1, finding())], state)[1] == ["opened drift"]
    assert run([day(1), day(2)], state, hush=["drift"])[1] == []


def test_who_heard_of_the_beginning_hears_of_the_end() -> None:
    """Also where it was silenced in between; reminders are not sent then."""
    state, _ = run([day(0, finding())])
    assert run([day(1, finding()), day(2), day(3)], state, hush=["drift"])[1] == ["over drift"]


def test_of_what_goes_on_people_are_reminded_daily() -> None:
    """Once a day as long as it is found, by the clock and not by the number of looks."""
    _, told = run([minutes(at, finding()) for at in range(0, 2 * 24 * 60, 5)])
    assert told == ["opened drift", "still drift"]


def always(_: Alert) -> bool:
    """Nobody is to hear."""
    return True


def never(_: Alert) -> bool:
    """Everybody is."""
    return False


rules = st.sampled_from(["drift", "nulls"])
monitors = st.sampled_from(["data_quality", "outcomes"])
days = st.builds(
    lambda number, found, monitor: day(number, *map(finding, sorted(found)), monitor=monitor),
    st.integers(0, 20),
    st.sets(rules),
    monitors,
)
quarters = st.builds(
    lambda at, found: minutes(at, *map(finding, sorted(found))), st.integers(0, 20 * 24 * 60), st.sets(rules)
)
"""Looks in any order: late ones, repeated ones, contradicting ones."""


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.lists(st.one_of(days, quarters), max_size=4), st.booleans(), st.booleans()), max_size=25))
def test_of_one_alert_there_is_at_most_one_beginning_and_one_end(
    steps: list[tuple[list[Look], bool, bool]],
) -> None:
    """Whatever the order, with restarts that forget what may be forgotten, with silences, with looks handed in twice.

    And nothing is lost: what is open and not hushed was told; what was told and is over, its end was told.
    """
    state, now = EMPTY, FIRST + 30 * DAY
    told: dict[str, list[Notice]] = {}
    ever: dict[str, Alert] = {}
    for looks, restarted, hushed in steps:
        now += timedelta(hours=7)
        state, notices = step(
            replace(state, judged={}) if restarted else state, looks, now, always if hushed else never
        )
        for each in notices:
            told.setdefault(each.alert.id + each.alert.opened.isoformat(), []).append(each)
        ever |= {each.id + each.opened.isoformat(): each for each in state.alerts.values()}
        if not hushed:
            assert all(each.told is not None for each in state.open)
        again, notices = step(state, looks, now, always if hushed else never)
        assert notices == []
        assert [each.id for each in again.open] == [each.id for each in state.open]
    for name, notices in told.items():
        kinds = [each.kind for each in notices]
        assert kinds.count("opened") + kinds.count("passed") == 1
        assert kinds.count("over") <= 1
        assert kinds in (["passed"], ["opened"] + ["still"] * kinds.count("still") + ["over"] * kinds.count("over"))
        if ever[name].over is not None:
            assert kinds[-1] in ("over", "passed")
