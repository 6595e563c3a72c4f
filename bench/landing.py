"""How long a landed file takes until its features are served: Dagster's daemon as it is, on a machine as it is.

A month of flights is landed and computed first. Then Dagster's daemon is started with the settings that everybody gets,
and days are landed one after the other, each when the one before it is published. A day counts as published when every
view holds it and it is in the online store. `ARGS=--days 7` lands more of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.chain import run_chain
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.materialization import raise_failures
from mlplatform.features.online.publish import unpublished
from mlplatform.features.tables import Tables, day_range
from mlplatform.operations import servers
from mlplatform.operations.jobs import dagster_instance
from mlplatform.provenance.platform import Platform

HOME = Path("var/bench/landing")
AIM = 60.0
"""Seconds from the file to its features."""

PATIENCE = 300.0
HISTORY_DAYS = 35


def main() -> None:
    """Land, wait, print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--days", type=int, default=5)
    days = arguments.parse_args().days
    platform = Platform(home=HOME.absolute() / f"{time.time_ns()}")
    last = DOMAIN.start + timedelta(days=HISTORY_DAYS - 1)
    land_sample(platform, DOMAIN, DOMAIN.start, last)
    for _, outcome in run_chain(
        platform, DOMAIN, day_range(DOMAIN.start.isoformat(), last.isoformat()), run_id="bench"
    ):
        raise_failures(outcome)
    with dagster_instance(platform):
        pass
    _, daemon = servers.ui_commands(port=0)
    log = platform.home / "logs" / "daemon.log"
    with servers.running([daemon], servers.ui_environment(platform), log):
        # The daemon's own start is not what is measured: the code location is loaded, and the first looks are over.
        _wait(lambda: "synthetic_features" in log.read_text(errors="replace") if log.exists() else False)
        seconds = [_land(platform, last + timedelta(days=number + 1)) for number in range(days)]
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{days} days of {DOMAIN.name}, seconds from landing to published: {low:.0f} – {middle:.0f} – {high:.0f}")
    print(f"aim  landing.seconds_to_published.max  {high:.1f}  <= {AIM:.0f}  {'met' if high <= AIM else 'short'}")


def _land(platform: Platform, day: date) -> float:
    """Land a day; seconds until it is published."""
    started = time.monotonic()
    land_sample(platform, DOMAIN, day, day)
    _wait(lambda: _published(platform, day.isoformat()))
    took = time.monotonic() - started
    print(f"{day}  {took:.1f} s", flush=True)
    return took


def _published(platform: Platform, day: str) -> bool:
    tables = Tables(platform, DOMAIN)
    if not all(day in tables.features(view).current() for view in DOMAIN.views):
        return False
    return not unpublished(platform, DOMAIN)


def _wait(look: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > end:
            raise SystemExit(f"nothing for {PATIENCE:.0f} s; look into the log of the daemon under {HOME}")
        time.sleep(0.25)


if __name__ == "__main__":
    main()
