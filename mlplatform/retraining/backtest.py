"""The retrain policy replayed over recorded days, beside never, monthly, weekly and always.

Every arm begins with the same model and goes forward day by day. On a day it knows what the platform would have known:
facts of days that are published, labels that are in (`label.delay`), the loss of its own model on outcomes that are
mature. Where it decides to train, a model is trained as of that day, by the model's own settings, calibrated as usual,
and it answers every request from then on. What each arm answered is compared on the same requests.

It leaves out what would cost more than it tells: the search, the gate (each model takes over), MLflow and Bentos. Facts
and features are those of their current revisions, so a correction counts as if it had always been there; how many
values that touches is told. Drift is not replayed: it has no part in the decisions here.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.monitoring import Monitoring
from mlplatform.errors import DataError
from mlplatform.features.tables import Tables, day_range
from mlplatform.features.view import fit_values, model_inputs
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.performance import (
    expected_log_loss,
    judged_day,
    recalibration_gain,
    rise,
    unexplained_rise,
)
from mlplatform.retraining.policy import Evidence, weigh
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.calibrate import fit_calibration
from mlplatform.training.dataset import build_training_set, load_rows, save_training_set
from mlplatform.training.examples import examples
from mlplatform.training.fit import fit
from mlplatform.training.metrics import Interval, bootstrap, interval, replicates, value
from mlplatform.training.recipe import recipe

Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

resamples = 1_000

trainings_at_most = 30
"""Of the arm that trains always: every day where that is not more, else as often as this allows."""

compared_with = "monthly"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A day on which the policy trained, and why."""

    day: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one way of retraining came to."""

    name: str
    trainings: Sequence[Step]
    """Without the model that every arm begins with."""

    seconds: float
    """Of a processor, for fitting and calibrating."""

    loss: float
    """The gate's metric on all requests."""

    difference: Interval
    """Of the metric to monthly retraining: this arm − monthly, over whole weeks. Below 0 is better for a loss."""


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """The arms, on the same requests."""

    model: str
    metric: str
    first: str
    last: str
    requests: int
    differing_values: int
    """Feature values that were corrected since, and would have been others at the time."""

    arms: Sequence[Arm]


@dataclass(frozen=True, eq=False)
class Trained:
    """A model as of a day."""

    start: int
    """Position of the first row that it scored."""

    scores: Floats
    evaluation: float
    """The gate's metric on its evaluation part."""

    seconds: float


