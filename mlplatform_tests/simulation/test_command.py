"""A simulation from outside: a real service, a real Dagster instance, days that pass, and a fault that shows."""

import io
import json
from dataclasses import replace
from datetime import date

import dagster as dg
import pytest
from rich.console import Console

from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import logged, rows_by_day
from mlplatform.monitoring.skew.tables import skew_table
from mlplatform.operations.jobs import dagster_instance
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.tables import coverage_table
from mlplatform.simulation.command import simulate
from mlplatform.simulation.replay import Record
from mlplatform_tests.fakes.synthetic_home import TrainedHome

# Dagster, Great Expectations, MLflow and SQLAlchemy in one process: their warnings are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

FIRST, LAST = date(2024, 1, 25), date(2024, 1, 26)
_model = DOMAIN.model("late_order")
_never = replace(_model.retraining, new_rows=Threshold(value=1e9, reason="trainings are tested elsewhere"))
SHOP = replace(
    DOMAIN,
    sample=replace(DOMAIN.sample, end=LAST),  # type: ignore[type-var]
    models=(replace(_model, retraining=_never),),
)


def replayed(platform: Platform, last: date, *inject: str) -> str:
    """Simulate, and give what was shown."""
    shown = io.StringIO()
    simulate(platform, SHOP, FIRST, last, inject=inject, rows_per_day=60, console=Console(file=shown, width=200))
    return shown.getvalue()


@pytest.mark.end_to_end
def test_days_pass_and_a_fault_shows(own_trained: TrainedHome) -> None:
    """Answers stand on their own days, features and monitors follow, and a drift is in what was asked."""
    platform = own_trained.platform
    assert "drift@2024-01-26 in distance_km" in replayed(platform, LAST, f"drift@{LAST}")
    assert rows_by_day(platform, SHOP) == {"2024-01-25": 60, "2024-01-26": 60}
    assert max(Tables(platform, SHOP).features(SHOP.views[0]).current()) == LAST.isoformat()
    # To the bit what is trained on, though the features of a day come between the requests of the next.
    skew = skew_table(platform, SHOP).read()
    assert (
        set(skew["mismatched"] + skew["missing"] + skew["extra"]) == {0} and skew["compared"].sum() > 40 * skew.height
    )
    # And each night some of all that were answered could be answered again.
    again = coverage_table(platform, SHOP).read()
    assert again["exact"].to_list() == again["replayed"].to_list() and again["replayed"].sum() >= 60
    asked = {day: _asked_kilometres(platform, day) for day in ("2024-01-25", "2024-01-26")}
    assert asked["2024-01-26"] > asked["2024-01-25"] + 2
    lines = Record(platform, SHOP).lines()
    assert [line["injected"] for line in lines] == [{}, {f"drift@{LAST}": "distance_km"}]
    # On a busy machine a deadline may pass; whoever asked has an answer all the same.
    assert {(sum(line["sources"].values()), line["not_answered"]) for line in lines} == {(60, 0)}
    with dagster_instance(platform) as instance:
        runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert {"synthetic_features", "synthetic_prediction_log", "synthetic_skew"} <= {run.job_name for run in runs}
    assert replayed(platform, LAST).startswith("every day from 2024-01-25 to 2024-01-26 has been replayed")


def _asked_kilometres(platform: Platform, day: str) -> float:
    log = logged(platform, SHOP, day)
    assert log is not None
    bodies = log.select("request").collect().to_series()
    return float(sum(json.loads(each)["distance_km"] for each in bodies) / len(bodies))


def test_a_fault_that_no_day_would_show_is_refused_at_once(platform: Platform) -> None:
    """Before anything is landed: a day that has been replayed is not replayed again."""
    with pytest.raises(DataError, match="nulls@2024-03-22 begins after 2024-01-24"):
        simulate(
            platform,
            DOMAIN,
            date(2024, 1, 21),
            date(2024, 1, 24),
            model="synthetic/late_order",
            inject=["nulls@2024-03-22"],
            console=Console(file=io.StringIO()),
        )
    assert not platform.landing(DOMAIN.name).exists()
