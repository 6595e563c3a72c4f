"""Twins of the synthetic domain, each with one fault that the battery must name, and odd domains that are right.

A twin is the real domain with one part replaced; nothing else of it is touched.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.view import Feature, OnDemand
from mlplatform.domains.synthetic import DOMAIN

instant = pl.Datetime("us", "UTC")
Rows = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A broken domain, and how the battery must tell of it."""

    name: str
    domain: Domain
    check: str
    """The check that is meant for the fault."""

    what: str
    """In the part that is named."""

    where: str
    """In the place that is named: the column, row or day."""


def with_base(change: Rows, *columns: Column) -> Domain:
    """The domain with something done to its base rows, and perhaps further columns of its facts."""
    (source,), (table,) = DOMAIN.sources, DOMAIN.derived
    base = source.base
    changed = replace(source, base=lambda landed: change(base(landed)), base_columns=(*source.base_columns, *columns))
    return replace(DOMAIN, sources=(changed,), derived=(replace(table, columns=(*table.columns, *columns)),))


def with_landed_base(read: Rows, *columns: Column) -> Domain:
    """The domain with further columns of its facts, read off the landed row beside it."""
    (source,), (table,) = DOMAIN.sources, DOMAIN.derived
    base = source.base

    def read_too(landed: pl.DataFrame) -> pl.DataFrame:
        return base(landed).hstack(read(landed))

    changed = replace(source, base=read_too, base_columns=(*source.base_columns, *columns))
    return replace(DOMAIN, sources=(changed,), derived=(replace(table, columns=(*table.columns, *columns)),))


def with_of_facts(of_facts: Rows, *columns: Column, domain: Domain = DOMAIN) -> Domain:
    """The domain with other requests, and perhaps further columns in them."""
    usual: dict[pl.DataType, Any] = {pl.Float64(): 1.0, pl.Int32(): 1}
    example = {**domain.requests.example, **{column.name: usual[column.dtype] for column in columns}}
    asked = replace(domain.requests, of_facts=of_facts, columns=(*domain.requests.columns, *columns), example=example)
    return replace(domain, requests=asked)


def with_view(function: Callable[[pl.DataFrame, datetime], pl.DataFrame]) -> Domain:
    """The domain with another function for its first view; same name, same features."""
    first, *others = DOMAIN.views
    return replace(DOMAIN, views=(replace(first, function=function), *others))


def with_on_demand(function: Rows, *, domain: Domain = DOMAIN, dtype: pl.DataType | None = None) -> Domain:
    """The domain with one more on-demand feature, `more`, in every model."""
    feature = Feature(name="more", dtype=dtype or pl.Float32(), meaning="for tests")
    more = OnDemand(name="more", meaning="for tests", features=(feature,), function=function)
    models = tuple(replace(model, on_demand=(*model.on_demand, "more")) for model in domain.models)
    return replace(domain, on_demand=(*domain.on_demand, more), models=models)


def with_fitted(fit: Callable[[pl.DataFrame], Any], apply: Callable[[pl.DataFrame, Any], pl.DataFrame]) -> Domain:
    """The domain with other functions for its fitted value."""
    (value,) = DOMAIN.fitted
    return replace(DOMAIN, fitted=(replace(value, fit=fit, apply=apply),))


def with_rules(rules: Callable[[Mapping[str, Any]], Any]) -> Domain:
    """The domain with other rules for its binary model."""
    return with_model(rules=rules)


def with_model(**changed: Any) -> Domain:
    """The domain with something else in its first model."""
    first, *others = DOMAIN.models
    return replace(DOMAIN, models=(replace(first, **changed), *others))


# Views.

view, other_view = DOMAIN.views[:2]
number_of_call = count()
seen: list[pl.DataFrame] = []


