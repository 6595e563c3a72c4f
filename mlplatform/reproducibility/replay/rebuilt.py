"""The model's inputs, made again: from what was asked and what was known then, by the bundle's own code.

It compares with the vector that was logged only to find which state of the online store a request may have met. What a
difference means is for its caller to say.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.integrity import unreadable
from mlplatform.features.known_facts import KnownBy
from mlplatform.features.pipeline import given
from mlplatform.features.view import view_features
from mlplatform.monitoring.publications import Away, Places, Publications
from mlplatform.monitoring.refusals import by_parts
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.replay.view_values import Fault, ViewValues
from mlplatform.scoring.booster import Matrix, matrix

Mask = npt.NDArray[np.bool_]

_during = "an answered request"
_first_year = 1970


class Rebuilt:
    """Inputs of one bundle for some requests, and where their values come from.

    Parameters
    ----------
    requests : (n, …) request columns and `at`
    away : by view, (n,) Boolean: where serving could not read it, and went without
    logged : (n, k) float32, the vectors that were served

    Raises
    ------
    DataError, DeclarationError
        Nothing can be read for any of them.
    """

    def __init__(self, platform: Platform, bundle: Bundle, requests: pl.DataFrame, away: Away, logged: Matrix) -> None:
        self._bundle = bundle
        self._requests = requests
        self._away = away
        self._logged = logged
        self.views = {each.label: each for each in (ViewValues(platform, bundle, name) for name in bundle.model.views)}
        declared = view_features(bundle.domain, bundle.model)
        self._schema = {each.name: each.dtype for features in declared.values() for each in features}
        names = bundle.manifest.features
        self.view_of = {each.name: view for view, features in declared.items() for each in features}
        """Feature -> `owner/view`; features of the request and fitted values have none."""
        self._inputs_of = {
            view: [names.index(each.name) for each in features if each.name in names]
            for view, features in declared.items()
        }
        self.origins: dict[str, pl.DataFrame] = {}
        """By view, (n, 4): status, revision, partition and event time of the values as known then."""
        self.damaged: dict[int, Fault] = {}
        """Row -> what is wrong with a revision that may have told it something."""
        self.raised: dict[int, str] = {}
        """Row -> what the bundle's feature code raises, or refuses."""
        self.publishing: Places = np.empty(0, dtype=np.intp)
        """Rows that were told what the store held while a newer value was on its way."""

        values = self._as_known_then()
        self.features, self.raised = self._computed(requests, values)
        """(n, k) as the bundle's code gives them; null where it raised."""
        self._take_publications(platform, values)
        self.vectors: Matrix = matrix(self.features)
        """(n, k) float32, as `logged`."""

    @property
    def other(self) -> Mask:
        """(n, k) where what was logged is another value."""
        return other_bits(self._logged, self.vectors)

    def _as_known_then(self) -> pl.DataFrame:
        values = []
        for label, view in self.views.items():
            told = view.told(self._requests)
            values.append(told.values)
            self.origins[label] = told.origins
            away = self._away.get(label)
            for row, fault in told.faults.items():
                if away is None or not away[row]:
                    self.damaged.setdefault(row, fault)
        return self._without(pl.concat(values, how="horizontal") if values else _no_values(self._requests), self._away)

    def _values(self, requests: pl.DataFrame, away: Away, known_by: KnownBy) -> pl.DataFrame:
        told = [view.told(requests, known_by).values for view in self.views.values()]
        return self._without(pl.concat(told, how="horizontal") if told else _no_values(requests), away)

    def _without(self, values: pl.DataFrame, away: Away) -> pl.DataFrame:
        return values.with_columns(
            pl.when(~gone).then(pl.col(name)).alias(name)
            for view, gone in away.items()
            for name in self._schema
            if self.view_of[name] == view
        )

    def _computed(self, requests: pl.DataFrame, values: pl.DataFrame) -> tuple[pl.DataFrame, dict[int, str]]:
        """Features of some requests; those on which the code raises have none."""

        def compute(part: Places) -> pl.DataFrame:
            return given(self._bundle.features, "the bundle's feature code", _during, requests[part], values[part])

        made, raised = by_parts(requests.height, compute)
        if not made:
            return pl.DataFrame({name: [None] * requests.height for name in self._bundle.manifest.features}), raised
        lacking = made[0][1].clear(1)
        frames = [frame for _, frame in made] + [lacking] * len(raised)
        places = np.concatenate([*(part for part, _ in made), np.array(list(raised), dtype=np.intp)])
        return pl.concat(frames)[np.argsort(places, kind="stable")], raised

    def _take_publications(self, platform: Platform, values: pl.DataFrame) -> None:
        """Where another state of the store gives what was logged, that is what the request met."""
        suspects = self._suspects(matrix(self.features))
        if not suspects.size or not self.views:
            return
        try:
            publications = Publications(platform, self._bundle.domain, self._bundle.model, self._values)
            states = [
                (places, values_of(places))
                for places, values_of in publications.before(self._requests, self._away, suspects)
            ]
        except (*unreadable, DataError, DeclarationError):
            # What cannot be read now is told where it is read as known then.
            return
        for places, earlier in states:
            values = self._mixed(values, places, earlier)
        self._take(suspects, values[suspects])
        # What is no input itself, as a text, does not tell by the vector of which state it was.
        for places, earlier in states:
            self._take(places, earlier)

    def _take(self, rows: Places, values: pl.DataFrame) -> None:
        """Of some rows, those whose logged vector follows from these values."""
        still = np.flatnonzero(~np.isin(rows, self.publishing))
        if not still.size:
            return
        rows = rows[still]
        again, raised = self._computed(self._requests[rows], values[still])
        same = ~other_bits(self._logged[rows], matrix(again)).any(axis=1)
        taken = np.array([row for row in np.flatnonzero(same) if int(row) not in raised], dtype=np.intp)
        if taken.size:
            self.publishing = np.concatenate([self.publishing, rows[taken]])
            order = np.arange(self.features.height)
            order[rows[taken]] = self.features.height + taken
            self.features = pl.concat([self.features, again])[order]

    def _suspects(self, vectors: Matrix) -> Places:
        settled = self.damaged.keys() | self.raised.keys()
        # Before computers nothing was on its way to a store; and of the year 1 no minutes can be taken.
        dated = (self._requests.get_column("at").dt.year() >= _first_year).to_numpy()
        rows = np.flatnonzero(other_bits(self._logged, vectors).any(axis=1) & dated)
        return np.array([row for row in rows if int(row) not in settled], dtype=np.intp)

    def _mixed(self, values: pl.DataFrame, rows: Places, earlier: pl.DataFrame) -> pl.DataFrame:
        """Values in which each view is of the state that tells what was logged: views are published one by one."""
        for view, inputs in self._inputs_of.items():
            if not inputs:
                continue
            names = [self._bundle.manifest.features[place] for place in inputs]
            logged = self._logged[rows][:, inputs]
            now_other = other_bits(logged, matrix(values[rows].select(names))).any(axis=1)
            taken = np.flatnonzero(now_other & ~other_bits(logged, matrix(earlier.select(names))).any(axis=1))
            if taken.size:
                own = [name for name in self._schema if self.view_of[name] == view]
                order = np.arange(values.height)
                order[rows[taken]] = values.height + taken
                both = pl.concat([values.select(own), earlier.select(own)])
                values = values.with_columns(both[order])
        return values


def other_bits(one: Matrix, other: Matrix) -> Mask:
    """Where two matrices differ to the bit; one NaN is as good as another."""
    differ: Mask = np.ascontiguousarray(one).view(np.uint32) != np.ascontiguousarray(other).view(np.uint32)
    return differ & ~(np.isnan(one) & np.isnan(other))


def _no_values(requests: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(height=requests.height)
