"""A home folder in which the synthetic domain lives: its days landed, its stages run, its models trained."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import first_day, last_day, rows
from mlplatform.features.landing.landing import land
from mlplatform.features.materialization import Outcome, raise_failures, run
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import day_range, stages
from mlplatform.provenance.checkout import Checkout
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import make_candidate
from mlplatform.registry.ledger import Entry
from mlplatform.rollout.judge import judge_candidate
from mlplatform.rollout.promotion import promote
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.recipe import Recipe, recipe, save_recipe

AFTERWARDS = datetime(2024, 2, 1, tzinfo=UTC)
"""A week after the last day of the sample: when everything is computed, unless a test says otherwise."""

ALL_DAYS = day_range(first_day.isoformat(), last_day.isoformat())


class Clock:
    """Time that moves when it is told to."""

    def __init__(self, now: datetime = AFTERWARDS) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """What time it is."""
        return self.now


COMMITTED = Checkout(commit="c0ffee" * 6 + "cafe", dirty=False, root=Path("/checkout"))
"""A clean checkout: what a test makes does not hang on whether somebody edits the project meanwhile."""


def platform_in(
    home: Path, now: datetime = AFTERWARDS, *, environment: str = "lock", checkout: Checkout = COMMITTED
) -> Platform:
    """A platform in a folder, at one instant, whose code lies in one checkout."""
    return Platform(home=home, clock=Clock(now), environment=environment, checkout=lambda _folder: checkout)


def land_orders(
    platform: Platform, days: Sequence[str], frames: Mapping[str, pl.DataFrame] | None = None, *, rows_per_day: int = 30
) -> None:
    """Land the orders of some days: those of `frames`, else what the shop sends."""
    for day in days:
        sent = (frames or {}).get(day)
        made = rows(date.fromisoformat(day), rows_per_day=rows_per_day) if sent is None else sent
        land(platform, DOMAIN, DOMAIN.source("orders"), date.fromisoformat(day), made)


def run_stage(platform: Platform, stage: str, days: Sequence[str], domain: Domain = DOMAIN) -> Outcome:
    """Run one stage; failures are in the outcome."""
    return run(platform, domain, stage, days, run_id="test")


def backfill(platform: Platform, days: Sequence[str], domain: Domain = DOMAIN) -> int:
    """Run every stage, raise what failed, and give the number of new revisions."""
    new = 0
    for stage in stages:
        outcome = run_stage(platform, stage, days, domain)
        raise_failures(outcome)
        new += outcome.new
    return new


@dataclass(frozen=True, repr=False)
class TrainedHome:
    """A home with 24 days of the synthetic domain, and the binary model trained, judged and promoted."""

    platform: Platform
    model: ModelSpec
    recipe: Recipe
    entry: Entry
    domain: Domain = DOMAIN

    @property
    def folder(self) -> Path:
        """What the recipe made."""
        return self.platform.training(self.domain.name, self.model.name, self.recipe.key)

    def copied_to(self, home: Path) -> "TrainedHome":
        """The same in a folder of one's own."""
        shutil.copytree(self.platform.home, home)
        return replace(self, platform=platform_in(home))


def train(platform: Platform, model: ModelSpec, *, as_of: str | None = None) -> Recipe:
    """Recipe, training set, candidate and decision of a model."""
    made = recipe(platform, DOMAIN, model, as_of=as_of)
    folder = platform.training(DOMAIN.name, model.name, made.key)
    save_recipe(folder, made)
    save_training_set(folder, build_training_set(platform, DOMAIN, model, made), made)
    make_candidate(platform, DOMAIN, model, made)
    judge_candidate(platform, DOMAIN, model, made)
    return made


def trained_home(home: Path) -> TrainedHome:
    """Land, compute, publish, train, judge and promote."""
    platform, model = platform_in(home), DOMAIN.model("late_order")
    land_orders(platform, ALL_DAYS, rows_per_day=200)
    backfill(platform, ALL_DAYS)
    publish_values(platform, DOMAIN)
    made = train(platform, model)
    return TrainedHome(platform, model, made, promote(platform, DOMAIN, model, made.key, actor="test"))
