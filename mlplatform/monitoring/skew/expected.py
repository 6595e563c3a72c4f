"""What should have been served: the inputs of a model for logged requests, computed from the tables.

The historical point-in-time join in the revisions that the platform had at each request's own time, then the feature
code as it is registered today, with the fitted values of the model that answered. It knows no log and judges nothing.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive
from mlplatform.domains.registered import registered_domain
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.historical import historical_features, view_stores
from mlplatform.features.known_facts import KnownBy
from mlplatform.features.pipeline import given
from mlplatform.features.streaming.within_day import assumed_delay
from mlplatform.features.tables import available_at
from mlplatform.features.view import feature_names, model_inputs, view_feature_names, view_features
from mlplatform.monitoring.served import Vectors
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import matrix

Places = npt.NDArray[np.intp]

publication_takes = timedelta(minutes=10)
"""From the commit of a day or a correction until the online store has it, at most. Meanwhile the value before is
served, and rightly so. Too short: each correction fails the check; too long: a publication that hangs is seen later.
What is committed so long before it may be served needs none of it: it lies in the store by then."""

refusals_at_most = 128
"""Parts of the requests that are halved since code or tables refuse them. One request among 20,000 is found in 15: six
of them are told from the others. Fewer would lose rows beside them; where every row is refused, each costs a read."""

_moment = timedelta(microseconds=1)


class Expected:
    """The inputs that one manifest should have been served with.

    Parameters
    ----------
    model : its name in the domain
    manifest : digest

    Raises
    ------
    BundleError
        The bundle is gone, or altered.
    DeclarationError
        The model is not declared any more, or with fitted values that this one has not.
    """

    def __init__(self, platform: Platform, domain: Domain, model: str, manifest: str) -> None:
        self._platform = platform
        self._domain = domain
        self.model = domain.model(model)
        self.bundle = bundle_of(platform, manifest)
        if unfitted := set(self.model.fitted) - self.bundle.fitted.keys():
            raise DeclarationError(
                f"{model} is declared with {', '.join(sorted(unfitted))}, which {manifest[:12]} was not fitted with. "
                "Train it again"
            )
        self.inputs = self.bundle.manifest.features
        """All inputs of the model, as they are logged."""

        declared = set(feature_names(domain, self.model))
        self.names = tuple(name for name in self.inputs if name in declared)
        """Those that can be compared."""

        self.columns = [self.inputs.index(name) for name in self.names]
        self.undeclared = tuple(name for name in self.inputs if name not in declared)
        self._view_features = view_features(domain, self.model)
        self.view_of = {each.name: view for view, features in self._view_features.items() for each in features}
        """Feature -> `owner/view`; features of the request and fitted values have none."""

        stores = view_stores(platform, domain, self.model)
        self.versions = {view: version for view, (_, _, version) in stores.items()}
        self._late = sorted(
            {
                revision.known_at
                for view, (_, store, _) in stores.items()
                for revision in store.revisions()
                if revision.known_at + publication_takes
                > available_at(registered_domain(view.partition("/")[0]), revision.partition)
            }
        )
        self._streamed = [
            view for view, (declared, _, _) in stores.items() if isinstance(declared.schedule, AsFactsArrive)
        ]

    def inputs_of(self, requests: pl.DataFrame, away: Mapping[str, pl.Series]) -> Vectors:
        """(n, k) float32, NaN where missing, columns as `names`.

        Parameters
        ----------
        requests : (n, …) request columns and `at`
        away : by view, (n,) Boolean: where serving could not read it, and went without

        Raises
        ------
        DataError, DeclarationError
            A request does not fit the tables, or the feature code refuses one, or raises.
        """
        return self._inputs(requests, self._values(requests, away, "then"))

    def inputs_where_given(
        self, requests: pl.DataFrame, away: Mapping[str, pl.Series]
    ) -> tuple[Vectors, Mapping[int, str]]:
        """The same without an end at a request for which nothing can be computed: why not, by its row."""
        return _by_parts(
            np.arange(requests.height), lambda rows: self.inputs_of(requests[rows], of_rows(away, rows)), self.names
        )

    def inputs_by_own_code(
        self, requests: pl.DataFrame, away: Mapping[str, pl.Series], own_requests: pl.DataFrame
    ) -> Vectors | None:
        """The same by the feature code of the bundle; None: it reads other features of views, or refuses these.

        Parameters
        ----------
        own_requests : (n, …) the same requests, in the columns that the bundle declares
        """
        values = self._values(requests, away, "then")
        if not set(view_feature_names(self.bundle.domain, self.bundle.model)) <= set(values.columns):
            return None
        try:
            made = given(self.bundle.features, "the bundle's feature code", _asked, own_requests, values)
        except (DataError, DeclarationError):
            return None
        return matrix(made.select(self.names))

    def _inputs(self, requests: pl.DataFrame, values: pl.DataFrame) -> Vectors:
        what = f"the feature code of {self._domain.name} {self.model.name}"
        made = given(model_inputs, what, _asked, self._domain, self.model, requests, values, self.bundle.fitted)
        return matrix(made.select(self.names))

    def _values(self, requests: pl.DataFrame, away: Mapping[str, pl.Series], known_by: KnownBy) -> pl.DataFrame:
        values = historical_features(self._platform, self._domain, self.model, requests, known_by=known_by)
        return values.with_columns(
            pl.when(~gone).then(pl.col(each.name)).alias(each.name)
            for view, gone in away.items()
            for each in self._view_features.get(view, ())
        )

    def inputs_amid_publications(
        self, requests: pl.DataFrame, away: Mapping[str, pl.Series], rows: Places
    ) -> Iterator[tuple[Places, Vectors]]:
        """What some requests may have been served since something was still on its way to the online store.

        Parameters
        ----------
        requests : (n, …)
        rows : those of them to look at

        Returns
        -------
        pairs : some of the rows, and the inputs of one earlier state of the store. A row comes once for each state
            that it may have met
        """
        for places, make in (*self._before_commits(requests, away, rows), *self._before_streamed(requests, away, rows)):
            inputs, refused = _by_parts(places, make, self.names)
            there = np.setdiff1d(np.arange(places.size), list(refused))
            yield places[there], inputs[there]

    def _before_commits(
        self, requests: pl.DataFrame, away: Mapping[str, pl.Series], rows: Places
    ) -> Iterator[tuple[Places, Callable[[Places], Vectors]]]:
        """The store as it was before each commit that may not have been in it yet: after the one before, that is."""
        amid: dict[datetime, list[int]] = {}
        for row in rows:
            at = requests["at"][int(row)]
            for commit in self._late[bisect_right(self._late, at - publication_takes) : bisect_right(self._late, at)]:
                amid.setdefault(commit, []).append(int(row))
        for commit, places in amid.items():

            def make(part: Places, before: datetime = commit - _moment) -> Vectors:
                return self._inputs(requests[part], self._values(requests[part], of_rows(away, part), before))

            yield np.array(places, dtype=np.intp), make

    def _before_streamed(
        self, requests: pl.DataFrame, away: Mapping[str, pl.Series], rows: Places
    ) -> Iterator[tuple[Places, Callable[[Places], Vectors]]]:
        """The store before each streamed value that became available a moment before the request."""
        if not self._streamed:
            return
        features = {view: [each.name for each in self._view_features[view]] for view in self._streamed}
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

            def make(part: Places, seen: npt.NDArray[np.int64] = seen) -> Vectors:
                gone = of_rows(away, part)
                earlier = self._values(_as_of(requests, seen, part), gone, "then")
                streamed = earlier.select(name for names in features.values() for name in names)
                now = self._values(requests[part], gone, "then")
                return self._inputs(requests[part], now.with_columns(streamed))

            if rows.size:
                yield rows, make

    def origins_of(self, requests: pl.DataFrame, feature: str) -> pl.DataFrame:
        """`revision`, `event_time`, `available_at` of the values of a view's feature that should have been served."""
        view = self.view_of[feature]
        keys = [*self._domain.view(view)[1].entity, "at"]
        told = FeatureStore(self._platform, self._domain).get_historical_features(
            requests.select(keys), [f"{view}:{feature}"], known_by="then", statuses=True
        )
        return told.select(
            pl.col(f"{feature}__{column}").alias(column) for column in ("revision", "event_time", "available_at")
        )


