"""From the ledger to the plan: whatever was recorded, services are told what the ledger says served last."""

import json
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import PlanInvalid, StaleRevision
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import MOVES, Action, Alias, Entry, Ledger, standing
from mlplatform.rollout.plan import WHOLE, Plan, from_file, to_file
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform.rollout.pointing import plan_of, point

MODEL = "harbour/waits"


def entry(number: int, action: Action, alias: Alias, manifest: str, **evidence: Any) -> Entry:
    """An event of a model's life."""
    return Entry(
        number=number,
        action=action,
        alias=alias,
        from_manifest=None,
        to_manifest=manifest,
        actor="test",
        reason="because",
        evidence=evidence,
        at=datetime(2024, 1, 1, tzinfo=UTC),
        hash=f"{number:064x}",
    )


def record(platform: Platform, action: Action, alias: Alias, manifest: str, **evidence: Any) -> Entry:
    """The same, appended."""
    return Ledger(platform).append(
        MODEL, action=action, alias=alias, to_manifest=manifest, actor="test", reason="because", evidence=evidence
    )


def recorded(platform: Platform, weight: int) -> None:
    """A step up, however many others record one: who comes second decides again."""
    with suppress(StaleRevision):
        record(platform, "advance", "challenger", "b", mode="canary", weight=weight)
        return
    recorded(platform, weight)


def followed(platform: Platform) -> Plan:
    """What services are told."""
    return from_file(plan_path(platform.home, MODEL).read_bytes(), MODEL)


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Any sequence of events, sensible or not: champions, challengers, steps, rollbacks, approvals."""
    entries = []
    for number in range(1, draw(st.integers(1, 15)) + 1):
        action: Action = draw(st.sampled_from(get_args(Action)))
        alias: Alias = draw(st.sampled_from(get_args(Alias)))
        evidence: dict[str, Any] = {}
        if action in ("start", "advance"):
            mode = draw(st.sampled_from(["full", "shadow", "canary", "a/b"]))
            evidence = {"mode": mode, "weight": draw(st.integers(0, WHOLE)) if mode in ("canary", "a/b") else 0}
        entries.append(entry(number, action, alias, draw(st.sampled_from("abc")), **evidence))
    return entries


@given(histories())
def test_the_plan_says_what_the_ledger_says(entries: list[Entry]) -> None:
    """Champion, challenger, mode and share after any events; services read it as it was meant."""
    now, plan = standing(entries), plan_of(MODEL, entries)
    if now.champion is None:
        assert plan is None
        return
    assert plan
    assert plan.champion == now.champion.to_manifest
    challenger = now.challenger.to_manifest if now.challenger and now.mode else None
    # One that is the champion itself has nothing to win.
    assert plan.challenger == (challenger if challenger != plan.champion else None)
    if plan.challenger is not None:
        assert (plan.mode, plan.share) == (now.mode, now.weight / WHOLE)
    else:
        assert (plan.mode, plan.share) == ("full", 0.0)
    assert from_file(to_file(plan), MODEL).version == plan.version


@given(histories(), st.sampled_from(sorted({"approve", "override", "pause", "resume"})))
def test_what_moves_no_traffic_leaves_the_plan(entries: list[Entry], action: Action) -> None:
    """An approval, an override, a pause: rows before and after it in the log were answered under the same plan."""
    now, before = standing(entries), plan_of(MODEL, entries)
    said_of = now.challenger.to_manifest if now.challenger else "c"
    if action in MOVES and now.challenger is None:
        return
    after = plan_of(MODEL, [*entries, entry(len(entries) + 1, action, "challenger", said_of)])
    assert (after and after.version) == (before and before.version)


def test_each_rollout_draws_its_own_keys_and_keeps_them() -> None:
    """The salt is the start's: it stays through the steps and a pause, and is another one the next time."""
    first = [
        entry(1, "promote", "champion", "a"),
        entry(2, "promote", "challenger", "b"),
        entry(3, "start", "challenger", "b", mode="shadow", weight=0, exploration=0.05),
        entry(4, "advance", "challenger", "b", mode="canary", weight=500),
        entry(5, "pause", "challenger", "b"),
    ]
    plans = [plan_of(MODEL, first[:until]) for until in (3, 4, 5)]
    assert {plan and plan.salt for plan in plans} == {f"{3:064x}"[:16]}
    assert [plan and plan.number for plan in plans] == [3, 4, 4]
    assert {plan and plan.exploration for plan in plans} == {0.05}
    unstarted = plan_of(MODEL, first[:2])
    assert unstarted and (unstarted.challenger, unstarted.exploration) == (None, 0.0)
    hashed = replace(first[2], number=7, hash="f" * 64)
    again = plan_of(MODEL, [*first, entry(6, "roll_back", "challenger", "a"), hashed])
    assert again and (again.salt, again.number) == ("f" * 16, 7)


