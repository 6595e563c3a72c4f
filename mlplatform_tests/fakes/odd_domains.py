"""Domains unlike the ones that ship, and right: what the battery must not hold against a stranger.

Each is small, made up, and honest; each has something that a careless check would take for a fault.
"""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from math import exp
from typing import Any

import polars as pl

from mlplatform.domain.column import Column, Contract
from mlplatform.domain.domain import Domain, Requests
from mlplatform.domain.model import Gate, Label, ModelSpec, Objectives, Split, Task
from mlplatform.domain.source import Derived, Sample, Source
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.view import Feature, FeatureView, FittedValue, OnDemand

instant = pl.Datetime("us", "UTC")
DAY = timedelta(days=1)
START = date(2024, 3, 1)
small = Threshold(value=10, reason="the data is small and made up")


def column(name: str, dtype: pl.DataType, *, nullable: bool = False, **more: Any) -> Column:
    """A column that means what its name says."""
    return Column(name=name, dtype=dtype, meaning=name, nullable=nullable, **more)


def model(name: str, task: Task, label: Callable[[], pl.Expr], **more: Any) -> ModelSpec:
    """A model with the least that must be declared."""
    classes = more.pop("classes", ())
    usual: dict[str, Any] = {
        "views": (),
        "simple_features": (),
        "rules": lambda _request: None,
        "decision": Threshold(value=0.5, reason="both mistakes cost the same") if task == "binary" else None,
    }
    return ModelSpec(
        name=name,
        meaning=name,
        task=task,
        label=Label(name=name, meaning=name, value=label, delay=DAY, classes=classes),
        split=Split(warm_up=DAY, calibration=DAY, evaluation=DAY),
        gate=Gate(
            metric="mae" if task == "regression" else "log_loss", min_rows=small, margin=small, segment_margin=small
        ),
        objectives=Objectives(p99_ms=small, rows_per_second=small),
        **{**usual, **more},
    )


def midnight(day: date) -> datetime:
    """The instant at which a day begins."""
    return datetime.combine(day, time(), UTC)


def chance_of(day: date) -> random.Random:
    """Random numbers of a day."""
    return random.Random(f"odd {day.isoformat()}")


def sample_of(days: int, send: Callable[[str, date], pl.DataFrame]) -> Sample:
    """A sample of so many days."""
    return Sample(start=START, end=START + (days - 1) * DAY, demo_days=days, read=send)


def kiosk() -> Domain:
    """Regression from the request alone, no view, no key beyond the receipt, six rows a day, and six days."""
    columns = (
        column("receipt", pl.Int64()),
        column("weather", pl.String(), nullable=True),
        column("discount", pl.Boolean(), nullable=True),
        column("opened_at", instant),
    )

    def send(_source: str, day: date) -> pl.DataFrame:
        chance = chance_of(day)
        rows = [
            (
                day.toordinal() * 100 + number,
                chance.choice([None, "sun", "rain"]),
                chance.choice([None, True, False]),
                midnight(day) + timedelta(hours=number),
                round(chance.uniform(1, 30), 2),
            )
            for number in range(6)
        ]
        names = [*(each.name for each in columns), "amount"]
        types = [*(each.dtype for each in columns), pl.Float64()]
        return pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")

    def of_sale(requests: pl.DataFrame) -> pl.DataFrame:
        return requests.select(hour=pl.col("opened_at").dt.hour().cast(pl.Int8), discounted=pl.col("discount"))

    facts = (*columns, column("amount", pl.Float64()))
    return Domain(
        name="kiosk",
        meaning="What will a customer spend?",
        owners=("team:kiosk",),
        start=START,
        sources=(
            Source(
                name="sales",
                meaning="Receipts",
                contract=Contract(columns=facts, unique=("receipt",)),
                base=lambda landed: landed.with_columns(event_time=pl.col("opened_at") + timedelta(minutes=5)),
                base_columns=facts,
            ),
        ),
        on_demand=(
            OnDemand(
                name="sale",
                meaning="What is known at the counter",
                features=(
                    Feature(name="hour", dtype=pl.Int8(), meaning="hour"),
                    Feature(name="discounted", dtype=pl.Boolean(), meaning="discounted"),
                ),
                function=of_sale,
            ),
        ),
        requests=Requests(
            columns=columns,
            facts="sales",
            of_facts=lambda facts: facts.with_columns(at=pl.col("opened_at")),
            identity=("receipt",),
            example={"receipt": 1, "weather": None, "discount": True, "opened_at": "2024-03-10T09:00:00+01:00"},
        ),
        models=(
            model("amount", "regression", lambda: pl.col("amount"), on_demand=("sale",), simple_features=("hour",)),
        ),
        sample=sample_of(6, send),
    )


