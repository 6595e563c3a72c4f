"""Recorded days, as the platform would have lived through them: what was asked, and what the sources sent afterwards.

Both come from the domain's sample. A request is asked at its own instant; the fact that tells of it is in the file of
the day on which it became known, often a later one. Injected faults change the one, the other or both, from their day
on. Nothing here knows what day it is: the replay asks for one after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.source import Sample, Source
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.rules import cast_to_contract, check
from mlplatform.simulation.faults import Fault, break_feed, drift, fault_names, label_shift, leak, nulls

one_day = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Injection:
    """A fault that begins on a day, and stays."""

    fault: Fault
    since: date
    column: str
    """Of the source and of requests, where the fault is about one."""


def parse_injection(text: str, column: str) -> Injection:
    """Read `FAULT@DAY`.

    Raises
    ------
    DeclarationError
        It is none.

    Examples
    --------
    >>> parse_injection("drift@2013-09-01", "distance").since.isoformat()
    '2013-09-01'
    """
    name, _, day = text.partition("@")
    fault = next((each for each in fault_names if each == name), None)
    try:
        since = date.fromisoformat(day)
    except ValueError:
        since = None
    if fault is None or since is None:
        raise DeclarationError(
            f"{text!r} injects nothing. Write a fault and its first day, such as `drift@2013-09-01`; there is "
            f"{', '.join(fault_names)}"
        )
    return Injection(fault=fault, since=since, column=column)


class Recorded:
    """The sample of a domain, day by day, with faults.

    Parameters
    ----------
    model : whose label `label-shift` and `leak` look at, and whose label's delay says how late a fact may come
    """

    def __init__(self, domain: Domain, model: ModelSpec, injections: Sequence[Injection] = ()) -> None:
        if domain.sample is None:
            raise DeclarationError(
                f"{domain.name} has no sample, so there are no recorded days to replay. Declare one (`Domain.sample`)"
            )
        self.domain = domain
        self.sample: Sample = domain.sample
        self.injections = tuple(injections)
        self._model = model
        derived = next((each for each in domain.derived if each.name == domain.requests.facts), None)
        self._derived = derived
        self._sources = [domain.source(name) for name in (derived.inputs if derived else (domain.requests.facts,))]
        delay = max(each.label.delay for each in domain.models)
        # The delay covers almost every label: one more day for the rest.
        self._days_after = ceil(delay / one_day) + 1
        self._of_file: dict[date, pl.DataFrame] = {}
        self._outcomes: dict[tuple[str, date], tuple[list[str], str | None]] = {}
        for each in self.injections:
            self._require_column(each)

    def require_days(self, first: date, last: date) -> None:
        """Refuse days that the sample does not hold.

        Raises
        ------
        DataError
        """
        if first < self.sample.start or last > self.sample.end or last < first:
            raise DataError(
                f"the sample of {self.domain.name} holds {self.sample.start} to {self.sample.end}, not {first} to "
                f"{last}"
            )

    def requests(self, day: date) -> pl.DataFrame:
        """What is asked on a day (UTC): request columns and `at`, in the order of `at`."""
        # A day before too: a domain may say that it asks when the outcome is known already.
        files = [day + number * one_day for number in range(-1, self._days_after + 1)]
        self._of_file = {each: self._of_file[each] for each in files if each in self._of_file}
        asked = pl.concat([self._requests_in_file(each) for each in files])
        asked = asked.filter(pl.col("at").dt.date() == day).sort("at", *self.domain.requests.identity)
        for each in self._active(day):
            declared = {column.name: column for column in self.domain.requests.columns}.get(each.column)
            if each.fault == "drift" and declared is not None:
                asked = drift(asked, each.column, reference=self._reference(each), limits=declared)
            elif each.fault == "nulls" and declared is not None and declared.nullable:
                asked = nulls(asked, each.column)
        return asked

    def sent(self, source: Source, day: date) -> pl.DataFrame | None:
        """The file that a source sends after a day; None: it sends none."""
        told = self.sample.read(source.name, day)
        if source.name not in [each.name for each in self._sources]:
            return told
        for each in self._active(day):
            has_column = each.column in told.columns
            match each.fault:
                case "break-feed":
                    return None
                case "repeat-feed":
                    return break_feed(told, self.sample.read(source.name, each.since - one_day))
                case "drift" if has_column:
                    declared = next(column for column in source.contract.columns if column.name == each.column)
                    told = drift(told, each.column, reference=self._reference(each), limits=declared)
                case "nulls" if has_column:
                    told = nulls(told, each.column)
                case "label-shift":
                    outcomes, since = self.outcome_columns(source, each.since)
                    told = label_shift(told, outcomes, seed=day.toordinal(), since=since)
                case "leak" if has_column:
                    told = leak(told, each.column, self._outcome(told, source, each.since))
        return told

    def outcome_columns(self, source: Source, day: date) -> tuple[list[str], str | None]:
        """Columns of a source that tell the outcome and not the request, and the time from which outcomes count.

        Found by trial: a column that changes places between rows, and with it the labels but not one request.
        """
        if (source.name, day) not in self._outcomes:
            self._outcomes[source.name, day] = self._found_outcome_columns(source, day)
        return self._outcomes[source.name, day]

    def _found_outcome_columns(self, source: Source, day: date) -> tuple[list[str], str | None]:
        rows = self.sample.read(source.name, day)
        honest = self._asked_and_label(source, rows)
        outcomes, since = [], None
        half = rows.height // 2
        for name in rows.columns:
            swapped = pl.concat([rows.get_column(name)[half:], rows.get_column(name)[:half]])
            changed = self._asked_and_label(source, rows.with_columns(swapped.alias(name)))
            same_requests = changed.drop("_label").sort(pl.all()).equals(honest.drop("_label").sort(pl.all()))
            if same_requests and not changed.sort(pl.all()).equals(honest.sort(pl.all())):
                outcomes.append(name)
            elif not same_requests and since is None and isinstance(rows.schema[name], pl.Datetime):
                since = name
        if not outcomes:
            raise DeclarationError(
                f"no column of {self.domain.name}/{source.name} tells the outcome alone, so it can neither shift nor "
                "leak. Inject another fault"
            )
        return outcomes, since

    def columns(self) -> list[str]:
        """Columns that are asked and recorded under one name, numbers and texts: where a fault can begin."""
        recorded = {name for source in self._sources for name in source.contract.names}
        return [
            column.name
            for column in self.domain.requests.columns
            if column.name in recorded
            and column.name not in self._keys()
            and (column.dtype.is_numeric() or isinstance(column.dtype, pl.String))
        ]

    def _keys(self) -> set[str]:
        """Columns that name a single case: nothing is learned from them."""
        return set(self.domain.requests.identity) if len(self.domain.requests.identity) == 1 else set()

    def _active(self, day: date) -> list[Injection]:
        return [each for each in self.injections if day >= each.since]

    def _outcome(self, rows: pl.DataFrame, source: Source, day: date) -> pl.Series:
        (first, *_), since = self.outcome_columns(source, day)
        values = rows.get_column(first)
        return values - rows.get_column(since) if since and isinstance(values.dtype, pl.Datetime) else values

    def _reference(self, injection: Injection) -> pl.Series:
        """The column as it was before the fault."""
        before = max(injection.since - one_day, self.sample.start)
        return self._requests_in_file(before).get_column(injection.column)

    def _requests_in_file(self, day: date) -> pl.DataFrame:
        """Requests whose facts are in the files of a day, as they really were."""
        if day not in self._of_file:
            rows = {}
            for source in self._sources:
                held = self.sample.start <= day <= self.sample.end
                read = self.sample.read(source.name, day if held else self.sample.start)
                typed = cast_to_contract(read, source.contract, path=f"the sample of {source.name}")
                rows[source.name] = check(typed if held else typed.clear(), source.contract).kept
            asked = self.domain.requests.of_facts(self._facts(rows))
            self._of_file[day] = asked.filter(pl.col("at").is_not_null())
        return self._of_file[day]

    def _facts(self, rows: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        base = {source.name: source.base(rows[source.name]) for source in self._sources}
        return base[self._sources[0].name] if self._derived is None else self._derived.function(base)

    def _asked_and_label(self, source: Source, rows: pl.DataFrame) -> pl.DataFrame:
        given = {each.name: self.sample.read(each.name, self.sample.start) for each in self._sources}
        facts = self._facts({**given, source.name: rows})
        return self.domain.requests.of_facts(facts).with_columns(
            facts.select(_label=self._model.label.value()).to_series()
        )

    def _require_column(self, injection: Injection) -> None:
        if injection.fault in ("drift", "nulls", "leak"):
            recorded = [name for source in self._sources for name in source.contract.names]
            if injection.column not in recorded:
                raise DeclarationError(
                    f"{injection.column!r} is no column of {', '.join(each.name for each in self._sources)}. Name one "
                    f"with --column: {', '.join(self.columns())}"
                )
