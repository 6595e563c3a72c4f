"""The moves of a rollout: what each records, what it refuses, and what two people at once find."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domain.rollout import DAY, Rollout, Step
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import RolloutRefused, StaleRevision
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Entry, Ledger, standing
from mlplatform.rollout import moves
from mlplatform.rollout.plan import WHOLE
from mlplatform.rollout.plan_file import WatchedPlan, plan_path
from mlplatform.rollout.progress import progress, told_move, where_it_stands
from mlplatform.rollout.tick import advance
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

MODEL = declared(Rollout())
ASKED: dict[str, Any] = {"by": "ann", "reason": "she says so"}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A rollout in its first step, the shadow."""
    return rolling_out(tmp_path / "home", MODEL)


def entries(platform: Platform) -> list[Entry]:
    """The whole ledger."""
    return Ledger(platform).entries(NAME)


def plan(platform: Platform) -> tuple[str, str | None, str, float]:
    """Champion, challenger, mode and share that services follow."""
    watched = WatchedPlan(plan_path(platform.home, NAME), NAME)
    watched.look()
    assert watched.plan is not None
    return watched.plan.champion, watched.plan.challenger, watched.plan.mode, watched.plan.share


def advanced(platform: Platform, says: str = "few", after: int | None = None, by: str = "ann") -> Entry:
    """A person takes the next step."""
    return advance(platform, DOMAIN, MODEL, by=by, reason="looks good", after=after, gather=Evidence(says))


def test_a_rollout_goes_up_the_declared_steps(platform: Platform) -> None:
    """Shadow, 5, 20, 50 %, champion: one entry each, the plan follows, and the evidence is in the entry."""
    seen = [plan(platform)]
    for _ in range(4):
        advanced(platform)
        seen.append(plan(platform))
    both = (CHAMPION, CHALLENGER)
    assert seen == [
        (*both, "shadow", 0.0),
        (*both, "canary", 0.05),
        (*both, "canary", 0.2),
        (*both, "canary", 0.5),
        (CHALLENGER, None, "full", 0.0),
    ]
    found = entries(platform)
    assert [each.action for each in found] == ["promote", "promote", "start", "advance", "advance", "advance", "finish"]
    assert [each.evidence.get("step") for each in found[2:]] == [1, 2, 3, 4, None]
    assert found[3].evidence["reasons"][0].startswith("the step bakes until")
    assert {each["figure"] for each in found[3].evidence["harms"]} == {"failures", "log_loss"}
    assert found[-1].from_manifest == CHAMPION
    assert "is the champion" in told_move(found[-1])


def test_started_twice_it_is_one_event(platform: Platform) -> None:
    """Whoever was killed before the plan was written, or is told to again, changes nothing."""
    before = entries(platform)
    plan_path(platform.home, NAME).unlink()
    assert moves.start(platform, DOMAIN, MODEL, **ASKED) == before[-1]
    assert entries(platform) == before
    assert plan(platform)[2] == "shadow"


def test_exploration_is_told_to_the_plan(tmp_path: Path) -> None:
    """Declared once, it stands in the event that starts the rollout, and in the plan."""
    model = declared(Rollout(exploration=Threshold(value=0.02, reason="against feedback")))
    platform = rolling_out(tmp_path / "home", model)
    watched = WatchedPlan(plan_path(platform.home, NAME), NAME)
    watched.look()
    assert watched.plan is not None
    assert watched.plan.exploration == 0.02


def test_two_people_take_one_step(platform: Platform) -> None:
    """The second, who has seen the same, is told what the first did."""
    seen = len(entries(platform))
    advanced(platform, after=seen, by="ann")
    with pytest.raises(StaleRevision) as refused:
        advanced(platform, after=seen, by="bob")
    assert refused.value.__notes__ == [
        f"entry {seen + 1}: `advance` by ann at 2024-02-01 00:00:00Z: looks good",
    ]
    assert plan(platform)[3] == 0.05


