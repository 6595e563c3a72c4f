"""What the online store may have held of a moment ago, while a day, a correction or a streamed value was on its way.

A request sees what is published, which is what is known, some minutes later. So where an answer was made of other
values than were known at its time, those of one earlier state of the store may be the right ones. It judges nothing and
reads no log; how values are read is its caller's.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import AsFactsArrive
from mlplatform.domains.registered import registered_domain
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.historical import view_stores
from mlplatform.features.known_facts import KnownBy
from mlplatform.features.streaming.within_day import assumed_delay
from mlplatform.features.tables import available_at
from mlplatform.features.view import view_features
from mlplatform.provenance.platform import Platform

Places = npt.NDArray[np.intp]

Away = Mapping[str, pl.Series]
"""By view, (n,) Boolean: where serving could not read it, and went without."""

Values = Callable[[pl.DataFrame, Away, KnownBy], pl.DataFrame]
"""Requests with `at` -> values of all views that the model reads."""

publication_takes = timedelta(minutes=10)
"""From the commit of a day or a correction until the online store has it, at most. Meanwhile the value before is
served, and rightly so. Too short: each correction fails the check; too long: a publication that hangs is seen later.
What is committed so long before it may be served needs none of it: it lies in the store by then."""

_moment = timedelta(microseconds=1)


class Publications:
    """What was published late enough for a request to have missed it.

    Parameters
    ----------
    domain, model : as they declare the views
    values : how they are read
    """

    def __init__(self, platform: Platform, domain: Domain, model: ModelSpec, values: Values) -> None:
        self._platform = platform
        self._domain = domain
        self._values = values
        self._features = view_features(domain, model)
        stores = view_stores(platform, domain, model)
        self._late = sorted(
            {
                revision.known_at
                for view, (_, store, _) in stores.items()
                for revision in store.revisions()
                if revision.known_at + publication_takes > available_at(self._owner(view), revision.partition)
            }
        )
        self._streamed = [
            view for view, (declared, _, _) in stores.items() if isinstance(declared.schedule, AsFactsArrive)
        ]

    def before(
        self, requests: pl.DataFrame, away: Away, rows: Places
    ) -> Iterator[tuple[Places, Callable[[Places], pl.DataFrame]]]:
        """Earlier states of the store that some requests may have met.

        Parameters
        ----------
        requests : (n, …) request columns and `at`
        rows : those of them to look at

        Returns
        -------
        states : of each, some of the rows, and what gives the values of any of these. A row comes once for each state
            that it may have met
        """
        yield from self._before_commits(requests, away, rows)
        yield from self._before_streamed(requests, away, rows)

    def _owner(self, view: str) -> Domain:
        name = view.partition("/")[0]
        return self._domain if name == self._domain.name else registered_domain(name)

    def _before_commits(
        self, requests: pl.DataFrame, away: Away, rows: Places
    ) -> Iterator[tuple[Places, Callable[[Places], pl.DataFrame]]]:
        """The store as it was before each commit that may not have been in it yet: after the one before, that is."""
        amid: dict[datetime, list[int]] = {}
        for row in rows:
            at = requests["at"][int(row)]
            for commit in self._late[bisect_right(self._late, at - publication_takes) : bisect_right(self._late, at)]:
                amid.setdefault(commit, []).append(int(row))
        for commit, places in amid.items():

            def values(part: Places, before: datetime = commit - _moment) -> pl.DataFrame:
                return self._values(requests[part], of_rows(away, part), before)

            yield np.array(places, dtype=np.intp), values

    def _before_streamed(
        self, requests: pl.DataFrame, away: Away, rows: Places
    ) -> Iterator[tuple[Places, Callable[[Places], pl.DataFrame]]]:
        """The store before each streamed value that became available a moment before the request."""
        if not self._streamed:
            return
        features = {view: [each.name for each in self._features[view]] for view in self._streamed}
        keys = dict.fromkeys(key for view in self._streamed for key in self._domain.view(view)[1].entity)
        at = requests["at"].to_physical().to_numpy()
        seen = at.copy()
        while rows.size:
            told = FeatureStore(self._platform, self._domain).get_historical_features(
                _as_of(requests, seen, rows).select(*keys, "at"),
                [f"{view}:{names[0]}" for view, names in features.items()],
                known_by="then",
                statuses=True,
            )
            newest = told.select(pl.max_horizontal(f"{names[0]}__available_at" for names in features.values()))
            before = newest.to_series().to_physical().fill_null(0).to_numpy() - 1
            amid = before >= at[rows] - assumed_delay // _moment
            rows = rows[amid]
            seen = seen.copy()
            seen[rows] = before[amid]

            def values(part: Places, seen: npt.NDArray[np.int64] = seen) -> pl.DataFrame:
                gone = of_rows(away, part)
                earlier = self._values(_as_of(requests, seen, part), gone, "then")
                streamed = earlier.select(name for names in features.values() for name in names)
                return self._values(requests[part], gone, "then").with_columns(streamed)

            if rows.size:
                yield rows, values


def of_rows(away: Away, rows: Places) -> dict[str, pl.Series]:
    """By view, some of the rows."""
    return {view: told[rows] for view, told in away.items()}


def _as_of(requests: pl.DataFrame, instants: npt.NDArray[np.int64], rows: Places) -> pl.DataFrame:
    """Some of the requests as if they were asked at other instants, in microseconds since the epoch."""
    return requests[rows].with_columns(pl.Series("at", instants[rows]).cast(requests.schema["at"]))
