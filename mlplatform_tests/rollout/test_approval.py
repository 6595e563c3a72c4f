"""The approval: given by a named person, bound to one manifest, void after its rollback; looked for where demanded."""

import shutil
from dataclasses import replace

import dagster as dg
import pytest
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import DAY, Rollout, Step
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import BundleCorrupt, DataError, PromotionRefused, Unsigned
from mlplatform.features.partitions import recipes
from mlplatform.operations.jobs import quiet
from mlplatform.registry.candidate import promoted_bundle
from mlplatform.registry.ledger import Action, Alias, Entry, Ledger
from mlplatform.rollout.approval import approve, approved
from mlplatform.rollout.assets import rollout_assets
from mlplatform.rollout.promotion import promote
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS, TrainedHome

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAME = "synthetic/late_order"
ASSET = dg.AssetKey(["synthetic", "late_order", "approval"])


def event(number: int, action: Action, alias: Alias, before: str | None, manifest: str) -> Entry:
    """An entry as the ledger would give it back."""
    return Entry(
        number=number,
        action=action,
        alias=alias,
        from_manifest=before,
        to_manifest=manifest,
        actor="ann",
        reason="looked at it",
        evidence={},
        at=AFTERWARDS,
        hash="",
    )


@pytest.fixture
def demanding(own_trained: TrainedHome) -> TrainedHome:
    """A home whose model demands an approval; it is judged, and nothing is in the ledger."""
    shutil.rmtree(own_trained.platform.home / "ledger")
    return replace(own_trained, model=replace(own_trained.model, rollout=Rollout(approval=True)))


def promoted(home: TrainedHome) -> Entry:
    """Ask for the promotion of the home's recipe."""
    return promote(home.platform, home.domain, home.model, home.recipe.key, actor="test")


def test_an_approval_is_of_one_manifest() -> None:
    """Of that very digest, the newest one counts; a promotion, or the approval of another, is none."""
    events = [
        event(1, "promote", "champion", None, "a"),
        event(2, "approve", "challenger", None, "b"),
        event(3, "start", "challenger", None, "b"),
        event(4, "approve", "challenger", "b", "b"),
    ]
    assert approved(events, "b") == events[3]
    assert approved(events, "a") is None
    assert approved([], "b") is None


@pytest.mark.parametrize(
    "sent_back",
    [
        event(3, "roll_back", "challenger", "b", "a"),
        event(3, "roll_back", "challenger", "b", "b"),
        event(3, "roll_back", "champion", "b", "a"),
    ],
    ids=["challenger to champion", "challenger stays named", "champion to the one before"],
)
def test_a_rollback_voids_the_approval_of_what_it_sends_back(sent_back: Entry) -> None:
    """And of nothing else; who approves again afterwards is heard."""
    events = [event(1, "approve", "challenger", None, "a"), event(2, "approve", "challenger", None, "b"), sent_back]
    assert approved(events, "b") is None
    assert approved(events, "a") == events[0]
    again = event(4, "approve", "challenger", "a", "b")
    assert approved([*events, again], "b") == again


def test_a_model_that_demands_it_is_not_promoted_without(demanding: TrainedHome) -> None:
    """The refusal says the command to run; once it has been run, the promotion goes through."""
    digest = demanding.entry.to_manifest
    with pytest.raises(PromotionRefused, match=f"run `mlplatform approve {NAME} {digest} --by NAME --reason TEXT`"):
        promoted(demanding)
    approve(demanding.platform, NAME, digest[:12], by="Ann Example", reason="looked at the segments")
    assert promoted(demanding).to_manifest == digest
    first, second = Ledger(demanding.platform).entries(NAME)
    assert (first.action, first.to_manifest, first.actor, first.reason) == (
        "approve",
        digest,
        "Ann Example",
        "looked at the segments",
    )
    assert first.evidence == {"recipe": demanding.recipe.key, "gate": "pass"}
    assert (second.action, second.from_manifest) == ("promote", None)


