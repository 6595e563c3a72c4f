"""The trail of a view's value: from the revision that it stands in, by way of the stages, to the files that landed.

With `verify` each revision on it is read and compared with the hash that it was written under, and each landed file
that is still there, in a folder or a bucket, with the version that was taken in. What landed need not stay, and may
land again: neither is a fault. Other places have no files to compare; they are told as not looked at.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Bucket, Folder
from mlplatform.domain.view import FeatureView
from mlplatform.errors import DataError, DeclarationError, Unavailable
from mlplatform.features.integrity import altered, unreadable
from mlplatform.features.landing.folder import file_version
from mlplatform.features.landing.landing import landing_of, place_of
from mlplatform.features.origins import LANDING, STREAMED, Origins, parts_of
from mlplatform.features.stage import Revision, Stage
from mlplatform.features.tables import Tables, day_range
from mlplatform.features.tombstones import Tombstone, tombstones
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.replay.node import Node

_moment = timedelta(microseconds=1)


class ValueTrail:
    """Follows values of one domain's views back.

    Parameters
    ----------
    owner : of the views
    verify : read every revision and every landed file on the way, and name those that were altered
    """

    def __init__(self, platform: Platform, owner: Domain, *, verify: bool) -> None:
        self._platform = platform
        self._owner = owner
        self._verify = verify
        self._origins = Origins(platform, owner)
        self._faults: dict[str, str] = {}
        self._nodes: dict[str, Node] = {}
        self._buckets: dict[str, Mapping[str, str] | Unavailable] = {}
        self._removed: Mapping[tuple[Any, str], Tombstone] | None = None

    def of(self, name: str) -> Node:
        """The tree below a revision `stage/table/partition@number`."""
        if self._verify:
            self._look_at(name)
        return self._node(name)

    def _look_at(self, name: str) -> None:
        by_table: dict[str, tuple[Stage, dict[tuple[str, int], str]]] = {}
        revisions: dict[str, list[Revision]] = defaultdict(list)
        for each, (stage, revision) in self._origins.behind([name]).items():
            if revision is not None and each not in self._nodes:
                names = by_table.setdefault(stage.uri, (stage, {}))[1]
                names[revision.partition, revision.number] = each
                revisions[stage.uri].append(revision)
        for uri, (stage, names) in by_table.items():
            for place, fault in altered(stage, revisions[uri]).items():
                self._faults[names[place]] = fault

    def _node(self, name: str) -> Node:
        """Each revision once: windows overlap, and share their days."""
        if name not in self._nodes:
            self._nodes[name] = self._made(name)
        return self._nodes[name]

    def _made(self, name: str) -> Node:
        label = f"{self._owner.name}/{name}"
        if name.startswith(STREAMED):
            return Node(label=label, detail="recorded as it was published")
        try:
            _, revision = self._origins.revision(name)
        except DeclarationError as error:
            return Node(label=label, fault=str(error))
        if revision is None:
            return Node(label=label, fault=self._why_gone(label))
        newest_first = sorted(revision.inputs, key=lambda each: each.rpartition("/")[2], reverse=True)
        return Node(
            label=label,
            detail=", ".join(
                [
                    f"{revision.rows} rows",
                    f"known {told(revision.known_at)}",
                    f"run {revision.run_id}",
                    f"code {revision.code_version}",
                    f"content {revision.content_hash}",
                ]
            ),
            children=tuple(
                self._landed(name, each) if each.startswith(LANDING) else self._node(each) for each in newest_first
            ),
            fault=self._faults.get(name, ""),
        )

    def _landed(self, raw: str, name: str) -> Node:
        found = self._origins.landing(raw, name)
        label = f"{self._owner.name}/{name.rpartition('@')[0]}"
        detail = f"{found.file}, version {found.version}"
        if not self._verify:
            return Node(label=label, detail=detail)
        try:
            now = self._version_now(raw, found.file)
        except (Unavailable, DeclarationError) as error:
            return Node(label=label, detail=f"{detail}; not looked at: {error}")
        if now is None:
            return Node(label=label, detail=f"{detail}; not there any more")
        if now == found.version:
            return Node(label=label, detail=detail)
        if again := self._taken_in_as(raw, name.removesuffix(found.version) + now):
            return Node(label=label, detail=f"{detail}; landed again since, as {again}")
        return Node(label=label, detail=detail, fault=f"{found.file} is not what was taken in: its version is {now}")

    def _version_now(self, raw: str, file: str) -> str | None:
        """The version that a landed day has now; None: it is not there any more.

        Raises
        ------
        Unavailable
            It lies where no versions of files are told, or where nobody can look now.
        """
        _, name, day, _ = parts_of(raw)
        source = self._owner.source(name)
        place = place_of(self._platform, self._owner, source)
        if isinstance(place, Folder):
            try:
                return file_version(Path(file))
            except OSError:
                return None
        if not isinstance(place, Bucket):
            raise Unavailable(f"it lies in {place}")
        if name not in self._buckets:
            try:
                self._buckets[name] = landing_of(self._platform, self._owner, source).list()
            except Unavailable as error:
                self._buckets[name] = error
        listed = self._buckets[name]
        if isinstance(listed, Unavailable):
            raise listed
        return listed.get(day)

    def _taken_in_as(self, raw: str, name: str) -> str:
        """The revision of the same day that was made from another landed version; empty: none was."""
        stage, table, day, _ = parts_of(raw)
        return next(
            (f"{stage}/{table}/{day}@{each.number}" for each in self._origins.of_day(raw) if name in each.inputs), ""
        )

    def _why_gone(self, label: str) -> str:
        if self._removed is None:
            self._removed = tombstones(self._platform, self._owner)
        tombstone = self._removed.get(("revision", label))
        return str(tombstone) if tombstone else "its table does not hold it any more, and no tombstone says why"


def value_revision(
    platform: Platform,
    owner: Domain,
    view: FeatureView,
    entity: pl.DataFrame,
    event_time: datetime,
    number: int,
    at: datetime,
) -> str | None:
    """Name of the revision that holds the very row that a request was told; None: none does.

    Parameters
    ----------
    entity : (1, n_keys)
    event_time, number : of the row, as logged
    at : instant of the request
    """
    store = Tables(platform, owner).features(view)
    # A row stands in the partition of its window, which ends at its event time or later. What was streamed has no
    # revision until its day is over, and stands in the first then.
    number = number or 1
    days = day_range((event_time - _moment).date().isoformat(), at.date().isoformat())
    held = [each.partition for each in store.revisions(days) if each.number == number]
    columns = [*view.entity, "event_time", "available_at"]
    try:
        rows = store.read(numbers=dict.fromkeys(held, number), columns=columns, provenance=True)
    except (DataError, *unreadable):
        # Of a file that is gone or damaged nobody can say what it held; of one day there is no doubt.
        return f"feature_store/{view.name}/{held[0]}@{number}" if len(held) == 1 else None
    keys = entity.cast({key: store.schema[key] for key in view.entity})
    met = rows.filter(event_time=event_time).join(keys, on=list(view.entity), how="semi", nulls_equal=True)
    partitions = met.filter(pl.col("available_at") <= at).get_column("_partition").sort().to_list()
    return f"feature_store/{view.name}/{partitions[-1]}@{number}" if partitions else None


def told(instant: datetime | None) -> str:
    """An instant for people."""
    return "nobody knows when" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S}Z"
