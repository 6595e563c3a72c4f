"""How a declared view is computed, and how the inputs of a model are put together."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.view import Feature, FeatureView
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DeclarationError
from mlplatform.features.version import view_version
from mlplatform.features.view import (
    compute_view,
    feature_names,
    fit_values,
    look_back_days,
    model_inputs,
    view_feature_names,
)

COURIER, DISTRICT = DOMAIN.views
MODEL = DOMAIN.model("late_order")
AT = datetime(2024, 1, 4, tzinfo=UTC)
FACTS = pl.concat(
    DOMAIN.derived[0].function({"orders": DOMAIN.sources[0].base(rows(date(2024, 1, day), rows_per_day=40))})
    for day in (1, 2, 3, 4)
)


@settings(max_examples=20)
@given(st.permutations(range(FACTS.height)))
def test_the_order_of_the_facts_is_not_seen(order: list[int]) -> None:
    """Whatever order the rows come in, every view gives the same values to the bit, sorted by key."""
    for view in DOMAIN.views:
        assert compute_view(view, FACTS[order], AT).equals(compute_view(view, FACTS, AT))


def test_a_window_is_half_open() -> None:
    """The instant it begins at is in it, the one it ends at is not; a caller's other rows are left out."""
    one = FACTS.filter(pl.col("courier") == "c1").head(1)
    instants = [AT - timedelta(days=3, microseconds=1), AT - timedelta(days=3), AT - timedelta(microseconds=1), AT]
    facts = pl.concat([one] * 4).with_columns(event_time=pl.Series(instants, dtype=one["event_time"].dtype))
    assert compute_view(COURIER, facts, AT)["courier_deliveries_3d"].to_list() == [2]


def test_the_end_of_the_window_counts_as_event_time_unless_the_view_says_otherwise() -> None:
    """A courier's values are as of the end; a district's as of its last delivery."""
    assert compute_view(COURIER, FACTS, AT)["event_time"].unique().to_list() == [AT]
    times = compute_view(DISTRICT, FACTS, AT)["event_time"]
    assert times.max() == FACTS.filter(pl.col("event_time") < AT)["event_time"].max()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda frame: frame.drop("courier_late_share_3d"), "courier_late_share_3d: missing instead of Float32"),
        (
            lambda frame: frame.with_columns(pl.col("courier_late_share_3d").cast(pl.Float64)),
            "Float64 instead of Float32",
        ),
        (lambda frame: frame.with_columns(mood=1), "mood: not declared"),
        (lambda frame: pl.concat([frame, frame]), "gives an entity twice. Group by courier"),
    ],
)
def test_a_view_gives_what_it_declares(spoil: Callable[[pl.DataFrame], pl.DataFrame], told: str) -> None:
    """A column too few or too many, another type, an entity twice: refused, and named."""
    view: FeatureView = replace(COURIER, function=lambda facts, at: spoil(COURIER.function(facts, at)))
    with pytest.raises(DeclarationError, match=told):
        compute_view(view, FACTS, AT)


def test_a_value_of_a_time_to_come_is_refused() -> None:
    """The end of the window is the last instant a value may be of: a historical read would miss a later one."""

    def ahead(by: timedelta) -> FeatureView:
        return replace(
            COURIER,
            function=lambda facts, at: COURIER.function(facts, at).with_columns(
                event_time=pl.lit(at + by, dtype=pl.Datetime("us", "UTC"))
            ),
        )

    assert compute_view(ahead(timedelta(0)), FACTS, AT).height
    with pytest.raises(DeclarationError, match=r"view courier gives the event time 2024-01-04T00:00:00\.000001"):
        compute_view(ahead(timedelta(microseconds=1)), FACTS, AT)


@pytest.mark.parametrize(("hours", "days"), [(1, 1), (24, 1), (25, 2), (72, 3)])
def test_a_window_touches_whole_days(hours: int, days: int) -> None:
    """A look-back that is not whole days needs the day that it begins on."""
    assert look_back_days(replace(COURIER, look_back=timedelta(hours=hours))) == days


def requests_of(facts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests of some facts, and made-up view values."""
    requests = DOMAIN.requests.of_facts(facts)
    features = [*COURIER.features, *DISTRICT.features]
    return requests, pl.DataFrame({each.name: pl.Series(range(facts.height)).cast(each.dtype) for each in features})


def test_inputs_stand_in_declared_order() -> None:
    """View features, then those of the request, then fitted values; one row per request, in its place."""
    requests, values = requests_of(FACTS)
    fitted = fit_values(DOMAIN, MODEL, requests, values)
    inputs = model_inputs(
        DOMAIN, MODEL, requests, values.select(pl.all().reverse()).select(values.columns[::-1]), fitted
    )
    assert tuple(inputs.columns) == feature_names(DOMAIN, MODEL)
    assert (
        feature_names(DOMAIN, MODEL)[: len(values.columns)]
        == view_feature_names(DOMAIN, MODEL)
        == tuple(values.columns)
    )
    assert feature_names(DOMAIN, MODEL)[-1] == "courier_code"
    assert inputs["order_items"].to_list() == FACTS["items"].to_list()
    assert inputs["courier_deliveries_3d"].to_list() == list(range(FACTS.height))[::-1]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """A batch gives each row what it gets alone: the code of serving is that of training."""
    requests, values = requests_of(FACTS.head(12))
    fitted = fit_values(DOMAIN, MODEL, requests, values)
    batch = model_inputs(DOMAIN, MODEL, requests, values, fitted)
    alone = [model_inputs(DOMAIN, MODEL, requests[[row]], values[[row]], fitted) for row in range(12)]
    assert pl.concat(alone).equals(batch)


def test_an_unseen_category_is_null() -> None:
    """A courier that was not in the training rows has no code, not the code of another."""
    requests, values = requests_of(FACTS.head(5))
    inputs = model_inputs(DOMAIN, MODEL, requests, values, {"courier_codes": []})
    assert inputs["courier_code"].to_list() == [None] * 5


def test_text_is_looked_up_but_is_no_input() -> None:
    """A text feature reaches a model only through a fitted value."""
    told = replace(DISTRICT, features=(*DISTRICT.features, Feature(name="note", dtype=pl.String(), meaning="a word")))
    domain = replace(DOMAIN, views=(COURIER, told))
    assert "note" in view_feature_names(domain, MODEL)
    assert "note" not in feature_names(domain, MODEL)


@pytest.mark.parametrize("height", [0, 1])
def test_on_demand_features_are_one_row_per_request(height: int) -> None:
    """A function that gives fewer rows than it was asked for is refused."""
    requests, values = requests_of(FACTS.head(2))
    short = replace(DOMAIN.on_demand[0], function=lambda frame: DOMAIN.on_demand[0].function(frame).head(height))
    with pytest.raises(DeclarationError, match=f"gives {height} rows for 2 requests"):
        model_inputs(replace(DOMAIN, on_demand=(short,)), MODEL, requests, values, {"courier_codes": []})


def test_a_view_version_is_of_what_a_reader_relies_on() -> None:
    """Code, time to live and publishing schedule make another version; the same declaration does not."""
    version = view_version(DOMAIN, COURIER)
    assert view_version(DOMAIN, replace(COURIER)) == version
    others = [
        view_version(DOMAIN, replace(COURIER, ttl=timedelta(days=3))),
        view_version(DOMAIN, replace(COURIER, function=DISTRICT.function)),
        view_version(replace(DOMAIN, publishing_delay=timedelta(hours=2)), COURIER),
        view_version(DOMAIN, DISTRICT),
    ]
    assert len({version, *others}) == 5