def test_two_who_start_it_have_both_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promotion and the sensor at the same moment: one event, and neither is refused."""
    platform = champion_in(tmp_path / "home")
    promoted(platform, CHALLENGER)
    append = Ledger.append

    def overtaken(self: Ledger, *asked: object, **more: object) -> Entry:
        monkeypatch.setattr(Ledger, "append", append)
        moves.start(platform, DOMAIN, MODEL, by="mlplatform", reason="it passed the gate")
        return append(self, *asked, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "append", overtaken)
    started = moves.start(platform, DOMAIN, MODEL, **ASKED)
    assert started == entries(platform)[-1] and started.actor == "mlplatform"
    assert [each.action for each in entries(platform)] == ["promote", "promote", "start"]


def test_a_rollback_is_not_lost_to_a_step_taken_meanwhile(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about a version; whoever is first, that version is gone afterwards."""
    append = Ledger.append

    def overtaken(self: Ledger, *asked: object, **more: object) -> Entry:
        monkeypatch.setattr(Ledger, "append", append)
        advanced(platform)
        return append(self, *asked, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "append", overtaken)
    entry = moves.roll_back(platform, NAME, **ASKED)
    assert [each.action for each in entries(platform)[-2:]] == ["advance", "roll_back"]
    assert (entry.from_manifest, entry.to_manifest) == (CHALLENGER, CHAMPION)
    assert entry.evidence["recipe"] == f"2024-01-25-{CHALLENGER[:6]}"
    assert plan(platform) == (CHAMPION, None, "full", 0.0)
    assert where_it_stands(entries(platform), CHALLENGER) == "rolled back by ann: she says so"


def test_asked_for_twice_a_rollback_takes_nothing_more(platform: Platform) -> None:
    """The champion is sent back by its name only, if the challenger has just been."""
    promoted(platform, "c" * 64, alias="champion")
    promoted(platform, CHALLENGER)
    moves.roll_back(platform, NAME, **ASKED)
    with pytest.raises(RolloutRefused, match=f"sent back already.*`--manifest {'c' * 12}`"):
        moves.roll_back(platform, NAME, **ASKED)
    assert moves.roll_back(platform, NAME, manifest="c" * 12, **ASKED).to_manifest == CHAMPION
    with pytest.raises(RolloutRefused, match="answers nobody now; the champion is aaaaaaaaaaaa"):
        moves.roll_back(platform, NAME, manifest="c" * 12, **ASKED)


def test_a_finished_rollout_goes_back_to_the_champion_before(platform: Platform) -> None:
    """To the newest one that was not sent back itself and whose bundle is there; where there is none, it is refused."""
    for _ in range(4):
        advanced(platform)
    promoted(platform, "d" * 64, alias="champion")
    assert moves.roll_back(platform, NAME, **ASKED).to_manifest == CHALLENGER
    shutil.rmtree(platform.bundles / CHAMPION)
    with pytest.raises(RolloutRefused, match="no champion before this one"):
        moves.roll_back(platform, NAME, manifest=CHALLENGER, **ASKED)
    (platform.bundles / CHAMPION).mkdir()
    entry = moves.roll_back(platform, NAME, manifest=CHALLENGER, **ASKED)
    assert (entry.alias, entry.from_manifest, entry.to_manifest) == ("champion", CHALLENGER, CHAMPION)
    assert plan(platform) == (CHAMPION, None, "full", 0.0)


def test_a_paused_rollout_keeps_its_traffic_and_takes_no_step(platform: Platform) -> None:
    """Until it is resumed; since when the step has been baking stays as it was."""
    advanced(platform)
    since = progress(entries(platform)).step_since  # type: ignore[union-attr]
    platform.clock.now += timedelta(hours=1)  # type: ignore[attr-defined]
    moves.pause(platform, DOMAIN, MODEL, **ASKED)
    assert plan(platform)[3] == 0.05
    with pytest.raises(RolloutRefused, match=r"it is paused \(she says so\)"):
        advanced(platform)
    with pytest.raises(RolloutRefused, match="paused already, by ann"):
        moves.pause(platform, DOMAIN, MODEL, **ASKED)
    moves.resume(platform, DOMAIN, MODEL, **ASKED)
    with pytest.raises(RolloutRefused, match="it is not paused"):
        moves.resume(platform, DOMAIN, MODEL, **ASKED)
    assert progress(entries(platform)).step_since == since  # type: ignore[union-attr]
    assert advanced(platform).evidence["weight"] == WHOLE // 5


