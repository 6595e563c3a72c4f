"""One look at a rollout: a step when the evidence says so, a wait otherwise, and the way back."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domain.rollout import DAY, Rollout, Step
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.rollout import analysis, moves
from mlplatform.rollout import tick as ticking
from mlplatform.rollout.plan_file import plan_path
from mlplatform.rollout.tick import Tick, tick
from mlplatform.rollout.trail import keep, looks, looks_table
from mlplatform_tests.fakes.rolled_out import (
    CHALLENGER,
    CHAMPION,
    NAME,
    Evidence,
    champion_in,
    declared,
    promoted,
    rolling_out,
)
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS

MODEL = declared(Rollout())
HOUR = timedelta(hours=1)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A rollout in its first step, the shadow."""
    return rolling_out(tmp_path / "home", MODEL)


def later(platform: Platform, by: timedelta) -> None:
    """Let time pass."""
    platform.clock.now += by  # type: ignore[attr-defined]


def looked(platform: Platform, says: str = "good", model: object = MODEL) -> Tick:
    """What a look finds and does."""
    found = tick(platform, DOMAIN, model, gather=Evidence(says))  # type: ignore[arg-type]
    assert found is not None
    return found


def last(platform: Platform) -> Entry:
    """The newest event."""
    return Ledger(platform).entries(NAME)[-1]


def test_good_evidence_takes_it_to_the_end_by_itself(platform: Platform) -> None:
    """A step a day, each once, however often it is looked; then it is the champion and there is nothing to look at."""
    steps = []
    for _ in range(4 * 24):
        later(platform, HOUR)
        found = looked(platform)
        if found.entry:
            steps.append((found.outcome, found.mode, found.weight, found.step, found.at - AFTERWARDS))
    assert steps == [
        ("advance", "canary", 500, 2, DAY),
        ("advance", "canary", 2000, 3, 2 * DAY),
        ("advance", "canary", 5000, 4, 3 * DAY),
        ("finish", "full", 0, 0, 4 * DAY),
    ]
    assert tick(platform, DOMAIN, MODEL, gather=Evidence()) is None
    assert (last(platform).actor, last(platform).to_manifest) == ("mlplatform", CHALLENGER)
    assert last(platform).evidence["verdict"] == "finish"


def test_it_asks_for_the_evidence_of_this_step(platform: Platform) -> None:
    """Both manifests, since when the rollout and the step are, its share and how long it bakes."""
    later(platform, DAY)
    looked(platform)
    later(platform, HOUR)
    evidence = Evidence()
    tick(platform, DOMAIN, MODEL, gather=evidence)
    assert evidence.asked == {
        "champion": CHAMPION,
        "challenger": CHALLENGER,
        "since": AFTERWARDS,
        "step_since": AFTERWARDS + DAY,
        "share": 0.05,
        "bake": DAY,
        "now": AFTERWARDS + DAY + HOUR,
    }


def test_what_waits_says_what_for(platform: Platform) -> None:
    """And records nothing: a wait is no event."""
    before = last(platform)
    found = looked(platform, "few")
    assert (found.outcome, found.entry, found.mode) == ("hold", None, "shadow")
    assert found.reasons[:2] == ("the step bakes until 2024-02-02 00:00 UTC", "failures: 20 pairs, 500 wanted")
    assert last(platform) == before


@pytest.mark.parametrize("says", ["harmful", "tripped"])
def test_harm_sends_it_back_paused_or_not(platform: Platform, says: str) -> None:
    """With the evidence in the ledger; the plan names the champion alone."""
    moves.pause(platform, DOMAIN, MODEL, by="ann", reason="lunch")
    found = looked(platform, says)
    assert (found.outcome, found.mode, found.weight) == ("roll_back", "full", 0)
    entry = last(platform)
    assert (entry.action, entry.from_manifest, entry.to_manifest) == ("roll_back", CHALLENGER, CHAMPION)
    assert entry.evidence["verdict"] == "roll_back"
    assert entry.reason in ("its breaker is open", "; ".join(found.reasons))
    assert CHALLENGER not in plan_path(platform.home, NAME).read_text()


def test_a_paused_one_waits_for_its_resumption(platform: Platform) -> None:
    """Whatever the evidence says for it."""
    moves.pause(platform, DOMAIN, MODEL, by="ann", reason="a holiday")
    later(platform, 2 * DAY)
    found = looked(platform)
    assert (found.outcome, found.reasons) == (
        "hold",
        ("paused by ann: a holiday. `mlplatform rollout resume` lets it go on",),
    )
    moves.resume(platform, DOMAIN, MODEL, by="ann", reason="back")
    assert looked(platform).outcome == "advance"


def test_an_a_b_waits_for_a_person(tmp_path: Path) -> None:
    """At its first share above 0."""
    model = declared(Rollout(mode="a/b"))
    platform = rolling_out(tmp_path / "home", model)
    later(platform, DAY)
    assert looked(platform, model=model).mode == "a/b"
    later(platform, 9 * DAY)
    found = looked(platform, model=model)
    assert (found.outcome, found.weight) == ("hold", 500)
    assert "until a person ends it" in found.reasons[0]


