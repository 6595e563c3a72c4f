"""The small shop of the replay benchmark, at one moment of its life: what it lands, computes, trains and is asked.

What a replay must say of an answer is written down when the answer is given, by who knows how it was made.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from bench.replay_domain import MODEL, NAME
from bench.replay_gateway import Service, serving_model
from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domain
from mlplatform.domains.synthetic.ground_truth import first_day, rows
from mlplatform.features.landing.landing import land
from mlplatform.features.materialization import raise_failures, run
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import day_range, stages
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import make_candidate
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout import moves
from mlplatform.rollout.judge import judge_candidate
from mlplatform.rollout.promotion import promote
from mlplatform.settings import child_environment
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.recipe import recipe, save_recipe

ORDERS = 300
"""Of a day that lands."""

ASKED = 600
"""Orders of a day of which requests are taken, as many as an act wants."""

APART = timedelta(seconds=20)
"""Between two requests."""

MANY = 10_000

ORDER = ("order_id", "courier", "district", "distance_km", "items")
"""What is asked of an order, beside its time."""

EXPECTED = "expected.jsonl"


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2024, 1, 25, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        """What time it is."""
        return self.now


class World:
    """The shop in a folder, at one moment of its life."""

    def __init__(self, folder: Path, act: str) -> None:
        self.folder, self.act = folder, act
        self.clock = Clock()
        self.platform = Platform(home=folder / "home", clock=self.clock)
        self.domain: Domain = registered_domain(NAME)
        self.model = self.domain.model(MODEL)
        self._asked: Counter[str] = Counter()

    def at(self, day: str, hour: int, minute: int = 0) -> None:
        """Go on to an instant."""
        self.clock.now = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(
            hours=hour, minutes=minute
        )

    def land(self, days: Sequence[str], *, slower: int = 0) -> None:
        """What the shop sends of some days, or their corrections: every third order took so many minutes longer."""
        for day in days:
            sent = rows(date.fromisoformat(day), rows_per_day=ORDERS)
            if slower:
                late = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.duration(minutes=slower))
                delivered = pl.col("delivered_at") + late.otherwise(pl.duration())
                sent = sent.with_columns(delivered_at=pl.min_horizontal(delivered, "reported_at"))
            land(self.platform, self.domain, self.domain.source("orders"), date.fromisoformat(day), sent)

    def compute(self, last: str) -> None:
        """Every stage of every day up to one; what is there is left alone."""
        for stage in stages:
            raise_failures(
                run(self.platform, self.domain, stage, day_range(str(first_day), last), run_id=f"bench-{self.act}")
            )

    def publish(self, last: str) -> None:
        """Bring the online store up to a day."""
        publish_values(self.platform, self.domain, as_of=last)

    def take_in(self, day: str) -> None:
        """A new day from its landing to the online store."""
        self.land([day])
        self.compute(day)
        self.publish(day)

    def train(self) -> str:
        """The model as the code is now, on what is known now; the key of its recipe."""
        made = recipe(self.platform, self.domain, self.model)
        folder = self.platform.training(NAME, MODEL, made.key)
        save_recipe(folder, made)
        save_training_set(folder, build_training_set(self.platform, self.domain, self.model, made), made)
        make_candidate(self.platform, self.domain, self.model, made)
        _, decision = judge_candidate(self.platform, self.domain, self.model, made)
        if decision.outcome != "pass":
            raise SystemExit(f"act {self.act}: the gate says {decision.outcome}: {decision.reasons}")
        promote(self.platform, self.domain, self.model, made.key, actor="bench")
        return made.key

    def step_up(self, times: int) -> None:
        """Take steps of the rollout."""
        for _ in range(times):
            moves.step_up(
                self.platform,
                self.domain,
                self.model,
                by="bench",
                reason="it is time",
                evidence={},
                after=len(Ledger(self.platform).entries(f"{NAME}/{MODEL}")),
            )

    def requests(self, count: int) -> pl.DataFrame:
        """Orders that nobody has asked about yet, from now on, some seconds apart."""
        day = self.clock.now.date()
        first = self._asked[day.isoformat()]
        self._asked[day.isoformat()] += count
        asked = rows(day, seed=11, rows_per_day=ASKED)[first : first + count]
        assert asked.height == count
        return self.moved(asked.select(*ORDER))

    def moved(self, asked: pl.DataFrame, apart: timedelta = APART) -> pl.DataFrame:
        """Requests as asked from now on; the clock goes along."""
        times = [self.clock.now + number * apart for number in range(asked.height)]
        self.clock.now = times[-1] + apart
        instants = pl.Series("at", times, dtype=pl.Datetime("us", "UTC"))
        return asked.with_columns(instants, ordered_at=instants)

    def again(self, asked: pl.DataFrame) -> pl.DataFrame:
        """The very same requests, asked once more from now on."""
        return self.moved(asked.drop("at", "ordered_at")).with_columns(asked["ordered_at"])

    def ids(self, kind: str, count: int) -> list[str]:
        """Ids that tell the act and the kind."""
        first = self._asked[kind]
        self._asked[kind] += count
        return [f"{self.act}-{kind}-{number}" for number in range(first, first + count)]

    def expect(
        self, ids: Sequence[str], kind: str, outcome: str = "exact", cause: str | None = None, *, shadow: bool = False
    ) -> None:
        """Write down what a replay must say of answers; `shadow`: and of those of the other arm."""
        with (self.folder / EXPECTED).open("a") as file:
            for name in ids:
                told = {"id": name, "arm": "answer", "kind": kind, "outcome": outcome, "cause": cause}
                file.write(json.dumps(told) + "\n")
                if shadow:
                    file.write(json.dumps({**told, "arm": "shadow", "kind": "shadow"}) + "\n")

    def serve(self, what: Callable[[Service], Any]) -> None:
        """Run a service, and what is asked of it."""

        async def served() -> None:
            folder = self.folder / "run" / self.act
            async with serving_model(self.platform, self.domain, folder) as service:
                await what(service)

        asyncio.run(served())

    async def ask(self, service: Service, kind: str, count: int, **expected: Any) -> list[dict[str, Any]]:
        """New requests, and what a replay must say of their answers."""
        ids = self.ids(kind, count)
        said = await service.ask(self.requests(count), ids)
        self.expect(ids, kind, **expected)
        return said


def told_by(said: Sequence[Mapping[str, Any]], *sources: str) -> None:
    """Refuse a world in which another tier answered than was meant."""
    found = Counter(each["source"] for each in said)
    if set(found) != set(sources):
        raise SystemExit(f"answered by {dict(found)}, not by {sources}: on a busy machine try again")


@contextmanager
def patched(of: Any, name: str, by: Any) -> Iterator[None]:
    """Something of a class replaced for a while: a gateway that somebody has patched by hand."""
    real = getattr(of, name)
    setattr(of, name, by)
    try:
        yield
    finally:
        setattr(of, name, real)


def environment_of(folder: Path, *before: Path) -> dict[str, str]:
    """What a process is told that is to know the domain as it is now.

    Parameters
    ----------
    before : folders whose packages come before all others
    """
    path = [*map(str, before), str(folder / "site"), os.environ.get("PYTHONPATH", "")]
    told = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    return child_environment(**told, MLPLATFORM_HOME=str(folder / "home"))
