"""What a model reads of the feature store: its views, their tables, and the values that past requests could have seen.

A request sees exactly the staleness that the publishing schedule gives it, in the revisions that a training set pins.
"""

from collections.abc import Mapping

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FeatureView, ImportedView
from mlplatform.domains.registered import registered_domain
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.known_facts import KnownBy, Pins, removed_until
from mlplatform.features.references import model_references
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.version import view_version
from mlplatform.provenance.platform import Platform


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
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    requests: pl.DataFrame,
    pins: Pins | None = None,
    *,
    known_by: KnownBy = None,
) -> pl.DataFrame:
    """Values of all views that the model reads, as each request could have seen them.

    Parameters
    ----------
    requests : (n, …) entity keys and `at`
    pins : the revision of each partition to read; partitions not pinned are not read. None: the current ones

    Returns
    -------
    view_values : (n, n_view_features) in the order of the requests; null where there was none, or it was expired
    """
    read = [view for view, _, _ in view_stores(platform, domain, model).values()]
    keys = dict.fromkeys(["at", *(key for view in read for key in view.entity)])
    told = FeatureStore(platform, domain).get_historical_features(
        requests.select(list(keys)), model_references(domain, model), pins=pins, known_by=known_by
    )
    return told.drop(list(keys)) if read else pl.DataFrame(height=requests.height)


def values_not_known_then(
    platform: Platform, domain: Domain, model: ModelSpec, requests: pl.DataFrame, values: pl.DataFrame, pins: Pins
) -> int:
    """How many of these values differ from what each request would have seen of the revisions known by then.

    Not zero after a correction: the model is trained on what is believed now, but was not served it at the time.
    Requests of a time of which a revision was removed by policy are not counted: nobody can know.
    """
    stores = {label: store for label, (_, store, _) in view_stores(platform, domain, model).items()}
    if not any(_changed_since(domain, store, pins[label]) for label, store in stores.items()):
        return 0  # no need to read it all again
    if removed := [until for label, store in stores.items() for until in removed_until(store, pins[label])]:
        late = requests["at"] >= max(removed)
        requests, values = requests.filter(late), values.filter(late)
    then = historical_features(platform, domain, model, requests, pins, known_by="then")
    return sum(int((~values[name].eq_missing(then[name])).sum()) for name in then.columns)


def _changed_since(domain: Domain, store: Stage, pins: Mapping[str, int]) -> bool:
    """Whether something of a view was corrected or came late, so that a request may have seen another value."""
    published = {day: partition_end(day) + domain.publishing_delay for day in pins}
    return any(each.number > 1 or each.known_at > published[each.partition] for each in store.revisions(pins))
