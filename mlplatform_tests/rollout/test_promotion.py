"""The promotion: an alias moves on a decision that says pass for this very pair, and on nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlplatform.errors import BundleCorrupt, PromotionRefused, StaleRevision
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.registry.pointer import pointer_path, read_pointer
from mlplatform.rollout import promotion
from mlplatform.rollout.judge import judge_candidate, load_decision
from mlplatform.rollout.promotion import promote
from mlplatform_tests.fakes.synthetic_home import TrainedHome, train

NAME = "synthetic/late_order"


def promoted(home: TrainedHome, recipe: str | None = None) -> Entry:
    """Ask for the promotion of a recipe."""
    return promote(home.platform, home.domain, home.model, recipe or home.recipe.key, actor="test")


def ledger_of(home: TrainedHome) -> list[Entry]:
    """What was recorded of the model."""
    return Ledger(home.platform).entries(NAME)


@pytest.fixture
def judged(own_trained: TrainedHome) -> TrainedHome:
    """A home whose model is trained and judged, and not promoted: the ledger is empty."""
    shutil.rmtree(own_trained.platform.home / "ledger")
    return own_trained


@pytest.fixture
def challenged(own_trained: TrainedHome) -> TrainedHome:
    """A home with a champion, and a candidate with other settings judged against it."""
    model = replace(own_trained.model, settings=replace(own_trained.model.settings, rounds=25))
    made = train(own_trained.platform, model)
    return replace(own_trained, model=model, recipe=made)


def rewrite(folder: Path, **changes: Any) -> None:
    """Let a decision say something else."""
    path = folder / "decision.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_first_model_that_passes_becomes_champion(judged: TrainedHome) -> None:
    """One event, from nothing to its bundle, with the recipe as evidence."""
    entry = promoted(judged)
    assert ledger_of(judged) == [entry]
    assert (entry.action, entry.alias, entry.from_manifest) == ("promote", "champion", None)
    assert entry.to_manifest == load_candidate(judged.folder).manifest == Ledger(judged.platform).champion(NAME)
    assert entry.evidence["recipe"] == judged.recipe.key
    assert (entry.actor, entry.at) == ("test", judged.platform.clock())


def test_running_services_are_pointed_at_it(judged: TrainedHome) -> None:
    """At the promotion; and when it is asked for again, should its process have been killed before it could point."""
    pointer = pointer_path(judged.platform.home, NAME)
    pointer.unlink(missing_ok=True)
    entry = promoted(judged)
    assert read_pointer(pointer) == entry.to_manifest
    pointer.unlink()
    assert promoted(judged) == entry
    assert read_pointer(pointer) == entry.to_manifest


def test_a_better_one_takes_its_place(challenged: TrainedHome) -> None:
    """It was compared with the champion on the same rows, and leads back to it."""
    before = Ledger(challenged.platform).champion(NAME)
    decision = load_decision(challenged.folder)
    assert decision.champion == before == challenged.entry.to_manifest
    assert any(rule.rule == "not worse than champion" for rule in decision.rules)
    entry = promoted(challenged)
    assert (entry.number, entry.from_manifest) == (2, before)
    assert bundle_of(challenged.platform, entry.to_manifest).manifest.rollback_target == before


def test_promoted_twice_it_is_one_event(judged: TrainedHome) -> None:
    """Asked again for the champion of now, nothing is recorded; a second look at the gate changes nothing either."""
    first = promoted(judged)
    judge_candidate(judged.platform, judged.domain, judged.model, judged.recipe)
    assert promoted(judged) == first
    assert ledger_of(judged) == [first]


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "not judged": (lambda folder: (folder / "decision.json").unlink(), "Materialise `evaluation` of that recipe first"),
    "no model": (lambda folder: (folder / "model.json").unlink(), "Materialise `model` of that recipe first"),
    "torn": (
        lambda folder: (folder / "decision.json").write_text('{"outcome": "pass"'),
        "no promotion decision",
    ),
    "failed": (lambda folder: rewrite(folder, outcome="fail"), "the decision is `fail`"),
    "inconclusive": (lambda folder: rewrite(folder, outcome="inconclusive"), "the decision is `inconclusive`"),
    "another candidate": (lambda folder: rewrite(folder, candidate="f" * 64), "about candidate ffffffffffff, not"),
    "another champion": (lambda folder: rewrite(folder, champion="f" * 64), "the champion has changed"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_without_a_decision_for_this_pair_nothing_is_moved(judged: TrainedHome, fault: str) -> None:
    """No decision, one that is no pass, one on another candidate or champion: refused, with the reason."""
    spoil, told = REFUSED[fault]
    spoil(judged.folder)
    with pytest.raises(PromotionRefused, match=told) as raised:
        promoted(judged)
    assert str(raised.value).endswith("Nothing was moved")
    assert ledger_of(judged) == []


def test_a_decision_is_void_once_the_champion_has_changed(challenged: TrainedHome) -> None:
    """What was compared with the champion of then is compared again."""
    other = train(
        challenged.platform, replace(challenged.model, settings=replace(challenged.model.settings, rounds=30))
    )
    promoted(challenged)
    with pytest.raises(PromotionRefused, match="the champion has changed since the evaluation"):
        promoted(challenged, other.key)
    assert [entry.number for entry in ledger_of(challenged)] == [1, 2]


def test_an_event_between_reading_and_writing_refuses_the_promotion(
    challenged: TrainedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever moves the alias while the golden rows are scored comes first; this one decides again."""

    def overtaken(*asked: Any) -> Bundle:
        Ledger(challenged.platform).append(
            NAME, action="roll_back", alias="champion", to_manifest="e" * 64, actor="other", reason="", evidence={}
        )
        return bundle_of(*asked)

    monkeypatch.setattr(promotion, "bundle_of", overtaken)
    with pytest.raises(StaleRevision):
        promoted(challenged)
    assert [entry.actor for entry in ledger_of(challenged)] == ["test", "other"]


def test_a_bundle_that_was_touched_is_not_promoted(judged: TrainedHome) -> None:
    """What would serve must be what was evaluated."""
    digest = load_candidate(judged.folder).manifest
    with (judged.platform.bundles / digest / "calibration.json").open("a") as file:
        file.write(" ")
    with pytest.raises(BundleCorrupt, match=r"calibration\.json"):
        promoted(judged)
    assert ledger_of(judged) == []
