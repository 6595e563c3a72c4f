"""The way of the sample: it lands, keeps its own contract, goes through every function, and gives requests to learn of.

Also the two ends of that way: landed duplicates, which must not count twice, and the example request, which must be
answerable.
"""

from collections.abc import Iterator
from itertools import chain

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.source import Source
from mlplatform.domain_checks.case import called
from mlplatform.domain_checks.cases import all_cases, two_days
from mlplatform.domain_checks.difference import difference, row_name, sorted_rows
from mlplatform.domain_checks.evidence import Evidence
from mlplatform.domain_checks.verdict import Fault, Looked, fault_of
from mlplatform.errors import CannotJudge, InvalidRequest
from mlplatform.features.rules import check
from mlplatform.features.tables import partition_end
from mlplatform.features.view import compute_view
from mlplatform.scoring.request import parse_requests, refuse_broken_rules

duplicated_rows = 50
"""Landed rows of a day that are sent again."""


def lands(evidence: Evidence) -> Looked:
    """Every day of the sample keeps its contract and goes through every function of the domain."""
    try:
        return Looked(at=_way(evidence), faults=tuple(chain(_refused_rows(evidence), _undeclared(evidence))))
    except CannotJudge as unmade:
        if unmade.__cause__ is None:
            raise
        return Looked(at="", faults=(fault_of(unmade.__cause__),))


def _way(evidence: Evidence) -> str:
    rows = sum(frame.height for days in evidence.landed.values() for frame in days.values())
    for model in evidence.domain.models:
        asked = evidence.asked(model)
        everything = pl.repeat(value=True, n=asked.rows.height, eager=True)
        evidence.inputs_of(model, asked, everything)
    all_cases(evidence)
    return f"{rows} rows of {len(evidence.days)} days, {evidence.span}"


def _refused_rows(evidence: Evidence) -> Iterator[Fault]:
    for source in evidence.domain.sources:
        for day, rows in evidence.landed[source.name].items():
            found = check(rows, source.contract)
            if found.blocking:
                yield Fault(
                    what=f"contract of {source.name}",
                    where=day,
                    told=f"the sample's own day breaks {', '.join(_most_broken(found.counts, found.blocking))}. Widen "
                    "the rule to what is honest, or take such rows out of the sample",
                )
                break


def _most_broken(counts: dict[str, int], blocking: tuple[str, ...]) -> list[str]:
    broken = sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name])
    return [
        f"`{name}` ({counts[name]} rows)"
        for name in [*blocking, *(each for each in broken if each not in blocking)][:4]
    ]


def _undeclared(evidence: Evidence) -> Iterator[Fault]:
    """Facts in other columns or types than are declared: the tables would refuse them."""
    day = evidence.days[-1]
    for source in evidence.domain.sources:
        yield from _other_columns(f"base of {source.name}", evidence.base[source.name][day], source.base_columns, day)
    for table in evidence.domain.derived:
        yield from _other_columns(f"derived {table.name}", evidence.derived[table.name][day], table.columns, day)
    asked = evidence.requests
    for column in evidence.domain.requests.columns:
        if asked.schema[column.name] != column.dtype:
            yield Fault(
                what="requests.of_facts",
                where=f"column {column.name}",
                told=f"is {asked.schema[column.name]} in training and {column.dtype} in a request: the model would be "
                "served other values than it learned from. Cast it in of_facts, or declare the type of the facts",
            )


def _other_columns(what: str, rows: pl.DataFrame, columns: tuple[Column, ...], day: str) -> Iterator[Fault]:
    for column in columns:
        if rows.schema[column.name] != column.dtype:
            yield Fault(
                what=what,
                where=f"column {column.name}, {day}",
                told=f"is {rows.schema[column.name]}, declared {column.dtype}. Cast it, or mend the declaration",
            )
    for name in rows.columns:
        if name != "event_time" and name not in {column.name for column in columns}:
            yield Fault(what=what, where=f"column {name}, {day}", told="is not declared. Declare it or drop it")


def requests_of_facts(evidence: Evidence) -> Looked:
    """Each fact is one request, asked before its outcome was known."""
    facts = evidence.facts(evidence.domain.requests.facts)
    given = evidence.asked_of(facts).height
    if given != facts.height:
        lost = Fault(
            what="requests.of_facts",
            where=f"table {evidence.domain.requests.facts}",
            told=f"gives {given} requests for {facts.height} facts. Give one row per fact, in the same order; a null "
            "in `at` says that a fact was never a request",
        )
        return Looked(at="", faults=(lost,))
    asked, faults = evidence.requests, []
    for model in evidence.domain.models:
        labelled = asked.with_columns(_label=evidence.label(model, facts)).drop_nulls(["_label", "at"])
        late = labelled.filter(pl.col("at") > pl.col("_event_time"))
        if late.height:
            faults.append(
                Fault(
                    what=f"requests of {model.name}",
                    where=f"column at, row {row_name(late, 0, evidence.domain.requests.identity)}",
                    told=f"{late.height} of {labelled.height} labelled requests are asked after their outcome was "
                    f"known (at {late['at'][0]}, event_time {late['_event_time'][0]}). Let `at` be when the prediction "
                    "is needed, and `event_time` when the outcome became known",
                )
            )
    return Looked(at=f"{asked.height} facts as requests", faults=tuple(faults))


