"""Days of answers as the monitors see them, and all monitors over them, without a service.

What is usual of a model comes from the platform's own home: its bundle, its training set, its evaluation. The days are
frames in memory (requests, features, scores, labels), and each layer judges them by the functions that its asset calls.
Left out is what lies between a gateway and those frames: the log, the pick-up, the tables.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.behaviour.behaviour import Behaviour, behaviour_of
from mlplatform.monitoring.behaviour.rescored import Rescored, beside_bundle, rescored_finding, rows_rescored
from mlplatform.monitoring.behaviour.rules import findings_of
from mlplatform.monitoring.behaviour.usual import Usual
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.outcomes.coverage import Coverage, coverage_finding
from mlplatform.monitoring.outcomes.history import DayParts, window_figures
from mlplatform.monitoring.outcomes.judge import findings, verdicts, watched
from mlplatform.monitoring.outcomes.outcomes import rolling
from mlplatform.monitoring.outcomes.tally import figures, request_columns, tally
from mlplatform.monitoring.quality.day_quality import DayQuality, FeatureQuality, ManifestQuality, slow_drift
from mlplatform.monitoring.quality.quality import days_in_view, judged_features
from mlplatform.monitoring.quality.reference import Reference
from mlplatform.monitoring.quality.sketch import Sketch, sketch, stacked
from mlplatform.monitoring.quality.usual import before_each, judge
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, raw_scores
from mlplatform.scoring.postprocess import answers

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EVER_AFTER = date(2030, 1, 1)
"""Day 0 of every world: days that are drawn again and again need names of their own."""

FINE_MICROSECONDS, LATE_MICROSECONDS = 3_000, 10_000_000


@dataclass(frozen=True, eq=False)
class Served:
    """What is served: a bundle, and the bins in which its features are counted."""

    domain: Domain
    bundle: Bundle
    reference: Reference

    @property
    def spec(self) -> ModelSpec:
        """The model as it is declared."""
        return self.domain.model(self.bundle.model.name)

    def scores(self, vectors: Matrix) -> Floats:
        """Calibrated scores of feature vectors."""
        told: Floats = self.bundle.calibration.apply(raw_scores(self.bundle.booster, vectors))
        return told


@dataclass(frozen=True, eq=False)
class Day:
    """The answers of one day."""

    served: Served
    requests: pl.DataFrame
    """(n, …) request columns and `at`."""

    vectors: Matrix
    labels: Floats
    """(n,) NaN where there never will be one."""

    scores: Floats
    fallen_back: Mask | None = None
    """(n,) not answered by the model, and too late."""

    degraded: str = ""
    """Why every answer is."""

    def with_vectors(self, vectors: Matrix, *, degraded: str = "") -> "Day":
        """The same day with other features, and what the model makes of them."""
        return replace(self, vectors=vectors, scores=self.served.scores(vectors), degraded=degraded)

    @cached_property
    def sketch(self) -> Sketch:
        """Of the features."""
        return sketch(self.vectors, self.served.reference.bins)

    @cached_property
    def answered(self) -> pl.DataFrame:
        """As in the log, with `label` and `block`."""
        spec, rows = self.served.spec, len(self.scores)
        own = np.ones(rows, dtype=np.bool_) if self.fallen_back is None else ~self.fallen_back
        told = self.requests.select("at", *request_columns(spec)).hstack(answers(spec, self.scores))
        late = {f"{phase}_us": pl.lit(FINE_MICROSECONDS) for phase in ("queue", "features", "hop", "score")}
        slow = pl.when(pl.Series(own)).then(FINE_MICROSECONDS).otherwise(LATE_MICROSECONDS)
        return told.with_columns(
            **{name: pl.lit(value) for name, value in self._of_manifest.items()},
            received=pl.col("at"),
            source=pl.when(pl.Series(own)).then(pl.lit("model")).otherwise(pl.lit("simple")),
            degraded=pl.Series(~own) | bool(self.degraded),
            reason=pl.lit(self.degraded or "no answer in time"),
            scores=pl.Series(self.scores.reshape(-1, 1)).arr.to_list(),
            total_us=slow,
            **late,
            label=pl.Series(self.labels).fill_nan(None),
            block=pl.col("at").dt.hour().cast(pl.Int32),
        )

    @property
    def _of_manifest(self) -> dict[str, str]:
        manifest = self.served.bundle.manifest
        return {
            "model": self.served.spec.name,
            "manifest": self.served.bundle.digest,
            "model_version": manifest.model_version,
            "arm": "champion",
        }

    @cached_property
    def behaviour(self) -> Behaviour:
        """How the model behaved."""
        log = self.answered.with_columns(pl.col("prediction").cast(pl.String))
        models = {self.served.spec.name: self.served.spec}
        # What is usual belongs to the world, and is given to the rules.
        return behaviour_of(log, models, lambda *_: "not compared here")[0]

    @cached_property
    def outcome(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Figures and bins of the answers whose label is known."""
        spec = self.served.spec
        known = self.answered["label"].is_not_null()
        rows = self.answered.filter(known).with_columns(pl.col("prediction").cast(pl.Float64))
        counted = tally(spec, rows, self.scores[known.to_numpy()])
        bins = counted.bins.group_by("manifest", "arm", "source", "bin").agg(pl.col("rows", "certainty", "hits").sum())
        return figures(spec, counted), bins

    @property
    def coverage(self) -> Coverage:
        """Every case has its fact; some say that there is no label."""
        return Coverage(come=len(self.labels), labelled=int(np.isfinite(self.labels).sum()), answers=len(self.labels))

    @cached_property
    def rescored(self) -> Rescored:
        """Some of the answers, scored again with the bundle."""
        own = np.arange(len(self.scores)) if self.fallen_back is None else np.flatnonzero(~self.fallen_back)
        rows = own[:: -(-len(own) // rows_rescored)]
        logged = pl.DataFrame(
            {
                "request_id": [str(row) for row in rows],
                "gateway": "g",
                "device": "cpu",
                "features": pl.Series(self.vectors[rows]).arr.to_list(),
                "scores": pl.Series(self.scores[rows].reshape(-1, 1)).arr.to_list(),
            }
        )
        of = self._of_manifest
        told = Rescored(model=of["model"], manifest=of["manifest"], answers=len(own))
        return beside_bundle(told, self.served.bundle, logged)


@dataclass(frozen=True, eq=False)
class World:
    """A model, what is usual of it, and quiet days on which it serves."""

    name: str
    seed: int
    served: Served
    usual: Usual
    evaluation: pl.DataFrame
    """As `reference_schema` of outcomes."""

    days: Sequence[Day]


@dataclass(eq=False)
class Watch:
    """All three layers over the days of a world, one after the other."""

    world: World
    features: tuple[FeatureQuality, ...] = ()
    """Of the last day, for whoever judges by other rules."""

    _sketches: list[Sketch] = field(default_factory=list)
    _unchanged: list[Mask] = field(default_factory=list)
    _outcomes: dict[int, tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=dict)
    _covered: list[Coverage] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self._sketches:
            reference = self.world.served.reference
            first = max(0, len(reference.days) - days_in_view)
            self._sketches = [reference.sketches[number] for number in range(first, len(reference.days))]
            self._unchanged = [np.ones(len(reference.bins.names), dtype=np.bool_)] * len(self._sketches)

    def copied(self) -> "Watch":
        """One that knows the same past, and goes its own way."""
        return replace(
            self,
            _sketches=[*self._sketches],
            _unchanged=[*self._unchanged],
            _outcomes=dict(self._outcomes),
            _covered=[*self._covered],
        )

    def look(self, number: int, day: Day) -> list[Finding]:
        """What all layers find on a day; layer 3 as if its labels had come."""
        name = (EVER_AFTER + timedelta(days=number)).isoformat()
        return [*self._quality(name, day), *self._behaviour(name, day), *self._outcome(number, name, day)]

    def _quality(self, name: str, day: Day) -> list[Finding]:
        served, reference = day.served, self.world.served.reference
        added, days = before_each(stacked(self._sketches), np.stack(self._unchanged))
        verdict = judge(
            day.sketch,
            reference.usual,
            reference.whole,
            added,
            days,
            reference.bins,
            going_on=~self._unchanged[-1],
            rate=served.spec.monitoring.false_discoveries.value,
        )
        judged = judged_features(served.spec.name, day.sketch, reference, verdict, judged=True)
        self.features = tuple(judged)
        unchanged = {each.feature for each in judged if each.rule in ("", slow_drift)}
        self._sketches = [*self._sketches, day.sketch][-days_in_view:]
        self._unchanged = [*self._unchanged, np.array([each in unchanged for each in reference.bins.names])][
            -days_in_view:
        ]
        told = ManifestQuality(
            model=served.spec.name, manifest=served.bundle.digest, answers=len(day.scores), features=self.features
        )
        return DayQuality(domain=served.domain.name, day=name, manifests=(told,), sources=()).findings

    def _behaviour(self, name: str, day: Day) -> list[Finding]:
        differ = rescored_finding(day.served.domain, name, day.rescored)
        told = findings_of(day.served.domain, day.served.spec, name, day.behaviour, self.world.usual)
        return [*([differ] if differ else []), *told]

    def _outcome(self, number: int, name: str, day: Day) -> list[Finding]:
        domain, spec = day.served.domain, day.served.spec
        self._outcomes[number] = day.outcome
        days: DayParts = {
            (EVER_AFTER + timedelta(days=each)).isoformat(): self._outcomes[each]
            for each in self._outcomes
            if number - rolling[0] < each <= number
        }
        reference = {day.served.bundle.digest: self.world.evaluation}
        looked_at = watched(spec, day.outcome[0], 1, reference)
        if len(days) > 1:
            looked_at += watched(spec, window_figures(spec, days), len(days), reference)
        lacking = coverage_finding(
            domain,
            spec,
            name,
            day.coverage,
            self._covered[-rolling[1] :],
            manifest=day.served.bundle.digest,
        )
        if lacking is None:
            self._covered = [*self._covered, day.coverage]
        return [*([lacking] if lacking else []), *findings(domain, name, verdicts(looked_at))]


def harmful(found: Sequence[Finding]) -> set[tuple[str, str]]:
    """What would wake somebody, as alerts are told apart: by rule and subject."""
    return {(each.rule, each.subject) for each in found if each.harmful}


def shown(found: Sequence[Finding]) -> set[tuple[str, str]]:
    """All that is found and not a season's slow drift, whether it wakes somebody or not."""
    return {(each.rule, each.subject) for each in found if each.rule != slow_drift}


def alerts_begun(by_day: Sequence[set[tuple[str, str]]]) -> Iterator[tuple[int, str]]:
    """Day and rule of each alert that was not there on the day before."""
    before: set[tuple[str, str]] = set()
    for number, today in enumerate(by_day):
        for rule, _ in sorted(today - before):
            yield number, rule
        before = today


def counted(rules: Sequence[str]) -> str:
    """In words, the most frequent first."""
    return ", ".join(f"{rule} {times}" for rule, times in Counter(rules).most_common()) or "none"
