"""The daemon of a simulation: it does what is due at the time that it is, and shares a home with no other."""

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import Unavailable
from mlplatform.features.tables import Tables, day_range
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import runs_without_process
from mlplatform.simulation.jobs import SimulatedDaemon, alive_within, require_no_daemon
from mlplatform_tests.fakes.synthetic_home import Clock, land_orders

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

DAYS = day_range("2024-01-01", "2024-01-04")


class Instance:
    """A Dagster instance on which a daemon has given signs of life, some seconds ago."""

    def __init__(self, *seconds_ago: float) -> None:
        self.signs = [time.time() - each for each in seconds_ago]
        self.waited = 0.0

    def get_daemon_heartbeats(self) -> dict[str, Any]:
        """By daemon."""
        return {f"DAEMON {number}": SimpleNamespace(timestamp=sign) for number, sign in enumerate(self.signs)}

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.waited += seconds
        self.signs = [each - seconds for each in self.signs]


def required(instance: Any, wait: Any) -> list[str]:
    """What is said while it is waited for."""
    said: list[str] = []
    require_no_daemon(instance, say=said.append, wait=wait)
    return said


def test_a_daemon_that_lives_is_refused() -> None:
    """It gives another sign of life."""
    instance = Instance(3.0, 20.0)
    with pytest.raises(Unavailable, match="Stop it while days are replayed"):
        required(instance, lambda _: instance.signs.append(time.time()))


def test_a_home_without_a_daemon_is_not_waited_for() -> None:
    """None ever ran, or it is long gone."""
    assert required(Instance(), pytest.fail) == []
    assert required(Instance(alive_within.total_seconds() + 1), pytest.fail) == []


def test_what_is_due_at_the_simulated_time_is_done_and_no_more(platform: Platform) -> None:
    """A day that has landed is computed when it is over on the simulated clock; a broken one is told of, once."""
    clock = platform.clock
    assert isinstance(clock, Clock)
    land_orders(platform, DAYS)
    (platform.landing("synthetic") / "orders" / "2024-01-03.parquet").write_bytes(b"no parquet")
    clock.now = datetime(2024, 1, 3, 0, 10, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = SimulatedDaemon(platform, DOMAIN, instance)
        ran = list(daemon.tick(answers=0, day=DAYS[2]))
        computed = Tables(platform, DOMAIN).features(DOMAIN.views[0])
        assert [(each.job, each.partition, each.succeeded) for each in ran] == [
            ("features", "2024-01-01…2024-01-02", True)
        ]
        assert list(computed.current()) == DAYS[:2]
        clock.now = datetime(2024, 1, 4, 0, 10, tzinfo=UTC)
        (broken,) = daemon.tick(answers=0, day=DAYS[3])
        assert not broken.succeeded and "2024-01-03" in broken.findings[0]
        assert list(daemon.tick(answers=0, day=DAYS[3])) == []
        assert not any(daemon.is_training(each) for each in [*ran, broken])
    # A process that executes hundreds of runs holds no file open for each.
    assert runs_without_process(platform.home) == []
