"""What a shadow costs those who are answered: the time to an answer with a challenger in the shadow, beside without.

Two challengers: one that takes the champion's features, and one that computes its own. The shadow of each is switched
on and off by the plan, every other second, so that a noisy neighbour meets both; the ratio is taken within a round, and
its interval is a bootstrap over rounds. Client and service share the machine as they come.

`make bench-shadow ARGS="--rounds 10 --seconds 1"`: under two minutes.
"""

import argparse
import contextlib
import shutil
import statistics
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

from bench.load import Load, generator, load
from bench.serving import (
    BIN,
    HOME,
    WARM_UP_SECONDS,
    Server,
    ask,
    free_port,
    named,
    plain_bundle,
    running,
    wait_for_model,
)
from mlplatform.registry.bento import build_bento
from mlplatform.registry.bundle import Bundle
from mlplatform.rollout.plan import Plan
from mlplatform.rollout.plan_file import write_plan

ALIKE, OWN = "the same features", "features of its own"
CONNECTIONS = (1, 16)
PLACE = HOME / "shadow"
FOLLOWED_SECONDS = 60.0


@contextlib.contextmanager
def served(champion: Bundle, body: object) -> Iterator[Server]:
    """The Bento of the champion, on all cores, with an empty log."""
    home = PLACE / "home"
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(HOME / "bundles", home / "bundles")
    tag = build_bento(champion.folder, home=home)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(BIN / "bentoml"), "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    told = {
        "MLPLATFORM_HOME": str(home),
        "MLPLATFORM_GATEWAY_WORKERS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home / "bentoml"),
    }
    url = f"{address}/predict"
    with running("ours", command, url, body, PLACE, metrics=f"{address}/metrics", core=None, told=told) as server:
        wait_for_model(server)
        yield server


class Switch:
    """The plan of a service."""

    def __init__(self, server: Server, champion: Bundle) -> None:
        self._server = server
        self._champion = champion
        self._number = 0

    def turn(self, challenger: Bundle, mode: Literal["full", "shadow"]) -> None:
        """Have a plan followed; in mode `full` the challenger's worker stays, and scores nothing."""
        self._number += 1
        plan = Plan(
            model="plain/model",
            champion=self._champion.digest,
            challenger=challenger.digest,
            mode=mode,
            number=self._number,
        )
        write_plan(PLACE / "home", plan)
        until = time.monotonic() + FOLLOWED_SECONDS
        while not self._followed(plan):
            if time.monotonic() > until:
                raise SystemExit(f"the service does not follow its plan: {self._told()}")
            time.sleep(0.05)

    def _followed(self, plan: Plan) -> bool:
        told = self._told()
        return bool(told["version"] == plan.version and told["challenger_open"] == (plan.challenger is not None))

    def _told(self) -> dict[str, object]:
        with urllib.request.urlopen(self._server.url.replace("/predict", "/model"), timeout=20) as answer:
            told: dict[str, object] = msgspec.json.decode(answer.read())["plan"]
            return told

    def shadow_rows(self) -> float:
        """Rows that were scored in the shadow so far."""
        with urllib.request.urlopen(str(self._server.metrics), timeout=20) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if line[:1] != "#"]
        return sum(float(value) for name, _, value in lines if name.startswith("mlplatform_shadow_rows_total"))


@dataclass
class Runs:
    """What was measured beside one challenger, by number of connections."""

    off: dict[int, list[Load]] = field(default_factory=dict)
    on: dict[int, list[Load]] = field(default_factory=dict)
    scored: float = 0.0
    """Rows that were scored in the shadow, for each that was answered meanwhile."""


def measure(server: Server, switch: Switch, challenger: Bundle, rounds: int, seconds: float) -> Runs:
    """Off and on, and on and off."""
    runs = Runs()
    switch.turn(challenger, "shadow")
    load(server.url, server.body, connections=16, seconds=WARM_UP_SECONDS)
    before = switch.shadow_rows()
    for number in range(rounds):
        for on in (number % 2 == 0, number % 2 == 1):
            switch.turn(challenger, "shadow" if on else "full")
            for connections in CONNECTIONS:
                met = load(server.url, server.body, connections=connections, seconds=seconds)
                (runs.on if on else runs.off).setdefault(connections, []).append(met)
    answered = sum(one.requests for loads in runs.on.values() for one in loads)
    runs.scored = (switch.shadow_rows() - before) / answered
    return runs


def main() -> None:
    """Measure in rounds, print the ratios."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=1.0)
    given = arguments.parse_args()
    champion = plain_bundle()
    challengers = {
        ALIKE: plain_bundle("2024-01-02-ab12cd34"),
        OWN: plain_bundle("2024-01-03-ab12cd34", code="\n# Other code.\n"),
    }
    row = np.random.default_rng(7).normal(size=30).astype(np.float32)
    with served(champion, named(row)) as server:
        switch = Switch(server, champion)
        runs = {
            name: measure(server, switch, challenger, given.rounds, given.seconds)
            for name, challenger in challengers.items()
        }
        if ask(server)["source"] != "model":
            raise SystemExit("the model does not answer: nothing is comparable")
    report(runs)


def report(runs: dict[str, Runs]) -> None:
    """A table, then the aims."""
    print(f"\nmedian time to an answer: min – median – max of the rounds; load by {generator()}\n")
    print("| shadow | connections | off, ms | on, ms | on / off | 95 % interval | scored too | errors |")
    print("|---|---|---|---|---|---|---|---|")
    aims = []
    for name, measured in runs.items():
        for connections in CONNECTIONS:
            off, on = measured.off[connections], measured.on[connections]
            ratio, low, high = interval([one.p50 / other.p50 for one, other in zip(on, off, strict=True)])
            errors = sum(one.errors for one in (*on, *off)) or ""
            told = [_spread(off), _spread(on), f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", f"{measured.scored:.0%}"]
            print(f"| {name} | {connections} | {' | '.join(told)} | {errors} |")
            aims.append((f"{name.replace(' ', '_')}.{connections}_connections", ratio))
    print()
    for aim, ratio in aims:
        print(f"aim  shadow.p50_ratio.{aim}  {ratio:.2f}  <= 1.10  {'met' if ratio <= 1.1 else 'short'}")


def _spread(loads: list[Load]) -> str:
    p50 = [1e3 * one.p50 for one in loads]
    return " – ".join(f"{each:.2f}" for each in (min(p50), statistics.median(p50), max(p50)))


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Median, and a bootstrap interval of it over the rounds."""
    drawn = np.random.default_rng(1).choice(ratios, size=(4000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return statistics.median(ratios), float(low), float(high)


if __name__ == "__main__":
    main()
