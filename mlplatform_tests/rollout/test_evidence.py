"""The evidence of a rollout, read from a real log and real labels: pairs, harms, segments, the split, and trips."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.segments import Segments
from mlplatform.registry.ledger import Action, Alias, Ledger
from mlplatform.rollout.analysis import Look, judge
from mlplatform.rollout.evidence import gather
from mlplatform.rollout.pointing import plan_of
from mlplatform.training import metrics
from mlplatform_tests.fakes.answered import answered, transition
from mlplatform_tests.fakes.judged_answers import MANIFEST, JudgedShop, best_scores, labels_of, orders_of

DAY, NEXT = "2024-02-05", "2024-02-06"
LATE, MINUTES, SPEED = DOMAIN.models
OTHER = "6" * 64
BEGAN = datetime(2024, 2, 5, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> JudgedShop:
    """One of its own for each test."""
    return JudgedShop(tmp_path / "home")


def look(shop: JudgedShop, model: ModelSpec = LATE, *, share: float = 0.0, step_since: datetime = BEGAN) -> Look:
    """What is known now of a rollout that began with the day."""
    return gather(
        shop.platform,
        DOMAIN,
        model,
        champion=MANIFEST,
        challenger=OTHER,
        since=BEGAN,
        step_since=step_since,
        share=share,
        bake=timedelta(days=1),
        now=shop.platform.clock(),
    )


def shadowed(shop: JudgedShop, orders: pl.DataFrame, model: ModelSpec = LATE, **of_shadow: Any) -> None:
    """Requests that the champion answers and the challenger scores in the shadow."""
    shop.answer(orders, model)
    shop.answer(orders, model, manifest=OTHER, arm="shadow", **of_shadow)


def known(found: Look, name: str) -> list[float]:
    """Differences of a figure, without those that are not known."""
    values = found.pairs.harms[name]
    return [float(each) for each in values[~np.isnan(values)]]


def test_both_arms_on_the_same_requests(shop: JudgedShop) -> None:
    """A pair for each request, its difference of log loss by its own label, whichever arm answered it."""
    orders = orders_of(DAY)
    best = best_scores(LATE, orders)
    worse = 0.5 * best + 0.25
    first, second = orders.head(300), orders.tail(-300)
    shop.answer(first, LATE)
    shop.answer(first, LATE, scores=worse[:300], manifest=OTHER, arm="shadow")
    shop.answer(second, LATE, scores=worse[300:], manifest=OTHER, arm="challenger")
    shop.answer(second, LATE, arm="shadow")
    shop.land(DAY, NEXT)
    found = look(shop)
    labels = labels_of(LATE, orders).to_numpy()
    expected = metrics.per_row("log_loss", labels, worse) - metrics.per_row("log_loss", labels, best)
    assert sorted(known(found, "log_loss")) == pytest.approx(sorted(expected.clip(-1, 1)))
    assert known(found, "failures") == known(found, "late") == [0.0] * orders.height
    assert found.pairs.margins == {"failures": 0.01, "late": 0.01, "log_loss": LATE.gate.margin.value}
    assert found.trips == () and found.split is None


def test_labels_come_late(shop: JudgedShop) -> None:
    """Before there are any the failures are known and no loss is; each loss is added behind those that were known."""
    late, soon = orders_of(DAY).filter(pl.col("items") >= 4), orders_of(DAY).filter(pl.col("items") < 4)
    shadowed(shop, orders_of(DAY), scores=np.full(orders_of(DAY).height, 0.4))
    shop.at(NEXT, 0, 10)
    before = look(shop)
    assert len(known(before, "failures")) == orders_of(DAY).height and known(before, "log_loss") == []
    shop.land(DAY, orders={DAY: soon})
    shop.at(NEXT, 1, 30)
    first = known(look(shop), "log_loss")
    assert len(first) == soon.height
    shop.at("2024-02-07", 0, 30)
    shop.send(DAY, pl.concat([soon, late]))
    shop.at("2024-02-07", 2)
    then = known(look(shop), "log_loss")
    assert len(then) == orders_of(DAY).height and then[: len(first)] == first


def test_a_case_that_is_asked_of_again(shop: JudgedShop) -> None:
    """Its label was there before the request: the loss is known from the request on, and stands behind the others."""
    asked = pl.concat([orders_of(DAY), orders_of(NEXT)])
    shadowed(shop, asked, scores=np.full(asked.height, 0.4))
    shop.land(DAY, NEXT)
    shop.at("2024-02-07", 2)
    first = known(look(shop), "log_loss")
    again = orders_of(DAY).head(20)
    at = [int(shop.platform.clock().timestamp() * 1e9)] * again.height
    shop.answer(again, LATE, prefix="again", received=at)
    shop.answer(again, LATE, prefix="again", received=at, manifest=OTHER, arm="shadow")
    then = known(look(shop), "log_loss")
    assert len(then) == len(first) + again.height and then[: len(first)] == first


def test_a_look_back_knows_no_label_of_later(shop: JudgedShop) -> None:
    """What is asked as of an earlier time is answered as it would have been then."""
    shadowed(shop, orders_of(DAY))
    shop.land(DAY, NEXT)
    shop.at(DAY, 23)
    assert known(look(shop), "log_loss") == []


def test_a_request_counts_once(shop: JudgedShop) -> None:
    """Rows that are in the table and in a segment, and ids that a caller uses again, make no pair twice."""
    orders = orders_of(DAY).head(50)
    shadowed(shop, orders)
    shadowed(shop, orders)
    rows = answered(2, model=LATE.name, manifest=MANIFEST, request_id=["same", "same"], received=_times(2))
    shadow = answered(
        2, model=LATE.name, manifest=OTHER, request_id=["same", "same"], received=_times(2), arm=["shadow"] * 2
    )
    _write(shop, rows, shadow, rows)
    assert len(known(look(shop), "failures")) == 52


def test_what_is_being_written_counts(shop: JudgedShop) -> None:
    """Answers of a second ago, in a segment that is open, and none of its torn tail."""
    orders = orders_of(DAY).head(50)
    shadowed(shop, orders)
    names = [f"new{number}" for number in range(5)]
    rows = answered(5, model=LATE.name, manifest=MANIFEST, request_id=names, received=_times(5))
    shadow = answered(5, model=LATE.name, manifest=OTHER, request_id=names, received=_times(5), arm=["shadow"] * 5)
    folder = log_folder(shop.platform.home, DOMAIN.name)
    segments = Segments(folder, size=1 << 16, spares=1)
    assert segments.append(encode(rows), 5) and segments.append(encode(shadow), 5)
    assert len(known(look(shop), "failures")) == 55
    (written,) = [each for each in folder.glob("*.open") if encode(shadow) in each.read_bytes()]
    torn = written.read_bytes()
    written.write_bytes(torn.replace(encode(shadow)[-8:], bytes(8)))
    assert len(known(look(shop), "failures")) == 50
    written.write_bytes(torn)
    segments.close()


def test_what_was_shed_makes_no_pair(shop: JudgedShop) -> None:
    """A request that only one arm has a row of is no evidence; neither is one of before, or of another manifest."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.answer(orders.head(100), LATE, manifest=OTHER, arm="shadow")
    shop.answer(orders.tail(-100), LATE, manifest="7" * 64, arm="shadow")
    shadowed(shop, orders_of("2024-02-04"))
    found = look(shop)
    assert len(known(found, "failures")) == 100 and found.pairs.segments.height == 100


