"""Values of views as a model was told them: as known then, in the version it is pinned to, from files that are whole.

Three things set it apart from a historical read of today. The views are those of the bundle, whatever is declared now.
Where a view was computed by other code later, the online store keeps the values of the version before as they were; so
does this. And each revision is looked at before it is read: what is not what was written is left out, and the requests
that may have been told something of it are named.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView, ImportedView
from mlplatform.domains.registered import registered_domain
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.integrity import altered
from mlplatform.features.known_facts import KnownBy, believed_between, oldest_partition
from mlplatform.features.references import AskedView
from mlplatform.features.stage import Revision, Stage
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.version import view_version
from mlplatform.monitoring.publications import publication_takes
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.replay.verdict import Cause

origin_columns = ("status", "revision", "partition", "event_time")


class Fault(NamedTuple):
    """What is wrong with a revision."""

    cause: Cause
    reason: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one view told some requests."""

    values: pl.DataFrame
    """(n, k) its features."""

    origins: pl.DataFrame
    """(n, 4) `origin_columns`: the row of the view's table; null where there was none."""

    faults: Mapping[int, Fault]
    """Row -> what is wrong with a revision that may have told it something."""


class ViewValues:
    """Reads one view for one bundle.

    Parameters
    ----------
    reference : as the model names it

    Raises
    ------
    DeclarationError
        It is of another domain that is not registered any more, or has no such view.
    """

    def __init__(self, platform: Platform, bundle: Bundle, reference: str) -> None:
        owner, declared = bundle.domain.view(reference)
        self.label = f"{owner}/{declared.name}"
        self.features = tuple(each.name for each in declared.features)
        self.pinned = bundle.manifest.views.get(self.label, "")
        owning, view, self.note = _owned(bundle.domain, owner, declared, self.pinned)
        self.table: Stage = Tables(platform, owning).features(view)
        self.owner: Domain = owning
        self._store = FeatureStore(platform, bundle.domain)
        self._asked = AskedView(
            owner=owning, view=view, version=self.pinned, columns={name: name for name in self.features}
        )
        self._revisions = self.table.revisions()
        self._changes = _changes(self._revisions, self.pinned)

    def told(self, requests: pl.DataFrame, known_by: KnownBy = "then") -> Told:
        """What requests were told at their own time, or would have been of what was known at another.

        Parameters
        ----------
        requests : (n, …) key columns and `at`

        Raises
        ------
        DataError
            The keys do not fit the table.
        OSError, polars.exceptions.PolarsError
            The table cannot be read.
        """
        instants = requests.get_column("at")
        era = np.array([self._era(at) for at in instants], dtype=np.intp)
        near = _near(instants, self._asked.view.ttl)
        parts, places = [], []
        faults: dict[int, Fault] = {}
        for number, group in np.unique(np.column_stack([era, near]), axis=0).tolist():
            rows = np.flatnonzero((era == number) & (near == group))
            frame, found = self._read(requests[rows], known_by, self._pins(number))
            parts.append(frame)
            places.append(rows)
            faults |= {int(rows[row]): fault for row, fault in found.items()}
        if not parts:
            parts, places = [self._read(requests, known_by, None)[0]], [np.empty(0, dtype=np.intp)]
        order = np.argsort(np.concatenate(places), kind="stable")
        told = pl.concat(parts)[order]
        return Told(values=told.select(self.features), origins=told.select(origin_columns), faults=faults)

    def removed(self, at: datetime, number: int | None, event_time: datetime | None) -> str:
        """The tombstone of the revision that a request was told something of; empty: it is there, or was long gone.

        What was no longer believed, and had been published as such for a while, should not have been told: that it was
        removed since excuses nothing.

        Parameters
        ----------
        number, event_time : None: nothing was told, and any that was removed may say why
        """
        day = None if event_time is None else partition_of(event_time)
        pins = self._pins(self._era(at))
        for each, until in believed_between(self._revisions, at, at, ttl=self._asked.view.ttl, pins=pins):
            own = number is None or (each.partition, each.number) == (day, number)
            lately = each.known_at <= at and (until is None or until + publication_takes > at)
            if each.removed and own and lately:
                return each.removed
        return ""

    def _era(self, at: datetime) -> int:
        """How often the store had changed between the versions of the view."""
        return bisect_right(self._changes, at, key=lambda change: change[0])

    def _pins(self, era: int) -> Mapping[str, int] | None:
        """Newest revision of each partition that the store still took in for the pinned version; None: all."""
        frozen = self._changes[era - 1][1] if era else None
        if frozen is None:
            return None
        return {each.partition: each.number for each in self._revisions if each.known_at < frozen}

    def _read(
        self, requests: pl.DataFrame, known_by: KnownBy, pins: Mapping[str, int] | None
    ) -> tuple[pl.DataFrame, dict[int, Fault]]:
        instants = requests.get_column("at")
        view = self._asked.view
        first, last = instants.min(), instants.max()
        believed = (
            believed_between(self._revisions, first, last, ttl=view.ttl, pins=pins)
            if isinstance(first, datetime) and isinstance(last, datetime)
            else []
        )
        wrong = {
            (revision.partition, revision.number): Fault("removed", revision.removed)
            for revision, _ in believed
            if revision.removed
        }
        for name, fault in altered(self.table, (revision for revision, _ in believed)).items():
            wrong[name] = Fault("data", fault)
        told = self._store.historical_view(
            self._asked,
            requests,
            instants,
            known_by,
            None if pins is None else {self.label: pins},
            statuses=True,
            expired=False,
            without=wrong.keys(),
        )
        faults: dict[int, Fault] = {}
        for revision, until in believed if known_by == "then" else ():
            found = wrong.get((revision.partition, revision.number))
            if found is not None:
                for row in np.flatnonzero(_may_have_told(told, instants, revision, until, view)):
                    faults.setdefault(int(row), found)
        return told, faults


