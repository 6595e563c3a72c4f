"""The sensor of a rollout: one look a tick, shown where it says something new, and a run after its end."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlplatform.domain.rollout import DAY, Rollout
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout import moves
from mlplatform.rollout.plan_file import WatchedPlan, plan_path
from mlplatform.rollout.sensors import rollout_sensor
from mlplatform_tests.fakes.rolled_out import CHALLENGER, NAME, Evidence, champion_in, declared, promoted, rolling_out

MODEL = declared(Rollout())
RECIPE = f"2024-01-25-{CHALLENGER[:6]}"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster that forgets."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A rollout in its first step, the shadow."""
    return rolling_out(tmp_path / "home", MODEL)


def ticked(
    instance: dg.DagsterInstance, platform: Platform, says: str = "good", cursor: str | None = None
) -> dg.SensorResult:
    """What one tick of the sensor gives."""
    sensor = rollout_sensor(DOMAIN, MODEL, gather=Evidence(says))
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform}) as context:
        found = sensor(context)
    assert isinstance(found, dg.SensorResult)
    return found


def shown(found: dg.SensorResult) -> dg.AssetMaterialization:
    """The one look that a tick shows."""
    (event,) = found.asset_events
    assert isinstance(event, dg.AssetMaterialization)
    return event


def test_a_wait_is_shown_with_its_evidence(instance: dg.DagsterInstance, platform: Platform) -> None:
    """Under the challenger's recipe: what it waits for, and each bound beside its margin; once, until it is new."""
    found = ticked(instance, platform, "few")
    assert "the step bakes until" in str(found.skip_reason)
    event = shown(found)
    assert (event.asset_key.path, event.partition) == (["synthetic", "late_order", "rollout"], RECIPE)
    assert event.metadata["traffic"].value == "shadow: it answers nobody"
    table = str(event.metadata["bounds"].value).splitlines()
    assert table[0] == "| figure | where | pairs | worse by | at least, at most | margin | |"
    assert any(line.startswith("| log_loss | district=hill | 7 | +0.0000 | -") for line in table)
    assert any(line.startswith("| failures | all | 20 | +0.0000 |") and "may be worse" in line for line in table)
    platform.clock.now += MINUTE  # type: ignore[attr-defined]
    assert not ticked(instance, platform, "few").asset_events


def test_a_step_is_taken_by_a_tick(instance: dg.DagsterInstance, platform: Platform) -> None:
    """With the entry that it made, and no run: the plan is all that has to change."""
    platform.clock.now += DAY  # type: ignore[attr-defined]
    found = ticked(instance, platform)
    assert not found.run_requests
    event = shown(found)
    assert (event.metadata["share"].value, event.metadata["ledger_entry"].value) == (0.05, 4)
    assert "below the margin" in str(event.metadata["bounds"].value)
    watched = WatchedPlan(plan_path(platform.home, NAME), NAME)
    watched.look()
    assert watched.plan is not None
    assert watched.plan.share == 0.05


def test_after_the_end_a_run_is_asked_for(instance: dg.DagsterInstance, platform: Platform) -> None:
    """Once: a tick whose cursor was lost asks under the same key, the next one not at all."""
    found = ticked(instance, platform, "harmful")
    assert "**worse**" in str(shown(found).metadata["bounds"].value)
    (request,) = found.run_requests or ()
    assert (request.job_name, request.partition_key) == ("synthetic_late_order_release", RECIPE)
    (again,) = ticked(instance, platform).run_requests or ()
    assert again.run_key == request.run_key == f"{NAME}:4"
    rest = ticked(instance, platform, cursor=found.cursor)
    assert (rest.run_requests, rest.asset_events, str(rest.skip_reason)) == (
        [],
        [],
        "SkipReason(skip_message='no rollout is under way')",
    )


def test_a_rollback_by_command_is_followed_up_too(instance: dg.DagsterInstance, platform: Platform) -> None:
    """Whoever ended it."""
    moves.roll_back(platform, NAME, by="ann", reason="a call from the shop")
    (request,) = ticked(instance, platform).run_requests or ()
    assert request.partition_key == RECIPE


def test_a_plan_that_was_lost_is_written_again(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Also where no rollout is under way; what Dagster shows is nothing."""
    platform = champion_in(tmp_path / "home")
    found = ticked(instance, platform)
    assert plan_path(platform.home, NAME).exists()
    assert not found.asset_events and not found.run_requests


def test_a_promotion_killed_before_the_start_goes_on(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """The tick starts what was promoted, and shows it."""
    platform = champion_in(tmp_path / "home")
    promoted(platform, CHALLENGER)
    assert shown(ticked(instance, platform)).metadata["outcome"].value == "start"
    assert Ledger(platform).entries(NAME)[-1].action == "start"