def test_what_was_sent_back_is_approved_again_before_it_is_promoted(demanding: TrainedHome) -> None:
    """An approval does not outlive the rollback of its manifest."""
    digest = demanding.entry.to_manifest
    at_once = Rollout(approval=True, steps=(Step(share=0.05, bake=DAY),))
    demanding = replace(demanding, model=replace(demanding.model, rollout=at_once))
    approve(demanding.platform, NAME, digest, by="Ann", reason="looked at it")
    promoted(demanding)
    Ledger(demanding.platform).append(
        NAME, action="roll_back", alias="champion", to_manifest="e" * 64, actor="Ann", reason="harm", evidence={}
    )
    with pytest.raises(PromotionRefused, match="nobody has approved of it"):
        promoted(demanding)


def test_nobody_approves_of_what_is_not_there(demanding: TrainedHome) -> None:
    """No such digest, too few digits to name one, another model's, a bundle that was touched, no name, no reason."""
    platform, digest = demanding.platform, demanding.entry.to_manifest
    for wrong in ("f" * 64, digest[:11], "*", f"../bundles/{digest}"):
        with pytest.raises(DataError, match="is no manifest of synthetic/late_order"):
            approve(platform, NAME, wrong, by="Ann", reason="x")
    with pytest.raises(DataError, match="is of synthetic/late_order, not of synthetic/speed"):
        approve(platform, "synthetic/speed", digest, by="Ann", reason="x")
    for by, reason in (("", "x"), ("Ann", "  ")):
        with pytest.raises(Unsigned):
            approve(platform, NAME, digest, by=by, reason=reason)
    with (platform.bundles / digest / "calibration.json").open("a") as file:
        file.write(" ")
    with pytest.raises(BundleCorrupt):
        approve(platform, NAME, digest, by="Ann", reason="x")
    assert Ledger(platform).entries(NAME) == []


def test_the_command_approves(demanding: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for name and reason, and says which entry it made."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(demanding.platform.home))
    digest = demanding.entry.to_manifest
    assert CliRunner().invoke(app, ["approve", NAME, digest]).exit_code == 2
    done = CliRunner().invoke(app, ["approve", NAME, digest[:12], "--by", "Ann", "--reason", "looked at it"])
    assert done.output == f"{NAME} {digest} is approved of by Ann, entry 1 of the ledger\n"
    assert approved(Ledger(demanding.platform).entries(NAME), digest) is not None


def asset_of(model: ModelSpec) -> list[dg.AssetsDefinition]:
    """The approval among the assets of a model."""
    return [each for each in rollout_assets(DOMAIN, model) if each.key == ASSET]


def test_the_asset_is_there_where_an_approval_is_demanded(demanding: TrainedHome, trained: TrainedHome) -> None:
    """In a group of its own, since the job of a training would run it without anybody's name."""
    assert asset_of(trained.model) == []
    assert asset_of(replace(trained.model, rollout=Rollout())) == []
    (asset,) = asset_of(demanding.model)
    assert asset.group_names_by_key[ASSET] == "synthetic_late_order_approval"


def test_who_materialises_the_asset_approves(demanding: TrainedHome) -> None:
    """From the launchpad's `by` and `reason`; without them the run is not even begun."""

    def run(config: dict[str, str]) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(
                recipes(demanding.domain, demanding.model).name or "", [demanding.recipe.key]
            )
            return dg.materialize(
                asset_of(demanding.model),
                instance=instance,
                partition_key=demanding.recipe.key,
                resources={"platform": demanding.platform},
                run_config={**quiet, "ops": {"synthetic__late_order__approval": {"config": config}}},
            )

    with pytest.raises(dg.DagsterInvalidConfigError):
        run({"reason": "looked at it"})
    with pytest.raises(Unsigned):
        run({"by": " ", "reason": "looked at it"})
    assert run({"by": "Ann", "reason": "looked at it"}).success
    (entry,) = Ledger(demanding.platform).entries(NAME)
    assert (entry.actor, entry.reason, entry.to_manifest) == ("Ann", "looked at it", demanding.entry.to_manifest)


def test_an_approval_is_no_promotion(demanding: TrainedHome) -> None:
    """No Bento is built of what was approved of and not promoted."""
    approve(demanding.platform, NAME, demanding.entry.to_manifest, by="ann", reason="looked at it")
    with pytest.raises(PromotionRefused, match="tells of no promotion"):
        promoted_bundle(demanding.platform, demanding.domain, demanding.model, demanding.recipe.key)
    promoted(demanding)
    assert promoted_bundle(demanding.platform, demanding.domain, demanding.model, demanding.recipe.key).is_dir()
