"""The decisions on a model: kept once, told of, one run each; whoever dies in between, however often it is said."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster._core.test_utils import create_run_for_test

from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import StaleRevision
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Action, Alias, Ledger
from mlplatform.retraining import sensors
from mlplatform.retraining.assets import decision_key
from mlplatform.retraining.decision import decide
from mlplatform.retraining.events import DataUpdated, EventWriter, event_folder, kept_for
from mlplatform.retraining.sensors import retraining_sensor, training_job_name
from mlplatform.retraining.tables import Recorded, record, trail
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

MODEL, OTHER = DOMAIN.model("late_order"), DOMAIN.model("speed")
NOON = datetime(2024, 2, 1, 12, tzinfo=UTC)


class Daemon:
    """Ticks the sensors of a home, and does with their results what Dagster's daemon does."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance, clock: Clock) -> None:
        self.platform, self.instance, self.clock = platform, instance, clock
        self.writer = EventWriter(event_folder(platform.home, DOMAIN.name), clock)

    def evaluate(self, model: ModelSpec = MODEL) -> dg.SensorResult:
        """One look of the sensor, of which nothing is kept: the daemon dies with it."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.platform})
        result = retraining_sensor(DOMAIN, model)(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def tick(self, model: ModelSpec = MODEL) -> dg.SensorResult:
        """One look, and what comes of it."""
        result = self.evaluate(model)
        for event in result.asset_events:
            assert isinstance(event, dg.AssetMaterialization)
            self.instance.report_runless_asset_event(event)
        for request in result.run_requests or []:
            self.finish(model, str(request.partition_key))
        return result

    def finish(self, model: ModelSpec, key: str) -> None:
        """A run of a recipe has succeeded."""
        create_run_for_test(
            self.instance,
            job_name=training_job_name(DOMAIN, model),
            status=dg.DagsterRunStatus.SUCCESS,
            tags={PARTITION_NAME_TAG: key},
        )

    def say(self, name: str, **changed: Any) -> None:
        """An event comes in."""
        given = {"id": name, "source": "orders", "partition": "2024-01-05", "rows_added": 200, **changed}
        self.writer.append(name, DataUpdated(**given))

    def kept(self, model: ModelSpec = MODEL) -> list[tuple[str, str]]:
        """Outcome and kind of every decision, oldest first."""
        records = trail(self.platform, DOMAIN, model.name, at_least=100).records
        return [(each.outcome, each.kind) for each in reversed(records)]

    def told(self, model: ModelSpec = MODEL) -> list[str]:
        """What Dagster shows, oldest first."""
        key = decision_key(f"{DOMAIN.name}/{model.name}")
        shown = self.instance.fetch_materializations(key, limit=100).records
        events = [each.asset_materialization for each in reversed(shown)]
        return [str(each.metadata["outcome"].value) for each in events if each]


@pytest.fixture
def daemon(own_trained: TrainedHome) -> Iterator[Daemon]:
    """A daemon over a home whose days are computed, and that knows of no training."""
    clock = Clock(NOON)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(replace(own_trained.platform, clock=clock), instance, clock)


def test_a_decision_is_kept_and_told_once(daemon: Daemon) -> None:
    """To train, then to wait; the same again only on another day."""
    first = daemon.tick()
    assert [str(each.partition_key) for each in first.run_requests or []]
    for _ in range(5):
        assert not daemon.tick().run_requests
    assert daemon.kept() == [("train", "first"), ("wait", "nothing")]
    daemon.clock.now += timedelta(days=1)
    for _ in range(3):
        daemon.tick()
    assert daemon.kept() == [("train", "first"), ("wait", "nothing"), ("wait", "nothing")]
    assert daemon.told() == ["train", "wait", "wait"]
    newest = trail(daemon.platform, DOMAIN, MODEL.name).records[0]
    assert newest.inputs["new_rows"] == {"value": 0, "threshold": 1_000}
    assert newest.trained_at == NOON


def test_events_go_a_month_after_every_model_has_decided_on_them(daemon: Daemon) -> None:
    """The sensors prune; a model that has not ticked yet holds them back."""
    daemon.say("a")
    daemon.writer.close()
    folder = event_folder(daemon.platform.home, DOMAIN.name)
    daemon.tick()
    daemon.clock.now += kept_for + timedelta(days=1)
    daemon.tick()
    assert len(list(folder.glob("*.frames"))) == 1
    for model in DOMAIN.models:
        daemon.tick(model)
    daemon.clock.now += timedelta(days=1)
    daemon.tick()
    assert not list(folder.glob("*.frames"))


@pytest.mark.parametrize("dies", ["before Dagster is told", "before the decision is kept"])
def test_who_dies_between_decision_and_run_gets_one_of_each(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    """At either place; and the recipe is the one that was decided on."""
    if dies == "before Dagster is told":
        lost = daemon.evaluate()
        assert lost.run_requests
    else:
        with monkeypatch.context() as patched:
            patched.setattr(sensors, "record", _die)
            with pytest.raises(KeyboardInterrupt):
                daemon.evaluate()
    daemon.clock.now += timedelta(seconds=30)
    (request,) = daemon.tick().run_requests or []
    (last,) = trail(daemon.platform, DOMAIN, MODEL.name).records
    assert request.run_key == request.partition_key == last.recipe
    assert not daemon.tick().run_requests
    assert daemon.kept() == [("train", "first"), ("wait", "nothing")]
    assert daemon.told() == ["train", "wait"]


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_two_daemons_decide_once(daemon: Daemon) -> None:
    """Of two that have seen the same, the second is refused and looks again."""
    before = trail(daemon.platform, DOMAIN, MODEL.name)
    said = Recorded(
        model="synthetic/late_order",
        at=NOON,
        outcome="wait",
        kind="nothing",
        reason="",
        recipe="",
        inputs={},
        events=[],
        trained_at=None,
        reached={},
    )
    record(daemon.platform, DOMAIN, before, [said])
    with pytest.raises(StaleRevision):
        record(daemon.platform, DOMAIN, before, [said])


def test_an_event_is_decided_on_once_however_often_it_is_sent(daemon: Daemon) -> None:
    """Also where the decision says the same again: whoever sent it can see what became of it."""
    daemon.tick()
    daemon.tick()
    for _ in range(200):
        daemon.say("a", dataset_version="v2")
    # Another gateway takes the same a moment later.
    daemon.clock.now += timedelta(seconds=1)
    daemon.writer = EventWriter(event_folder(daemon.platform.home, DOMAIN.name), daemon.clock)
    daemon.say("a")
    for _ in range(3):
        daemon.tick()
    daemon.say("a")
    daemon.tick()
    assert daemon.kept() == [("train", "first"), ("wait", "nothing"), ("wait", "nothing")]
    (event,) = trail(daemon.platform, DOMAIN, MODEL.name).records[0].events
    assert (event["id"], event["dataset_version"]) == ("a", "v2")


def test_an_event_of_no_partition_is_a_refused_decision(daemon: Daemon) -> None:
    """With the reason, beside the decision on what else came; it trains nothing and is not taken again."""
    daemon.tick()
    daemon.say("far", partition="2031-01-01")
    daemon.say("early", partition="2023-12-31")
    daemon.say("gone", partition="2024-03-01")
    for _ in range(3):
        assert not daemon.tick().run_requests
    assert daemon.kept() == [("train", "first"), ("refuse", "unknown_partition"), ("wait", "nothing")]
    refusal = trail(daemon.platform, DOMAIN, MODEL.name).records[1]
    assert "2031-01-01 is no day of synthetic" in refusal.reason
    assert "nothing of orders has landed for 2024-03-01" in refusal.reason
    assert [each["id"] for each in refusal.events] == ["early", "far", "gone"]
    assert daemon.told() == ["train", "refuse", "wait"]
    daemon.say("good")
    daemon.say("bad", partition="2031-01-02")
    daemon.tick()
    assert daemon.kept()[3:] == [("refuse", "unknown_partition"), ("wait", "nothing")]


def test_many_events_are_one_decision(daemon: Daemon) -> None:
    """Some are named, all are counted."""
    daemon.tick()
    for number in range(100):
        daemon.say(f"e{number:03}")
    daemon.tick()
    assert daemon.kept() == [("train", "first"), ("wait", "nothing")]
    events = trail(daemon.platform, DOMAIN, MODEL.name).records[0].events
    assert (len(events), events[-1]) == (21, {"more": 80})


def test_much_nonsense_is_one_short_refusal(daemon: Daemon) -> None:
    """Of a thousand days that are none some are named, in the record and in what Dagster shows."""
    daemon.tick()
    for number in range(1000):
        daemon.say(f"e{number:03}", partition=f"{2031 + number}-01-01")
    daemon.tick()
    (refusal,) = (
        each for each in trail(daemon.platform, DOMAIN, MODEL.name).records if each.kind == "unknown_partition"
    )
    assert refusal.reason.endswith("; and 980 more") and len(refusal.reason) < 2_000
    assert refusal.events[-1] == {"more": 980}


def test_what_somebody_reports_by_hand_breaks_nothing(daemon: Daemon) -> None:
    """The UI offers it for an asset that no run makes; decisions are told of all the same."""
    daemon.tick()
    key = decision_key(f"{DOMAIN.name}/{MODEL.name}")
    daemon.instance.report_runless_asset_event(dg.AssetMaterialization(key))
    daemon.tick()
    daemon.tick()
    assert daemon.kept() == [("train", "first"), ("wait", "nothing")]
    shown = daemon.instance.fetch_materializations(key, limit=10).records
    assert len(shown) == 3


def test_two_models_decide_each_for_itself(daemon: Daemon) -> None:
    """An event is decided on for both, and neither waits for the other."""
    daemon.say("a")
    for model in (MODEL, OTHER):
        (request,) = daemon.tick(model).run_requests or []
        assert request.job_name == training_job_name(DOMAIN, model)
        assert daemon.kept(model) == [("train", "first")]
        assert [each["id"] for each in trail(daemon.platform, DOMAIN, model.name).records[0].events] == ["a"]


def test_harmful_drift_of_the_model_that_serves_counts(daemon: Daemon, own_trained: TrainedHome) -> None:
    """Not that of an earlier one, nor a fault of the data, nor what is merely unusual; a day without is no drift."""
    champion = Ledger(daemon.platform).champion("synthetic/late_order") or ""
    newest = replace(own_trained.recipe, facts={})

    def drift() -> float | None:
        return decide(daemon.platform, DOMAIN, MODEL, newest).evidence.drift

    def found(rule: str, harm: float, manifest: str = champion, *, harmful: bool = True) -> Finding:
        return Finding(
            layer="data_quality",
            rule=rule,
            subject="synthetic/late_order",
            manifest=manifest,
            day="2024-01-26",
            summary="",
            harmful=harmful,
            figures={"harm": harm},
        )

    assert drift() is None
    keep_findings(daemon.platform, DOMAIN, "data_quality", "2024-01-26", [], "run")
    assert drift() == 0.0
    others = [found("drift", 0.9, "another"), found("null_rate", 0.9), found("drift", 0.8, harmful=False)]
    keep_findings(daemon.platform, DOMAIN, "data_quality", "2024-01-26", [*others, found("drift", 0.3)], "run")
    assert drift() == 0.3


def test_what_cannot_be_trained_waits(daemon: Daemon) -> None:
    """And says for what."""
    impossible = replace(MODEL, split=replace(MODEL.split, evaluation=timedelta(days=100)))
    assert not daemon.tick(impossible).run_requests
    assert daemon.kept() == [("wait", "data")]
    assert "nothing is left to train on" in trail(daemon.platform, DOMAIN, MODEL.name).records[0].reason


def test_nothing_is_trained_while_a_challenger_is_rolled_out(daemon: Daemon) -> None:
    """It could not be promoted; when the rollout has ended, what was put off is trained."""
    ledger = Ledger(daemon.platform)

    def move(action: Action, alias: Alias) -> None:
        ledger.append(
            f"{DOMAIN.name}/{MODEL.name}",
            action=action,
            alias=alias,
            to_manifest="b" * 64,
            actor="a test",
            reason="to see what waits",
            evidence={},
        )

    move("promote", "challenger")
    assert not daemon.tick().run_requests
    assert daemon.kept() == [("wait", "rollout")]
    assert "the rollout of bbbbbbbbbbbb comes to its end first" in (
        trail(daemon.platform, DOMAIN, MODEL.name).records[0].reason
    )
    move("finish", "champion")
    assert daemon.tick().run_requests