class RecordedDays:
    """Every labelled request of a domain with what it could have seen, and models as of any of its days.

    Rows and scores are kept under the home folder by everything that decides them, so a second look is quick. The
    thresholds of the policy are not among that.
    """

    def __init__(self, platform: Platform, domain: Domain, model: ModelSpec) -> None:
        self.domain, self.model = domain, model
        # Whatever the policy says, the models are the same.
        self._fixed = replace(model, retraining=ModelSpec.retraining, monitoring=Monitoring())
        self._recipe = recipe(platform, domain, self._fixed)
        self._folder = platform.home / "backtests" / domain.name / model.name / self._recipe.key
        self.facts = {
            day: each.rows for day, each in Tables(platform, domain).facts(domain.requests.facts).current().items()
        }
        described, self.rows = self._training_set(platform)
        self.differing_values = int(described["differing_values"])
        self.at = self.rows["at"].dt.epoch("us").to_numpy()
        self.known_at = self.rows["label_available_at"].dt.epoch("us").to_numpy()
        self.labels = self.rows["label"].to_numpy().astype(np.float64)
        self._trained: dict[str, Trained] = {}

    def as_of(self, day: str) -> Trained:
        """The model that is trained at the beginning of a day.

        Raises
        ------
        DataError
            The days before it do not suffice.
        """
        if day not in self._trained:
            path = self._folder / f"{day}.npz"
            if path.exists():
                with np.load(path) as kept:
                    self._trained[day] = Trained(
                        int(kept["start"]), kept["scores"], float(kept["evaluation"]), float(kept["seconds"])
                    )
            else:
                made = self._trained[day] = self._train(day)
                np.savez(path, start=made.start, scores=made.scores, evaluation=made.evaluation, seconds=made.seconds)
        return self._trained[day]

    def _training_set(self, platform: Platform) -> tuple[Mapping[str, Any], pl.DataFrame]:
        told = self._folder / "training_set.json"
        if not told.exists():
            log.info("joining the requests of %d days with their features", len(self.facts))
            made = build_training_set(platform, self.domain, self._fixed, self._recipe)
            save_training_set(self._folder, made, self._recipe)
        return json.loads(told.read_text()), load_rows(self._folder)

    def _train(self, day: str) -> Trained:
        begun = time.process_time()
        cut_off = self.cut_off(day)
        known = self.rows.filter(pl.col("label_available_at") <= cut_off)
        made = replace(self._recipe, as_of=day, label_cut_off=cut_off.isoformat())
        cut = examples(self.domain, self.model, made, known)
        train, calibration, evaluation = cut.parts.train, cut.parts.calibration, cut.parts.evaluation
        fitted = fit_values(self.domain, self.model, cut.requests[train], cut.view_values[train])
        inputs = cut.features(self.domain, self.model, fitted)
        booster = fit(inputs[train], cut.labels[train], self.model, self.model.settings)
        curve = fit_calibration(
            self.model,
            raw_scores(booster, matrix(inputs[calibration])),
            cut.labels[calibration],
            cut.requests["at"].gather(calibration),
        ).calibration
        seconds = time.process_time() - begun
        told = value(
            self.model.gate.metric, cut.labels[evaluation], curve.apply(raw_scores(booster, matrix(inputs[evaluation])))
        )
        start = self.position(cut_off)
        later = self.rows[start:]
        asked, looked_up = later.select(cut.requests.columns), later.select(cut.view_values.columns)
        answered = model_inputs(self.domain, self.model, asked, looked_up, fitted)
        scores = curve.apply(raw_scores(booster, matrix(answered)))
        log.info("trained as of %s in %.1f s on %s rows", day, seconds, f"{len(train):,}")
        return Trained(start, scores, told, seconds)

    def cut_off(self, day: str) -> datetime:
        """When the day before was published: the instant of a decision, and from which on its model answers."""
        return datetime.combine(date.fromisoformat(day), time_of_day(), UTC) + self.domain.publishing_delay

    def position(self, instant: datetime) -> int:
        """Of the first request that is asked at an instant or later."""
        return int(np.searchsorted(self.at, _micros(instant)))