def view_that_writes_into_its_input(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Adds a column to the very frame it is given."""
    facts.insert_column(0, pl.lit(1).alias("one"))
    return view.function(facts, at)


def view_of_the_first_row(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Takes whatever row comes first."""
    first = facts.group_by("courier", maintain_order=True).agg(pl.col("minutes").first().cast(pl.Float32).alias("m"))
    return view.function(facts, at).join(first, on="courier").with_columns(courier_mean_minutes_3d="m").drop("m")


def view_that_remembers(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Computes from every fact it has ever been given."""
    seen.append(facts)
    whole = pl.concat(seen).unique("order_id").sort("order_id")
    return view.function(whole, at)


def view_that_counts_calls(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Gives something else at each call."""
    number = pl.lit(next(number_of_call), dtype=pl.Int32)
    return view.function(facts, at).with_columns(courier_deliveries_3d=number)


def view_dated_tomorrow(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Says that its values are of the day after."""
    return view.function(facts, at).with_columns(event_time=pl.lit(at + timedelta(days=1), dtype=instant))


def view_that_raises(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Expects a column that is not there."""
    return view.function(facts.rename({"couriers": "courier"}), at)


def view_of_something_else(_facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Gives values without looking at a fact."""
    return pl.DataFrame(
        {
            "courier": [f"c{number}" for number in range(1, 9)],
            "courier_deliveries_3d": [1] * 8,
            "courier_late_share_3d": [0.5] * 8,
            "courier_mean_minutes_3d": [float(at.day)] * 8,
        },
        schema={each: view_types[each] for each in ("courier", *view_types) if each in view_types},
    )


view_types = {"courier": pl.String(), **{feature.name: feature.dtype for feature in view.features}}


# On-demand features.


def more(value: pl.Expr) -> Rows:
    """An on-demand feature by an expression."""
    return lambda requests: requests.select(more=value.cast(pl.Float32))


def local_hour(requests: pl.DataFrame) -> pl.DataFrame:
    """Reads the clock on the wall of whatever machine it runs on."""
    hours = [datetime.fromtimestamp(each.timestamp()).hour for each in requests["ordered_at"]]  # noqa: DTZ006 - the fault
    return pl.DataFrame({"more": hours}, schema={"more": pl.Float32()})


def days_ago(requests: pl.DataFrame) -> pl.DataFrame:
    """Counts from the day on which it runs."""
    return requests.select(
        more=(pl.lit(datetime.now(UTC).date()) - pl.col("ordered_at").dt.date()).dt.total_days().cast(pl.Float32)
    )


def fourth_column(requests: pl.DataFrame) -> pl.DataFrame:
    """Takes a column by its place."""
    return requests.select(more=requests.to_series(3).hash().cast(pl.Float32))


def with_history() -> Domain:
    """An on-demand feature from a table of all orders, whenever they were."""
    sample = DOMAIN.sample
    assert sample is not None
    (source,), (table,) = DOMAIN.sources, DOMAIN.derived
    days = [sample.start + timedelta(days=number) for number in range(8)]
    landed = pl.concat([sample.read(source.name, day) for day in days])
    history = table.function({source.name: source.base(landed)})

    def of_history(requests: pl.DataFrame) -> pl.DataFrame:
        means = history.group_by("courier").agg(pl.col("minutes").mean().cast(pl.Float32).alias("more"))
        return requests.join(means, on="courier", how="left", maintain_order="left").select("more")

    return with_on_demand(of_history)


# Requests.

day_mean = Column(name="day_mean", dtype=pl.Float64(), meaning="for tests")
share_so_far = Column(name="share_so_far", dtype=pl.Float64(), meaning="for tests")
door_minute = Column(name="door_minute", dtype=pl.Int32(), meaning="for tests")
minutes_asked = Column(name="minutes_asked", dtype=pl.Int32(), meaning="for tests")
complaint = Column(name="complaint", dtype=pl.Int32(), meaning="for tests")


def asked_with(column: str, value: pl.Expr) -> Rows:
    """`of_facts` with one more column."""
    of_facts = DOMAIN.requests.of_facts
    return lambda facts: of_facts(facts).hstack(facts.select(value.alias(column)))


def asked_after_the_outcome(facts: pl.DataFrame) -> pl.DataFrame:
    """Takes the report of the outcome for the request."""
    return DOMAIN.requests.of_facts(facts).with_columns(at=facts["event_time"] + timedelta(minutes=1))


def of_facts_with_some_lost(facts: pl.DataFrame) -> pl.DataFrame:
    """Drops facts instead of marking them."""
    return DOMAIN.requests.of_facts(facts.filter(pl.col("items") > 1))


def reported_again(base: pl.DataFrame) -> pl.DataFrame:
    """Each order once more half an hour later, with other items."""
    half_an_hour = timedelta(minutes=30)
    again = base.with_columns(pl.col("items") + 1, pl.col("event_time") + half_an_hour)
    return pl.concat([base, again])


# Fitted values.

(fitted_value,) = DOMAIN.fitted
seen_in_fit: set[str] = set()


def fit_that_remembers(rows: pl.DataFrame) -> Any:
    """Learns from everything it was ever shown."""
    seen_in_fit.update(rows["courier"].drop_nulls())
    return sorted(seen_in_fit)


def apply_that_refits(rows: pl.DataFrame, _learned: Any) -> pl.DataFrame:
    """Learns the codes anew from the rows it is to code."""
    return fitted_value.apply(rows, fitted_value.fit(rows))


def codes_by_number(rows: pl.DataFrame) -> Any:
    """Numbers as keys, which JSON turns into texts."""
    return dict(enumerate(fitted_value.fit(rows)))


def apply_codes_by_number(rows: pl.DataFrame, learned: Any) -> pl.DataFrame:
    """Works as long as the keys are numbers."""
    codes = {courier: number for number, courier in learned.items() if isinstance(number, int)}
    coded = pl.col("courier").replace_strict(codes, default=None, return_dtype=pl.Int32)
    return rows.select(courier_code=coded)


def apply_without_default(rows: pl.DataFrame, learned: Any) -> pl.DataFrame:
    """Knows only what it has learned."""
    codes = {courier: number for number, courier in enumerate(learned)}
    return rows.select(courier_code=pl.col("courier").replace_strict(codes, return_dtype=pl.Int32))


# Contracts.


def without_key() -> Domain:
    """A row that lands twice is two facts."""
    (source,) = DOMAIN.sources
    return replace(DOMAIN, sources=(replace(source, contract=replace(source.contract, unique=())),))


def with_narrow_contract() -> Domain:
    """The sample's own rows break a rule."""
    (source,) = DOMAIN.sources
    narrow = tuple(
        replace(column, maximum=2) if column.name == "distance_km" else column for column in source.contract.columns
    )
    return replace(DOMAIN, sources=(replace(source, contract=replace(source.contract, columns=narrow)),))


def with_naive_column() -> Domain:
    """The facts hold a time of nobody knows which zone."""
    local = Column(name="ordered_local", dtype=pl.Datetime("us"), meaning="for tests")
    return with_base(
        lambda base: base.with_columns(ordered_local=pl.col("ordered_at").dt.replace_time_zone(None)), local
    )


def of_model(name: str) -> ModelSpec:
    """A model of the real domain."""
    return DOMAIN.model(name)


gate = DOMAIN.models[0].gate

TWINS = (
    Twin(name="refused sample", domain=with_narrow_contract(), check="sample", what="orders", where="2024-"),
    Twin(name="view that raises", domain=with_view(view_that_raises), check="sample", what=view.name, where="2024-"),
    Twin(
        name="impossible example",
        domain=replace(
            DOMAIN, requests=replace(DOMAIN.requests, example={**DOMAIN.requests.example, "distance_km": "far"})
        ),
        check="example request",
        what="example",
        where="distance_km",
    ),
    Twin(
        name="asked after the outcome",
        domain=with_of_facts(asked_after_the_outcome),
        check="requests of facts",
        what="requests of late_order",
        where="column at",
    ),
    Twin(
        name="facts lost",
        domain=with_of_facts(of_facts_with_some_lost),
        check="requests of facts",
        what="requests.of_facts",
        where="table deliveries",
    ),
    Twin(
        name="view that writes into its input",
        domain=with_view(view_that_writes_into_its_input),
        check="same twice",
        what=f"view {view.name}",
        where="column one",
    ),
    Twin(
        name="view that counts its calls",
        domain=with_view(view_that_counts_calls),
        check="same twice",
        what=f"view {view.name}",
        where="column courier_deliveries_3d",
    ),
    Twin(
        name="window that depends on the call",
        domain=with_view(view_that_counts_calls),
        check="windows",
        what=f"view {view.name}",
        where="column courier_deliveries_3d",
    ),
    Twin(
        name="clock on the shelf",
        domain=with_on_demand(days_ago),
        check="same twice",
        what="on-demand more",
        where="function days_ago",
    ),
    Twin(
        name="view of something else",
        domain=with_view(view_of_something_else),
        check="windows",
        what=f"view {view.name}",
        where="row courier=c1",
    ),
    Twin(
        name="view of the first row",
        domain=with_view(view_of_the_first_row),
        check="row order",
        what=f"view {view.name}",
        where="column courier_mean_minutes_3d",
    ),
    Twin(
        name="column by its place",
        domain=with_on_demand(fourth_column),
        check="column order",
        what="on-demand more",
        where="column more",
    ),
    Twin(
        name="normalised by the batch",
        domain=with_on_demand(more(pl.col("distance_km") - pl.col("distance_km").mean())),
        check="batch of one",
        what="on-demand more",
        where="column more, row order_id=",
    ),
    Twin(
        name="view that remembers",
        domain=with_view(view_that_remembers),
        check="nothing later",
        what=f"view {view.name}",
        where="column ",
    ),
    Twin(
        name="view dated tomorrow",
        domain=with_view(view_dated_tomorrow),
        check="nothing later",
        what="declaration or sample",
        where="see the reason",
    ),
    Twin(
        name="mean of the whole day in base",
        domain=with_of_facts(
            asked_with("day_mean", pl.col("day_mean")),
            day_mean,
            domain=with_base(
                lambda base: base.with_columns(day_mean=pl.col("minutes").mean().over("courier")), day_mean
            ),
        ),
        check="nothing later",
        what="base of orders",
        where="column day_mean",
    ),
    Twin(
        name="mean of all days in of_facts",
        domain=with_of_facts(asked_with("share_so_far", pl.col("late").mean().over("courier")), share_so_far),
        check="nothing later",
        what="requests.of_facts",
        where="column share_so_far",
    ),
    Twin(
        name="table of all orders in reach",
        domain=with_history(),
        check="nothing later",
        what="on-demand more",
        where="history",
    ),
    Twin(
        name="naive event time",
        domain=with_base(lambda base: base.with_columns(pl.col("event_time").dt.replace_time_zone(None))),
        check="time zones",
        what="base of orders",
        where="column event_time",
    ),
    Twin(
        name="naive column",
        domain=with_naive_column(),
        check="time zones",
        what="base of orders",
        where="column ordered_local",
    ),
    Twin(
        name="clock on the machine's wall",
        domain=with_on_demand(local_hour),
        check="time zones",
        what="on-demand more",
        where="column more",
    ),
    Twin(name="no key", domain=without_key(), check="duplicates", what="source orders", where="row "),
    Twin(
        name="fit that remembers",
        domain=with_fitted(fit_that_remembers, fitted_value.apply),
        check="fitted values",
        what="courier_codes",
        where="fit",
    ),
    Twin(
        name="apply that refits",
        domain=with_fitted(fitted_value.fit, apply_that_refits),
        check="fitted values",
        what="courier_codes",
        where="apply, column courier_code",
    ),
    Twin(
        name="keys that JSON changes",
        domain=with_fitted(codes_by_number, apply_codes_by_number),
        check="fitted values",
        what="courier_codes",
        where="apply, column courier_code",
    ),
    Twin(
        name="apply without a default",
        domain=with_fitted(fitted_value.fit, apply_without_default),
        check="fitted values",
        what="courier_codes",
        where="an unseen courier",
    ),
    Twin(
        name="outcome in an on-demand feature",
        domain=with_on_demand(
            more(pl.col("minutes_asked") * 3 + 1),
            domain=with_of_facts(asked_with("minutes_asked", pl.col("minutes")), minutes_asked),
        ),
        check="label among features",
        what="model late_order",
        where="feature more",
    ),
    Twin(
        name="column of the label in the request",
        domain=with_of_facts(asked_with("minutes_asked", pl.col("minutes") // 7), minutes_asked),
        check="written after",
        what="requests.of_facts",
        where="column minutes_asked",
    ),
    Twin(
        name="column written at the door",
        domain=with_of_facts(
            asked_with("door_minute", pl.col("door_minute")),
            door_minute,
            domain=with_landed_base(
                lambda landed: landed.select(door_minute=pl.col("delivered_at").dt.minute().cast(pl.Int32)), door_minute
            ),
        ),
        check="written after",
        what="requests.of_facts",
        where="column door_minute",
    ),
    Twin(
        name="column rewritten by the next report",
        domain=with_base(reported_again),
        check="written after",
        what="requests.of_facts",
        where="column items",
    ),
    Twin(
        name="half a copy of the outcome",
        domain=with_on_demand(
            more(pl.col("complaint")),
            domain=with_of_facts(
                asked_with("complaint", (pl.col("late") & (pl.col("order_id") % 3 == 0)).cast(pl.Int32)), complaint
            ),
        ),
        check="label shuffle",
        what="model late_order",
        where="feature more",
    ),
    Twin(
        name="rules that need a field",
        domain=with_rules(lambda request: 0.8 if request["distance_km"] else 0.2),
        check="fallback rules",
        what="rules of late_order",
        where="an empty request",
    ),
    Twin(
        name="rules that need a number",
        domain=with_rules(lambda request: 0.8 if request.get("distance_km", 0.0) > 5 else 0.2),
        check="fallback rules",
        what="rules of late_order",
        where="column distance_km = None",
    ),
    Twin(
        name="rules beyond a probability",
        domain=with_rules(
            lambda request: request["items"] / 6 if isinstance(request.get("items"), int) else None,
        ),
        check="fallback rules",
        what="rules of late_order",
        where="column items = 20",
    ),
    Twin(
        name="threshold without a reason",
        domain=with_model(gate=replace(gate, margin=Threshold(value=0.1, reason=" "))),
        check="reasons",
        what="model late_order",
        where="gate.margin",
    ),
    Twin(
        name="reason to be written",
        domain=with_model(decision=Threshold(value=0.5, reason="TODO: say why")),
        check="reasons",
        what="model late_order",
        where="decision",
    ),
)
