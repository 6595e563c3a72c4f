"""What a domain is judged by: some days of its sample taken through its own functions, in memory.

Everything is made once, when a check first asks for it, and is bounded in days and rows: the battery looks for faults
of the code, which show on a few thousand rows, and not at the quality of a year of data. A domain without a sample is
judged by what its sources have landed.

It writes nothing, and it repairs nothing: where a function of the domain raises, whatever needs its result cannot be
judged, and says so; the check `sample` tells what was raised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, TypeVar

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.source import Derived, Source
from mlplatform.domain.view import FeatureView
from mlplatform.domain_checks.case import Days, called
from mlplatform.errors import CannotJudge, MlplatformError
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.rules import cast_to_contract, check
from mlplatform.features.tables import available_at, partition_end
from mlplatform.features.view import compute_view, fit_values, instant, model_inputs, view_features

most_rows = 40_000
"""Landed rows of the busiest source after which no further day is taken: enough for every check, and a battery of a
minute on two cores."""

most_days = 92
"""A quarter of a year; windows of 28 days are then full for most of it."""

least_days = 2
"""Taken however many rows they hold: several checks compare days."""

seed = 20240229
"""Of every shuffle and draw of the battery, so that it says the same twice."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Past requests of one model with their labels and what they could have seen, in the order of a training set."""

    rows: pl.DataFrame
    """(n, …) request columns and `at`."""

    labels: pl.Series
    values: pl.DataFrame
    """(n, n_view_features); null where a view had none, or where another domain computes it."""

    @property
    def known(self) -> pl.DataFrame:
        """What on-demand features and fitted values are computed from."""
        return self.rows.hstack(self.values)

    def part(self, rows: pl.Series) -> "Asked":
        """Some of the rows, by a Boolean mask."""
        # A frame without columns has no rows to choose from.
        values = self.values.filter(rows) if self.values.width else self.values
        return Asked(rows=self.rows.filter(rows), labels=self.labels.filter(rows), values=values)


