"""The ledger as people and scripts read it: shown, verified, repaired from, asked for an instant."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.errors import MlplatformError
from mlplatform.operations import ledger_view
from mlplatform.operations.ledger_view import Verified, history, served, verify
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Action, Alias, Ledger
from mlplatform.registry.mlflow_registry import digest_of_alias, set_alias
from mlplatform.rollout.judge import load_evaluation
from mlplatform.rollout.plan import Plan, from_file
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform.rollout.pointing import plan_of, point
from mlplatform.rollout.registration import register_candidate
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS, TrainedHome

# MLflow 3.17 uses what SQLAlchemy 2.1 is going to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*loader strategy")

MODEL = "synthetic/late_order"
HOUR = timedelta(hours=1)
OTHER = "b" * 64


def shown(show: Callable[[Console], None]) -> str:
    """What a person reads, on one line."""
    told = io.StringIO()
    show(Console(file=told, width=300))
    return " ".join(told.getvalue().split())


def record(home: TrainedHome, action: Action, alias: Alias, manifest: str, hours: int, **evidence: object) -> None:
    """Append an event, some hours after the promotion of the home's model."""
    home.platform.clock.now = AFTERWARDS + hours * HOUR  # type: ignore[attr-defined]
    Ledger(home.platform).append(
        MODEL,
        action=action,
        alias=alias,
        to_manifest=manifest,
        actor="ann",
        reason="a [tidy] reason",
        evidence=evidence,
    )


