"""Every function of a domain that turns frames into frames, with inputs of the evidence."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from mlplatform.domain.source import Source
from mlplatform.domain.view import FeatureView, FittedValue
from mlplatform.domain_checks.case import Case, called
from mlplatform.domain_checks.evidence import Evidence, spread
from mlplatform.errors import CannotJudge
from mlplatform.features.tables import partition_end

most_rows_of_a_look = 4_000
"""Rows that a check of one function is made on."""


def all_cases(evidence: Evidence) -> list[Case]:
    """Every function of the domain that turns frames into frames, each with up to two inputs."""
    found = [*_base_cases(evidence), *_derived_cases(evidence), *_view_cases(evidence), _request_case(evidence)]
    return found + request_functions(evidence)


def two_days(evidence: Evidence, names: Sequence[str]) -> list[str]:
    """The two days on which the tables hold most rows, in order."""
    heights = {day: sum(evidence.validated[name][day].height for name in names) for day in evidence.days}
    return sorted(sorted(heights, key=lambda day: (-heights[day], day))[:2])


def _base_cases(evidence: Evidence) -> list[Case]:
    return [
        base_case(source, day, evidence.validated[source.name][day])
        for source in evidence.domain.sources
        for day in two_days(evidence, [source.name])
    ]


def _derived_cases(evidence: Evidence) -> list[Case]:
    return [
        Case(
            what=f"derived {table.name}",
            where=day,
            frames={name: rows.head(most_rows_of_a_look) for name, rows in evidence.inputs(table, day).items()},
            run=table.function,
            elementwise=False,
        )
        for table in evidence.domain.derived
        for day in two_days(evidence, table.inputs)
    ]


def _view_cases(evidence: Evidence) -> list[Case]:
    days = dict.fromkeys((evidence.days[len(evidence.days) // 2], evidence.days[-1]))
    return [_view_case(evidence, view, day) for view in evidence.domain.views for day in days]


def _view_case(evidence: Evidence, view: FeatureView, day: str) -> Case:
    end = partition_end(day)
    return Case(
        what=f"view {view.name}",
        where=day,
        frames={view.facts: window(evidence, view, end)},
        run=lambda frames: view.function(frames[view.facts], end),
        elementwise=False,
        keys=view.entity,
    )


def window(evidence: Evidence, view: FeatureView, end: datetime) -> pl.DataFrame:
    """Facts that a view sees at the end of a day."""
    return (
        evidence.facts(view.facts)
        .drop("available_at")
        .filter(pl.col("event_time") >= end - view.look_back, pl.col("event_time") < end)
    )


def _request_case(evidence: Evidence) -> Case:
    facts = evidence.facts(evidence.domain.requests.facts)
    return Case(
        what="requests.of_facts",
        where=evidence.span,
        frames={evidence.domain.requests.facts: spread(facts, most_rows_of_a_look)},
        run=lambda frames: evidence.domain.requests.of_facts(frames[evidence.domain.requests.facts]),
        elementwise=True,
        keys=evidence.domain.requests.identity,
    )


def request_functions(evidence: Evidence) -> list[Case]:
    """On-demand features, and fitted values as they are applied: functions of one request at a time."""
    found: dict[str, Case] = {}
    for model in evidence.domain.models:
        known = spread(evidence.asked(model).known, 500)
        for on_demand in evidence.domain.on_demand:
            what = f"on-demand {on_demand.name}"
            if on_demand.name in model.on_demand and what not in found:
                found[what] = _request_function(evidence, what, known, on_demand.function)
        for value in evidence.domain.fitted:
            what = f"apply of fitted value {value.name}"
            if value.name in model.fitted and what not in found:
                learned = learned_from(value.name, value.fit, evidence.asked(model).known)
                found[what] = _request_function(evidence, what, known, partial(_apply, value, learned))
    return list(found.values())


def _request_function(
    evidence: Evidence, what: str, known: pl.DataFrame, function: Callable[[pl.DataFrame], pl.DataFrame]
) -> Case:
    return Case(
        what=what,
        where=evidence.span,
        frames={"requests": known},
        run=lambda frames: function(frames["requests"]),
        elementwise=True,
        keys=evidence.domain.requests.identity,
    )


def base_case(source: Source, day: str, rows: pl.DataFrame) -> Case:
    """The base function of a source over some rows."""
    return Case(
        what=f"base of {source.name}",
        where=day,
        frames={source.name: rows.head(most_rows_of_a_look)},
        run=lambda frames: source.base(frames[source.name]),
        elementwise=False,
    )


def _apply(value: FittedValue, learned: Any, rows: pl.DataFrame) -> pl.DataFrame:
    return value.apply(rows, learned)


def learned_from(name: str, fit: Callable[[pl.DataFrame], Any], rows: pl.DataFrame) -> Any:
    """A fitted value as it comes back out of a bundle: through JSON."""
    try:
        return json.loads(json.dumps(called(f"fitted value {name}", "training rows", fit, rows)))
    except (TypeError, ValueError) as error:
        raise CannotJudge(f"what fitted value {name} learns is nothing that JSON holds ({error})") from error
