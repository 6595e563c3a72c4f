"""A domain that cannot work is refused when it is declared, with a message that names what to mend."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from mlplatform.domain.column import Column, Contract, Freshness
from mlplatform.domain.domain import Domain
from mlplatform.domain.rollout import Rollout, Step
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.view import ImportedView
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError

VIEW, MODEL, ON_DEMAND, FITTED = DOMAIN.views[0], DOMAIN.models[0], DOMAIN.on_demand[0], DOMAIN.fitted[0]
ORDERS, DELIVERIES = DOMAIN.sources[0], DOMAIN.derived[0]
COURIER = ImportedView(domain="fleet", name="vans", entity=("courier",), features=VIEW.features[:1], ttl=VIEW.ttl)

HOUR = timedelta(hours=1)

Change = Callable[[], Domain | Rollout]

REFUSED: dict[str, tuple[Change, str]] = {
    "a table twice": (
        lambda: replace(DOMAIN, derived=(replace(DELIVERIES, name="orders"),)),
        "source or derived table orders is declared twice",
    ),
    "a view twice": (
        lambda: replace(DOMAIN, views=(VIEW, replace(VIEW, features=()))),
        "view courier is declared twice",
    ),
    "a feature in two views": (
        lambda: replace(DOMAIN, views=(*DOMAIN.views, replace(VIEW, name="other"))),
        "courier_deliveries_3d, courier_late_share_3d, courier_mean_minutes_3d is declared twice",
    ),
    "a feature of a view and on demand": (
        lambda: replace(DOMAIN, on_demand=(replace(ON_DEMAND, features=VIEW.features[:1]),)),
        "courier_deliveries_3d is declared twice",
    ),
    "a feature of a view and of an imported one": (
        lambda: replace(DOMAIN, imported=(COURIER,), models=(replace(MODEL, views=("courier", "fleet/vans")),)),
        "model late_order would have courier_deliveries_3d twice",
    ),
    "a feature and a request column": (
        lambda: replace(DOMAIN, fitted=(replace(FITTED, features=(replace(FITTED.features[0], name="courier"),)),)),
        "feature or request column courier is declared twice",
    ),
    "a fitted value twice": (
        lambda: replace(DOMAIN, fitted=(FITTED, replace(FITTED, features=()))),
        "on-demand or fitted value courier_codes is declared twice",
    ),
    "a model twice": (lambda: replace(DOMAIN, models=(MODEL, MODEL)), "model late_order is declared twice"),
    "a view of unknown facts": (
        lambda: replace(DOMAIN, views=(replace(VIEW, facts="returns"),)),
        "no source of synthetic is called 'returns'; there is orders",
    ),
    "a view of an unknown key": (
        lambda: replace(DOMAIN, views=(replace(VIEW, entity=("courier", "van")),)),
        "view courier: deliveries has no column van",
    ),
    "requests from unknown facts": (
        lambda: replace(DOMAIN, requests=replace(DOMAIN.requests, facts="returns")),
        "'returns'",
    ),
    "a model of an unknown view": (
        lambda: replace(DOMAIN, models=(replace(MODEL, views=("weather",)),)),
        "no view of synthetic is called 'weather'; there is courier, district",
    ),
    "a model of a view that is not imported": (
        lambda: replace(DOMAIN, models=(replace(MODEL, views=("fleet/vans",)),)),
        "synthetic imports no view 'fleet/vans'. Add it to `imported`",
    ),
    "a view whose key no request has": (
        lambda: replace(
            DOMAIN, requests=replace(DOMAIN.requests, columns=DOMAIN.requests.columns[:1]), models=(MODEL,)
        ),
        "model late_order reads courier, but a request has no courier",
    ),
    "unknown on-demand features": (
        lambda: replace(DOMAIN, models=(replace(MODEL, on_demand=("weather",)),)),
        "no on-demand features of synthetic is called 'weather'",
    ),
    "an unknown fitted value": (
        lambda: replace(DOMAIN, models=(replace(MODEL, fitted=("weather",)),)),
        "no fitted value of synthetic is called 'weather'",
    ),
    "a binary model without a decision": (
        lambda: replace(DOMAIN, models=(replace(MODEL, decision=None),)),
        "a binary model needs `decision`",
    ),
    "two classes": (
        lambda: replace(
            DOMAIN,
            models=(replace(MODEL, task="multiclass", label=replace(MODEL.label, classes=("early", "late"))),),
        ),
        "a multiclass label names its classes, three or more",
    ),
    "an unknown simple feature": (
        lambda: replace(DOMAIN, models=(replace(MODEL, simple_features=("order_distance", "weather")),)),
        "model late_order has no feature weather for its simple model",
    ),
    "a segment of no request column": (
        lambda: replace(DOMAIN, models=(replace(MODEL, segments=(replace(MODEL.segments[0], column="van"),)),)),
        "model late_order: segment district reads van, which no request has",
    ),
    "a rollout that draws by no request column": (
        lambda: replace(DOMAIN, models=(replace(MODEL, rollout=Rollout(sticky="van")),)),
        "model late_order: its rollout draws by van, which no request has",
    ),
    "a rollout that draws by a time": (
        lambda: replace(DOMAIN, models=(replace(MODEL, rollout=Rollout(sticky="ordered_at")),)),
        "model late_order: its rollout draws by ordered_at, which is a time",
    ),
    "a rollout without steps": (lambda: Rollout(steps=()), "a rollout has one step or more"),
    "steps that go down": (
        lambda: Rollout(steps=(Step(share=0.5, bake=HOUR), Step(share=0.2, bake=HOUR))),
        "each of a larger share than the one before, from 0 to 1; not [0.5, 0.2]",
    ),
    "more than everybody": (lambda: Rollout(steps=(Step(share=1.5, bake=HOUR),)), "from 0 to 1; not [1.5]"),
    "a step that bakes for less than no time": (
        lambda: Rollout(steps=(Step(share=0.5, bake=-HOUR),)),
        "bakes for no time or longer",
    ),
    "a doubt that is none": (
        lambda: Rollout(doubt=Threshold(value=1.0, reason="any will do")),
        "a rollout's `doubt` is a probability between 0 and 1",
    ),
    "more exploration than a plan can say": (
        lambda: Rollout(exploration=Threshold(value=0.6, reason="to see more")),
        "a rollout's `exploration` is a share of requests, from 0 to 0.5; not 0.6",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_declaration_that_cannot_work_is_refused(fault: str) -> None:
    """Each fault is found when the domain is declared, and its message names it."""
    declare, told = REFUSED[fault]
    with pytest.raises(DeclarationError) as raised:
        declare()
    assert told in str(raised.value)


def test_a_domain_finds_what_it_declares() -> None:
    """By name: sources, models, views of its own and imported ones, columns of tables."""
    domain = replace(DOMAIN, imported=(COURIER,))
    assert domain.source("orders") is ORDERS
    assert domain.model("late_order") is MODEL
    assert domain.view("courier") == domain.view("synthetic/courier") == ("synthetic", VIEW)
    assert domain.view("fleet/vans") == ("fleet", domain.imported[0])
    assert domain.fact_columns("deliveries") == DELIVERIES.columns
    assert domain.fact_columns("orders") == ORDERS.base_columns


@pytest.mark.parametrize(("columns", "unique", "told"), [(2, (), "a column twice"), (1, ("van",), "'van'")])
def test_a_contract_names_its_columns_once(columns: int, unique: tuple[str, ...], told: str) -> None:
    """A column declared twice and a key that is no column are refused."""
    column: Column = ORDERS.contract.columns[0]
    with pytest.raises(DeclarationError, match=told):
        Contract(columns=(column,) * columns, unique=unique)


def test_a_freshness_of_another_type_is_refused_by_its_name() -> None:
    """A tuple, as `rules` takes one, is a mistake easily made."""
    fresh = Freshness(column=ORDERS.contract.columns[0].name, within=timedelta(hours=1))
    with pytest.raises(DeclarationError, match=r"freshness of a contract is a tuple\. Give one Freshness"):
        Contract(columns=ORDERS.contract.columns, freshness=(fresh,))  # type: ignore[arg-type]  # the mistake
