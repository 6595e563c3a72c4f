"""The sensor of a model: a recipe whose run broke off is tried again for ever, by the code of now, not in silence."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster._core.test_utils import create_run_for_test

from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.sensors import longest_wait
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.sensors import retraining_sensor, training_job_name
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

MODEL = DOMAIN.model("late_order")
JOB = training_job_name(DOMAIN, MODEL)


class Daemon:
    """Ticks the sensor; its runs end as the test says."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance, clock: Clock) -> None:
        self.platform, self.instance, self.clock = platform, instance, clock

    def tick(self, model: ModelSpec = MODEL) -> dg.SensorResult:
        """One look of the sensor."""
        context = dg.build_sensor_context(instance=self.instance, resources={"platform": self.platform})
        result = retraining_sensor(DOMAIN, model)(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def request(self, model: ModelSpec = MODEL) -> dg.RunRequest:
        """The one run that a tick requests."""
        (request,) = self.tick(model).run_requests or []
        return request

    def reason(self) -> str:
        """Why a tick requests no run."""
        result = self.tick()
        assert not result.run_requests and isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message)

    def break_off(self, key: str) -> None:
        """A run of a recipe fails, and the clock says so."""
        create_run_for_test(
            self.instance, job_name=JOB, status=dg.DagsterRunStatus.FAILURE, tags={PARTITION_NAME_TAG: key}
        )
        self.clock.now = datetime.now(UTC)


@pytest.fixture
def daemon(own_trained: TrainedHome) -> Iterator[Daemon]:
    """A daemon over a home whose days are computed, and that knows of no training."""
    clock = Clock(datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(replace(own_trained.platform, clock=clock), instance, clock)


def test_what_breaks_off_again_and_again_is_tried_again_and_told(daemon: Daemon) -> None:
    """More often than anybody counts: an hour after the last one at the latest, under a run key of its own."""
    first = daemon.request()
    assert first.partition_key
    keys = {first.run_key}
    for count in range(1, 25):
        daemon.break_off(first.partition_key)
        if count > 1:
            assert f"broke off {min(count, 20)} times; tried again at" in daemon.reason()
        assert "`mlplatform train synthetic/late_order` does it now" in daemon.reason()
        daemon.clock.now = datetime.now(UTC) + longest_wait + timedelta(seconds=1)
        again = daemon.request()
        assert again.partition_key == first.partition_key
        assert again.run_key not in keys
        keys.add(again.run_key)


def test_a_recipe_of_older_code_is_made_anew(daemon: Daemon) -> None:
    """Its training would be refused; it trained nothing, so its rows are new still."""
    first = daemon.request()
    assert first.partition_key
    daemon.break_off(first.partition_key)
    changed = replace(MODEL, settings=replace(MODEL.settings, rounds=MODEL.settings.rounds + 1))
    second = daemon.request(changed)
    assert second.partition_key not in {None, first.partition_key}
    assert second.run_key == second.partition_key
    daemon.break_off(str(second.partition_key))
    changed = replace(MODEL, settings=replace(MODEL.settings, rounds=MODEL.settings.rounds + 2))
    assert daemon.request(changed).partition_key not in {first.partition_key, second.partition_key}