_asked = "requests that were answered"


def of_rows(away: Mapping[str, pl.Series], rows: Places) -> dict[str, pl.Series]:
    """By view, some of the rows."""
    return {view: told[rows] for view, told in away.items()}


def _as_of(requests: pl.DataFrame, instants: npt.NDArray[np.int64], rows: Places) -> pl.DataFrame:
    """Some of the requests as if they were asked at other instants, in microseconds since the epoch."""
    return requests[rows].with_columns(pl.Series("at", instants[rows]).cast(requests.schema["at"]))


def _by_parts(
    rows: Places, inputs_of: Callable[[Places], Vectors], names: Sequence[str]
) -> tuple[Vectors, Mapping[int, str]]:
    """Inputs of all rows but those that are refused; what is refused is halved, so that few are lost with one.

    Returns
    -------
    inputs : (n, k) float32, NaN also where refused
    refused : place in `rows` -> why
    """
    inputs = np.full((rows.size, len(names)), np.nan, dtype=np.float32)
    refused: dict[int, str] = {}
    refusals = 0
    parts = deque([np.arange(rows.size)])
    while parts:
        part = parts.popleft()
        try:
            inputs[part] = inputs_of(rows[part])
        except (DataError, DeclarationError) as error:
            refusals += 1
            if part.size > 1 and refusals <= refusals_at_most:
                parts.extend(np.array_split(part, 2))
            else:
                refused.update(dict.fromkeys(part.tolist(), str(error)))
    return inputs, refused