def test_nothing_yet(shop: JudgedShop) -> None:
    """Without a log there is no harm, and the verdict waits."""
    shop.at(DAY, 1)
    found = look(shop)
    assert known(found, "failures") == known(found, "log_loss") == []
    assert judge(found, Rollout()).outcome == "hold"


def test_failures_and_lateness(shop: JudgedShop) -> None:
    """A fallback is a failure of the arm that has it; features and score together are what is late or not."""
    orders = orders_of(DAY).head(90)
    for start, more in ((0, {}), (30, {"source": "rules"}), (60, {"latency": _took(1_500, 600)})):
        shadowed(shop, orders[start : start + 30], **more)
    found = look(shop)
    assert sum(known(found, "failures")) == 30 and sum(known(found, "late")) == 30
    shop.answer(orders_of(NEXT).head(40), LATE, source="simple_model")
    shop.answer(orders_of(NEXT).head(40), LATE, manifest=OTHER, arm="shadow")
    again = look(shop)
    assert sum(known(again, "failures")) == -10
    shop.land(DAY, NEXT)
    # What the fallback chain said is no loss of the model.
    assert len(known(look(shop), "log_loss")) == 60


def test_lateness_that_is_not_told(shop: JudgedShop) -> None:
    """A row without its latency says nothing of it."""
    shadowed(shop, orders_of(DAY).head(30), latency={})
    assert known(look(shop), "late") == []