def invoices() -> Domain:
    """The due date decides the outcome together with the payment, is far in the future, and is asked with."""
    columns = (
        column("invoice", pl.Int64()),
        column("customer", pl.String()),
        column("issued_at", instant),
        column("due_at", instant),
    )
    landed_columns = (*columns, column("paid_at", instant))

    def send(_source: str, day: date) -> pl.DataFrame:
        chance = chance_of(day)
        rows = []
        for number in range(80):
            paid = midnight(day) + timedelta(minutes=chance.randrange(1440))
            customer = chance.randrange(12)
            # Slow customers pay later than they were given time to.
            took = max(1.0, chance.gauss(8.0 + customer, 6.0))
            issued = paid - timedelta(days=took)
            due = issued + timedelta(days=chance.choice([7, 14, 14, 14, 30]))
            rows.append((day.toordinal() * 1000 + number, f"customer {customer}", issued, due, paid))
        return pl.DataFrame(rows, schema=Contract(columns=landed_columns).schema, orient="row")

    def base(landed: pl.DataFrame) -> pl.DataFrame:
        late = pl.col("paid_at") > pl.col("due_at")
        return landed.select(
            *(each.name for each in columns),
            late=late,
            days=(pl.col("paid_at") - pl.col("issued_at")).dt.total_minutes() / 1440,
            event_time=pl.col("paid_at"),
        )

    def customers(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
        # A mean of fractions, as most would write it.
        return facts.group_by("customer").agg(pl.col("days").mean().alias("mean_days"))

    def terms(requests: pl.DataFrame) -> pl.DataFrame:
        return requests.select(term=(pl.col("due_at") - pl.col("issued_at")).dt.total_days().cast(pl.Int32))

    facts = (*columns, column("late", pl.Boolean()), column("days", pl.Float64()))
    read: dict[str, Any] = {"views": ("customers",), "on_demand": ("terms",), "simple_features": ("term",)}
    return Domain(
        name="invoices",
        meaning="Will an invoice be paid late, and after how many days?",
        owners=("team:books",),
        start=START,
        sources=(
            Source(
                name="payments",
                meaning="Paid invoices",
                contract=Contract(columns=landed_columns, unique=("invoice",)),
                base=base,
                base_columns=facts,
            ),
        ),
        views=(
            FeatureView(
                name="customers",
                meaning="How fast a customer pays",
                facts="payments",
                entity=("customer",),
                features=(Feature(name="mean_days", dtype=pl.Float64(), meaning="mean days"),),
                look_back=10 * DAY,
                ttl=3 * DAY,
                function=customers,
            ),
        ),
        on_demand=(
            OnDemand(
                name="terms",
                meaning="Days until it is due",
                features=(Feature(name="term", dtype=pl.Int32(), meaning="term"),),
                function=terms,
            ),
        ),
        requests=Requests(
            columns=columns,
            facts="payments",
            of_facts=lambda facts: facts.with_columns(at=pl.col("issued_at")),
            identity=("invoice",),
            example={
                "invoice": 1,
                "customer": "customer 3",
                "issued_at": "2024-03-20T10:00:00Z",
                "due_at": "2024-04-03T10:00:00Z",
            },
        ),
        models=(
            model("late", "binary", lambda: pl.col("late"), **read),
            model("days", "regression", lambda: pl.col("days"), **read),
        ),
        sample=sample_of(50, send),
    )


def meters() -> Domain:
    """Two sources, one silent on most days, and a text among the view features.

    Yesterday foretells today all but perfectly, and honestly: a factory needs a thousand times what a flat does.
    """
    reading_columns = (
        column("meter", pl.Int32()),
        column("day", pl.Date()),
        column("kwh", pl.Float64(), minimum=0),
        column("read_at", instant),
    )
    register_columns = (column("meter", pl.Int32()), column("tariff", pl.String()), column("entered_at", instant))

    def send(source: str, day: date) -> pl.DataFrame:
        chance = chance_of(day)
        if source == "register":
            rows: list[tuple[Any, ...]] = [
                (number, f"tariff {number % 3}", midnight(day)) for number in range(40) if day == START
            ]
            return pl.DataFrame(rows, schema=Contract(columns=register_columns).schema, orient="row")
        rows = [
            (number, day, exp(number / 6) * chance.uniform(0.9, 1.1), midnight(day) + timedelta(hours=23))
            for number in range(40)
        ]
        return pl.DataFrame(rows, schema=Contract(columns=reading_columns).schema, orient="row")

    def last(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
        newest = facts.sort("event_time", "meter").group_by("meter", maintain_order=True).last()
        return newest.select("meter", "event_time", last_kwh="kwh")

    def entries(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
        newest = facts.sort("event_time", "meter").unique("meter", keep="last", maintain_order=True)
        return newest.select("meter", tariff_text="tariff")

    def fit(rows: pl.DataFrame) -> Any:
        return sorted(rows["tariff_text"].drop_nulls().unique())

    def apply(rows: pl.DataFrame, known: Any) -> pl.DataFrame:
        codes = {tariff: float(code) for code, tariff in enumerate(known)}
        coded = pl.col("tariff_text").replace_strict(codes, default=None, return_dtype=pl.Float64)
        return rows.select(tariff_code=coded)

    def readings(base: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        return base["readings"].select("meter", "day", "kwh", "event_time")

    facts = (column("meter", pl.Int32()), column("day", pl.Date()), column("kwh", pl.Float64()))
    return Domain(
        name="meters",
        meaning="How much energy will a meter count today?",
        owners=("team:grid",),
        start=START,
        sources=(
            Source(
                name="readings",
                meaning="Daily readings",
                contract=Contract(columns=reading_columns, unique=("meter", "day")),
                base=lambda landed: landed.select("meter", "day", "kwh", event_time=pl.col("read_at")),
                base_columns=facts,
            ),
            Source(
                name="register",
                meaning="Tariffs",
                contract=Contract(columns=register_columns, unique=("meter",)),
                base=lambda landed: landed.select("meter", "tariff", event_time=pl.col("entered_at")),
                base_columns=(column("meter", pl.Int32()), column("tariff", pl.String())),
            ),
        ),
        derived=(Derived(name="days", meaning="Days", inputs=("readings",), function=readings, columns=facts),),
        views=(
            FeatureView(
                name="last",
                meaning="Last reading",
                facts="days",
                entity=("meter",),
                features=(Feature(name="last_kwh", dtype=pl.Float64(), meaning="kwh"),),
                look_back=2 * DAY,
                ttl=3 * DAY,
                function=last,
            ),
            FeatureView(
                name="tariffs",
                meaning="Tariff",
                facts="register",
                entity=("meter",),
                features=(Feature(name="tariff_text", dtype=pl.String(), meaning="tariff"),),
                look_back=400 * DAY,
                ttl=400 * DAY,
                function=entries,
            ),
        ),
        fitted=(
            FittedValue(
                name="tariff_codes",
                meaning="Code of each tariff",
                features=(Feature(name="tariff_code", dtype=pl.Float64(), meaning="code"),),
                fit=fit,
                apply=apply,
            ),
        ),
        requests=Requests(
            columns=(column("meter", pl.Int32()), column("day", pl.Date())),
            facts="days",
            of_facts=lambda facts: facts.select(
                "meter",
                "day",
                at=pl.col("day").cast(instant.base_type()("us")).dt.replace_time_zone("UTC") + 6 * DAY / 24,
            ),
            identity=("meter", "day"),
            example={"meter": 3, "day": "2024-04-01"},
        ),
        models=(
            model(
                "kwh",
                "regression",
                lambda: pl.col("kwh"),
                views=("last", "tariffs"),
                fitted=("tariff_codes",),
                simple_features=("last_kwh",),
            ),
        ),
        sample=sample_of(40, send),
    )


def tickets() -> Domain:
    """Four classes, two keys, nulls everywhere, facts that were never asked about, and some that have no label."""
    columns = (
        column("ticket", pl.Int64()),
        column("team", pl.String(), nullable=True),
        column("product", pl.String(), nullable=True),
        column("urgent", pl.Boolean(), nullable=True),
        column("words", pl.Int32(), nullable=True, minimum=0),
        column("opened_at", instant, nullable=True),
    )
    landed_columns = (*columns, column("closed_at", instant), column("outcome", pl.String(), nullable=True))
    classes = ("solved", "forwarded", "refused", "forgotten")

    def send(_source: str, day: date) -> pl.DataFrame:
        chance = chance_of(day)

        def perhaps(value: Any) -> Any:
            return value if chance.random() < 0.7 else None

        rows = []
        for number in range(70):
            closed = midnight(day) + timedelta(minutes=chance.randrange(1440))
            urgent, words = chance.random() < 0.3, chance.randrange(300)
            outcome = chance.choices(classes, weights=[4, 3 if urgent else 1, words / 100, 1])[0]
            rows.append(
                (
                    day.toordinal() * 1000 + number,
                    perhaps(chance.choice("abc")),
                    perhaps(chance.choice("xyz")),
                    perhaps(urgent),
                    perhaps(words),
                    perhaps(closed - timedelta(hours=chance.uniform(1, 60))),
                    closed,
                    perhaps(outcome),
                )
            )
        return pl.DataFrame(rows, schema=Contract(columns=landed_columns).schema, orient="row")

    def pairs(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
        known = facts.drop_nulls(["team", "product"])
        solved = (pl.col("outcome") == "solved").sum()
        return known.group_by("team", "product").agg((solved / pl.len()).cast(pl.Float32).alias("solved_share"))

    def of_ticket(requests: pl.DataFrame) -> pl.DataFrame:
        return requests.select(is_urgent="urgent", length=pl.col("words").cast(pl.Float64))

    def label() -> pl.Expr:
        codes = {name: float(number) for number, name in enumerate(classes)}
        return pl.col("outcome").replace_strict(codes, default=None, return_dtype=pl.Float64)

    facts = (*columns, column("outcome", pl.String(), nullable=True))
    return Domain(
        name="tickets",
        meaning="What becomes of a ticket?",
        owners=("team:desk",),
        start=START,
        sources=(
            Source(
                name="closed",
                meaning="Closed tickets",
                contract=Contract(columns=landed_columns, unique=("ticket",)),
                base=lambda landed: landed.rename({"closed_at": "event_time"}),
                base_columns=facts,
            ),
        ),
        views=(
            FeatureView(
                name="pairs",
                meaning="How a team does with a product",
                facts="closed",
                entity=("team", "product"),
                features=(Feature(name="solved_share", dtype=pl.Float32(), meaning="share"),),
                look_back=7 * DAY,
                ttl=2 * DAY,
                function=pairs,
            ),
        ),
        on_demand=(
            OnDemand(
                name="ticket",
                meaning="The ticket itself",
                features=(
                    Feature(name="is_urgent", dtype=pl.Boolean(), meaning="urgent"),
                    Feature(name="length", dtype=pl.Float64(), meaning="words"),
                ),
                function=of_ticket,
            ),
        ),
        requests=Requests(
            columns=columns,
            facts="closed",
            of_facts=lambda facts: facts.with_columns(at=pl.col("opened_at")),
            identity=("ticket",),
            example={"ticket": 1, "urgent": True},
        ),
        models=(
            model(
                "outcome",
                "multiclass",
                label,
                classes=classes,
                views=("pairs",),
                on_demand=("ticket",),
                simple_features=("length",),
            ),
        ),
        sample=sample_of(40, send),
    )


ODD_DOMAINS = (kiosk, invoices, meters, tickets)
