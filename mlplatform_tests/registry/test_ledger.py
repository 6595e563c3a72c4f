"""The ledger: the events of a model in one order, the champion at any time, and one winner of a race."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import StaleRevision
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Alias, Entry, Ledger
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS, Clock, platform_in

MODEL, OTHER = "synthetic/late_order", "synthetic/speed"
HOUR = timedelta(hours=1)


def append(
    ledger: Ledger, manifest: str, *, model: str = MODEL, alias: Alias = "champion", after: int | None = None
) -> Entry:
    """Record that a manifest gets an alias."""
    return ledger.append(
        model,
        action="promote",
        alias=alias,
        to_manifest=manifest,
        actor="test",
        reason="because",
        evidence={"b": 1, "a": [2.5, None]},
        after=after,
    )


def at_hour(platform: Platform, hours: int) -> Ledger:
    """The ledger, some hours after the start of the test."""
    assert isinstance(platform.clock, Clock)
    platform.clock.now = AFTERWARDS + hours * HOUR
    return Ledger(platform)


def test_before_the_first_event_there_is_nothing(platform: Platform) -> None:
    """No table yet, no champion, no entry."""
    ledger = Ledger(platform)
    assert (ledger.entries(MODEL), ledger.champion(MODEL)) == ([], None)


def test_events_stand_in_the_order_in_which_they_were_recorded(platform: Platform) -> None:
    """Numbered from 1, each with where the alias came from; what is appended is what is read."""
    first = append(at_hour(platform, 0), "a")
    append(at_hour(platform, 1), "b", alias="challenger")
    third = append(at_hour(platform, 2), "b")
    entries = Ledger(platform).entries(MODEL)
    assert [each.number for each in entries] == [1, 2, 3]
    assert [(each.from_manifest, each.to_manifest) for each in entries] == [(None, "a"), (None, "b"), ("a", "b")]
    assert (entries[0], entries[2]) == (first, third)
    assert entries[0] == Entry(
        number=1,
        action="promote",
        alias="champion",
        from_manifest=None,
        to_manifest="a",
        actor="test",
        reason="because",
        evidence={"a": [2.5, None], "b": 1},
        at=AFTERWARDS,
    )


def test_the_same_move_again_is_a_further_event(platform: Platform) -> None:
    """Events are never merged: to the same manifest, at the same instant, by the same hand, they are two."""
    assert [append(Ledger(platform), "a").number for _ in range(2)] == [1, 2]
    assert len(Ledger(platform).entries(MODEL)) == 2


def test_which_version_served_at_an_instant_is_a_query(platform: Platform) -> None:
    """From the instant of the event on, inclusive, and whatever happened to a challenger."""
    for hour, (manifest, alias) in enumerate((("a", "champion"), ("b", "challenger"), ("b", "champion"))):
        append(at_hour(platform, hour), manifest, alias="champion" if alias == "champion" else "challenger")
    ledger = Ledger(platform)
    moment = timedelta(microseconds=1)
    instants = [AFTERWARDS - moment, AFTERWARDS, AFTERWARDS + 2 * HOUR - moment, AFTERWARDS + 2 * HOUR]
    assert [ledger.champion(MODEL, at=at) for at in instants] == [None, "a", "a", "b"]
    assert ledger.champion(MODEL) == "b"


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from([MODEL, OTHER]), st.sampled_from("abc")), max_size=5))
def test_the_models_do_not_see_each_other(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str]]
) -> None:
    """Whatever is recorded of several models, each has its own sequence."""
    ledger = Ledger(platform_in(tmp_path_factory.mktemp("ledger")))
    for model, manifest in events:
        append(ledger, manifest, model=model)
    for model in (MODEL, OTHER):
        expected = [manifest for each, manifest in events if each == model]
        assert [each.to_manifest for each in ledger.entries(model)] == expected
        assert ledger.champion(model) == (expected[-1] if expected else None)


def test_of_two_that_saw_the_same_last_event_one_is_refused(platform: Platform) -> None:
    """Both read the ledger before either writes: one event is recorded, the other writer is told to look again."""
    append(Ledger(platform), "a")
    both_have_read = Barrier(2, timeout=20)

    def clock() -> datetime:
        both_have_read.wait()
        return datetime(2024, 3, 1, tzinfo=UTC)

    def race(manifest: str) -> str:
        try:
            return append(Ledger(replace(platform, clock=clock)), manifest).to_manifest
        except StaleRevision:
            return "refused"

    with ThreadPoolExecutor(2) as threads:
        outcomes = sorted(threads.map(race, ["b", "c"]))
    entries = Ledger(platform).entries(MODEL)
    assert outcomes == sorted([entries[-1].to_manifest, "refused"])
    assert len(entries) == 2


def test_a_decision_on_an_old_state_is_refused(platform: Platform) -> None:
    """Who decided after an event that is not the last one any more records nothing."""
    ledger = Ledger(platform)
    append(ledger, "a", after=0)
    append(ledger, "b", after=1)
    for after in (0, 1, 3):
        with pytest.raises(StaleRevision):
            append(ledger, "c", after=after)
    assert [each.to_manifest for each in ledger.entries(MODEL)] == ["a", "b"]
