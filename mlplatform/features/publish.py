"""Publication of the newest feature values to the online store."""

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.features.historical import newest_values
from mlplatform.features.online import SnapshotStore
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform.provenance.files import alone
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
    # Read and swap under one lock: of two publishers the later one reads what the earlier one's run has appended, so no
    # older value ever replaces a newer one.
    with alone(platform.online / f"{domain.name}.lock"):
        return {view.name: _publish(store, domain, view, tables.features(view), as_of) for view in domain.views}


def _publish(store: SnapshotStore, domain: Domain, view: FeatureView, table: Stage, as_of: str | None) -> int:
    rows = newest_values(view, table, owner=domain, as_of=as_of)
    version = view_version(domain, view)
    store.publish(f"{domain.name}/{view.name}", rows, version=version, ttl=view.ttl, keys=view.entity)
    return rows.select(view.entity).n_unique()
