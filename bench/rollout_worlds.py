"""Half a year of real flights, scored by a champion and by challengers that are good, equal, or wrong in five ways.

All models are fitted and calibrated by the platform's own functions, as of 1 July 2013 and on the same rows, and score
every request from then to the end of the year with the features that serving would have had. What is wrong with a
challenger is made where such faults come from: in its training, in its features, in its code, in its speed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from bench import accuracy
from bench.monitored_worlds import LATE_ARRIVAL
from mlplatform.domain.rollout import Rollout
from mlplatform.domain.view import FeatureView
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.historical import historical_features
from mlplatform.features.tables import Tables, day_range
from mlplatform.features.view import fit_values, model_inputs
from mlplatform.provenance.platform import Platform
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.calibrate import fit_calibration
from mlplatform.training.dataset import build_training_set, load_rows, save_training_set
from mlplatform.training.examples import Examples, examples
from mlplatform.training.fit import fit
from mlplatform.training.metrics import per_row
from mlplatform.training.recipe import recipe, save_recipe

MODEL = DOMAIN.model("late_arrival")
SETTINGS = Rollout()
MARGINS = {
    "failures": SETTINGS.failures.value,
    "late": SETTINGS.failures.value,
    "log_loss": MODEL.gate.margin.value,
}
SEGMENT_MARGINS = {"log_loss": MODEL.gate.segment_margin.value}

HOME = Path("var/bench/rollout")
FIRST, LAST = "2013-07-01", "2013-12-31"

EQUALS = 3
"""Models that differ from the champion by their seed alone."""

UNBALANCED = 2.0
"""Weight of late flights in the training of the model whose calibration was forgotten."""

MEDIAN_MS, SPREAD = 6.0, 0.4
"""Of a log-normal latency: 0.13 % of the champion's requests exceed the objective of 20 ms."""

SLOWER = 1.5
"""Of these, 2.3 % exceed it."""

SMALL = ("AS", "F9", "FL", "VX", "WN")
"""Carriers of one to ten flights in a hundred: one is scored by nothing."""

HURT = ("AA", "DL", "MQ", "US", "9E")
"""Carriers so large that it matters, and so small that all flights together are better off."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order in which they came, and what comes true."""

    at: npt.NDArray[np.datetime64]
    known_at: npt.NDArray[np.datetime64]
    """When the platform has the label: the night after the landing."""

    labels: Floats
    """NaN: cancelled or diverted, there never is one."""

    segments: pl.DataFrame
    champion: Floats
    """Its scores."""

    @cached_property
    def losses(self) -> Floats:
        """Of the champion."""
        return per_row("log_loss", self.labels, self.champion)


@dataclass(frozen=True, eq=False)
class Challenger:
    """What is rolled out."""

    name: str
    harmless: bool
    """Should end with all traffic; else with none."""

    scores: Floats
    """NaN: it gives none."""

    harmed: Mask
    """Requests that are worse off with it."""

    slower: float = 1.0


Make = Callable[[int], Challenger]
"""A seed -> a challenger: which of the equal models, which carrier."""


