"""The reference of a manifest: what its training set looked like, day by day, computed once and kept under the home.

It holds the bins of each feature, the sketch of every day of the training window (of these the usual distances follow),
the features' importance and a bounded sample for the report. The rows are those that the model was made from after the
warm-up: trained, calibrated and evaluated on. The days between those parts are in it too, for they are as usual as the
others. Features are computed by the bundle's own code, so what the domain declares today plays no part.

It refuses to judge by a reference that it cannot make: who asks is told why.
"""

import io
import zipfile
from dataclasses import dataclass, fields
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import Feature
from mlplatform.errors import DataError
from mlplatform.features.pipeline import given
from mlplatform.features.view import feature_names, view_feature_names
from mlplatform.monitoring.drift import Floats
from mlplatform.monitoring.quality.sketch import Bins, Sketch, learn_bins, sketch, stacked
from mlplatform.monitoring.quality.usual import Usual, learn_usual
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import BOOSTER, Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import Matrix, load_booster, matrix
from mlplatform.training.dataset import load_rows
from mlplatform.training.fit import importance
from mlplatform.training.recipe import load_recipe
from mlplatform.training.split import windows

rows_of_bins = 50_000
"""Of the training set, spread evenly over it, from which bins are learned: a quantile is right to half a percent."""

rows_of_report = 5_000
"""Kept for the report. More changes no picture, and each of its features takes longer."""

made_as = 1
"""How a reference is made and kept; raised whenever that changes, so that none of the old ones is read."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What one manifest was trained on."""

    manifest: str
    bins: Bins
    importance: Floats
    """(k,) share of the total gain."""

    days: tuple[str, ...]
    """ISO days of the training window, those with rows."""

    sketches: Sketch
    """(days, k)"""

    sample: Matrix
    """(n, k) spread evenly over the window."""

    @cached_property
    def whole(self) -> Sketch:
        """(k,) all days."""
        return self.sketches.added_up()

    @cached_property
    def usual(self) -> Usual:
        """How far its days lie from one another."""
        return learn_usual(self.sketches, self.bins)


def reference_of(platform: Platform, domain: Domain, manifest: str) -> Reference:
    """The reference of a manifest, from its file, or made and kept.

    Raises
    ------
    BundleError
        The bundle is gone, or altered.
    DataError
        Its training set is gone, or its feature code refuses it.
    """
    path = reference_path(platform, domain, manifest)
    kept = _load(path, manifest)
    if kept is None:
        kept = _make(platform, domain, manifest)
        write_whole(path, _as_bytes(kept))
    return kept


def reference_path(platform: Platform, domain: Domain, manifest: str) -> Path:
    """Where it is kept. To have it made anew, delete it."""
    return platform.home / "monitoring" / domain.name / "references" / f"{manifest}.npz"


