"""Replay of the routing: the arm that the plan gives a request, by the ledger, its key and the row."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.rollout import Rollout
from mlplatform.monitoring.row_digest import digests
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.plan import Plan
from mlplatform.rollout.pointing import plan_of
from mlplatform_tests.fakes.replayed_world import DAY, World, only, outcomes
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome
from serving.routing import Route, Routing

MODEL = "synthetic/late_order"


@pytest.fixture
def world(own_trained: TrainedHome, tmp_path: Path) -> World:
    """One of its own for each test, published."""
    made = World(own_trained, tmp_path / "metrics")
    made.publish()
    return made


def challenged(world: World, challenger: Bundle, **evidence: Any) -> Plan:
    """The plan after another version began its rollout."""
    ledger = Ledger(world.platform)
    for action, more in (("promote", {}), ("start", evidence)):
        ledger.append(
            MODEL,
            action=action,  # type: ignore[arg-type]  # both are actions
            alias="challenger",
            to_manifest=challenger.digest,
            actor="ann",
            reason="it passed",
            evidence=more,
        )
    plan = plan_of(MODEL, ledger.entries(MODEL))
    assert plan is not None
    return plan


def roll_back(world: World, challenger: Bundle) -> None:
    """End the rollout of another version."""
    Ledger(world.platform).append(
        MODEL,
        action="roll_back",
        alias="challenger",
        to_manifest=challenger.digest,
        actor="ann",
        reason="worse",
        evidence={},
    )


def route(world: World, plan: Plan, keys: Callable[[dict[str, Any]], str], chance: float = 0.99) -> None:
    """Answer an hour as a gateway with this plan does, both arms and their shadows."""
    requests = asked_on(world.platform, DAY, hours=range(12, 15)).sort("at", maintain_order=True)
    routing = Routing(plan, chance=lambda: chance)
    ids = [f"o{row['order_id']}" for row in requests.iter_rows(named=True)]
    routes = [
        routing.of(keys({**row, "request_id": name}))
        for name, row in zip(ids, requests.iter_rows(named=True), strict=True)
    ]
    for arm, digest in (("champion", plan.champion), ("challenger", plan.challenger)):
        if digest is None:
            continue
        gateway = Gateway(world.platform, world.bundle_of(digest))
        own = [place for place, each in enumerate(routes) if each.arm == arm]
        names, own_routes = [ids[place] for place in own], [routes[place] for place in own]
        gateway.serve(requests[own], world.folder, ids=names, routes=own_routes)
        if routing.shadowed:
            other = [place for place, each in enumerate(routes) if each.arm != arm]
            shadows = [Route("shadow", routes[place].plan, 1.0 - routes[place].propensity) for place in other]
            gateway.serve(requests[other], world.folder, ids=[ids[place] for place in other], routes=shadows)


def by_id(row: dict[str, Any]) -> str:
    """What a plan draws by unless a column is declared."""
    return str(row["request_id"])


def rewritten(rows: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    """Rows that were logged otherwise: what was written says so too."""
    other = rows.with_columns(**changed)
    return other.with_columns(digest=digests(other))


def test_each_arm_of_a_canary_is_where_its_plan_sends_it(world: World) -> None:
    """And their shadows: exact, though the plan has moved on twice since."""
    other = world.variant()
    plan = challenged(world, other, mode="canary", weight=5_000)
    route(world, plan, by_id)
    roll_back(world, other)
    rows = world.rows()
    assert set(rows["arm"]) == {"champion", "challenger", "shadow"} and set(rows["plan"]) == {plan.version}
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert not any("plan" in note for each in found for note in each.verdict.notes)


def test_a_request_that_went_to_the_wrong_arm_is_found(world: World) -> None:
    """By its key; and the arm that the row tells must be the one of its manifest."""
    other = world.variant()
    plan = challenged(world, other, mode="canary", weight=5_000)
    route(world, plan, by_id)
    rows = world.rows()
    first = rows.filter(arm="champion").head(1)
    wrong = only(world.replayed(rewritten(first, arm=pl.lit("challenger"), manifest=pl.lit(other.digest))))
    assert (wrong.outcome, wrong.cause) == ("diverged", "routing")
    assert f"gives the key '{first['request_id'][0]}' to the champion, but the challenger answered it" in wrong.reason
    wrong = only(world.replayed(rewritten(first, arm=pl.lit("challenger"))))
    assert (wrong.outcome, wrong.cause) == ("diverged", "routing") and "its manifest is the champion" in wrong.reason
    shadow = rows.filter(arm="shadow", manifest=world.bundle.digest).head(1)
    wrong = only(world.replayed(rewritten(shadow, manifest=pl.lit(other.digest))))
    assert (wrong.outcome, wrong.cause) == ("diverged", "routing") and "in the shadow" in wrong.reason
    third = world.variant(model_version="third")
    wrong = only(world.replayed(rewritten(first, manifest=pl.lit(third.digest))))
    assert (wrong.outcome, wrong.cause) == ("diverged", "routing") and "knows no manifest" in wrong.reason


def test_a_plan_may_draw_by_a_column_of_the_request(world: World) -> None:
    """As the champion's bundle declares it; by the request's id it would be others."""
    begins = "    rules=guessed_late,\n"
    gate = "from mlplatform.domain.model import Gate,"
    imports = "from mlplatform.domain.rollout import Rollout\n" + gate
    model = replace(world.bundle.model, rollout=Rollout(sticky="courier"))
    sticky = world.variant(
        ("models.py", gate, imports),
        ("models.py", begins, f'{begins}    rollout=Rollout(sticky="courier"),\n'),
        model=model,
    )
    Ledger(world.platform).append(
        MODEL, action="promote", alias="champion", to_manifest=sticky.digest, actor="ann", reason="r", evidence={}
    )
    plan = challenged(world, world.bundle, mode="a/b", weight=5_000)
    route(world, plan, lambda row: str(row["courier"]))
    rows = world.rows()
    assert set(rows["arm"]) == {"champion", "challenger", "shadow"}
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}
    assert any(
        plan.arm(row["request_id"]) != row["arm"] for row in rows.iter_rows(named=True) if row["arm"] != "shadow"
    )


def test_what_is_left_to_chance_is_no_divergence(world: World) -> None:
    """Under exploration an arm is drawn anew whatever the key; the row says how probable it was."""
    plan = challenged(world, world.variant(), mode="canary", weight=5_000, exploration=0.1)
    route(world, plan, by_id, chance=0.0)
    rows = world.rows()
    assert set(rows.filter(pl.col("arm") != "shadow")["arm"]) == {"challenger"}
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert any("draws some requests anew" in note for each in found for note in each.verdict.notes)


def test_who_stands_in_is_no_divergence(world: World) -> None:
    """A version that answers though the plan names another: propensity 0."""
    other = world.variant()
    plan = challenged(world, other, mode="canary", weight=10_000)
    world.serve(
        routes=[Route("champion", plan.version, 0.0)] * asked_on(world.platform, DAY, hours=range(12, 14)).height
    )
    found = world.replayed()
    assert outcomes(found) == {"exact": len(found)}
    assert all("another arm stood in for the one of the plan" in each.verdict.notes for each in found)


def test_a_plan_that_is_not_of_the_ledger_is_a_note(world: World) -> None:
    """Another flag provider gave it."""
    world.serve(
        routes=[Route("champion", "9-abcdef01", 1.0)] * asked_on(world.platform, DAY, hours=range(12, 14)).height
    )
    found = world.replayed()
    assert outcomes(found) == {"exact": len(found)}
    assert all("another provider gave it" in each.verdict.notes[0] for each in found)


def test_a_ledger_that_is_broken_leaves_the_routing_open(world: World) -> None:
    """What was answered can be given again all the same."""
    plan = challenged(world, world.variant(), mode="canary", weight=5_000)
    route(world, plan, by_id)
    rows = world.rows()
    ledger = Path(world.platform.ledger)
    next(path for path in sorted(ledger.rglob("*.parquet"))).unlink()
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert all("the routing was not looked at" in each.verdict.notes[0] for each in found)


def test_a_champion_that_is_gone_leaves_the_routing_open(world: World) -> None:
    """By which column it drew was its to say."""
    begins, gate = "    rules=guessed_late,\n", "from mlplatform.domain.model import Gate,"
    sticky = world.variant(
        ("models.py", gate, "from mlplatform.domain.rollout import Rollout\n" + gate),
        ("models.py", begins, f'{begins}    rollout=Rollout(sticky="courier"),\n'),
        model=replace(world.bundle.model, rollout=Rollout(sticky="courier")),
    )
    Ledger(world.platform).append(
        MODEL, action="promote", alias="champion", to_manifest=sticky.digest, actor="ann", reason="better", evidence={}
    )
    plan = challenged(world, world.bundle, mode="a/b", weight=5_000)
    route(world, plan, lambda row: str(row["courier"]))
    own = world.rows().filter(manifest=world.bundle.digest)
    assert outcomes(world.replayed(own)) == {"exact": own.height}
    sticky.folder.rename(world.folder / "elsewhere")
    found = world.replayed(own)
    assert outcomes(found) == {"exact": own.height}
    assert all(
        f"the declaration of the champion of plan {plan.version} is gone" in each.verdict.notes for each in found
    )


def test_a_gateway_that_went_on_by_a_plan_of_before_is_noted(world: World) -> None:
    """It went where that plan sends it, and the ledger had moved on hours ago."""
    other = world.variant()
    plan = challenged(world, other, mode="canary", weight=10_000)
    roll_back(world, other)
    left = Ledger(world.platform).entries(MODEL)[-1].at
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    Gateway(world.platform, other).serve(
        requests, world.folder, routes=[Route("challenger", plan.version, 1.0)] * requests.height
    )
    told = f"plan {plan.version} was followed by another at {left:%Y-%m-%d %H:%M}, before this request came"
    for minutes, notes in ((4, set()), (60, {told})):
        received = pl.lit(left + timedelta(minutes=minutes), dtype=pl.Datetime("us", "UTC"))
        found = world.replayed(rewritten(world.rows(), received=received))
        assert outcomes(found) == {"exact": requests.height}
        assert {note for each in found for note in each.verdict.notes} == notes
