"""The inputs that a version would have had for logged requests: as the tables held them at each request's own time.

Where two versions read the same views in the same versions, both read the same values. Where a view's code moved
between them, the table held what one of them computes, or neither: then the version's own function computes the days
that the requests saw, from the facts that were known when each day was published. Views that are published as facts
arrive are left to the table: what was published when is recorded there and nowhere else.
"""

from collections.abc import Collection, Mapping
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive, FeatureView, ImportedView
from mlplatform.errors import DataError
from mlplatform.features.historical import historical_features
from mlplatform.features.pipeline import given
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.tables import Tables, available_at, day_range, partition_end
from mlplatform.features.view import compute_view, look_back_days, view_features
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle


def view_values(
    platform: Platform, bundle: Bundle, requests: pl.DataFrame, away: Mapping[str, pl.Series], moved: Collection[str]
) -> pl.DataFrame:
    """Values of all views that a version reads.

    Parameters
    ----------
    requests : (n, …) in the columns that the bundle declares, and `at`
    away : by view, (n,) Boolean: where serving could not read it, and went without
    moved : views, as `owner/view`, that this version computes by other code than the one it is compared with

    Raises
    ------
    DataError, DeclarationError
        A request does not fit the tables, or the view's code raises.
    """
    domain, model = bundle.domain, bundle.model
    values = historical_features(platform, domain, model, requests, known_by="then")
    for reference in model.views:
        owner, declared = domain.view(reference)
        label = f"{owner}/{declared.name}"
        if label not in moved or isinstance(declared, ImportedView) or isinstance(declared.schedule, AsFactsArrive):
            continue
        assert isinstance(declared, FeatureView)
        values = values.with_columns(_computed(platform, domain, declared, requests))
    return values.with_columns(
        pl.when(~away[view]).then(pl.col(each.name)).alias(each.name)
        for view, features in view_features(domain, model).items()
        if view in away
        for each in features
    )


def left_to_the_table(bundle: Bundle, moved: Collection[str]) -> tuple[str, ...]:
    """Of the views whose code moved, those whose values are read from the table all the same."""
    left = []
    for reference in bundle.model.views:
        owner, declared = bundle.domain.view(reference)
        streamed = isinstance(declared, FeatureView) and isinstance(declared.schedule, AsFactsArrive)
        if f"{owner}/{declared.name}" in moved and (isinstance(declared, ImportedView) or streamed):
            left.append(f"{owner}/{declared.name}")
    return tuple(left)


def _computed(platform: Platform, domain: Domain, view: FeatureView, requests: pl.DataFrame) -> pl.DataFrame:
    """The features of one view, by its own function."""
    store = Tables(platform, domain).facts(view.facts)
    oldest, newest = (requests["at"].dt.date().min(), requests["at"].dt.date().max())
    assert isinstance(oldest, date)
    assert isinstance(newest, date)
    first = oldest - view.ttl - timedelta(days=1)
    made = []
    for day in day_range(max(first, domain.start).isoformat(), newest.isoformat()):
        published = available_at(domain, day)
        window = day_range((date.fromisoformat(day) - timedelta(days=look_back_days(view) - 1)).isoformat(), day)
        there = store.current(window, known_at=published)
        if day not in there:
            continue
        facts = store.read(list(there), known_at=published).drop("available_at")
        facts = facts.sort("event_time", maintain_order=True)
        computed = given(compute_view, f"view {view.name}", day, view, facts, partition_end(day))
        made.append(computed.with_columns(available_at=pl.lit(published, dtype=computed.schema["event_time"])))
    names = [each.name for each in view.features]
    if not made:
        raise DataError(
            f"no facts of {domain.name}/{view.facts} were known at the time of these requests, so {view.name} cannot "
            "be computed as another version would have. Give another `--day`"
        )
    asked = requests.select(*view.entity, "at")
    return point_in_time_join(asked, pl.concat(made), keys=view.entity, values=names, ttl=view.ttl).select(names)