def test_an_answer_that_was_known_is_not_quick(shop: JudgedShop) -> None:
    """What was repeated from the cache took no model at all: it does not make the other arm late."""
    orders = orders_of(DAY).head(30)
    shop.answer(orders, LATE, latency=_took(0, 0), silent=True)
    shop.answer(orders, LATE, manifest=OTHER, arm="shadow", latency=_took(1_500, 600))
    assert known(look(shop), "late") == [] and known(look(shop), "failures") == [0.0] * 30


def test_segments(shop: JudgedShop) -> None:
    """Each pair has its segments beside every figure, and a hurt one is found though the average is better."""
    orders = pl.concat([orders_of(DAY), orders_of(NEXT)])
    best = best_scores(LATE, orders)
    hurt = np.where((orders["district"] == "hill").to_numpy(), 1 - best, best)
    shop.answer(orders, LATE, scores=0.9 * best + 0.05)
    shop.answer(orders, LATE, scores=hurt, manifest=OTHER, arm="shadow")
    shop.land(DAY, NEXT)
    found = look(shop)
    counted = found.pairs.segments["district"].value_counts()
    assert dict(counted.iter_rows()) == {
        name: 2 * count for name, count in orders["district"].value_counts().iter_rows()
    }
    verdict = judge(found, Rollout())
    assert verdict.outcome == "roll_back" and any("district=hill" in each for each in verdict.reasons)


def test_the_split_counts_keys(shop: JudgedShop) -> None:
    """Each key once, whoever's shadow was shed; requests without a key, and those of the moment of the step, not."""
    sticky = replace(LATE, rollout=Rollout(sticky="courier"))
    orders = orders_of(DAY).sort("ordered_at").with_columns(pl.col("courier").cast(pl.String))
    chosen = orders["courier"].unique().sort()[:3]
    theirs = pl.col("courier").is_in(chosen.implode())
    shop.answer(orders.filter(theirs), LATE, manifest=OTHER, arm="challenger")
    shop.answer(orders.filter(~theirs), LATE)
    # This one names no courier.
    _write(shop, _routed(1, "champion", 1.0))
    split = look(shop, sticky, share=0.3).split
    assert split is not None and (split.challenger, split.keys) == (3, orders["courier"].n_unique())
    by_request = look(shop, share=0.3).split
    assert by_request is not None
    assert (by_request.challenger, by_request.keys) == (orders.filter(theirs).height, orders.height + 1)
    later = look(shop, share=0.3, step_since=orders["ordered_at"][100]).split
    # The order of that very moment may have been routed by the plan of before; that of no courier came at noon.
    assert later is not None and later.keys == orders.height + 1 - 101
    assert look(shop, share=1.0).split is None


def test_explored_requests_count_for_the_arm_of_their_key(shop: JudgedShop) -> None:
    """Nine in ten of those that were answered by the challenger were sent there by chance, and say so."""
    for number in range(10):
        _write(shop, _routed(number, "challenger", 0.9 if number == 0 else 0.02))
    for number in range(10, 20):
        _write(shop, _routed(number, "champion", 0.98))
    split = look(shop, share=0.05).split
    assert split is not None and (split.challenger, split.keys) == (1, 20)


def test_only_what_the_ledger_planned_says_how_keys_fall(shop: JudgedShop) -> None:
    """Not what the champion answered for a challenger that could not, nor what an edited plan file sent anywhere."""
    ledger = Ledger(shop.platform)
    for alias, digest, action in (("champion", MANIFEST, "promote"), ("challenger", OTHER, "start")):
        ledger.append(
            f"{DOMAIN.name}/{LATE.name}",
            action=cast(Action, action),
            alias=cast(Alias, alias),
            to_manifest=digest,
            actor="a test",
            reason="to see how keys fall",
            evidence={"mode": "canary", "weight": 500} if action == "start" else {},
        )
    plan = plan_of(f"{DOMAIN.name}/{LATE.name}", ledger.entries(f"{DOMAIN.name}/{LATE.name}"))
    assert plan is not None
    for number in range(4):
        _write(shop, _routed(number, "champion", 1.0, plan=plan.version))
    _write(shop, _routed(4, "champion", 0.0, plan=plan.version))
    _write(shop, _routed(5, "challenger", 1.0, plan="2-edited"))
    split = look(shop, share=0.05).split
    assert split is not None and (split.challenger, split.keys) == (0, 4)