def verified(home: TrainedHome, **asked: object) -> Verified:
    """What is found of the one model."""
    (found,) = verify(home.platform, MODEL, **asked)  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def registered_home(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """A home whose model is in MLflow, without the alias. Made once: MLflow takes seconds for a new database."""
    home = trained.copied_to(tmp_path_factory.mktemp("registered") / "home")
    register_candidate(home.platform, home.domain, home.model, home.recipe.key, load_evaluation(home.folder))
    return home


@pytest.fixture
def registered(registered_home: TrainedHome, tmp_path: Path) -> TrainedHome:
    """A copy of it that a test may change."""
    return registered_home.copied_to(tmp_path / "home")


def test_what_does_not_follow_the_ledger_is_told_and_set_from_it(registered: TrainedHome) -> None:
    """An alias that was never set, a plan that names another one: both name the champion afterwards."""
    platform, champion = registered.platform, registered.entry.to_manifest
    write_plan(platform.home, Plan(model=MODEL, champion=OTHER, number=1))
    found = verified(registered)
    assert (found.broken, found.entries, found.champion) == ("", 1, champion)
    assert found.differs == {
        "alias champion": f"it names nothing, the ledger {champion[:12]}",
        "plan": f"its champion is {OTHER[:12]}, by the ledger {champion[:12]}",
    }
    assert "`mlplatform ledger verify --repair`" in shown(lambda console: ledger_view.show_verified([found], console))
    repaired = verified(registered, repair=True)
    assert (repaired.good, repaired.repaired) == (True, ("alias champion", "plan"))
    assert from_file(plan_path(platform.home, MODEL).read_bytes(), MODEL).champion == champion
    assert digest_of_alias(platform.mlflow_uri, model=MODEL, alias="champion") == champion
    assert verified(registered).good
    assert verify(platform) == [verified(registered)]
    set_alias(platform.mlflow_uri, manifest=bundle_of(platform, champion).manifest, alias="challenger")
    assert verified(registered).differs == {"alias challenger": f"it names {champion[:12]}, the ledger nothing"}
    assert verified(registered, repair=True).repaired == ("alias challenger",)


def test_a_plan_that_says_another_share_is_told_and_set(own_trained: TrainedHome) -> None:
    """Somebody gave the challenger a half by hand; what is no plan at all is told as such, and written anew."""
    record(own_trained, "start", "challenger", OTHER, 1, mode="canary", weight=500)
    plan = point(own_trained.platform, MODEL)
    assert plan and "plan" not in verified(own_trained).differs
    write_plan(own_trained.platform.home, replace(plan, weight=5_000))
    assert verified(own_trained).differs["plan"] == "its share is 0.5, by the ledger 0.05"
    assert verified(own_trained, repair=True).repaired == ("plan",)
    path = plan_path(own_trained.platform.home, MODEL)
    assert from_file(path.read_bytes(), MODEL).version == plan.version
    path.write_text("nonsense")
    assert "it is no flag of flagd's" in verified(own_trained).differs["plan"]
    record(own_trained, "advance", "challenger", OTHER, 2, mode="blue")
    assert "a mode 'blue' that there is not" in verified(own_trained, repair=True).differs["plan"]
    assert path.read_text() == "nonsense"


def test_what_cannot_be_set_is_told(own_trained: TrainedHome) -> None:
    """MLflow was never told of the model, and no database is made for the question; the plan is set all the same."""
    plan_path(own_trained.platform.home, MODEL).unlink()
    assert set(verified(own_trained).differs) == {"alias champion", "plan"}
    assert not (own_trained.platform.home / "mlflow").exists()
    found = verified(own_trained, repair=True)
    assert found.repaired == ("plan",)
    assert "Log the model first" in found.differs["alias champion"]


def test_an_edit_of_the_table_is_told_and_nothing_is_set_from_it(own_trained: TrainedHome) -> None:
    """A field of the second entry changed in its file; gone altogether; no JSON any more: the entry is named."""
    for hour in (1, 2):
        record(own_trained, "promote", "champion", str(hour) * 64, hour)
    write_plan(own_trained.platform.home, Plan(model=MODEL, champion=OTHER))
    (file,) = Path(own_trained.platform.ledger).rglob("2-*.parquet")
    rows = pl.read_parquet(file)
    rows.with_columns(to_manifest=pl.lit(OTHER)).write_parquet(file)
    found = verified(own_trained, repair=True)
    assert found.broken.startswith(f"entry 2 of the ledger of {MODEL} is not as it was written")
    assert "entry 2" in shown(lambda console: ledger_view.show_verified([found], console))
    assert from_file(plan_path(own_trained.platform.home, MODEL).read_bytes(), MODEL).champion == OTHER
    rows.with_columns(evidence=pl.lit("{")).write_parquet(file)
    assert "entry 2" in verified(own_trained).broken
    file.unlink()
    assert verified(own_trained).broken.startswith("the file of entry 2 cannot be read")
    file.write_text("no Parquet")
    assert verified(own_trained).broken.startswith("the file of entry 2 cannot be read")


def test_a_hash_that_somebody_kept_shows_what_was_written_anew(own_trained: TrainedHome) -> None:
    """A chain may be whole and yet another one; who has a hash of the old one sees it."""
    kept = verified(own_trained).hash
    assert verified(own_trained, holds=kept).broken == ""
    assert "written anew" in verified(own_trained, holds=kept[::-1]).broken


def test_the_history_is_shown_with_its_reasons(own_trained: TrainedHome) -> None:
    """Number, time, action, from where, who, why and how much traffic; brackets are no markup; the newest alone."""
    record(own_trained, "promote", "challenger", OTHER, 1)
    record(own_trained, "start", "challenger", OTHER, 2, mode="canary", weight=500, plan="7-ab")
    record(own_trained, "roll_back", "challenger", own_trained.entry.to_manifest, 3)
    entries = history(own_trained.platform, MODEL)
    told = shown(lambda console: ledger_view.show_history(MODEL, entries, console))
    assert "3 2024-02-01 02:00:00Z start challenger bbbbbbbbbbbb, by ann a [tidy] reason [canary 5 %]" in told
    assert f"{own_trained.entry.to_manifest[:12]} (was bbbbbbbbbbbb)" in told
    assert [each.number for each in history(own_trained.platform, MODEL, limit=2)] == [3, 4]
    assert history(own_trained.platform, MODEL, limit=9) == entries
    assert json.loads(ledger_view.as_json(entries))[2]["evidence"] == {"mode": "canary", "weight": 500, "plan": "7-ab"}


def test_an_instant_is_told_in_words(own_trained: TrainedHome) -> None:
    """Who answered which share, since when, by whom and why; nothing before the first promotion."""
    platform, champion = own_trained.platform, own_trained.entry.to_manifest
    plan = plan_path(platform.home, MODEL)

    def told(hours: float) -> str:
        return shown(
            lambda console: ledger_view.show_served(served(platform, MODEL, AFTERWARDS + hours * HOUR), console)
        )

    record(own_trained, "start", "challenger", OTHER, 2, mode="shadow", weight=0)
    record(own_trained, "advance", "challenger", OTHER, 3, mode="canary", weight=1)
    assert "nothing served" in told(-1)
    elsewhere = (AFTERWARDS - HOUR).astimezone(timezone(5 * HOUR))
    assert served(platform, MODEL, elsewhere) == served(platform, MODEL, AFTERWARDS - HOUR)
    assert f"at {AFTERWARDS - HOUR:%Y-%m-%d %H:%M}" in shown(
        lambda console: ledger_view.show_served(served(platform, MODEL, elsewhere), console)
    )
    assert f"champion {champion} answered 100 % of the keys, since 2024-02-01 00:00:00Z by test: the gate" in told(0)
    assert f"challenger: none mode full, plan {from_file(plan.read_bytes(), MODEL).version}" in told(0)
    assert f"challenger {OTHER} scored in the shadow and answered nobody, since 2024-02-01 02:00:00Z by ann" in told(2)
    assert f"champion {champion} answered 99.99 % of the keys" in told(3)
    assert f"challenger {OTHER} answered 0.01 % of the keys" in told(3)
    asked_for = plan_of(MODEL, Ledger(platform).entries(MODEL))
    assert asked_for is not None
    assert f"(entry 3, advance) mode canary, plan {asked_for.version}" in told(3)


def test_the_command_says_so_by_its_exit_code(own_trained: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where all agrees, 1 where something does not; a model that nobody knows is refused, one of the past is not."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(own_trained.platform.home))
    Ledger(own_trained.platform).append(
        "synthetic/retired", action="promote", alias="challenger", to_manifest="c", actor="ann", reason="x", evidence={}
    )
    run = CliRunner().invoke
    assert run(app, ["ledger", "verify", "synthetic/retired"]).exit_code == 0
    assert run(app, ["ledger", "verify"]).exit_code == 1
    assert run(app, ["ledger", "verify", MODEL, "--repair"]).exit_code == 1
    found = run(app, ["ledger", "show", MODEL, "--json"])
    assert json.loads(found.output)[0]["to_manifest"] == own_trained.entry.to_manifest
    found = run(app, ["ledger", "at", MODEL, "2024-02-01T00:00:00Z", "--json"])
    assert json.loads(found.output)["champion"]["manifest"] == own_trained.entry.to_manifest
    for wrong in (["show", "synthetic/late"], ["at", MODEL, "yesterday"], ["verify", "--holds", "a"]):
        assert isinstance(run(app, ["ledger", *wrong]).exception, MlplatformError)