def example_request(evidence: Evidence) -> Looked:
    """The example request is accepted as it stands and gets features."""
    domain = evidence.domain
    given = {name: value for name, value in domain.requests.example.items() if name != "at"}
    try:
        row = parse_requests([given], domain.requests.columns)
        refuse_broken_rules(row, domain.requests.rules)
    except InvalidRequest as refused:
        faults = [
            Fault(what="requests.example", where=f"column {name}", told=f"{reason}. Mend the example or the column")
            for name, reason in refused.fields.items()
        ]
        return Looked(at="", faults=tuple(faults))
    features = 0
    for model in domain.models:
        nulls = {
            feature.name: pl.lit(None, dtype=feature.dtype)
            for reference in model.views
            for feature in domain.view(reference)[1].features
        }
        known = row.with_columns(**nulls)
        for on_demand in domain.on_demand:
            if on_demand.name in model.on_demand:
                features += called(f"on-demand {on_demand.name}", "the example", on_demand.function, known).width
    return Looked(at=f"accepted; {features} on-demand features computed for {len(domain.models)} models")


def duplicates(evidence: Evidence) -> Looked:
    """Rows that land twice count once."""
    faults = [fault for source in evidence.domain.sources for fault in _landed_twice(evidence, source)]
    faults += [fault for source in evidence.domain.sources for fault in _landed_again(evidence, source)]
    keyed = [source.name for source in evidence.domain.sources if source.contract.unique]
    return Looked(
        at=f"rows landed twice; the contract has a key in {', '.join(keyed) or 'no source'}", faults=tuple(faults)
    )


def _landed_twice(evidence: Evidence, source: Source) -> Iterator[Fault]:
    day = two_days(evidence, [source.name])[-1]
    once = evidence.validated[source.name][day]
    if once.is_empty():
        return
    twice = check(pl.concat([once, once.head(duplicated_rows)]), source.contract).kept
    if twice.height == once.height:
        return
    base = called(f"base of {source.name}", f"{day}, rows twice", source.base, twice)
    if difference(sorted_rows(evidence.base[source.name][day]), sorted_rows(base)) is None:
        return
    changed = _changed_feature(evidence, source, day, base) or _asked_twice(evidence, source, day, base)
    if not changed:
        return  # what is made of it tells repeats apart by itself
    key = ", ".join(source.contract.unique)
    told = (
        f"its contract has no key: a row that lands twice is two facts, {changed}. Declare `unique` in the contract, "
        "or drop repeats in base"
        if not key
        else f"the key ({key}) lets a repeated row through, {changed}. Look for a NaN or a nested column in the key"
    )
    row = row_name(once, 0, source.contract.unique)
    yield Fault(what=f"source {source.name}", where=f"row {row}, {day}", told=told)


def _landed_again(evidence: Evidence, source: Source) -> Iterator[Fault]:
    """The same row in the files of two days: a contract looks at one day, so it is for the features to tell."""
    parts = [rows.with_columns(_day=pl.lit(day)) for day, rows in evidence.validated[source.name].items()]
    every = pl.concat(parts)
    plain = [name for name in source.contract.names if not every.schema[name].is_nested()]
    again = every.filter(~pl.struct(plain).is_first_distinct())
    if again.is_empty() or not source.contract.unique:
        return
    day = str(again["_day"][0])
    first = every.filter(pl.struct(plain).is_first_distinct(), pl.col("_day") == day).drop("_day")
    base = called(f"base of {source.name}", f"{day}, no repeats", source.base, first)
    changed = _changed_feature(evidence, source, day, base)
    if changed:
        yield Fault(
            what=f"source {source.name}",
            where=f"row {row_name(again, 0, source.contract.unique)}, {day}",
            told=f"{again.height} rows of the sample have landed on an earlier day already, {changed} without them. "
            "Let the view count each once (`unique` over the key), or let the source send them once",
        )


def _asked_twice(evidence: Evidence, source: Source, day: str, base: pl.DataFrame) -> str:
    """Whether the second copy of a row becomes a second training row; for the message."""
    asked = evidence.domain.requests.facts
    if source.name != asked and not any(
        table.name == asked and source.name in table.inputs for table in evidence.domain.derived
    ):
        return ""
    once, twice = evidence.table_on(asked, day).height, _table_with(evidence, source, day, base, asked).height
    return f"and {twice - once} cases of {asked} are trained on twice" if twice > once else ""


def _table_with(evidence: Evidence, source: Source, day: str, base: pl.DataFrame, name: str) -> pl.DataFrame:
    """A table of facts of a day, with another base table of one source."""
    for table in evidence.domain.derived:
        if table.name == name:
            inputs = {**evidence.inputs(table, day), source.name: base}
            return called(f"derived {name}", f"{day}, rows twice", table.function, inputs)
    return base


def _changed_feature(evidence: Evidence, source: Source, day: str, base: pl.DataFrame) -> str:
    """Which feature the second copy of a row changes; for the message."""

    def rows_on(name: str, other: str) -> pl.DataFrame:
        return evidence.table_on(name, other) if other != day else _table_with(evidence, source, day, base, name)

    for view in evidence.domain.views:
        reads = [table for table in evidence.domain.derived if table.name == view.facts and source.name in table.inputs]
        if not reads and view.facts != source.name:
            continue
        end = partition_end(day)
        facts = evidence.stamped(view.facts, evidence.days, rows_on).drop("available_at")
        then = compute_view(view, evidence.facts(view.facts).drop("available_at"), end)
        differs = difference(then, compute_view(view, facts, end), keys=view.entity)
        if differs is not None:
            return f"and feature {differs.column} of view {view.name} ({differs.row}) tells: {differs.told}"
    return ""
