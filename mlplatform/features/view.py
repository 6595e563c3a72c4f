"""How a declared view is computed, and how a model's inputs are put together: the same code offline and online.

What it refuses: a view whose function gives other columns or types than it declares, a key twice, or a time to come.
Stores, clocks and tables are none of its business: it takes frames and gives frames.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import AsFactsArrive, Feature, FeatureView
from mlplatform.errors import DeclarationError

instant = pl.Datetime("us", "UTC")


def compute_view(view: FeatureView, facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Features of every entity, from the facts of the window that ends at `at`.

    Parameters
    ----------
    view : FeatureView
    facts : (n_facts, …) frame with `event_time`; rows outside the window are left out here, whatever the caller gave
    at : aware datetime, UTC; the end of the window, exclusive

    Returns
    -------
    frame : (n_entities, …) key columns, features, `event_time`; sorted by key

    Raises
    ------
    DeclarationError
        The function gives other columns, types, a key twice or a time after `at`.
    """
    inside = facts["event_time"].is_between(at - view.look_back, at, closed="left")
    # Whole partitions mostly are the window, and need no copy.
    window = facts if inside.all() and not inside.has_nulls() else facts.filter(inside)
    computed = view.function(window, at)
    if "event_time" not in computed.columns:
        computed = computed.with_columns(event_time=pl.lit(at, dtype=instant))
    declared = {feature.name: feature.dtype for feature in view.features} | {"event_time": instant}
    expected = {key: facts.schema[key] for key in view.entity} | declared
    _refuse_other_columns(f"view {view.name}", computed.schema, expected)
    computed = computed.select(list(expected)).sort(view.entity)
    if computed.select(pl.struct(view.entity).is_duplicated().any()).item():
        raise DeclarationError(f"view {view.name} gives an entity twice. Group by {', '.join(view.entity)}")
    # A historical read looks for a value in the partitions up to its own day, and would miss one dated ahead.
    newest = computed.get_column("event_time").max()
    if isinstance(newest, datetime) and newest > at:
        raise DeclarationError(
            f"view {view.name} gives the event time {newest.isoformat()}, which is after the end of its window, "
            f"{at.isoformat()}. Date a value by its facts, or leave `event_time` out: then it is that end"
        )
    return computed


def look_back_days(view: FeatureView) -> int:
    """Daily partitions that a window touches, its own day included; one that ends within the day begins within one."""
    within = isinstance(view.schedule, AsFactsArrive)
    return max(1, -(-view.look_back // timedelta(days=1))) + within


def view_features(domain: Domain, model: ModelSpec) -> dict[str, tuple[Feature, ...]]:
    """Features of each view that the model reads, by `owner/view`, in declared order."""
    read = {}
    for reference in model.views:
        owner, view = domain.view(reference)
        read[f"{owner}/{view.name}"] = view.features
    return read


def view_feature_names(domain: Domain, model: ModelSpec) -> tuple[str, ...]:
    """Names of the features that are looked up in a store, in declared order."""
    return tuple(feature.name for features in view_features(domain, model).values() for feature in features)


def feature_names(domain: Domain, model: ModelSpec) -> tuple[str, ...]:
    """All inputs of the model in the order of its matrix: of views, on demand, from fitted values.

    A text feature is looked up but is no input by itself: it reaches the model through a fitted value.
    """
    looked_up = [feature for features in view_features(domain, model).values() for feature in features]
    computed = [feature for each in (*_on_demand(domain, model), *_fitted(domain, model)) for feature in each.features]
    return tuple(feature.name for feature in (*looked_up, *computed) if feature.dtype != pl.String())


def model_inputs(
    domain: Domain, model: ModelSpec, requests: pl.DataFrame, view_values: pl.DataFrame, fitted: Mapping[str, Any]
) -> pl.DataFrame:
    """The model's feature matrix as a frame.

    Parameters
    ----------
    requests : (n_rows, …) request columns and `at`
    view_values : (n_rows, n_view_features) in the same row order; null where the store had none
    fitted : fitted values by name, as `fit_values` gave them at training

    Returns
    -------
    features : (n_rows, n_features) in `feature_names` order, rows as they came
    """
    looked_up = _chosen(view_values, view_feature_names(domain, model))
    known = requests.hstack(looked_up) if looked_up.width else requests
    parts = [looked_up]
    for on_demand in _on_demand(domain, model):
        parts.append(
            _declared(f"on-demand {on_demand.name}", on_demand.function(known), on_demand.features, known.height)
        )
    for value in _fitted(domain, model):
        given = value.apply(known, fitted[value.name])
        parts.append(_declared(f"fitted value {value.name}", given, value.features, known.height))
    return _chosen(pl.concat(parts, how="horizontal"), feature_names(domain, model))


def fit_values(domain: Domain, model: ModelSpec, requests: pl.DataFrame, view_values: pl.DataFrame) -> dict[str, Any]:
    """Fitted values of the model, learned from the training rows and from nothing else."""
    known = requests.hstack(view_values)
    return {value.name: value.fit(known) for value in _fitted(domain, model)}


def _on_demand(domain: Domain, model: ModelSpec) -> list[Any]:
    return [each for name in model.on_demand for each in domain.on_demand if each.name == name]


def _fitted(domain: Domain, model: ModelSpec) -> list[Any]:
    return [each for name in model.fitted for each in domain.fitted if each.name == name]


def _declared(what: str, given: pl.DataFrame, features: tuple[Feature, ...], height: int) -> pl.DataFrame:
    # A schema takes ten times as long to make and compare as two lists; it is made where they differ.
    if given.columns != [each.name for each in features] or given.dtypes != [each.dtype for each in features]:
        _refuse_other_columns(what, given.schema, {feature.name: feature.dtype for feature in features})
    if given.height != height:
        raise DeclarationError(
            f"{what} gives {given.height} rows for {height} requests. It must give one row per request"
        )
    return _chosen(given, tuple(feature.name for feature in features))


def _chosen(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Columns by name; `select` would start a query for it, which costs six times as much."""
    return frame if tuple(frame.columns) == names else frame[list(names)]


def _refuse_other_columns(what: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    wrong = [
        f"{name}: {given.get(name, 'missing')} instead of {dtype}"
        for name, dtype in expected.items()
        if given.get(name) != dtype
    ]
    wrong += [f"{name}: not declared" for name in given if name not in expected]
    if wrong:
        raise DeclarationError(
            f"{what} does not give what it declares ({'; '.join(wrong)}). Mend the function or the declaration"
        )