def backtest(
    platform: Platform, domain: Domain, model: ModelSpec, *, first: str | None = None, last: str | None = None
) -> Backtest:
    """Replay the policy of a model.

    Parameters
    ----------
    first : ISO day on which every arm begins; None: the first of the month in which half of the days are over
    last : ISO day, the last one whose requests count; None: the last recorded one

    Raises
    ------
    DataError
        There are no features, or the days before the first one do not suffice to train.
    """
    recorded = RecordedDays(platform, domain, model)
    days = sorted(recorded.facts)
    first = first or f"{days[len(days) // 2][:7]}-01"
    last = min(last or days[-1], days[-1])
    if first >= last:
        raise DataError(f"from {first} to {last} there is nothing to replay. Recorded are {days[0]} to {days[-1]}")
    stretch = day_range(first, last)
    end = recorded.position(recorded.cut_off(last) + timedelta(days=1))
    plans: dict[str, Callable[[], list[Step]]] = {
        "policy": lambda: _by_policy(recorded, stretch),
        "never": list,
        "monthly": lambda: [Step(day=day, reason="a new month") for day in stretch[1:] if day.endswith("-01")],
        "weekly": lambda: [Step(day=day, reason="a new week") for day in stretch[7::7]],
        "always": lambda: _always(stretch),
    }
    steps = {name: plan() for name, plan in plans.items()}
    start = recorded.as_of(first).start
    asked = recorded.at[start:end]
    weeks = np.asarray((asked - asked[0]) // (7 * 86_400_000_000), dtype=np.int64)
    sample = bootstrap(weeks, seed=model.settings.seed, resamples=resamples)
    labels, metric = recorded.labels[start:end], model.gate.metric
    drawn = {
        name: replicates(metric, labels, _answers(recorded, [first, *(step.day for step in taken)], start, end), sample)
        for name, taken in steps.items()
    }
    return Backtest(
        model=f"{domain.name}/{model.name}",
        metric=metric,
        first=first,
        last=last,
        requests=end - start,
        differing_values=recorded.differing_values,
        arms=[
            Arm(
                name=name,
                trainings=taken,
                seconds=sum(recorded.as_of(step.day).seconds for step in taken),
                loss=float(drawn[name][0]),
                difference=interval(drawn[name] - drawn[compared_with], int(weeks[-1]) + 1),
            )
            for name, taken in steps.items()
        ],
    )


def evidence_on(recorded: RecordedDays, day: str, newest: str) -> Evidence:
    """What was known at the beginning of a day of a model that was trained as of an earlier one."""
    now = recorded.cut_off(day)
    delay = recorded.model.label.delay
    fresh = {each: rows for each, rows in recorded.facts.items() if newest <= each < day}
    old_enough = (now - delay).date().isoformat()
    days = float((date.fromisoformat(day) - date.fromisoformat(newest)).days)
    return Evidence(
        new_rows=sum(fresh.values()),
        labels=sum(rows for each, rows in fresh.items() if each < old_enough),
        newest=newest,
        age_days=days,
        since_days=days,
        **_performance(recorded, now, newest),
        missing={"drift": "it is not replayed"},
    )


def _by_policy(recorded: RecordedDays, stretch: Sequence[str]) -> list[Step]:
    newest, steps = stretch[0], []
    for day in stretch[1:]:
        verdict = weigh(evidence_on(recorded, day, newest), recorded.model.retraining)
        if verdict.outcome == "train":
            steps.append(Step(day=day, reason=verdict.reason))
            newest = day
    return steps


def _always(stretch: Sequence[str]) -> list[Step]:
    apart = -(-len(stretch) // trainings_at_most)
    return [Step(day=day, reason=f"every {apart} days") for day in stretch[apart::apart]]


def _performance(recorded: RecordedDays, now: datetime, newest: str) -> dict[str, Any]:
    """What the evidence says of how the serving model does."""
    serving, model = recorded.as_of(newest), recorded.model
    metric, enough = model.gate.metric, model.monitoring.min_rows.value
    true = estimated = gain = None
    mature = max(serving.start, recorded.position(now - model.label.delay))
    oldest = max(serving.start, recorded.position(now - model.label.delay - model.split.evaluation))
    # Some labels are in later than the delay says.
    rows = oldest + np.flatnonzero(recorded.known_at[oldest:mature] <= _micros(now))
    if len(rows) >= enough:
        scores, labels = serving.scores[rows - serving.start], recorded.labels[rows]
        days = recorded.at[rows] // 86_400_000_000
        judged = []
        for day in np.unique(days):
            told, were = scores[days == day], labels[days == day]
            judged.append(judged_day(model, were, told))
        true = unexplained_rise(metric, judged, serving.evaluation)
        gain = recalibration_gain(judged, serving.evaluation)
    asked = slice(max(serving.start, recorded.position(now - timedelta(days=1))), recorded.position(now))
    told = serving.scores[asked.start - serving.start : asked.stop - serving.start]
    if metric == "log_loss" and len(told) >= enough:
        estimated = rise(metric, expected_log_loss(told), serving.evaluation)
    return {"true_rise": true, "estimated_rise": estimated, "recalibration_gain": gain}


def _answers(recorded: RecordedDays, days: Sequence[str], start: int, end: int) -> Floats:
    """What the models as of these days have answered, each until the next one took over."""
    models = [recorded.as_of(day) for day in days]
    ends = [*(each.start for each in models[1:]), end]
    parts = [each.scores[: max(0, until - each.start)] for each, until in zip(models, ends, strict=True)]
    return np.concatenate(parts)[: end - start]


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)