def test_rows_of_before_the_plan_was_logged(shop: JudgedShop) -> None:
    """A log without the columns of routing is read as one in which nothing was explored."""
    orders = orders_of(DAY).head(40)
    shop.answer(orders, LATE)
    (path,) = (shop.platform.home / DOMAIN.name / "prediction_log").glob("day=*/*.parquet")
    rows = pl.read_parquet(path, hive_partitioning=False)
    rows.drop("plan", "propensity", strict=False).write_parquet(path)
    shop.answer(orders, LATE, manifest=OTHER, arm="shadow")
    found = look(shop, share=0.05)
    assert len(known(found, "failures")) == 40
    assert found.split is not None and found.split.keys == 40


def test_no_number_trips(shop: JudgedShop) -> None:
    """One request for which the champion has a score and the challenger has none that is one."""
    orders = orders_of(DAY).head(100)
    shop.answer(orders, LATE)
    shop.answer(orders[1:], LATE, manifest=OTHER, arm="shadow")
    assert look(shop).trips == ()
    _write(shop, _no_number(orders[0], arm=["shadow"], manifest=OTHER))
    (trip,) = look(shop).trips
    assert trip.name == "no_scores" and f"o{orders['order_id'][0]}" in trip.reason and "1 of 100" in trip.reason
    assert judge(look(shop), Rollout()).outcome == "roll_back"


def test_no_number_of_either_does_not_trip(shop: JudgedShop) -> None:
    """Where the champion has none either, or the challenger's workers did not answer, it is a failure and no trip."""
    orders = orders_of(DAY)
    _write(shop, _no_number(orders[0]), _no_number(orders[0], arm=["shadow"], manifest=OTHER))
    shadowed(shop, orders[1:21], silent=True, source="rules")
    assert look(shop).trips == () and sum(known(look(shop), "failures")) == 20


def test_a_breaker_that_opened_trips(shop: JudgedShop) -> None:
    """Of the challenger's model, since the rollout began; not the champion's, and not the online store's."""
    log = BreakerLog(breaker_folder(shop.platform.home, DOMAIN.name))
    at = int(BEGAN.timestamp()) * 10**9
    log.append(transition(manifest=MANIFEST, at=at + 1))
    log.append(transition(manifest=OTHER, breaker="online store", at=at + 1))
    log.append(transition(manifest=OTHER, at=at - 10**9))
    shop.at(DAY, 1)
    assert look(shop).trips == ()
    log.append(transition(manifest=OTHER, at=at + 10**9))
    (trip,) = look(shop).trips
    assert trip.name == "breaker_open" and "failure rate 0.60" in trip.reason
    log.close()


def test_a_challenger_that_is_not_there_trips(shop: JudgedShop) -> None:
    """An hour of requests of which it has scored none; a quiet hour is none of its faults."""
    orders = orders_of(DAY).sort("ordered_at")
    busy = orders.filter(pl.col("ordered_at").dt.hour().is_between(10, 12))
    shop.answer(busy, LATE)
    shop.at(DAY, 12, 59)
    (trip,) = look(shop).trips
    assert trip.name == "no_answers"
    shop.answer(busy.tail(1), LATE, manifest=OTHER, arm="shadow")
    assert look(shop).trips == ()
    shop.at(DAY, 20)
    assert look(shop).trips == ()


def test_a_challenger_that_has_just_been_asked_is_there(shop: JudgedShop) -> None:
    """After a quiet hour many rows come at once: for a moment the champion has answered, and the shadow is at it."""
    orders = orders_of(DAY).with_columns(ordered_at=BEGAN + timedelta(hours=12))
    shop.answer(orders, LATE)
    shop.at(DAY, 12, 1)
    assert look(shop).trips == ()
    shop.at(DAY, 12, 5)
    (trip,) = look(shop).trips
    assert trip.name == "no_answers"