def test_nobody_is_answered_without_a_demanded_approval(tmp_path: Path) -> None:
    """The shadow needs none, the first live step does, whoever takes it; a model that starts live does not start."""
    model = declared(Rollout(approval=True))
    platform = rolling_out(tmp_path / "home", model)
    with pytest.raises(RolloutRefused, match=f"`mlplatform approve {NAME} {CHALLENGER[:12]} --by NAME --reason TEXT`"):
        advance(platform, DOMAIN, model, gather=Evidence(), **ASKED)
    live = declared(Rollout(approval=True, steps=(Step(share=0.05, bake=DAY),)))
    at_once = champion_in(tmp_path / "live")
    promoted(at_once, CHALLENGER)
    with pytest.raises(RolloutRefused, match="nobody has approved"):
        moves.start(at_once, DOMAIN, live, **ASKED)
    Ledger(at_once).append(
        NAME, action="approve", alias="challenger", to_manifest=CHALLENGER, actor="ann", reason="-", evidence={}
    )
    assert moves.start(at_once, DOMAIN, live, **ASKED).evidence["weight"] == 500


def test_an_a_b_is_ended_by_a_person_at_any_share(tmp_path: Path) -> None:
    """A canary goes up its steps; from a share of an A/B the challenger may become champion."""
    model = declared(Rollout(mode="a/b"))
    platform = rolling_out(tmp_path / "home", model)
    with pytest.raises(RolloutRefused, match="steps to take before"):
        advance(platform, DOMAIN, model, ending=True, gather=Evidence(), **ASKED)
    assert advance(platform, DOMAIN, model, gather=Evidence(), **ASKED).evidence["mode"] == "a/b"
    entry = advance(platform, DOMAIN, model, ending=True, gather=Evidence("few"), **ASKED)
    assert (entry.action, entry.alias, entry.to_manifest) == ("finish", "champion", CHALLENGER)


def test_what_does_certain_harm_is_not_advanced_by_anybody(platform: Platform) -> None:
    """The refusal says what was seen."""
    with pytest.raises(RolloutRefused, match="it is to go back: harm is certain: log_loss"):
        advanced(platform, "harmful")


def test_where_nothing_is_under_way_there_is_nothing_to_do(tmp_path: Path, platform: Platform) -> None:
    """No challenger, no champion, a version that nobody knows: refused in words."""
    quiet = champion_in(tmp_path / "quiet")
    for move in (moves.start, moves.pause, moves.resume):
        with pytest.raises(RolloutRefused, match="no rollout is under way"):
            move(quiet, DOMAIN, MODEL, **ASKED)
    with pytest.raises(RolloutRefused, match="no rollout is under way"):
        advanced(quiet)
    with pytest.raises(RolloutRefused, match="no version of it was ever promoted"):
        moves.roll_back(quiet, "synthetic/speed", **ASKED)
    moves.roll_back(platform, NAME, **ASKED)
    with pytest.raises(RolloutRefused, match=r"the last one ended at 2024-02-01 00:00:00Z \(roll_back: she says so\)"):
        advanced(platform)


def test_a_share_that_was_cut_from_the_declaration_does_no_harm(platform: Platform) -> None:
    """The next step is the first with more traffic than now, whatever the steps were when it began."""
    advanced(platform)
    other = replace(MODEL, rollout=Rollout(steps=(Step(share=0.0, bake=DAY), Step(share=0.3, bake=DAY))))
    entry = advance(platform, DOMAIN, other, gather=Evidence(), **ASKED)
    assert entry.evidence["weight"] == 3000
    assert advance(platform, DOMAIN, other, gather=Evidence(), **ASKED).action == "finish"
    assert standing(entries(platform)).challenger is None