@pytest.mark.parametrize("evidence", [{"mode": "blue"}, {"weight": WHOLE + 1}, {"weight": -1}, {"exploration": 2}])
def test_what_no_plan_can_say_is_refused(platform: Platform, evidence: dict[str, Any]) -> None:
    """And services go on as they were."""
    record(platform, "promote", "champion", "a")
    before = point(platform, MODEL)
    record(platform, "start", "challenger", "b", **({"mode": "canary", "weight": 1} | evidence))
    with pytest.raises(PlanInvalid):
        point(platform, MODEL)
    assert before and followed(platform).version == before.version


def test_before_the_first_promotion_there_is_no_plan(platform: Platform) -> None:
    """And no file is made."""
    assert point(platform, MODEL) is None
    record(platform, "promote", "challenger", "b")
    assert point(platform, MODEL) is None
    assert not plan_path(platform.home, MODEL).exists()


def test_a_file_that_was_edited_lost_or_never_written_is_mended(platform: Platform) -> None:
    """Whoever was killed between ledger and plan is made good for by whoever comes next."""
    record(platform, "promote", "champion", "a")
    record(platform, "start", "challenger", "b", mode="canary", weight=500)
    plan = point(platform, MODEL)
    assert plan and followed(platform).version == plan.version
    path = plan_path(platform.home, MODEL)
    written = path.stat().st_ino
    assert point(platform, MODEL) == plan
    assert path.stat().st_ino == written, "it says the same: nothing is written"
    write_plan(platform.home, replace(plan, weight=WHOLE))
    point(platform, MODEL)
    assert followed(platform).share == 0.05
    path.write_text(json.dumps({"champion": "a"}))
    point(platform, MODEL)
    assert followed(platform).share == 0.05
    path.unlink()
    record(platform, "roll_back", "challenger", "a")
    point(platform, MODEL)
    assert followed(platform).challenger is None


def test_of_writers_at_once_none_leaves_an_older_plan(platform: Platform) -> None:
    """Each records a step and points; whoever read first may write last, and the newest lies there all the same."""
    record(platform, "promote", "champion", "a")
    record(platform, "start", "challenger", "b", mode="canary", weight=1)
    together = Barrier(4)

    def move(weight: int) -> None:
        recorded(platform, weight)
        together.wait()
        point(platform, MODEL)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(move, (10, 20, 30, 40)))
    last = plan_of(MODEL, Ledger(platform).entries(MODEL))
    assert last and followed(platform).version == last.version


def test_who_read_an_older_ledger_cannot_write_after_a_newer_one(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held up between reading and writing; another that comes meanwhile waits for it, and has the last word."""
    record(platform, "promote", "champion", "a")
    reading, go_on = Barrier(2, timeout=20), Barrier(2, timeout=20)
    read = Ledger.entries
    slow = iter([True])

    def held_up(self: Ledger, model: str) -> list[Entry]:
        found = read(self, model)
        if next(slow, False):
            reading.wait()
            go_on.wait()
        return found

    monkeypatch.setattr(Ledger, "entries", held_up)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(point, platform, MODEL)
        reading.wait()
        record(platform, "start", "challenger", "b", mode="canary", weight=500)
        second = threads.submit(point, platform, MODEL)
        wait([second], timeout=0.5)  # it would be through by then if it did not wait for the first
        go_on.wait()
        assert (plan := second.result(20)) and first.result(20)
    assert followed(platform).version == plan.version
    assert plan.challenger == "b"
