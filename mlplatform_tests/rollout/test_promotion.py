"""The promotion: an alias moves on a decision that says pass for this very pair, and on nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domain.reproducibility import Reproducibility
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import BundleCorrupt, PromotionRefused, StaleRevision
from mlplatform.provenance.checkout import Checkout
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of, load_candidate, make_candidate
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.rollout import promotion
from mlplatform.rollout.judge import judge_candidate, load_decision
from mlplatform.rollout.moves import override, roll_back
from mlplatform.rollout.plan import from_file
from mlplatform.rollout.plan_file import plan_path
from mlplatform.rollout.promotion import promote
from mlplatform_tests.docs.page import ROOT
from mlplatform_tests.fakes.synthetic_home import TrainedHome, platform_in, train

NAME = "synthetic/late_order"
EDITED = Checkout(commit="beef" * 10, dirty=True, root=Path("/checkout"), changes=lambda: b"edits")


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


@pytest.fixture
def rolling(challenged: TrainedHome) -> TrainedHome:
    """The same, with a model that declares a rollout."""
    return replace(challenged, model=replace(challenged.model, rollout=Rollout()))


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
    plan = plan_path(judged.platform.home, NAME)
    plan.unlink(missing_ok=True)
    entry = promoted(judged)
    assert from_file(plan.read_bytes(), NAME).champion == entry.to_manifest
    plan.unlink()
    assert promoted(judged) == entry
    assert from_file(plan.read_bytes(), NAME).champion == entry.to_manifest


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
            NAME, action="roll_back", alias="champion", to_manifest="e" * 64, actor="other", reason="-", evidence={}
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


def test_where_a_rollout_is_declared_it_becomes_challenger(rolling: TrainedHome) -> None:
    """In the shadow, with the champion as it was; asked for again, nothing more is recorded and the plan is there."""
    champion = rolling.entry.to_manifest
    entry = promoted(rolling)
    assert (entry.action, entry.alias) == ("promote", "challenger")
    made = ledger_of(rolling)
    assert [(each.action, each.evidence.get("mode")) for each in made[1:]] == [("promote", None), ("start", "shadow")]
    assert Ledger(rolling.platform).champion(NAME) == champion
    plan_path(rolling.platform.home, NAME).unlink()
    assert promoted(rolling) == entry
    assert ledger_of(rolling) == made
    assert entry.to_manifest in plan_path(rolling.platform.home, NAME).read_text()


def test_a_start_that_was_killed_is_made_good_for(rolling: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the promotion and the start of the rollout: asked for again, it starts."""

    def killed(*_: Any, **asked: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(promotion, "start", killed)
        with pytest.raises(KeyboardInterrupt):
            promoted(rolling)
    assert [each.action for each in ledger_of(rolling)] == ["promote", "promote"]
    assert promoted(rolling).number == 2
    assert [each.action for each in ledger_of(rolling)] == ["promote", "promote", "start"]


def test_one_rollout_at_a_time(rolling: TrainedHome) -> None:
    """Another version waits for its end, and is told how to end it."""
    settings = replace(rolling.model.settings, rounds=30)
    other = train(rolling.platform, replace(rolling.model, settings=settings))
    first = promoted(rolling)
    with pytest.raises(PromotionRefused, match=f"the rollout of {first.to_manifest[:12]} is under way"):
        promoted(rolling, other.key)
    roll_back(rolling.platform, NAME, by="ann", reason="harm")
    assert promoted(rolling, other.key).alias == "challenger"


def test_what_was_rolled_back_comes_again_only_by_an_override(
    rolling: TrainedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal says the command; it is logged with its reason, and the rollout begins in the shadow."""
    digest = promoted(rolling).to_manifest
    roll_back(rolling.platform, NAME, by="ann", reason="harm")
    short = digest[:12]
    with pytest.raises(PromotionRefused, match=f"`mlplatform rollout start {NAME} {short} --override --reason TEXT`"):
        promoted(rolling)
    monkeypatch.setattr("mlplatform.cli.rollout.model_named", lambda _: (rolling.domain, rolling.model))
    monkeypatch.setattr("mlplatform.cli.rollout.platform_from_settings", lambda: rolling.platform)
    command = ["rollout", "start", NAME, short, "--reason", "it was the feed", "--by", "ann"]
    assert isinstance(CliRunner().invoke(app, command).exception, PromotionRefused)
    done = CliRunner().invoke(app, [*command, "--override"])
    number = len(ledger_of(rolling))
    assert done.output == f"{NAME}: {short} has shadow: it answers nobody (entry {number} of the ledger, by ann)\n"
    override, again, start = ledger_of(rolling)[-3:]
    assert (override.action, override.reason, override.to_manifest) == ("override", "it was the feed", digest)
    assert again.reason.startswith("it was the feed; the gate says pass")
    assert start.action == "start"


def test_a_champion_that_was_rolled_back_does_not_come_again_by_itself(challenged: TrainedHome) -> None:
    """Nor where no rollout is declared: its decision still says pass, against the very champion that it left."""
    promoted(challenged)
    roll_back(challenged.platform, NAME, by="ann", reason="harm")
    with pytest.raises(PromotionRefused, match="it was rolled back by ann: harm"):
        promoted(challenged)


def made_in(home: TrainedHome, checkout: Checkout, promise: Reproducibility) -> TrainedHome:
    """The same model trained and judged anew, in another checkout, for a domain that promises so."""
    own = replace(
        home,
        platform=platform_in(home.platform.home, checkout=checkout),
        domain=replace(home.domain, reproducibility=promise),
    )
    (own.folder / "model.json").unlink()
    make_candidate(own.platform, own.domain, own.model, own.recipe)
    judge_candidate(own.platform, own.domain, own.model, own.recipe)
    return own


def test_what_no_commit_holds_is_not_promoted(judged: TrainedHome) -> None:
    """The reason says what to do; after the commit the same recipe is made anew, and passes."""
    edited = made_in(judged, EDITED, Reproducibility())
    with pytest.raises(
        PromotionRefused, match="with changes that no commit holds: commit them, then `mlplatform train"
    ):
        promoted(edited)
    assert ledger_of(judged) == []
    committed = replace(edited, platform=platform_in(edited.platform.home))
    make_candidate(committed.platform, committed.domain, committed.model, committed.recipe)
    judge_candidate(committed.platform, committed.domain, committed.model, committed.recipe)
    assert promoted(committed).alias == "champion"


def test_what_a_diff_holds_is_promoted_where_the_domain_lets_it(judged: TrainedHome) -> None:
    """With the changes in the bundle."""
    stored = made_in(judged, EDITED, Reproducibility(dirty_tree="stored"))
    bundle = bundle_of(stored.platform, promoted(stored).to_manifest)
    assert (bundle.folder / "uncommitted.diff").read_bytes() == b"edits"


def test_a_promise_without_the_changes_is_not_enough(judged: TrainedHome) -> None:
    """The domain lets them be stored since then: those of the training were not."""
    edited = made_in(judged, EDITED, Reproducibility())
    later = replace(edited, domain=replace(edited.domain, reproducibility=Reproducibility(dirty_tree="stored")))
    with pytest.raises(PromotionRefused, match="its bundle does not hold them"):
        promoted(later)


def test_what_no_record_tells_of_is_not_promoted(judged: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it evaluated all the same, by an older version: the promotion looks itself."""
    monkeypatch.setattr(promotion, "lacking", lambda _bundle: ["checkouts"])
    with pytest.raises(PromotionRefused, match="its record lacks checkouts; train it again"):
        promoted(judged)


def test_an_override_lets_no_edits_through(rolling: TrainedHome) -> None:
    """It is about a rollback; the promotion after it asks for the commit all the same."""
    edited = made_in(rolling, EDITED, Reproducibility(dirty_tree="stored"))
    digest = promoted(edited).to_manifest
    roll_back(edited.platform, NAME, by="ann", reason="harm")
    override(edited.platform, NAME, digest, by="ann", reason="it was the feed")
    refusing = replace(edited, domain=replace(edited.domain, reproducibility=Reproducibility()))
    with pytest.raises(PromotionRefused, match="with changes that no commit holds"):
        promoted(refusing)
    assert [each.action for each in ledger_of(edited)][-1] == "override"


def test_only_the_promotion_makes_a_challenger() -> None:
    """So what it refuses no other move puts before people."""
    sources = (ROOT / "mlplatform").rglob("*.py")
    assert [path.name for path in sources if 'action="promote"' in path.read_text()] == ["promotion.py"]
