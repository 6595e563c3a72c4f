"""Ten kinds of fault, injected into days that were quiet, and what other rules than ours make of the same days."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from bench.monitored_days import Day, World
from bench.monitored_worlds import FAULTY
from mlplatform.monitoring.quality.day_quality import FeatureQuality
from mlplatform.scoring.booster import Matrix
from mlplatform.simulation.faults import drift, label_shift, nulls

Fault = Callable[[Day, World, int], Day]
"""A day, its world and a seed -> the day as it is with the fault."""

SHIFT = 1.0
"""Standard deviations by which the key feature moves."""

NULLS = 0.5
"""Share of the rows in which the key feature is missing."""

TURNED = 0.5
"""Share of the rows whose labels take part in the shift."""

ODDS = 0.7
"""By how much the log odds of all scores are off: a rate of 30 % is told as 46 %."""

FALLEN_BACK = 0.3

EVIDENTLY_ROWS = 1_000


def key_feature(world: World) -> int:
    """The number that the model has learned most from."""
    reference = world.served.reference
    return int(np.where(reference.bins.category, 0.0, reference.importance).argmax())


def half_missing(day: Day, world: World, seed: int) -> Day:
    """Nulls in the key feature."""
    place = key_feature(world)
    return day.with_vectors(_replaced(day.vectors, place, lambda frame: nulls(frame, "x", share=NULLS, seed=seed)))


def another_unit(day: Day, world: World, _seed: int) -> Day:
    """Metres for kilometres, kilometres for miles."""
    name, factor = FAULTY[world.name].unit
    return day.with_vectors(_replaced(day.vectors, _place(world, name), lambda frame: frame * factor))


def moved(day: Day, world: World, _seed: int) -> Day:
    """The key feature rises by a standard deviation, and what comes true does not."""
    place = key_feature(world)
    before = pl.Series("x", world.served.reference.sample[:, place]).fill_nan(None)
    return day.with_vectors(_replaced(day.vectors, place, lambda frame: drift(frame, "x", reference=before, by=SHIFT)))


def renamed(day: Day, world: World, _seed: int) -> Day:
    """The commonest category has another name: it has no code, and views know nothing of it."""
    faulty = FAULTY[world.name]
    code = _place(world, faulty.renamed)
    values, counts = np.unique(day.vectors[:, code][np.isfinite(day.vectors[:, code])], return_counts=True)
    rows = day.vectors[:, code] == values[counts.argmax()]
    vectors = day.vectors.copy()
    for place in [code, *_places(world, faulty.of_category)]:
        vectors[rows, place] = np.nan
    return day.with_vectors(vectors)


def frozen(day: Day, world: World, _seed: int) -> Day:
    """One value in every row: a default that is filled in."""
    place = _place(world, FAULTY[world.name].frozen)
    vectors = day.vectors.copy()
    vectors[:, place] = np.nanmedian(world.served.reference.sample[:, place])
    return day.with_vectors(vectors)


def broken_feed(day: Day, world: World, _seed: int) -> Day:
    """A view cannot be read: none of its values is there, and every answer is degraded."""
    vectors = day.vectors.copy()
    vectors[:, _places(world, FAULTY[world.name].view)] = np.nan
    return day.with_vectors(vectors, degraded="the view is unavailable")


def labels_turned(day: Day, _world: World, seed: int) -> Day:
    """As many come true as before, but not the same ones."""
    told = label_shift(pl.DataFrame({"label": day.labels}).fill_nan(None), ["label"], probability=TURNED, seed=seed)
    return replace(day, labels=told["label"].fill_null(float("nan")).to_numpy())


def miscalibrated(day: Day, _world: World, _seed: int) -> Day:
    """Every score is too high by the same log odds."""
    scores = np.clip(day.scores, 1e-6, 1 - 1e-6)
    return replace(day, scores=1 / (1 + np.exp(-(np.log(scores / (1 - scores)) + ODDS))))


def storm(day: Day, _world: World, seed: int) -> Day:
    """Nearly a third of the answers come too late, and not from the model."""
    return replace(day, fallen_back=np.random.default_rng(seed).random(len(day.scores)) < FALLEN_BACK)


FAULTS: Mapping[str, Fault] = {
    "nulls in the key feature": half_missing,
    "another unit": another_unit,
    "key feature moved": moved,
    "category renamed": renamed,
    "feature frozen": frozen,
    "feed broken": broken_feed,
    "labels turned": labels_turned,
    "scores off": miscalibrated,
    "fallback storm": storm,
}
LEAK = "leak in training"
"""The tenth: it is in the model, not in the day."""


def ks_alarm(features: Sequence[FeatureQuality], training_rows: int) -> bool:
    """Kolmogorov-Smirnov p < 0.05 for any feature."""
    from scipy.stats import kstwobign

    known = [each for each in features if np.isfinite(each.ks)]
    far = [each.ks * np.sqrt(each.rows * training_rows / (each.rows + training_rows)) for each in known]
    return bool(kstwobign.sf(max(far, default=0.0)) < 0.05)


def psi_alarm(features: Sequence[FeatureQuality]) -> bool:
    """PSI > 0.25 for any feature."""
    return any(each.psi > 0.25 for each in features)


def evidently_alarms(world: World, day: Day) -> tuple[bool, bool]:
    """What `DataDriftPreset` says of a sample of the day: that the data set has drifted, that any column has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        names = list(world.served.reference.bins.names)
        sample = world.served.reference.sample
        known = [
            place
            for place in range(len(names))
            if np.isfinite(sample[:, place]).any() and np.isfinite(day.vectors[:, place]).any()
        ]
        columns = [names[place] for place in known]
        kinds = DataDefinition(numerical_columns=columns)
        then, now = (
            Dataset.from_pandas(
                pd.DataFrame(part[:: max(1, len(part) // EVIDENTLY_ROWS), known], columns=columns),
                data_definition=kinds,
            )
            for part in (sample, day.vectors)
        )
        told = Report([DataDriftPreset()]).run(now, then).dict()["metrics"]
    (drifted,) = [each["value"] for each in told if "DriftedColumnsCount" in str(each.get("metric_name", each))]
    return drifted["share"] >= 0.5, drifted["count"] > 0


def _replaced(vectors: Matrix, place: int, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Matrix:
    """One column as another one, `x` in the frame."""
    told = change(pl.DataFrame({"x": vectors[:, place]}).fill_nan(None))["x"]
    found = vectors.copy()
    found[:, place] = told.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return found


def _place(world: World, name: str) -> int:
    return world.served.reference.bins.names.index(name)


def _places(world: World, prefix: str) -> list[int]:
    names = world.served.reference.bins.names
    return [place for place, name in enumerate(names) if name.startswith(prefix)]
