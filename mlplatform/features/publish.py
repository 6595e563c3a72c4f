"""Publication of the newest feature values to the online store."""

from mlplatform.domain.domain import Domain
from mlplatform.features.historical import newest_values
from mlplatform.features.online import SnapshotStore
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform.provenance.platform import Platform


def publish_snapshots(platform: Platform, domain: Domain, *, as_of: str | None = None) -> dict[str, int]:
    """Write and swap in a snapshot of every view of the domain.

    Parameters
    ----------
    as_of : last partition to publish; None: the newest there is

    Returns
    -------
    rows : number of entities by view
    """
    store, tables = SnapshotStore(platform.online), Tables(platform, domain)
    published = {}
    for view in domain.views:
        rows = newest_values(view, tables.features(view), owner=domain, as_of=as_of)
        version = view_version(domain, view)
        store.publish(f"{domain.name}/{view.name}", rows, version=version, ttl=view.ttl, keys=view.entity)
        published[view.name] = rows.select(view.entity).n_unique()
    return published
