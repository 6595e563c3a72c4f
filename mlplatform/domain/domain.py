"""`Domain`: the 20 % that differs. Everything else is derived from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeVar

import polars as pl

from mlplatform.domain.column import Column, RowRule
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.monitoring import Alerts
from mlplatform.domain.reproducibility import Reproducibility
from mlplatform.domain.source import Derived, Sample, Source
from mlplatform.domain.view import FeatureView, FittedValue, ImportedView, OnDemand
from mlplatform.errors import DeclarationError

Named = TypeVar("Named", Source, Derived, ModelSpec, FeatureView, OnDemand, FittedValue)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What is asked, and which facts of the past count as requests that were asked."""

    columns: tuple[Column, ...]
    """What a request holds; its rules are checked at serving, field by field."""

    rules: tuple[RowRule, ...] = ()
    """Rules over several of its columns, checked at serving too; a broken one is named in the refusal."""

    facts: str
    """The derived table (or source) whose rows are past requests with, later, their outcome."""

    of_facts: Callable[[pl.DataFrame], pl.DataFrame]
    """Facts -> the request columns and `at` (Datetime us, UTC): when the prediction was, or would have been, asked.
    One row per fact, in the same order. A null in `at` means that this fact was never a request."""

    identity: tuple[str, ...]
    """Request columns that name one case; with `at` they order a training set."""

    example: Mapping[str, Any]
    """A request that works when pasted, as JSON would hold it. Its `at` counts only where a request's own time is
    honoured (`MLPLATFORM_CLOCK=request`), as in the demo, which asks about the past."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain: sources, tables, views and models, as frozen declarations."""

    name: str
    meaning: str
    owners: tuple[str, ...]
    """Mail addresses or `team:name`."""

    start: date
    """First daily partition."""

    end: date | None = None
    """Last daily partition of a recorded data set; None: the days go on."""

    sources: tuple[Source, ...]
    derived: tuple[Derived, ...] = ()
    views: tuple[FeatureView, ...] = ()
    imported: tuple[ImportedView, ...] = ()
    on_demand: tuple[OnDemand, ...] = ()
    fitted: tuple[FittedValue, ...] = ()
    requests: Requests
    models: tuple[ModelSpec, ...]
    publishing_delay: timedelta = timedelta(hours=1)
    """From the end of a partition until its features can be served. One hour: landing, six stages and publication take
    minutes; the rest is slack. Too small a value promises features that are not there yet: hidden skew."""

    history_until: date | None = None
    """Partitions up to this day are a declared first backfill: their first revision counts as known when it became
    available, not when it was loaded. None: everything is live."""

    alerts: Alerts = Alerts()
    reproducibility: Reproducibility = Reproducibility()
    sample: Sample | None = None

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.publishing_delay < timedelta(days=1):
            raise DeclarationError(
                f"{self.name}: publishing_delay is {self.publishing_delay}. Declare less than a day: the online store "
                "holds an entity's newest value and the one before, no more"
            )
        self._refuse_duplicates()
        self._refuse_unknown_names()

    def source(self, name: str) -> Source:
        """The source of that name."""
        return _named(self.sources, name, f"source of {self.name}")

    def model(self, name: str) -> ModelSpec:
        """The model of that name."""
        return _named(self.models, name, f"model of {self.name}")

    def view(self, reference: str) -> tuple[str, FeatureView | ImportedView]:
        """The domain that computes a view, and the view, by `view` or `domain/view`."""
        owner, _, name = reference.rpartition("/")
        if owner in ("", self.name):
            return self.name, _named(self.views, name, f"view of {self.name}")
        for imported in self.imported:
            if imported.domain == owner and imported.name == name:
                return owner, imported
        raise DeclarationError(f"{self.name} imports no view {reference!r}. Add it to `imported`")

    def fact_columns(self, table: str) -> tuple[Column, ...]:
        """Declared columns of a derived table or of a source's base table, `event_time` not listed."""
        for derived in self.derived:
            if derived.name == table:
                return derived.columns
        return self.source(table).base_columns

    def _refuse_duplicates(self) -> None:
        tables = [source.name for source in self.sources] + [derived.name for derived in self.derived]
        features = [feature.name for view in self.views for feature in view.features]
        features += [feature.name for on_demand in self.on_demand for feature in on_demand.features]
        features += [feature.name for value in self.fitted for feature in value.features]
        for kind, names in {
            "source or derived table": tables,
            "view": [view.name for view in self.views],
            # They stand side by side in one frame.
            "feature or request column": [*features, *(column.name for column in self.requests.columns), "at"],
            "on-demand or fitted value": [on_demand.name for on_demand in self.on_demand]
            + [value.name for value in self.fitted],
            "model": [model.name for model in self.models],
        }.items():
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DeclarationError(
                    f"{self.name}: {kind} {', '.join(twice)} is declared twice. Give each its own name"
                )

    def _refuse_unknown_names(self) -> None:
        for view in self.views:
            columns = {column.name for column in self.fact_columns(view.facts)}
            missing = [key for key in view.entity if key not in columns]
            if missing:
                raise DeclarationError(f"view {view.name}: {view.facts} has no column {', '.join(missing)}")
        self.fact_columns(self.requests.facts)
        asked = {column.name for column in self.requests.columns}
        for model in self.models:
            for reference in model.views:
                missing = [key for key in self.view(reference)[1].entity if key not in asked]
                if missing:
                    raise DeclarationError(
                        f"model {model.name} reads {reference}, but a request has no {', '.join(missing)}"
                    )
            self._refuse_unknown_features(model, asked)
            if model.task == "binary" and model.decision is None:
                raise DeclarationError(
                    f"model {model.name}: a binary model needs `decision`, the probability that says yes"
                )
            if model.task == "multiclass" and len(model.label.classes) < 3:
                raise DeclarationError(f"model {model.name}: a multiclass label names its classes, three or more")

    def _refuse_unknown_features(self, model: ModelSpec, asked: set[str]) -> None:
        given = [self.view(reference)[1].features for reference in model.views]
        given += [
            _named(self.on_demand, name, f"on-demand features of {self.name}").features for name in model.on_demand
        ]
        given += [_named(self.fitted, name, f"fitted value of {self.name}").features for name in model.fitted]
        features = [feature for each in given for feature in each]
        names = [feature.name for feature in features] + sorted(asked)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DeclarationError(f"model {model.name} would have {', '.join(twice)} twice. Give each its own name")
        inputs = {feature.name for feature in features if feature.dtype != pl.String()}
        unknown = [name for name in model.simple_features if name not in inputs]
        if unknown:
            raise DeclarationError(f"model {model.name} has no feature {', '.join(unknown)} for its simple model")
        for segment in model.segments:
            if segment.column not in asked:
                raise DeclarationError(
                    f"model {model.name}: segment {segment.name} reads {segment.column}, which no request has"
                )
        if model.rollout and model.rollout.sticky is not None and model.rollout.sticky not in asked:
            raise DeclarationError(
                f"model {model.name}: its rollout draws by {model.rollout.sticky}, which no request has"
            )
        by_a_time = [each.name for each in self.requests.columns if each.dtype.is_temporal()]
        if model.rollout and model.rollout.sticky in by_a_time:
            # A time has no one text: alone and in a table it would be two keys, and may fall to two arms.
            raise DeclarationError(
                f"model {model.name}: its rollout draws by {model.rollout.sticky}, which is a time. Name the column of "
                "the user"
            )


def _named(declared: tuple[Named, ...], name: str, kind: str) -> Named:
    for each in declared:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in declared) or "none"
    raise DeclarationError(f"no {kind} is called {name!r}; there is {known}")
