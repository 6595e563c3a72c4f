"""Publication of the newest feature values to the online store."""

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.features.historical import newest_values
from mlplatform.features.online import SnapshotStore
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform.provenance.code_version import declaration_version
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


def unpublished(platform: Platform, domain: Domain) -> list[str]:
    """Views whose snapshot was made from other revisions than there are now; a run was killed before the swap."""
    store, tables = SnapshotStore(platform.online), Tables(platform, domain)
    return [
        view.name
        for view in domain.views
        if (content := _content(domain, view, tables.features(view))) is not None
        and content != store.content(f"{domain.name}/{view.name}")
    ]


def _content(domain: Domain, view: FeatureView, table: Stage) -> str | None:
    """Names the newest revisions of a view and the code that publishes them; None where there are none."""
    numbers = {day: revision.number for day, revision in sorted(table.current().items())}
    return declaration_version((numbers, view_version(domain, view))) if numbers else None


def _publish(store: SnapshotStore, domain: Domain, view: FeatureView, table: Stage, as_of: str | None) -> int:
    # Asked before the rows are read: what is appended in between is published once more, and never taken for published.
    content = _content(domain, view, table) or ""
    rows = newest_values(view, table, owner=domain, as_of=as_of)
    version = view_version(domain, view)
    name = f"{domain.name}/{view.name}"
    store.publish(name, rows, version=version, content=content, ttl=view.ttl, keys=view.entity)
    return rows.select(view.entity).n_unique()
