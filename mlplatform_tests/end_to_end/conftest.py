"""One home of the flight domain, with both models promoted, for all tests that drive the platform from outside."""

import fcntl
import shutil
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.tables import day_range
from mlplatform.operations import jobs
from mlplatform.provenance.platform import Platform

FLIGHT_DAYS = 120
"""The declared split leaves five weeks of them to train on: enough to pass the gate, in two thirds of the demo."""

FIRST_DAY = DOMAIN.start
LAST_DAY = FIRST_DAY + timedelta(days=FLIGHT_DAYS - 1)


@pytest.fixture(scope="session")
def flight_home(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Platform:
    """The flight domain with 120 days landed and computed, and both models trained, judged, promoted and built.

    For reading only: who changes it takes `own_flight_home`. The processes of one test run share it.
    """
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    platform = Platform(home=shared / "flight_home")
    finished = shared / "flight_home.finished"
    with (shared / "flight_home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            # Dagster, Great Expectations, MLflow and SQLAlchemy in one process: their warnings are none of ours.
            with warnings.catch_warnings(action="ignore"):
                _build(platform)
            finished.touch()
    return platform


@pytest.fixture
def own_flight_home(flight_home: Platform, tmp_path: Path) -> Platform:
    """A copy of `flight_home` that a test may change. MLflow's artifacts alone stay where they were logged."""
    shutil.copytree(flight_home.home, tmp_path / "home")
    return Platform(home=tmp_path / "home")


def _build(platform: Platform) -> None:
    land_sample(platform, DOMAIN, FIRST_DAY, LAST_DAY)
    jobs.materialize_days(platform, DOMAIN, day_range(FIRST_DAY.isoformat(), LAST_DAY.isoformat()))
    for model in DOMAIN.models:
        made = jobs.add_recipe(platform, DOMAIN, model)
        jobs.materialize_recipe(platform, DOMAIN, model, made.key)
