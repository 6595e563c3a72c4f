"""What should have been served: the inputs of a model for logged requests, computed from the tables.

The historical point-in-time join in the revisions that the platform had at each request's own time, then the feature
code as it is registered today, with the fitted values of the model that answered. It knows no log and judges nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.historical import historical_features, view_stores
from mlplatform.features.known_facts import KnownBy
from mlplatform.features.pipeline import given
from mlplatform.features.view import feature_names, model_inputs, view_feature_names, view_features
from mlplatform.monitoring.publications import Places, Publications, of_rows
from mlplatform.monitoring.refusals import by_parts
from mlplatform.monitoring.served import Vectors
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import matrix


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
        self._publications = Publications(platform, domain, self.model, self._values)

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
        for places, values_of in self._publications.before(requests, away, rows):

            def make(part: Places, values_of: Callable[[Places], pl.DataFrame] = values_of) -> Vectors:
                return self._inputs(requests[part], values_of(part))

            inputs, refused = _by_parts(places, make, self.names)
            there = np.setdiff1d(np.arange(places.size), list(refused))
            yield places[there], inputs[there]

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


def _by_parts(
    rows: Places, inputs_of: Callable[[Places], Vectors], names: Sequence[str]
) -> tuple[Vectors, Mapping[int, str]]:
    """Inputs of all rows but those that are refused.

    Returns
    -------
    inputs : (n, k) float32, NaN also where refused
    refused : place in `rows` -> why
    """
    inputs = np.full((rows.size, len(names)), np.nan, dtype=np.float32)
    made, refused = by_parts(rows.size, lambda part: inputs_of(rows[part]))
    for part, of_part in made:
        inputs[part] = of_part
    return inputs, refused
