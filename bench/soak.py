"""Whether serving for long costs more than serving: memory after millions of requests, and every answer in the log.

The plain model is served as `bench/serving.py` serves it, and asked over 64 connections, slice after slice. Between two
slices the memory of each process is read and what was logged is picked up into the Delta table, as in production. A
leak is a slope: memory over requests, by ordinary least squares over the last two thirds of the slices, since the first
third fills what is meant to be filled.

    slope b = Σ (xᵢ − x̄)(yᵢ − ȳ) / Σ (xᵢ − x̄)²
    95 % interval b ± t(0.975, n − 2) · √(Σ eᵢ² / (n − 2) / Σ (xᵢ − x̄)²), eᵢ the residuals

Resident memory counts the open segments of the log, 8 MB each, which come and go; private memory (resident less what
files lend) does not, and shows a leak much earlier. Both are told.

`make bench-soak ARGS="--requests 3000000 --seconds 5"`.
"""

import argparse
import contextlib
import shutil
import statistics
import time
from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl
import psutil
from scipy.stats import t as student

from bench import plain_domain
from bench.load import generator, load
from bench.serving import CLIENT_CORE, HOME, Server, ours_running, plain_bundle
from mlplatform.monitoring.pickup import gaps_table, log_table, pick_up
from mlplatform.provenance.platform import Platform

CONNECTIONS = 64
KB, MB = 1024, 1024 * 1024
PER = 100_000
"""Requests that a slope is told for."""

QUIET_SECONDS = 2.0
"""After the last request: until what was still being answered is answered and counted."""


@dataclass(frozen=True)
class Memory:
    """Of one process, bytes."""

    resident: int
    private: int


@dataclass(frozen=True)
class Sample:
    """The memory of all processes after some requests."""

    requests: int
    memory: dict[str, Memory]

    @property
    def resident(self) -> int:
        """Of all of them."""
        return sum(each.resident for each in self.memory.values())

    @property
    def private(self) -> int:
        """Of all of them."""
        return sum(each.private for each in self.memory.values())


@dataclass(frozen=True)
class Slope:
    """KB per 100,000 requests, with its 95 % interval."""

    middle: float
    low: float
    high: float


def slope(requests: list[int], memory: list[int]) -> Slope:
    """The least-squares slope of memory over requests.

    Parameters
    ----------
    requests : answered so far
    memory : bytes, after each

    Examples
    --------
    >>> slope([0, 100_000, 200_000, 300_000], [0, 1024, 2048, 3072])
    Slope(middle=1.0, low=1.0, high=1.0)
    """
    x, y = np.array(requests) / PER, np.array(memory) / KB
    spread = float(((x - x.mean()) ** 2).sum())
    middle = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    errors = y - y.mean() - middle * (x - x.mean())
    freedom = len(x) - 2
    half = float(student.ppf(0.975, freedom)) * sqrt(float((errors**2).sum()) / freedom / spread)
    return Slope(middle, middle - half, middle + half)


def memory_of(server: Server) -> dict[str, Memory]:
    """Of each process of a service, by what it is and its id."""
    parent = psutil.Process(server.process.pid)
    found = {}
    for each in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            words = each.cmdline()
            name = next((word.removeprefix("serving.") for word in words if word.startswith("serving.")), "bentoml")
            held = each.memory_info()
            # Only Linux tells what is shared with files.
            found[f"{name} {each.pid}"] = Memory(held.rss, held.rss - getattr(held, "shared", 0))
    return found


