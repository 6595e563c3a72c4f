"""Publication of feature values from the tables to the online store.

Only partitions whose revision is another than at the last publication are read: a day costs a day, and a correction of
a partition of months ago changes what is served where that is still somebody's newest value. Where the store holds
nothing, another version of the view, or what cannot be read, it is rebuilt from the tables alone, beside what is
served. `full=True` asks for that, and so does emptying the store.

What has changed is brought in a few hundred thousand rows at a time, whole days, the newest first. Each time the store
says which revisions it holds, so that whoever is killed in between goes on from there.

What a correction took away is told to the store as removed, together with what it uncovers: of each such entity the
values that the tables hold now.
"""

import json
from collections.abc import Iterator, Mapping

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.errors import Unavailable
from mlplatform.features.online.record import seen_kept
from mlplatform.features.online.store import OnlineStore, ViewRecord, open_online_store
from mlplatform.features.stage import Revision, Stage
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform
from mlplatform.settings import redis_schemes

rows_at_once = 400_000
"""Some tens of megabytes, and a second of work. A day that has more is taken whole."""


def publish_values(
    platform: Platform, domain: Domain, *, as_of: str | None = None, full: bool = False
) -> dict[str, int]:
    """Bring the online store up to what the tables hold, for every view of the domain.

    Parameters
    ----------
    as_of : last partition to publish; None: the newest there is
    full : rebuild, whatever the store holds

    Returns
    -------
    entities : that the store knows, by view

    Raises
    ------
    Unavailable
        The store cannot be read or written; what it serves it goes on serving.
    """
    store, tables = open_online_store(platform.online_store), Tables(platform, domain)
    # Read and put under one lock: the later of two publishers sees what the earlier one's run has appended. Between
    # machines, on Redis, it is the order of the values that keeps an older one from winning.
    with alone(platform.home / "locks" / f"publish-{domain.name}"):
        return {
            view.name: _publish(platform, store, domain, view, tables.features(view), as_of, full=full)
            for view in domain.views
        }


def unpublished(platform: Platform, domain: Domain) -> list[str]:
    """Views of which the store was made from other revisions than there are now: a run was killed, or Redis emptied.

    None while the store cannot be asked: a run would not change that.
    """
    store, tables = open_online_store(platform.online_store), Tables(platform, domain)
    found = []
    for view in domain.views:
        current = tables.features(view).current()
        try:
            if current and not _is_published(store, domain, view, _content(_numbers(current, None))):
                found.append(view.name)
        except Unavailable:
            # What cannot be read in a folder is built anew; a server has to come back first.
            if not platform.online_store.startswith(redis_schemes):
                found.append(view.name)
    return found


def published_days(platform: Platform, domain: Domain) -> set[str]:
    """Days whose current revisions, of every view, the online store was made from; none while it cannot be asked."""
    store, tables = open_online_store(platform.online_store), Tables(platform, domain)
    days: list[set[str]] = []
    for view in domain.views:
        table = tables.features(view)
        held = _held(store, view_record(domain, view, table)) or {}
        days.append({day for day, each in table.current().items() if held.get(day) == each.number})
    return set.intersection(*days) if days else set()


def view_record(domain: Domain, view: FeatureView, table: Stage) -> ViewRecord:
    """The view as an online store has to know it."""
    return ViewRecord(
        name=f"{domain.name}/{view.name}",
        version=view_version(domain, view),
        keys={key: table.schema[key] for key in view.entity},
        features={feature.name: feature.dtype for feature in view.features},
        ttl=view.ttl,
    )


def _publish(
    platform: Platform,
    store: OnlineStore,
    domain: Domain,
    view: FeatureView,
    table: Stage,
    as_of: str | None,
    *,
    full: bool,
) -> int:
    record = view_record(domain, view, table)
    # Asked before the rows are read: what is appended in between is published once more, and never taken for published.
    current = table.current()
    wanted = _numbers(current, as_of)
    now = platform.clock()
    held = None if full else _held(store, record)
    changed = {day: number for day, number in wanted.items() if held is None or held.get(day) != number}
    if held is None or not _goes_on(held, wanted) or _most(current, changed, wanted):
        store.replace(record, _chunks(table, view, current, wanted), content=_content(wanted), now=now)
    else:
        for batch in _batches(current, changed):
            rows = _rows(table, view, batch)
            lost = _lost(table, view, {day: held[day] for day in batch if day in held}, batch, rows)
            uncovered = _newest(table, view, current, wanted, lost.select(view.entity).unique())
            held = dict(sorted({**held, **batch}.items()))
            store.put(record, pl.concat([rows, lost, uncovered], how="diagonal"), content=_content(held), now=now)
    statistics = store.statistics(record.name)
    return statistics.keys if statistics else 0


