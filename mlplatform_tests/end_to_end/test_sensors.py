"""Dagster's own daemon over an empty home: what lands arrives, whatever is killed on the way, and models follow."""

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import psutil
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.chain import due
from mlplatform.features.failures import open_failures
from mlplatform.features.online.store import open_online_store
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.operations import servers
from mlplatform.operations.jobs import dagster_instance
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform_tests.fakes.synthetic_home import land_orders
from mlplatform_tests.fakes.waiting import until

pytestmark = pytest.mark.end_to_end

DAYS = day_range("2024-01-01", "2024-01-20")
SECONDS = 240.0
"""For what takes half a minute on an idle machine."""


@contextmanager
def daemon(platform: Platform) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon as an operator starts it."""
    with dagster_instance(platform):
        pass
    _, command = servers.ui_commands(port=0)
    log = platform.home / "logs" / "daemon.log"
    with servers.running([command], servers.ui_environment(platform), log) as (child,):
        yield child


def kill_with_children(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all that it has started: daemon, code servers, runs."""
    family = psutil.Process(child.pid).children(recursive=True)
    for each in [*family, psutil.Process(child.pid)]:
        try:
            os.kill(each.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    child.wait()


def published(platform: Platform, days: list[str]) -> bool:
    """Whether both views hold these days and the online store answers."""
    tables = Tables(platform, DOMAIN)
    complete = all(set(days) <= set(tables.features(view).current()) for view in DOMAIN.views)
    return complete and open_online_store(platform.online_store).version("synthetic/courier") is not None


def test_what_lands_arrives_through_kills_in_any_order_once(tmp_path: Path) -> None:
    """Twenty days shuffled, one malformed, one corrected, the daemon and its runs killed twice: each revision once."""
    platform = Platform(home=tmp_path)
    chance = random.Random(3)
    arriving = chance.sample(DAYS, len(DAYS))
    bad, corrected = arriving[4], arriving[6]
    sent = {day: rows(date.fromisoformat(day), rows_per_day=30) for day in DAYS}
    first_version = sent | {corrected: rows(date.fromisoformat(corrected), seed=9, rows_per_day=30)}
    with daemon(platform) as first:
        land_orders(platform, arriving[:8], first_version)
        path = platform.landing(DOMAIN.name) / "orders" / f"{bad}.parquet"
        path.write_bytes(b"PAR1 no Parquet PAR1")
        until(lambda: Tables(platform, DOMAIN).raw("orders").current(), seconds=SECONDS, what="a first raw partition")
        kill_with_children(first)
    with daemon(platform) as second:
        land_orders(platform, arriving[8:14], first_version)
        until(
            lambda: set(arriving[8:14]) & set(Tables(platform, DOMAIN).raw("orders").current()),
            seconds=SECONDS,
            what="raw partitions after the restart",
        )
        kill_with_children(second)
    with daemon(platform):
        land_orders(platform, arriving[14:], first_version)
        until(lambda: open_failures(platform, DOMAIN), seconds=SECONDS, what="the failure of the malformed day")
        land_orders(platform, [bad, corrected], sent)
        until(lambda: published(platform, DAYS), seconds=SECONDS, what="all days published")
        until(lambda: not due(platform, DOMAIN).days, seconds=SECONDS, what="nothing due")
    assert open_failures(platform, DOMAIN) == []
    tables = Tables(platform, DOMAIN)
    for stage in ("raw", "validated", "base", "derived"):
        for store in tables.of(stage).values():
            numbers = [(each.partition, each.number) for each in store.revisions()]
            assert len(numbers) == len(set(numbers))
            contents = [(each.partition, each.content_hash) for each in store.revisions()]
            assert len(contents) == len(set(contents)), f"{stage}: the same content twice"
            assert {day: store.current()[day].number for day in DAYS if day != corrected} == dict.fromkeys(
                [day for day in DAYS if day != corrected], 1
            )
            assert set(store.current()) == set(DAYS)
    assert all(store.current([DAYS[0]]) for stage in stages for store in tables.of(stage).values())


def test_enough_new_rows_train_and_promote_a_model_by_themselves(tmp_path: Path) -> None:
    """From files landing to a champion of every model with its Bento, one run per recipe."""
    platform = Platform(home=tmp_path)
    land_orders(platform, DAYS, rows_per_day=200)
    names = [f"{DOMAIN.name}/{model.name}" for model in DOMAIN.models]
    with daemon(platform):
        until(lambda: all(Ledger(platform).champion(name) for name in names), seconds=2 * SECONDS, what="the champions")
        bentos = platform.home / "bentoml" / "bentos"
        until(lambda: len(list(bentos.glob("*/*/bento.yaml"))) >= len(names), seconds=SECONDS, what="the Bentos")
    with dagster_instance(platform) as instance:
        keys = [
            (run.job_name, run.tags["dagster/partition"]) for run in instance.get_runs() if "_training" in run.job_name
        ]
    assert len(keys) == len(set(keys)) == len(names)