def test_a_regression_is_judged_by_its_margin(shop: JudgedShop) -> None:
    """An error counts in hundred margins, so that one answer far off does not decide."""
    orders = orders_of(DAY)
    best = best_scores(MINUTES, orders)
    other = best + np.where(np.arange(orders.height) == 5, 1e6, 20.0)
    shadowed(shop, orders, MINUTES, scores=other)
    shop.land(DAY, NEXT)
    found = look(shop, MINUTES)
    assert found.pairs.margins["mae / 200"] == pytest.approx(0.01) and found.estimated is None
    labels = labels_of(MINUTES, orders).to_numpy()
    expected = np.clip((np.abs(other - labels) - np.abs(best - labels)) / 200, -1, 1)
    assert sorted(known(found, "mae / 200")) == pytest.approx(sorted(expected))


def test_several_classes(shop: JudgedShop) -> None:
    """Scores of all classes, against the class that it was."""
    orders = orders_of(DAY)
    shadowed(shop, orders, SPEED, scores=np.full((orders.height, 3), 1 / 3))
    shop.land(DAY, NEXT)
    losses = known(look(shop, SPEED), "log_loss")
    assert len(losses) == orders.height and np.mean(losses) > 0.1


@pytest.mark.parametrize(
    ("metric", "judged"), [("auc", "log_loss"), ("ece", "log_loss"), ("brier", "brier"), ("accuracy", "accuracy")]
)
def test_the_metric_of_the_gate(shop: JudgedShop, metric: str, judged: str) -> None:
    """What is no mean of requests is stood for by log loss; larger is worse, whichever way the metric points."""
    margin = Threshold(value=0.02, reason="test")
    model = replace(LATE, gate=replace(LATE.gate, metric=metric), rollout=Rollout(margin=margin))
    orders = orders_of(DAY)
    shadowed(shop, orders, model, scores=1 - best_scores(LATE, orders))
    shop.land(DAY, NEXT)
    found = look(shop, model)
    assert np.mean(known(found, judged)) > 0.2 and found.pairs.margins[judged] == 0.02


def test_what_scores_expect_of_themselves_is_shown_and_judges_nothing(shop: JudgedShop) -> None:
    """A challenger that is too sure expects less loss than its champion, and is not advanced for that."""
    orders = orders_of(DAY)
    best = best_scores(LATE, orders)
    shadowed(shop, orders, scores=np.where(best > 0.5, 0.999, 0.001))
    shop.at(NEXT, 0, 10)
    found = look(shop)
    assert found.estimated is not None and found.estimated.upper < 0
    assert all("estimated" not in each.name for each in judge(found, Rollout()).harms)
    assert judge(found, Rollout()).outcome == "hold"


def _times(count: int) -> list[int]:
    noon = int((BEGAN + timedelta(hours=12)).timestamp())
    return [(noon + number) * 10**9 for number in range(count)]


def _no_number(order: pl.DataFrame, **changes: Any) -> Any:
    """The model's score was refused, and the rules have answered."""
    at = order["ordered_at"].to_physical().to_list()
    told: dict[str, Any] = {
        "model": LATE.name,
        "manifest": MANIFEST,
        "request_id": [f"o{order['order_id'].item()}"],
        "at": at,
        "received": [1_000 * at[0]],
        "source": ["rules"],
        "scores": np.full((1, 1), np.nan).tobytes(),
    }
    return answered(1, **(told | changes))


def _routed(number: int, arm: str, propensity: float, plan: str = "3-ab") -> Any:
    manifest = OTHER if arm == "challenger" else MANIFEST
    return answered(
        1,
        first=number,
        model=LATE.name,
        manifest=manifest,
        received=_times(1),
        arm=[arm],
        plan=[plan],
        propensity=[propensity],
    )


def _took(features: int, score: int) -> dict[str, list[int]]:
    """Milliseconds."""
    return {"features": [features * 1_000] * 30, "score": [score * 1_000] * 30}


def _write(shop: JudgedShop, *batches: Any) -> None:
    """Segments that were finished and not picked up."""
    segments = Segments(log_folder(shop.platform.home, DOMAIN.name), size=1 << 16, spares=1)
    for each in batches:
        assert segments.append(encode(each), len(each.request_id))
    segments.close()