class Evidence:
    """A domain, and what its functions make of some of its days."""

    def __init__(self, domain: Domain, landed: Callable[[str, str], pl.DataFrame], days: Sequence[str]) -> None:
        """Take days in order until there are rows enough.

        Parameters
        ----------
        landed : (source name, ISO day) -> rows as the source sends them
        days : ISO days that may be read, in order
        """
        self.domain = domain
        self._landed = landed
        self.offered = list(days)

    def landed_on(self, source: str, day: str) -> pl.DataFrame:
        """Rows that a source sent, in the contract's columns and types.

        Raises
        ------
        MalformedFile
            They are not what the contract declares.
        DomainCodeRaised
            The sample raised.
        """
        declared = self.domain.source(source)
        if date.fromisoformat(day) in declared.absent:
            return pl.DataFrame(schema=declared.contract.schema)
        rows = called(f"sample of {source}", day, self._landed, source, day)
        return cast_to_contract(rows, declared.contract, path=f"{source} of {day}")

    @cached_property
    def landed(self) -> Mapping[str, Days]:
        """By source and day."""
        return self._of("the landed rows", self._taken)

    def _taken(self) -> dict[str, dict[str, pl.DataFrame]]:
        taken: dict[str, dict[str, pl.DataFrame]] = {source.name: {} for source in self.domain.sources}
        for day in self.offered[:most_days]:
            heights = [sum(frame.height for frame in frames.values()) for frames in taken.values()]
            if max(heights) > most_rows and len(taken[self.domain.sources[0].name]) >= least_days:
                break
            for source in self.domain.sources:
                taken[source.name][day] = self.landed_on(source.name, day)
        return taken

    @cached_property
    def days(self) -> tuple[str, ...]:
        """Days that were taken, in order."""
        found = tuple(self.landed[self.domain.sources[0].name])
        if not found:
            raise CannotJudge(f"{self.domain.name} has neither a sample nor landed days")
        return found

    @cached_property
    def validated(self) -> Mapping[str, Days]:
        """Rows that keep the contract, by source and day."""
        return {
            source.name: {day: check(rows, source.contract).kept for day, rows in self.landed[source.name].items()}
            for source in self.domain.sources
        }

    @cached_property
    def base(self) -> Mapping[str, Days]:
        """By source and day, exactly as the domain's functions give it."""
        return {
            source.name: self._of(f"base of {source.name}", self._base_of, source) for source in self.domain.sources
        }

    def _base_of(self, source: Source) -> Days:
        columns = {column.name: column.dtype for column in source.base_columns}
        # As in the pipeline: nothing is asked of `base` for a day on which nothing was sent.
        nothing = pl.DataFrame(schema={**columns, "event_time": instant})
        return {
            day: nothing
            if date.fromisoformat(day) in source.absent
            else called(f"base of {source.name}", day, source.base, rows.clone())
            for day, rows in self.validated[source.name].items()
        }

    @cached_property
    def derived(self) -> Mapping[str, Days]:
        """By derived table and day, exactly as the domain's functions give it."""
        return {table.name: self._of(f"derived {table.name}", self._derived_of, table) for table in self.domain.derived}

    def _derived_of(self, table: Derived) -> Days:
        return {day: called(f"derived {table.name}", day, table.function, self.inputs(table, day)) for day in self.days}

    def inputs(self, table: Derived, day: str) -> Days:
        """Base tables that a derived table reads."""
        return {name: self.base[name][day].clone() for name in table.inputs}

    def table_on(self, name: str, day: str) -> pl.DataFrame:
        """Rows of a derived table, or of a source's base table, of one day."""
        derived = any(each.name == name for each in self.domain.derived)
        return (self.derived if derived else self.base)[name][day]

    @cached_property
    def _facts(self) -> dict[str, pl.DataFrame]:
        return {}

    def facts(self, name: str) -> pl.DataFrame:
        """All rows of a table with their clocks, sorted by event time, as views and `of_facts` are given them."""
        if name not in self._facts:
            self._facts[name] = self._of(f"table {name}", lambda: self.stamped(name, self.days, self.table_on))
        return self._facts[name]

    def stamped(self, name: str, days: Sequence[str], rows_on: Callable[[str, str], pl.DataFrame]) -> pl.DataFrame:
        """Rows of some days with `available_at`, in the declared columns."""
        names = [column.name for column in self.domain.fact_columns(name)] + ["event_time"]
        parts = [
            rows_on(name, day)
            .select(names)
            .with_columns(available_at=pl.lit(available_at(self.domain, day), dtype=instant))
            for day in days
        ]
        whole = pl.concat(parts)
        if whole.schema["event_time"] != instant:
            raise CannotJudge(f"{name} has an `event_time` of {whole.schema['event_time']}, not {instant}")
        return whole.sort("event_time", maintain_order=True)

    def asked_of(self, facts: pl.DataFrame) -> pl.DataFrame:
        """Facts as requests: the declared columns and `at`, one row per fact."""
        asked = called("requests.of_facts", "all facts", self.domain.requests.of_facts, facts.clone())
        return asked.select([column.name for column in self.domain.requests.columns] + ["at"])

    @cached_property
    def requests(self) -> pl.DataFrame:
        """Request columns, `at`, and the clocks of the fact, one row per fact."""
        facts = self.facts(self.domain.requests.facts)
        asked = self._of("the requests", lambda: self.asked_of(facts))
        if asked.height != facts.height:
            raise CannotJudge(f"of_facts gives {asked.height} requests for {facts.height} facts")
        if asked.schema["at"] != instant:
            raise CannotJudge(f"requests.of_facts gives an `at` of {asked.schema['at']}, not {instant}")
        return asked.with_columns(_event_time=facts["event_time"], _available_at=facts["available_at"])

    def label(self, model: ModelSpec, facts: pl.DataFrame) -> pl.Series:
        """The label of each fact."""
        read = called(f"label of {model.name}", "all facts", lambda: facts.select(label=model.label.value()))
        return read["label"].cast(pl.Float64)

    @cached_property
    def view_tables(self) -> Mapping[str, pl.DataFrame]:
        """Published values of every view, by name: all days one under the other, with their clocks."""
        return {view.name: self.published(view, self.facts(view.facts)) for view in self.domain.views}

    def published(self, view: FeatureView, facts: pl.DataFrame) -> pl.DataFrame:
        """A view computed at the end of every day from the facts it is given."""
        parts = []
        plain = facts.drop("available_at")
        for day in self.days:
            end = partition_end(day)
            # The window is cut here too, since filtering all facts for every day would cost more than the view.
            window = plain.filter(pl.col("event_time") >= end - view.look_back, pl.col("event_time") < end)
            what = f"view {view.name}"
            values: pl.DataFrame = self._of(what, called, what, day, compute_view, view, window, end)
            parts.append(values.with_columns(available_at=pl.lit(available_at(self.domain, day), dtype=instant)))
        return pl.concat(parts)

    def values(self, model: ModelSpec, asked: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        """What the model's views could have told each request."""
        parts = []
        for reference, features in view_features(self.domain, model).items():
            owner, view = self.domain.view(reference)
            names = [feature.name for feature in features]
            if owner == self.domain.name:
                joined = point_in_time_join(asked, tables[view.name], keys=view.entity, values=names, ttl=view.ttl)
                parts.append(joined.select(names))
            else:
                nulls = {each.name: pl.lit(None, dtype=each.dtype) for each in features}
                parts.append(asked.with_columns(**nulls).select(names))
        return pl.concat(parts, how="horizontal") if parts else pl.DataFrame({})

    @cached_property
    def _asked(self) -> dict[str, Asked]:
        return {}

    def asked(self, model: ModelSpec) -> Asked:
        """Labelled past requests of a model with what they could have seen."""
        if model.name not in self._asked:
            facts = self.facts(self.domain.requests.facts)
            labels = self._of(f"label of {model.name}", lambda: self.label(model, facts))
            tables = self.view_tables if model.views else {}
            self._asked[model.name] = self.labelled(model, self.requests, labels, tables)
        return self._asked[model.name]

    def labelled(
        self, model: ModelSpec, requests: pl.DataFrame, labels: pl.Series, tables: Mapping[str, pl.DataFrame]
    ) -> Asked:
        """Requests that have a label, sorted as a training set is, with their view values."""
        names = [*(column.name for column in self.domain.requests.columns), "at"]
        rows = (
            requests.with_columns(_label=labels)
            .filter(pl.col("at").is_not_null(), pl.col("_label").is_not_null())
            .sort("at", *self.domain.requests.identity, maintain_order=True)
        )
        values = self._of("the join of views", lambda: self.values(model, rows, tables))
        return Asked(rows=rows.select(names), labels=rows["_label"], values=values)

    def inputs_of(self, model: ModelSpec, asked: Asked, train: pl.Series) -> pl.DataFrame:
        """The model's feature matrix of all rows; fitted values come from the training rows."""

        def computed() -> pl.DataFrame:
            learned = asked.part(train)
            fitted = called(
                "fitted values", "training rows", fit_values, self.domain, model, learned.rows, learned.values
            )
            return called("features", "all rows", model_inputs, self.domain, model, asked.rows, asked.values, fitted)

        return self._of(f"features of {model.name}", computed)

    def training_rows(self, model: ModelSpec, asked: Asked, least: int) -> tuple[pl.Series, pl.Series]:
        """Masks of the earlier and, one label delay after them, the later requests: 60 % of the rows are the earlier.

        Raises
        ------
        CannotJudge
            Either holds fewer than `least` rows.
        """
        height = asked.rows.height
        if not height:
            raise CannotJudge(f"{model.name} has no labelled request in {self.span}")
        cut = asked.rows["at"][int(height * 0.6)]
        earlier, later = asked.rows["at"] < cut, asked.rows["at"] >= cut + model.label.delay
        fewest = min(int(earlier.sum()), int(later.sum()))
        if fewest < least:
            raise CannotJudge(
                f"{model.name} has {int(earlier.sum())} labelled requests before {cut:%Y-%m-%d %H:%M} and "
                f"{int(later.sum())} from one label delay later; {least} of each are needed. Give the sample more days"
            )
        return earlier, later

    @property
    def span(self) -> str:
        """The days, in words."""
        return f"{self.days[0]} to {self.days[-1]}"

    def _of(self, what: str, make: Callable[..., T], *arguments: Any) -> T:
        try:
            return make(*arguments)
        except CannotJudge:
            raise
        except MlplatformError as error:
            raise CannotJudge(f"{what} cannot be made; `sample` tells why") from error
        except pl.exceptions.PolarsError as error:
            raise CannotJudge(f"{what} cannot be put together: {' '.join(str(error).split())[:200]}") from error


def spread(frame: pl.DataFrame, rows: int) -> pl.DataFrame:
    """Up to so many rows, evenly from first to last."""
    if frame.height <= rows:
        return frame
    return frame[[number * frame.height // rows for number in range(rows)]]


def days_of(start: date, end: date) -> list[str]:
    """ISO days from start to end, both included."""
    return [(start + timedelta(days=number)).isoformat() for number in range((end - start).days + 1)]
