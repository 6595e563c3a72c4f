"""The promise as a rule: what an honest gateway answered is given again to the bit, whatever came before and after."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform_tests.fakes.replayed_world import BEFORE, DAY, TWO_BEFORE, World, moment, outcomes
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome

FIRST_HOUR = 9


@dataclass(frozen=True)
class Hour:
    """What happens in an hour of the day that is answered."""

    corrected: tuple[str, ...]
    """Days that are, at half past."""
    seed: int
    waits: int
    """Minutes until that is published."""
    workers: bool
    """Whether the model answers."""


hours = st.builds(
    Hour,
    corrected=st.lists(st.sampled_from([BEFORE, TWO_BEFORE, "2024-01-17"]), max_size=2, unique=True).map(tuple),
    seed=st.integers(min_value=1, max_value=5),
    waits=st.integers(min_value=0, max_value=9),
    workers=st.booleans(),
)


@given(days_hours=st.lists(hours, min_size=1, max_size=4))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_was_answered_is_exact_whatever_is_corrected_and_published_when(
    trained: TrainedHome, days_hours: list[Hour]
) -> None:
    """Corrections of several days, published at once or minutes later, with requests before, amid and after."""
    with TemporaryDirectory() as folder:
        world = World(trained.copied_to(Path(folder) / "home"), Path(folder) / "metrics")
        world.publish()
        for hour, this in enumerate(days_hours, FIRST_HOUR):
            requests = asked_on(world.platform, DAY, hours=range(hour, hour + 1))
            half, published = moment(hour, 30), moment(hour, 30) + timedelta(minutes=this.waits)
            gateway = Gateway(world.platform, world.bundle)
            if not this.workers:
                gateway.workers.said = None
            at = pl.col("at")
            gateway.serve(requests.filter(at < half), world.folder)
            world.at(hour, 30)
            for day in this.corrected:
                world.correct(day, seed=this.seed)
            gateway.serve(requests.filter(at >= half, at < published), world.folder)
            world.publish()
            gateway.serve(requests.filter(at >= published), world.folder)
        rows = world.rows()
        assert outcomes(world.replayed(rows)) == {"exact": rows.height}
