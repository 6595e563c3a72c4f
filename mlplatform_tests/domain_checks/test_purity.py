"""What the order of rows may change, and what it may not."""

from dataclasses import replace
from datetime import datetime

import polars as pl

from mlplatform.domain_checks.battery import run
from mlplatform.domain_checks.verdict import Finding
from mlplatform_tests.domain_checks.test_battery import evidence_of
from mlplatform_tests.fakes.odd_domains import invoices


def row_order_of(value: pl.Expr, *, sort: tuple[str, ...] = (), resolution: str = "1m") -> Finding:
    """The verdict on a view with such a feature of each customer, over facts whose clock ticks so coarsely."""

    def customers(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
        rows = facts.sort(sort, maintain_order=True) if sort else facts
        return rows.group_by("customer", maintain_order=True).agg(value.cast(pl.Float64).alias("mean_days"))

    domain = invoices()
    (view,), (source,) = domain.views, domain.sources

    def base(landed: pl.DataFrame) -> pl.DataFrame:
        return source.base(landed).with_columns(pl.col("event_time").dt.truncate(resolution))

    changed = replace(domain, sources=(replace(source, base=base),), views=(replace(view, function=customers),))
    (finding,) = run(evidence_of(changed), ["row order"])
    return finding


def test_the_rounding_of_a_sum_is_forgiven() -> None:
    """Fractions added in another order differ in their last digits."""
    assert row_order_of((pl.col("days") / 3).cum_sum().last()).verdict == "passed"


def test_the_last_of_unsorted_rows_is_not() -> None:
    """Facts are handed over by time, and a function that relies on it must say so by sorting."""
    finding = row_order_of(pl.col("days").last())
    assert finding.verdict == "failed"
    assert "Sort inside the function" in finding.faults[0].told
    assert row_order_of(pl.col("days").last(), sort=("event_time",)).verdict == "passed"


def test_facts_of_the_same_instant_may_trade_places_and_it_is_told() -> None:
    """Which of two facts of one instant is the last is settled by the table's own order: a note, and no fault."""
    finding = row_order_of(pl.col("days").last(), sort=("event_time",), resolution="12h")
    assert finding.verdict == "passed"
    assert finding.told.endswith("only facts of the same instant trade places in view customers")
    assert row_order_of(pl.col("days").last(), resolution="12h").verdict == "failed"