def _is_published(store: OnlineStore, domain: Domain, view: FeatureView, content: str) -> bool:
    name, version = f"{domain.name}/{view.name}", view_version(domain, view)
    return store.version(name) == version and store.content(f"{name}@{version}") == content


def _numbers(current: Mapping[str, Revision], as_of: str | None) -> dict[str, int]:
    return {day: each.number for day, each in sorted(current.items()) if as_of is None or day <= as_of}


def _content(numbers: Mapping[str, int]) -> str:
    return json.dumps(numbers, separators=(",", ":"))


def _held(store: OnlineStore, record: ViewRecord) -> dict[str, int] | None:
    """Revisions that the store holds of this version, where it is the one that it serves; None: build it anew."""
    try:
        if store.version(record.name) != record.version:
            return None
        told = store.content(f"{record.name}@{record.version}")
        return None if told is None else dict(json.loads(told))
    except (Unavailable, TypeError, ValueError):
        # Whether it can be written is seen when it is.
        return None


def _goes_on(held: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Whether what is wanted is later than what is held; a publication of an earlier day takes values away again."""
    return all(day in wanted and number <= wanted[day] for day, number in held.items())


def _most(current: Mapping[str, Revision], changed: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Whether there is so much to bring in that it is less work to build the store anew."""
    rows = sum(current[day].rows for day in changed)
    return rows > rows_at_once and 2 * rows > sum(current[day].rows for day in wanted)


def _rows(table: Stage, view: FeatureView, numbers: Mapping[str, int]) -> pl.DataFrame:
    rows = table.read(numbers=numbers, provenance=True).drop("_known_at")
    # A row without a key is of nobody, here as in the point-in-time join.
    return rows.drop_nulls(view.entity).with_columns(pl.lit(value=False).alias("_removed"))


def _chunks(
    table: Stage, view: FeatureView, current: Mapping[str, Revision], wanted: Mapping[str, int]
) -> Iterator[pl.DataFrame]:
    """All rows, as many at once as can be."""
    return (_rows(table, view, batch) for batch in _batches(current, wanted))


def _batches(current: Mapping[str, Revision], numbers: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Partitions, the newest first: what an older one says is mostly left out without being written."""
    batch: dict[str, int] = {}
    rows = 0
    for day in sorted(numbers, reverse=True):
        batch[day] = numbers[day]
        rows += current[day].rows
        if rows >= rows_at_once:
            yield batch
            batch, rows = {}, 0
    if batch:
        yield batch


def _lost(
    table: Stage, view: FeatureView, before: Mapping[str, int], after: Mapping[str, int], rows: pl.DataFrame
) -> pl.DataFrame:
    """Rows that were published and that the corrected partitions have no longer, as removed by the new revision."""
    known = ["_partition", *view.entity, "event_time", "available_at"]
    published = _rows(table, view, before) if before else rows.clear()
    gone = published.join(rows, on=known, how="anti")
    return gone.with_columns(
        pl.col("_partition").replace_strict(dict(after), return_dtype=pl.Int32()).alias("_revision"),
        pl.lit(value=True).alias("_removed"),
    )


def _newest(
    table: Stage,
    view: FeatureView,
    current: Mapping[str, Revision],
    wanted: Mapping[str, int],
    entities: pl.DataFrame,
) -> pl.DataFrame:
    """What the tables hold now of some entities: partitions from the newest back, until each has what a store keeps."""
    found: list[pl.DataFrame] = [_rows(table, view, {})]
    if entities.is_empty():
        return found[0]
    left = entities
    for rows in _chunks(table, view, current, wanted):
        found.append(rows.join(entities, on=list(view.entity), how="semi"))
        counted = pl.concat(found).group_by(view.entity).agg(pl.len().alias("_rows"))
        enough = counted.filter(pl.col("_rows") > seen_kept)
        left = entities.join(enough, on=list(view.entity), how="anti")
        if left.is_empty():
            break
    return pl.concat(found)
