"""The ledger: the events of a model in one order, the champion at any time, and one winner of a race."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import LedgerBroken, StaleRevision, Unsigned
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Action, Alias, Entry, Ledger, broken_at, rolled_back, standing
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
        hash=entries[0].hash,
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


def test_tampering_shows(platform: Platform) -> None:
    """Whatever of whichever entry is changed, one that is left out, two that change places."""
    for hour, manifest in enumerate("abcd"):
        append(at_hour(platform, hour), manifest)
    entries = Ledger(platform).entries(MODEL)
    assert broken_at(entries) is None
    assert broken_at([]) is None
    changes: dict[str, Any] = {
        "action": "roll_back",
        "alias": "challenger",
        "from_manifest": "x",
        "to_manifest": "x",
        "actor": "somebody",
        "reason": "none",
        "evidence": {"b": 2, "a": [2.5, None]},
        "at": entries[1].at + timedelta(microseconds=1),
        "hash": entries[0].hash,
    }
    for name, value in changes.items():
        assert broken_at([entries[0], replace(entries[1], **{name: value}), *entries[2:]]) == 2, name
    assert broken_at([entries[0], *entries[2:]]) == 2
    assert broken_at([entries[0], entries[2], entries[1], entries[3]]) == 2


def test_an_edited_file_of_the_table_shows(platform: Platform) -> None:
    """One field of one entry changed in its Parquet file, the table's log untouched: that entry is named."""
    for hour, manifest in enumerate("abc"):
        append(at_hour(platform, hour), manifest)
    (file,) = Path(platform.ledger).rglob("2-*.parquet")
    as_written = pl.read_parquet(file)
    as_written.with_columns(actor=pl.lit("somebody else")).write_parquet(file)
    assert broken_at(Ledger(platform).entries(MODEL)) == 2
    for spoilt in ({"evidence": pl.lit("{")}, {"at": pl.lit(None, as_written.schema["at"])}):
        as_written.with_columns(**spoilt).write_parquet(file)
        with pytest.raises(LedgerBroken, match=f"entry 2 of the ledger of {MODEL}"):
            Ledger(platform).entries(MODEL)
    as_written.write_parquet(file)
    assert broken_at(Ledger(platform).entries(MODEL)) is None


def test_nothing_is_recorded_without_a_name_and_a_reason(platform: Platform) -> None:
    """Neither may be empty or blank."""
    for actor, reason in ((" ", "because"), ("test", "")):
        with pytest.raises(Unsigned, match="nothing was recorded"):
            Ledger(platform).append(
                MODEL, action="promote", alias="champion", to_manifest="a", actor=actor, reason=reason, evidence={}
            )
    assert Ledger(platform).entries(MODEL) == []


def test_a_clock_that_is_put_back_does_not_turn_the_order(platform: Platform) -> None:
    """The later entry counts from the instant of the one before it; who asks for an instant finds one answer."""
    append(at_hour(platform, 2), "a")
    late = append(at_hour(platform, 1), "b")
    assert late.at == AFTERWARDS + 2 * HOUR
    assert Ledger(platform).champion(MODEL, at=AFTERWARDS + HOUR) is None
    assert Ledger(platform).champion(MODEL, at=AFTERWARDS + 2 * HOUR) == "b"


ROLLOUT: list[tuple[Action, Alias, str, dict[str, Any]]] = [
    ("promote", "champion", "a", {}),
    ("promote", "challenger", "b", {}),
    ("start", "challenger", "b", {"mode": "shadow", "weight": 0}),
    ("advance", "challenger", "b", {"mode": "canary", "weight": 500}),
    ("pause", "challenger", "b", {}),
    ("approve", "challenger", "c", {}),
    ("roll_back", "challenger", "a", {}),
    ("start", "challenger", "c", {"mode": "a/b", "weight": 2_000}),
    ("finish", "champion", "c", {}),
    ("roll_back", "champion", "a", {}),
]


def rollout_events(platform: Platform) -> list[Entry]:
    """Two rollouts, an hour between the events: one is sent back, one ends well and is taken back afterwards."""
    for hour, (action, alias, manifest, evidence) in enumerate(ROLLOUT):
        at_hour(platform, hour).append(
            MODEL, action=action, alias=alias, to_manifest=manifest, actor="test", reason="because", evidence=evidence
        )
    return Ledger(platform).entries(MODEL)


def test_what_served_and_to_whom_is_a_query(platform: Platform) -> None:
    """Champion, challenger, mode and weight after each event, and before the first one."""
    entries = rollout_events(platform)
    seen = [standing(entries, AFTERWARDS + hour * HOUR) for hour in range(-1, len(ROLLOUT))]
    told = [
        (
            each.champion and each.champion.to_manifest,
            each.challenger and (each.challenger.number, each.challenger.to_manifest),
            each.mode,
            each.weight,
        )
        for each in seen
    ]
    assert told == [
        (None, None, "full", 0),
        ("a", None, "full", 0),
        ("a", (2, "b"), "", 0),
        ("a", (3, "b"), "shadow", 0),
        ("a", (4, "b"), "canary", 500),
        ("a", (5, "b"), "canary", 500),
        ("a", (5, "b"), "canary", 500),
        ("a", None, "full", 0),
        ("a", (8, "c"), "a/b", 2_000),
        ("c", None, "full", 0),
        ("a", None, "full", 0),
    ]
    assert standing(entries) == seen[-1]


def test_what_is_only_said_moves_no_alias(platform: Platform) -> None:
    """After an approval of another version, a rollback still names the one that it sends back."""
    entries = rollout_events(platform)
    assert entries[6].from_manifest == "b"
    assert [rolled_back(each) for each in entries] == [*[None] * 6, "b", None, None, "c"]
    stays = replace(entries[6], to_manifest="b")
    assert rolled_back(stays) == "b"