def world() -> tuple[Traffic, Mapping[str, Make]]:
    """Train, score, and give the traffic and how challengers are made, by name."""
    platform = _platform()
    made = recipe(platform, DOMAIN, LATE_ARRIVAL, as_of=FIRST)
    folder = platform.training(DOMAIN.name, LATE_ARRIVAL.name, made.key)
    save_recipe(folder, made)
    if not (folder / "training_set.json").exists():
        save_training_set(folder, build_training_set(platform, DOMAIN, LATE_ARRIVAL, made), made)
    cut = examples(DOMAIN, LATE_ARRIVAL, made, load_rows(folder))
    fitted = fit_values(DOMAIN, LATE_ARRIVAL, cut.requests[cut.parts.train], cut.view_values[cut.parts.train])

    facts = Tables(platform, DOMAIN).facts(DOMAIN.requests.facts).read().sort("event_time")
    told = facts.select(label=LATE_ARRIVAL.label.value(), known_at="available_at")
    asked = DOMAIN.requests.of_facts(facts).hstack(told).filter(pl.col("at") >= made.cut_off)
    asked = asked.sort("at", *DOMAIN.requests.identity)
    requests = asked.select([*(column.name for column in DOMAIN.requests.columns), "at"])
    published = historical_features(platform, DOMAIN, LATE_ARRIVAL, asked)
    inputs = model_inputs(DOMAIN, LATE_ARRIVAL, requests, published, fitted)
    learned = cut.features(DOMAIN, LATE_ARRIVAL, fitted)

    fresh = _of_the_moment(facts, cut.requests, cut.view_values)
    best = _Model(cut, model_inputs(DOMAIN, LATE_ARRIVAL, cut.requests, fresh, fitted))
    current = model_inputs(DOMAIN, LATE_ARRIVAL, requests, _of_the_moment(facts, requests, published), fitted)
    unbalanced = _Model(cut, learned, more={"scale_pos_weight": UNBALANCED}, calibrated=False)
    traffic = Traffic(
        at=requests["at"].dt.replace_time_zone(None).to_numpy(),
        known_at=asked["known_at"].dt.replace_time_zone(None).to_numpy(),
        labels=asked["label"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        segments=requests.select(each.column for each in LATE_ARRIVAL.segments),
        champion=_Model(cut, learned).scores(inputs),
    )
    equals = [_Model(cut, learned, seed=200 + number).scores(inputs) for number in range(EQUALS)]
    return traffic, _challengers(
        traffic,
        equals,
        good=(best, current),
        miscalibrated=unbalanced.scores(inputs),
        leaking=_Model(cut, _leaked(cut, learned)).scores(inputs),
    )


def latencies(rows: int, seed: int) -> Floats:
    """Milliseconds of a model that is not slow."""
    return MEDIAN_MS * np.exp(SPREAD * np.random.default_rng(seed).standard_normal(rows))


def _challengers(
    traffic: Traffic,
    equals: list[Floats],
    *,
    good: "tuple[_Model, pl.DataFrame]",
    miscalibrated: Floats,
    leaking: Floats,
) -> Mapping[str, Make]:
    carrier = traffic.segments["carrier"].to_numpy()
    everybody = np.ones(len(carrier), dtype=np.bool_)
    model, current = good
    best = model.scores(current)

    def unscored(seed: int) -> Challenger:
        hit = carrier == SMALL[seed % len(SMALL)]
        return Challenger("NaN on one carrier", False, np.where(hit, np.nan, equals[seed % EQUALS]), hit)

    def hurt(seed: int) -> Challenger:
        hit = carrier == HURT[seed % len(HURT)]
        rows = np.flatnonzero(hit)
        # As a join gone wrong does it: the flights of one carrier get each other's features.
        mixed = model.scores(current[np.random.default_rng(seed).permutation(rows)])
        scores = best.copy()
        scores[rows] = mixed
        return Challenger("better, but not on one carrier", False, scores, hit)

    return {
        "good": lambda _: Challenger("good", True, best, ~everybody),
        "equal": lambda seed: Challenger("equal", True, equals[seed % EQUALS], ~everybody),
        "miscalibrated": lambda _: Challenger("miscalibrated", False, miscalibrated, everybody),
        "slow": lambda seed: Challenger("slow", False, equals[seed % EQUALS], everybody, slower=SLOWER),
        "NaN on one carrier": unscored,
        "better, but not on one carrier": hurt,
        "trained on a leak": lambda _: Challenger("trained on a leak", False, leaking, everybody),
    }


def _platform() -> Platform:
    """A home of our own over the tables of `bench-accuracy`, which are computed unless they are there."""
    of_year = Platform(home=accuracy.HOME.absolute())
    days = day_range(DOMAIN.start.isoformat(), LAST)
    tables = Tables(of_year, DOMAIN)
    if any(len(tables.features(view).current()) < len(days) for view in DOMAIN.views):
        print(f"landing and computing {len(days)} days of flights", flush=True)
        accuracy.compute(of_year, days)
    return Platform(home=HOME.absolute(), tables=str(accuracy.HOME.absolute()), environment="bench")


class _Model:
    """A booster and its calibration, made as the champion's are."""

    def __init__(
        self,
        cut: Examples,
        features: pl.DataFrame,
        *,
        seed: int = LATE_ARRIVAL.settings.seed,
        more: Mapping[str, object] | None = None,
        calibrated: bool = True,
    ) -> None:
        settings = replace(LATE_ARRIVAL.settings, seed=seed, more={**LATE_ARRIVAL.settings.more, **(more or {})})
        train, held_back = cut.parts.train, cut.parts.calibration
        self.booster = fit(features[train], cut.labels[train], LATE_ARRIVAL, settings)
        raw = raw_scores(self.booster, matrix(features[held_back]))
        at = cut.requests["at"].gather(held_back)
        found = fit_calibration(LATE_ARRIVAL, raw, cut.labels[held_back], at)
        self.calibration = found.calibration if calibrated else None

    def scores(self, features: pl.DataFrame) -> Floats:
        raw: Floats = raw_scores(self.booster, matrix(features))
        return raw if self.calibration is None else self.calibration.apply(raw)


def _of_the_moment(facts: pl.DataFrame, requests: pl.DataFrame, published: pl.DataFrame) -> pl.DataFrame:
    """Values of the model's views up to each request, instead of up to the night before it."""
    asked = requests.with_row_index("_row")
    parts = []
    for name in LATE_ARRIVAL.views:
        view = DOMAIN.view(name)[1]
        assert isinstance(view, FeatureView)
        # The register of aircraft does not change within a day.
        register = published.select(feature.name for feature in view.features)
        parts.append(register if name == "aircraft" else accuracy.windows(facts, asked, view))
    return pl.concat(parts, how="horizontal")


def _leaked(cut: Examples, features: pl.DataFrame) -> pl.DataFrame:
    """The destination's late share of yesterday is that of the same day, with the flight's own outcome in it."""
    told = cut.requests.select("dest", day=pl.col("at").dt.date()).with_columns(late=pl.Series(cut.labels))
    same_day = told.select(pl.col("late").mean().over("dest", "day").cast(pl.Float32))["late"]
    return features.with_columns(same_day.alias("destination_late_share_1d"))