def _make(platform: Platform, domain: Domain, manifest: str) -> Reference:
    bundle = bundle_of(platform, manifest)
    folder = platform.training(domain.name, bundle.model.name, bundle.manifest.model_version)
    rows = _window(bundle, folder)
    declared = _declared(bundle.domain, bundle.model)
    learned_from = _inputs(bundle, rows.gather_every(max(1, rows.height // rows_of_bins)))
    bins = learn_bins(learned_from, declared, _coded(bundle.domain, bundle.model))
    booster = load_booster(bundle.folder / BOOSTER, device="cpu", threads=1)  # it scores nothing here
    gain = importance(booster)
    by_day = rows.with_columns(_day=pl.col("at").dt.date()).partition_by("_day", as_dict=True)
    days = [sketch(_inputs(bundle, each), bins) for each in by_day.values()]
    return Reference(
        manifest=manifest,
        bins=bins,
        importance=np.array([gain.get(name, 0.0) for name in bins.names]),
        days=tuple(day.isoformat() for (day,) in by_day),
        sketches=_without_others(stacked(days), bins),
        sample=learned_from[:: max(1, len(learned_from) // rows_of_report)],
    )


def _window(bundle: Bundle, folder: Path) -> pl.DataFrame:
    """Rows of the training set after the warm-up, up to the end of the evaluation, by time."""
    made, model = load_recipe(folder), bundle.model
    try:
        rows = load_rows(folder)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"the training set of {made.model} {made.key} cannot be read ({error}). Materialise `training_set` of that "
            "recipe again"
        ) from error
    cut = windows(
        start=datetime.combine(datetime.fromisoformat(made.start), time(), UTC),
        as_of=made.cut_off - model.label.delay,
        spec=model.split,
        gap=model.label.delay,
    )
    # Whole days only: half a day has another mix of hours, and would pass for something usual.
    first, last = (datetime.combine(each.date(), time(), UTC) for each in (cut.training.start, cut.evaluation.end))
    first += timedelta(days=first < cut.training.start)
    inside = pl.col("at").is_between(first, last, closed="left")
    kept = rows.filter(inside).sort("at", maintain_order=True)
    if kept.is_empty():
        raise DataError(f"the training set of {made.model} {made.key} has no rows after the warm-up")
    return kept


def _inputs(bundle: Bundle, rows: pl.DataFrame) -> Matrix:
    asked = [*(column.name for column in bundle.domain.requests.columns), "at"]
    looked_up = list(view_feature_names(bundle.domain, bundle.model))
    if lacking := [name for name in (*asked, *looked_up) if name not in rows.columns]:
        raise DataError(
            f"the training set of {bundle.manifest.model} {bundle.manifest.model_version} lacks "
            f"{', '.join(lacking)}, which the code of its bundle reads. Materialise `training_set` of that recipe again"
        )
    values = rows.select(looked_up) if looked_up else pl.DataFrame(height=rows.height)
    what = f"the feature code of bundle {bundle.manifest.short_digest}"
    return matrix(given(bundle.features, what, "its training set", rows.select(asked), values))


def _declared(domain: Domain, model: ModelSpec) -> list[Feature]:
    """The inputs of a model as they are declared, in the order of its matrix."""
    parts = (*(domain.view(name)[1] for name in model.views), *domain.on_demand, *domain.fitted)
    declared = {feature.name: feature for part in parts for feature in part.features}
    return [declared[name] for name in feature_names(domain, model)]


def _coded(domain: Domain, model: ModelSpec) -> list[str]:
    return [feature.name for each in domain.fitted if each.name in model.fitted for feature in each.features]


def _without_others(days: Sketch, bins: Bins) -> Sketch:
    """Count for each day the categories that no other day has: as new as on a day that is served."""
    total = days.counts.sum(axis=0)
    alone = np.where(total - days.counts == 0, days.counts, 0).sum(axis=-1)
    days.unseen[:] += np.where(bins.category, alone, 0)
    return days


def _as_bytes(made: Reference) -> bytes:
    arrays = {f"bins_{each.name}": np.asarray(getattr(made.bins, each.name)) for each in fields(Bins)}
    arrays |= {f"days_{each.name}": getattr(made.sketches, each.name) for each in fields(Sketch)}
    written = io.BytesIO()
    np.savez_compressed(
        written,
        allow_pickle=False,
        made_as=np.array(made_as),
        importance=made.importance,
        days=np.array(made.days),
        sample=made.sample,
        **arrays,
    )
    return written.getvalue()


def _load(path: Path, manifest: str) -> Reference | None:
    """None: there is none, or none that can be read, and it is made again."""
    try:
        # NumPy would leave a file open that it opened itself and cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if int(kept["made_as"]) != made_as:
                return None
            bins = {each.name: kept[f"bins_{each.name}"] for each in fields(Bins)}
            return Reference(
                manifest=manifest,
                bins=Bins(**{**bins, "names": tuple(str(each) for each in bins["names"])}),
                importance=kept["importance"],
                days=tuple(str(each) for each in kept["days"]),
                sketches=Sketch(**{each.name: kept[f"days_{each.name}"] for each in fields(Sketch)}),
                sample=kept["sample"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