def test_an_approval_is_asked_for_while_it_bakes(tmp_path: Path) -> None:
    """So that nobody is told of it only when a day is over; given, the step is taken."""
    model = declared(Rollout(approval=True))
    platform = rolling_out(tmp_path / "home", model)
    assert f"`mlplatform approve {NAME} {CHALLENGER[:12]}" in looked(platform, model=model).reasons[-1]
    later(platform, DAY)
    assert looked(platform, model=model).outcome == "hold"
    Ledger(platform).append(
        NAME, action="approve", alias="challenger", to_manifest=CHALLENGER, actor="ann", reason="-", evidence={}
    )
    assert looked(platform, model=model).weight == 500


def test_a_clock_that_is_put_back_undoes_nothing(platform: Platform) -> None:
    """An hour back: no event is dated before the last one, and a step bakes as long as it should."""
    later(platform, DAY)
    assert looked(platform).outcome == "advance"
    later(platform, -HOUR)
    assert looked(platform).at == AFTERWARDS + DAY
    later(platform, DAY)
    assert looked(platform).outcome == "hold"
    later(platform, HOUR)
    assert looked(platform).outcome == "advance"


def test_whoever_was_killed_before_the_start_is_made_good_for(tmp_path: Path) -> None:
    """A challenger that was promoted and not started is started by the next look; so is a lost plan written."""
    platform = rolling_out(tmp_path / "home", MODEL)
    moves.roll_back(platform, NAME, by="ann", reason="-")
    promoted(platform, "c" * 64)
    found = looked(platform)
    assert (found.outcome, found.mode, found.entry) == ("start", "shadow", last(platform))
    plan_path(platform.home, NAME).write_text("nonsense")
    looked(platform, "few")
    assert "c" * 64 in plan_path(platform.home, NAME).read_text()


def test_who_is_overtaken_waits_for_the_next_look(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says by whom."""

    def overtaken(seen: analysis.Look, settings: Rollout) -> analysis.Verdict:
        moves.pause(platform, DOMAIN, MODEL, by="bob", reason="wait")
        return analysis.judge(seen, settings)

    later(platform, DAY)
    monkeypatch.setattr(ticking, "judge", overtaken)
    found = looked(platform)
    assert (found.outcome, found.entry) == ("hold", None)
    assert "`pause` by bob" in found.reasons[0]
    assert last(platform).action == "pause"


def test_a_model_that_declares_no_rollout_any_more_takes_no_step(platform: Platform) -> None:
    """What was started is not finished by defaults that nobody declared; harm sends it back all the same."""
    later(platform, DAY)
    found = looked(platform, model=declared(None))
    assert (found.outcome, found.entry) == ("hold", None)
    assert "declares no rollout any more" in found.reasons[0]
    assert looked(platform, "harmful", model=declared(None)).outcome == "roll_back"


def test_by_a_ledger_that_is_not_whole_no_step_is_taken(platform: Platform) -> None:
    """Somebody edited the event that started it: the step is not taken, the way back is."""
    (file,) = Path(platform.ledger).rglob("2-*.parquet")
    pl.read_parquet(file).with_columns(reason=pl.lit("another")).write_parquet(file)
    later(platform, DAY)
    found = looked(platform)
    assert found.outcome == "hold"
    assert "entry 2 of the ledger" in found.reasons[0]
    assert looked(platform, "harmful").outcome == "roll_back"


def test_full_traffic_with_a_bake_is_a_step_of_its_own(tmp_path: Path) -> None:
    """It is kept for its time before the challenger is the champion; with one arm there is no split to be tested."""
    model = declared(Rollout(steps=(Step(share=0.0, bake=HOUR), Step(share=1.0, bake=DAY))))
    platform = rolling_out(tmp_path / "home", model)
    later(platform, HOUR)
    assert looked(platform, model=model).weight == 10_000
    later(platform, HOUR)
    assert looked(platform, model=model).outcome == "hold"
    later(platform, DAY)
    assert looked(platform, model=model).outcome == "finish"


def test_the_trail_keeps_what_is_new_and_one_an_hour(platform: Platform) -> None:
    """Not each of the thousands of looks that say the same in other figures."""
    kept = []
    for _ in range(150):
        later(platform, timedelta(minutes=1))
        kept.append(keep(platform, DOMAIN, looked(platform, "few")))
    assert [minute for minute, each in enumerate(kept) if each] == [0, 60, 120]
    moves.pause(platform, DOMAIN, MODEL, by="ann", reason="lunch")
    assert keep(platform, DOMAIN, looked(platform, "few"))
    found = looks(platform, DOMAIN, "late_order", last=9)
    assert [each.outcome for each in found] == ["hold"] * 4
    assert "paused by ann" in found[-1].reasons[-1]
    assert found[-1].harms[0]["figure"] == "failures"
    assert (found[-1].mode, found[-1].weight, found[-1].entry) == ("shadow", 0, None)
    assert keep(platform, DOMAIN, looked(platform, "harmful"))
    assert looks(platform, DOMAIN, "late_order")[0].entry == last(platform).number
    later(platform, -3 * HOUR)
    assert len(looks_table(platform, DOMAIN).revisions()) == 5


def test_where_no_rollout_is_under_way_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    """The plan is set from the ledger all the same."""
    platform = champion_in(tmp_path / "home")
    assert tick(platform, DOMAIN, MODEL, gather=Evidence()) is None
    assert CHAMPION in plan_path(platform.home, NAME).read_text()