def partition_of(event_time: datetime) -> str:
    """The day of a value, which may be dated by the end of its window."""
    return (event_time - timedelta(microseconds=1)).date().isoformat()


def _near(instants: pl.Series, ttl: timedelta) -> npt.NDArray[np.intp]:
    """Which instants are read together, by number: what lies between two that are far apart, no request was told."""
    order = instants.arg_sort()
    apart = (instants[order].diff() > ttl + timedelta(days=1)).fill_null(value=False)
    numbers = np.empty(len(instants), dtype=np.intp)
    numbers[order.to_numpy()] = apart.cum_sum().to_numpy()
    return numbers


def _owned(
    domain: Domain, owner: str, declared: FeatureView | ImportedView, pinned: str
) -> tuple[Domain, FeatureView, str]:
    """Domain that computes a view, the view as the bundle relies on it, and what is worth knowing of it."""
    if isinstance(declared, FeatureView):
        return domain, declared, ""
    owning = registered_domain(owner)
    view = owning.view(declared.name)[1]
    assert isinstance(view, FeatureView)
    version = view_version(owning, view)
    note = "" if version == pinned else f"{owner} declares {declared.name}@{version} now, the model reads @{pinned}"
    return owning, replace(view, entity=declared.entity, features=declared.features, ttl=declared.ttl), note


def _changes(revisions: Sequence[Revision], pinned: str) -> list[tuple[datetime, datetime | None]]:
    """When the store went on without a version, or with it again, and until what it had taken revisions in for it.

    A version takes in what its own code computes, and what lay there before it: that it did not change.

    Returns
    -------
    changes : instants in order, each with itself where the version is left behind, None where it goes on
    """
    changes: list[tuple[datetime, datetime | None]] = []
    begun, followed = False, True
    # At one instant, its own come last: then it goes on.
    for each in sorted(revisions, key=lambda each: (each.known_at, each.code_version == pinned)):
        own = each.code_version == pinned
        begun |= own
        if begun and own != followed:
            changes.append((each.known_at, None if own else each.known_at))
            followed = own
    return changes


def _may_have_told(
    told: pl.DataFrame, instants: pl.Series, revision: Revision, until: datetime | None, view: FeatureView
) -> npt.NDArray[np.bool_]:
    """Which requests a revision may have told something, had it been read: it was believed, and nothing newer told."""
    day = revision.partition
    first = [oldest_partition(at, view.ttl) <= day <= at.date().isoformat() for at in instants]
    believed = instants >= revision.known_at
    if until is not None:
        believed &= instants < until
    newer = (told.get_column("event_time") >= partition_end(day)) & (told.get_column("partition") > day)
    may: npt.NDArray[np.bool_] = (believed & ~newer.fill_null(value=False)).to_numpy()
    return may & np.array(first, dtype=np.bool_)
