"""Historical reads: what each past request could have seen, from the published tables.

The offline half of the feature store. It reads one pinned revision per partition and leaves all questions of time to
the point-in-time join; a request sees exactly the staleness that the publishing schedule gives it.
"""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FeatureView, ImportedView
from mlplatform.domains.registered import registered_domain
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.version import view_version
from mlplatform.provenance.platform import Platform

Pins = Mapping[str, Mapping[str, int]]
"""`owner/view` -> partition -> revision."""


def view_stores(platform: Platform, domain: Domain, model: ModelSpec) -> dict[str, tuple[FeatureView, Stage, str]]:
    """The view, its table and its version for each view that a model reads, by `owner/view`."""
    stores = {}
    for reference in model.views:
        owner, declared = domain.view(reference)
        owning = registered_domain(owner) if isinstance(declared, ImportedView) else domain
        view = owning.view(declared.name)[1]
        assert isinstance(view, FeatureView)
        stores[f"{owner}/{view.name}"] = (view, Tables(platform, owning).features(view), view_version(owning, view))
    return stores


def historical_features(
    platform: Platform, domain: Domain, model: ModelSpec, requests: pl.DataFrame, pins: Pins | None = None
) -> pl.DataFrame:
    """Values of all views that the model reads, as each request could have seen them.

    Parameters
    ----------
    requests : (n, …) entity keys and `at` (Datetime us, UTC)
    pins : the revision of each partition to read; partitions not pinned are not read. None: the current ones

    Returns
    -------
    view_values : (n, n_view_features) in the order of the requests; null where there was none, or it was expired
    """
    if requests.is_empty():
        read = [feature for view, _, _ in view_stores(platform, domain, model).values() for feature in view.features]
        return pl.DataFrame(schema={feature.name: feature.dtype for feature in read})
    parts = []
    for label, (view, store, _) in view_stores(platform, domain, model).items():
        numbers = pins[label] if pins is not None else {day: each.number for day, each in store.current().items()}
        facts = store.read(numbers=_within(numbers, requests, view.ttl), provenance=True)
        names = [feature.name for feature in view.features]
        joined = point_in_time_join(requests, facts, keys=view.entity, values=names, ttl=view.ttl)
        parts.append(joined.drop("_status"))
    return pl.concat(parts, how="horizontal") if parts else pl.DataFrame(height=requests.height)


def newest_values(view: FeatureView, store: Stage, *, owner: Domain, as_of: str | None = None) -> pl.DataFrame:
    """The newest published value of each entity, and the one that is served until that is available.

    Parameters
    ----------
    as_of : last partition to look at; None: the newest there is

    Returns
    -------
    rows : key columns, features, `event_time`, `available_at`; at most two rows per entity, the newest one last
    """
    numbers = {day: each.number for day, each in store.current().items() if as_of is None or day <= as_of}
    if numbers:
        reach = (view.ttl + owner.publishing_delay) // timedelta(days=1) + 1
        numbers = {day: numbers[day] for day in sorted(numbers)[-reach - 1 :]}
    rows = store.read(numbers=numbers, provenance=True)
    # The order of the point-in-time join, so that equal event times are settled here as they are there.
    newest = rows.sort("event_time", "_revision", maintain_order=True).drop("_partition", "_revision", "_known_at")
    return newest.group_by(view.entity, maintain_order=True).tail(2).select(newest.columns)


def _within(numbers: Mapping[str, int], requests: pl.DataFrame, ttl: timedelta) -> dict[str, int]:
    """Pins of the partitions that can hold a value for these requests; the margin covers late facts of a partition."""
    first, last = requests.select(pl.col("at").min().alias("first"), pl.col("at").max().alias("last")).row(0)
    since = (first - ttl - timedelta(days=1)).date().isoformat()
    return {day: number for day, number in numbers.items() if since <= day <= last.date().isoformat()}


def values_not_known_then(
    platform: Platform, domain: Domain, model: ModelSpec, requests: pl.DataFrame, values: pl.DataFrame, pins: Pins
) -> int:
    """How many of these values differ from what each request would have seen of the revisions known by then.

    Not zero after a correction: the model is trained on what is believed now, but was not served it at the time. A row
    that a correction took out still counts as seen after it, so the figure is an upper bound.
    """
    differing = 0
    for label, (view, store, _) in view_stores(platform, domain, model).items():
        published = {day: partition_end(day) + domain.publishing_delay for day in pins[label]}
        if all(
            each.number == 1 and each.known_at <= published[each.partition] for each in store.revisions(pins[label])
        ):
            continue  # nothing was corrected or came late: no need to read it all again
        facts = store.history(_within(pins[label], requests, view.ttl))
        known = facts.with_columns(available_at=pl.max_horizontal("available_at", "_known_at"))
        names = [feature.name for feature in view.features]
        then = point_in_time_join(requests, known, keys=view.entity, values=names, ttl=view.ttl)
        differing += sum(int((~values[name].eq_missing(then[name])).sum()) for name in names)
    return differing
