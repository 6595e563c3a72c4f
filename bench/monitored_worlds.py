"""Worlds in which nothing happens: the synthetic shop with a season and bad days, and weeks of flights drawn again.

The shop's days are made, landed, computed and trained on by the platform's own stages; beside its own truth its days
differ by how far away people order (a season and an autoregression), by how many do, and by how slow the streets are,
which no feature sees. Flights of a world are whole weeks, drawn with replacement from three quiet months that the model
was never fitted to: what is usual is learned from the first of them, and the others are served. So nothing has changed,
however a day may look.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from bench import accuracy
from bench.monitored_days import Day, Floats, Served, World
from mlplatform.domain.domain import Domain
from mlplatform.domain.model import SearchSpace
from mlplatform.domain.monitoring import Monitoring
from mlplatform.domains.flight_delay import DOMAIN as FLIGHTS
from mlplatform.domains.synthetic import DOMAIN as SHOP
from mlplatform.domains.synthetic.ground_truth import (
    Switches,
    expected_minutes,
    late_probability,
    longest_minutes,
    rows,
)
from mlplatform.features.historical import historical_features
from mlplatform.features.landing.landing import land
from mlplatform.features.materialization import raise_failures, run
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.monitoring.behaviour.usual import Usual, UsualDay, usual_of
from mlplatform.monitoring.estimated import uncertainty
from mlplatform.monitoring.quality.reference import reference_of
from mlplatform.monitoring.quality.sketch import stacked
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of, make_candidate
from mlplatform.scoring.booster import matrix
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.metrics import value
from mlplatform.training.recipe import recipe, save_recipe

HOME = Path("var/bench/monitoring")
LATE_ORDER = SHOP.model("late_order")
WATCHED = replace(
    LATE_ORDER,
    monitoring=Monitoring(),
    gate=replace(
        LATE_ORDER.gate,
        margin=FLIGHTS.model("late_arrival").gate.margin,
        segment_margin=FLIGHTS.model("late_arrival").gate.segment_margin,
    ),
)
# The search is another benchmark's business, and takes longest.
LATE_ARRIVAL = replace(FLIGHTS.model("late_arrival"), search=SearchSpace(trials=0, parameters={}))

TRAINED_ON = 110
"""Days of the shop before its model is trained."""

EVALUATED = 28
"""Days after them that stand for its evaluation, as the flights' model has it. Its own declaration has four, so that
tests are quick, and wide margins for the same reason: here it is watched by those of the flights."""

SEASON = 0.05
"""Share by which orders come from farther away in one half of the year. With twice as much the model, trained on a
third of a year, is truly off by ten points in the next: that is found, and is no false alarm."""

ORDERS = 400
"""Of a day in the middle."""

QUIET = ("2013-09-01", "2013-11-30")
"""Three quiet months: after the storms of summer, before those of December."""

WEEKS_LEARNED, WEEKS_EVALUATED = 17, 4
"""Weeks drawn from which a world of flights learns what is usual, the last ones as its evaluation."""


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """Which features of a domain the faults are about."""

    unit: tuple[str, float]
    """A feature, and by what its values are multiplied."""

    frozen: str
    renamed: str
    """The code of a category: the commonest one gets another name, and nothing is known of that."""

    of_category: str
    """How the names of the features begin that views know of the category."""

    view: str
    """The same of the view that cannot be read."""


FAULTY = {
    "synthetic": Faulty(
        unit=("order_distance", 1_000.0),
        frozen="order_distance",
        renamed="courier_code",
        of_category="courier_",
        view="courier_",
    ),
    "flight_delay": Faulty(
        unit=("distance_miles", 1.609),
        frozen="departure_minute_of_day",
        renamed="carrier_code",
        of_category="carrier_",
        view="carrier_",
    ),
}


def shop_world(seed: int, days: int, *, leak: bool = False) -> World:
    """The shop, its model trained on 110 days, and the days after them.

    Parameters
    ----------
    leak : the days that are trained on tell the outcome in a column; those that are served do not
    """
    told = day_range("2024-01-01", (date(2024, 1, 1) + timedelta(days=TRAINED_ON + EVALUATED + days)).isoformat())
    home = HOME / f"shop-{seed}{'-leak' if leak else ''}"
    platform = Platform(home=home.absolute(), clock=lambda: datetime(2025, 1, 1, tzinfo=UTC), environment="bench")
    made = _made(seed, told, leak=leak)
    tables = Tables(platform, SHOP)
    facts_table = tables.facts(SHOP.requests.facts)
    missing = [day for day in told if day not in tables.features(SHOP.views[0]).current()]
    if missing:
        for day in missing:
            land(platform, SHOP, SHOP.source("orders"), date.fromisoformat(day), made[day])
        for stage in stages:
            raise_failures(run(platform, SHOP, stage, missing, run_id="bench"))
    as_of = told[TRAINED_ON]
    bundle = _trained(platform, SHOP, LATE_ORDER.name, as_of)
    asked = SHOP.requests.of_facts(facts := facts_table.read()).with_columns(
        label=facts.select(LATE_ORDER.label.value()).to_series()
    )
    # Orders of the last day may be reported on the day after it.
    later = asked.filter(pl.col("at").dt.date().cast(pl.String).is_in(told[TRAINED_ON:-1])).sort("at")
    served = Served(replace(SHOP, models=(WATCHED,)), bundle, reference_of(platform, SHOP, bundle.digest))
    every = _days(platform, served, later)
    names = told[TRAINED_ON : TRAINED_ON + EVALUATED]
    usual = _usual(platform, SHOP, bundle)
    held_out = tuple(_usual_day(name, day, held_out=True) for name, day in zip(names, every, strict=False))
    trained = tuple(day for day in usual.days if not day.held_out)
    reference = served.reference
    sketches = [reference.sketches[number] for number in range(len(reference.days))]
    return World(
        name="synthetic",
        seed=seed,
        served=replace(
            served,
            reference=replace(
                reference,
                days=(*reference.days, *names),
                sketches=stacked([*sketches, *(day.sketch for day in every[:EVALUATED])]),
            ),
        ),
        usual=replace(usual, days=(*trained, *held_out)),
        evaluation=pl.concat(
            day.outcome[0].with_columns(day=pl.lit(name)) for name, day in zip(names, every, strict=False)
        ),
        days=every[EVALUATED:],
    )


def best_loss(world: World, days: int) -> tuple[float, float]:
    """Log loss on the first days of a shop, of the model and of whom the truth is known, the slow streets included."""
    first = TRAINED_ON + EVALUATED
    slow = _slow(world.seed, first + len(world.days) + 1)[first : first + days]
    known: dict[tuple[str, str, float, int], float] = {}
    chances = []
    for day, minutes in zip(world.days[:days], slow, strict=True):
        for of in day.requests.select("courier", "district", "distance_km", pl.col("at").dt.hour()).iter_rows():
            if of not in known:
                known[of] = expected_minutes(*of)
            chances.append(late_probability(known[of] + minutes))
    labels = np.concatenate([day.labels for day in world.days[:days]])
    scores = np.concatenate([day.scores for day in world.days[:days]])
    return value("log_loss", labels, scores), value("log_loss", labels, np.array(chances))


def _slow(seed: int, days: int) -> Floats:
    """Minutes by which the streets are slow on each day: bad days follow each other."""
    return _autoregression(np.random.default_rng([seed, 3]), days, 0.6)


def _autoregression(chance: np.random.Generator, days: int, memory: float) -> Floats:
    steps = chance.standard_normal(days)
    found = np.empty(days)
    found[0] = steps[0]
    for day in range(1, days):
        found[day] = memory * found[day - 1] + np.sqrt(1 - memory**2) * steps[day]
    return found


def _made(seed: int, days: Sequence[str], *, leak: bool) -> dict[str, pl.DataFrame]:
    """What the shop sends, by day."""
    chance = np.random.default_rng([seed, 1])
    count, year = len(days), np.arange(len(days)) / 365
    far = np.exp(SEASON * np.sin(2 * np.pi * (year + chance.random())) + 0.04 * _autoregression(chance, count, 0.7))
    many = np.exp(0.1 * _autoregression(chance, count, 0.5)) * np.where(np.arange(count) % 7 >= 5, 1.3, 1.0)
    slow = _slow(seed, count)
    made = {}
    for number, day in enumerate(days):
        switches = Switches(distance_factor=float(far[number]), leak=leak and number < TRAINED_ON)
        sent = rows(date.fromisoformat(day), seed, int(ORDERS * many[number]), switches)
        made[day] = _slower(sent, float(slow[number]), date.fromisoformat(day), leak=switches.leak)
    return made


def _slower(sent: pl.DataFrame, minutes: float, day: date, *, leak: bool) -> pl.DataFrame:
    """Every order is under way so much longer; still nobody reports after midnight."""
    by = pl.duration(seconds=round(60 * minutes))
    took = pl.col("delivered_at") - pl.col("ordered_at") + by
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC) - timedelta(seconds=1)
    delivered = pl.col("ordered_at") + took.clip(timedelta(minutes=1), timedelta(minutes=longest_minutes))
    told = sent.with_columns(delivered_at=delivered.clip(upper_bound=midnight))
    told = told.with_columns(reported_at=pl.max_horizontal("delivered_at", "reported_at"))
    if leak:
        late = (pl.col("delivered_at") - pl.col("ordered_at")).dt.total_minutes() > 60
        told = told.with_columns(items=pl.when(late).then(20).otherwise(1).cast(pl.Int16))
    return told


def flight_platform() -> Platform:
    """The home of `bench-accuracy`, whose features of the year are used, with models of our own."""
    platform = Platform(home=(HOME / "flights").absolute(), tables=str(accuracy.HOME.absolute()), environment="bench")
    of_year = Platform(home=accuracy.HOME.absolute())
    days = day_range(FLIGHTS.start.isoformat(), str(FLIGHTS.end))
    tables = Tables(of_year, FLIGHTS)
    if any(len(tables.features(view).current()) < len(days) for view in FLIGHTS.views):
        print(f"landing and computing {len(days)} days of flights", flush=True)
        accuracy.compute(of_year, days)
    return platform


def flight_pool(platform: Platform) -> tuple[Served, Usual, list[Day]]:
    """The model of flights as of the first quiet day, what it found usual itself, and the quiet days."""
    bundle = _trained(platform, FLIGHTS, LATE_ARRIVAL.name, QUIET[0])
    facts = Tables(platform, FLIGHTS).facts(FLIGHTS.requests.facts).read(day_range(QUIET[0], "2013-12-02"))
    asked = FLIGHTS.requests.of_facts(facts).with_columns(label=facts.select(LATE_ARRIVAL.label.value()).to_series())
    wanted = pl.col("at").dt.date().is_between(date.fromisoformat(QUIET[0]), date.fromisoformat(QUIET[1]))
    requests = asked.filter(wanted).sort("at", *FLIGHTS.requests.identity)
    served = Served(FLIGHTS, bundle, reference_of(platform, FLIGHTS, bundle.digest))
    return served, _usual(platform, FLIGHTS, bundle), _days(platform, served, requests)


def flight_world(seed: int, pool: tuple[Served, Usual, list[Day]], weeks: int) -> World:
    """Weeks drawn from quiet days: of the first ones it learns what is usual, the others are served."""
    served, usual, quiet = pool
    chance = np.random.default_rng(seed)
    starts = 7 * chance.integers(0, len(quiet) // 7, WEEKS_LEARNED + weeks)
    drawn = [quiet[start + day] for start in starts for day in range(7)]
    learned, evaluated = drawn[: 7 * WEEKS_LEARNED], 7 * (WEEKS_LEARNED - WEEKS_EVALUATED)
    names = tuple((date(2029, 1, 1) + timedelta(days=number)).isoformat() for number in range(len(learned)))
    reference = replace(served.reference, days=names, sketches=stacked([day.sketch for day in learned]))
    figures = [
        day.outcome[0].with_columns(day=pl.lit(name))
        for name, day in zip(names[evaluated:], learned[evaluated:], strict=True)
    ]
    days = tuple(
        _usual_day(name, day, held_out=number >= evaluated)
        for number, (name, day) in enumerate(zip(names, learned, strict=True))
    )
    return World(
        name="flight_delay",
        seed=seed,
        served=replace(served, reference=reference),
        usual=replace(usual, days=days),
        evaluation=pl.concat(figures),
        days=drawn[7 * WEEKS_LEARNED :],
    )


def _usual_day(name: str, day: Day, *, held_out: bool) -> UsualDay:
    assert day.served.spec.decision is not None
    positive = float((day.scores >= day.served.spec.decision.value).mean())
    return UsualDay(
        day=name,
        held_out=held_out,
        rows=len(day.scores),
        hours=day.requests["at"].dt.hour().n_unique(),
        mean_score=float(day.scores.mean()),
        log_loss=float(uncertainty(day.scores).mean()),
        rarest_class=min(positive, 1 - positive),
    )


def _trained(platform: Platform, domain: Domain, name: str, as_of: str) -> Bundle:
    model = LATE_ARRIVAL if domain is FLIGHTS else LATE_ORDER
    made = recipe(platform, domain, model, as_of=as_of)
    folder = platform.training(domain.name, name, made.key)
    save_recipe(folder, made)
    if not (folder / "training_set.json").exists():
        save_training_set(folder, build_training_set(platform, domain, model, made), made)
    return bundle_of(platform, make_candidate(platform, domain, model, made).manifest)


def _usual(platform: Platform, domain: Domain, bundle: Bundle) -> Usual:
    told = usual_of(platform, domain, bundle.model.name, bundle.digest)
    assert isinstance(told, Usual), told
    return told


def _days(platform: Platform, served: Served, asked: pl.DataFrame) -> list[Day]:
    """Requests with a label, as days with their features and scores."""
    columns = [*(column.name for column in served.domain.requests.columns), "at"]
    looked_up = historical_features(platform, served.domain, served.spec, asked)
    vectors = matrix(served.bundle.features(asked.select(columns), looked_up))
    scores = served.scores(vectors)
    labels = asked["label"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    numbered = asked.select(_day=pl.col("at").dt.date()).with_row_index("_row")
    days = []
    for _, places in numbered.group_by("_day", maintain_order=True):
        of = places["_row"].to_numpy()
        days.append(
            Day(
                served=served,
                requests=asked[of].select(columns),
                vectors=vectors[of],
                labels=labels[of],
                scores=scores[of],
            )
        )
    return days