def main() -> None:
    """Ask, look, count, print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--requests", type=int, default=3_000_000)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of a slice")
    arguments.add_argument("--gateways", type=int, default=2)
    given = arguments.parse_args()
    home = HOME / "soak-home"
    shutil.rmtree(home, ignore_errors=True)
    platform = Platform(home=home)
    body = dict.fromkeys(plain_domain.NAMES, 0.5)
    samples: list[Sample] = []
    rates: list[float] = []
    asked = errors = picked = 0
    with ours_running("ours, soak", plain_bundle().folder, home, body, given.gateways) as server:
        while asked < given.requests:
            met = load(server.url, server.body, connections=CONNECTIONS, seconds=given.seconds, core=CLIENT_CORE)
            asked, errors = asked + met.requests, errors + met.errors
            rates.append(met.per_second)
            samples.append(Sample(asked, memory_of(server)))
            picked += pick_up(platform, plain_domain.DOMAIN).rows
            print(f"{asked:>12,} answered  {met.per_second:>8,.0f}/s  {samples[-1].resident / MB:8.1f} MB", flush=True)
        time.sleep(QUIET_SECONDS)
        counted = server.phases()
    # The service has ended, so its last segments are finished.
    pick_up(platform, plain_domain.DOMAIN)
    report(samples, rates)
    finish(platform, samples, asked, errors, counted)


def report(samples: list[Sample], rates: list[float]) -> None:
    """How fast it was, and the memory of each process at the start, after a third, and at the end."""
    low, middle, high = min(rates), statistics.median(rates), max(rates)
    print(f"\n{samples[-1].requests:,} requests over {CONNECTIONS} connections by {generator()}, {len(samples)} slices")
    print(f"requests/s: {low:,.0f} – {middle:,.0f} – {high:,.0f}\n")
    print("| process | resident MB: start | a third | end | private MB: start | a third | end |")
    print("|---|---|---|---|---|---|---|")
    looks = [samples[0], samples[len(samples) // 3], samples[-1]]
    for name in sorted({name for look in looks for name in look.memory}):
        held = [look.memory.get(name, Memory(0, 0)) for look in looks]
        cells = [f"{each.resident / MB:.1f}" for each in held] + [f"{each.private / MB:.1f}" for each in held]
        print(f"| {name} | {' | '.join(cells)} |")
    totals = [f"{look.resident / MB:.1f}" for look in looks] + [f"{look.private / MB:.1f}" for look in looks]
    print(f"| together | {' | '.join(totals)} |")


def finish(platform: Platform, samples: list[Sample], asked: int, errors: int, counted: dict[str, float]) -> None:
    """The slopes, the books, and the aims."""
    last = samples[len(samples) // 3 :]
    if len(last) < 3:
        raise SystemExit(f"{len(samples)} slices are too few for a slope: more --requests, or fewer --seconds")
    slopes = {kind: slope([each.requests for each in last], [getattr(each, kind) for each in last]) for kind in KINDS}
    print(f"\nslope over the last {len(last)} slices, KB per {PER:,} requests, with its 95 % interval")
    for kind, found in slopes.items():
        inside = "0 is inside" if found.low <= 0 <= found.high else "0 is outside"
        print(f"{kind}: {found.middle:.1f} ({found.low:.1f} to {found.high:.1f}), {inside}")
    answers, logged = round(counted["answers"]), _rows(log_table(platform, plain_domain.DOMAIN), pl.len())
    dropped = _rows(gaps_table(platform, plain_domain.DOMAIN), pl.col("rows").sum())
    print(f"\nanswers that the service counted: {answers:,}; the client read {asked:,}: it breaks off at a slice's end")
    print(f"rows in the Delta table {logged:,} + rows counted as dropped {dropped:,} = {logged + dropped:,}\n")
    ended = len(samples[0].memory.keys() - samples[-1].memory.keys())
    for name, value, bound in [
        *((f"slope_kb.{kind}.low", found.low, 0.0) for kind, found in slopes.items()),
        ("answers_not_in_the_log", abs(answers - logged - dropped), 0.0),
        ("dropped", dropped, 0.0),
        ("errors", errors, 0.0),
        ("processes_that_ended", ended, 0.0),
        ("answers_not_by_the_model", answers - counted["model"], 0.0),
    ]:
        print(f"aim  soak.{name}  {value:.2f}  <= {bound:.2f}  {'met' if value <= bound else 'short'}")
    print(f"aim  soak.requests  {asked}  >= 3000000  {'met' if asked >= 3_000_000 else 'short'}")


KINDS = ("resident", "private")


def _rows(table: str, what: pl.Expr) -> int:
    """A count over a Delta table; zero where it was never written."""
    try:
        return int(pl.scan_delta(table).select(what).collect().item())
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
