"""Rows of a shadow beside the answers: no monitor says anything else of the answers for them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.alerts.live import (
    answers_in_the_stretch,
    behaviour_looks,
    breaker_looks,
    data_looks,
    traffic_looks,
)
from mlplatform.monitoring.alerts.nulls import NeverMissing
from mlplatform.monitoring.alerts.recent import recent_answers
from mlplatform.monitoring.behaviour.day import behaviour_of_day
from mlplatform.monitoring.outcomes.answers import models_of
from mlplatform.monitoring.outcomes.digest import digest
from mlplatform.monitoring.outcomes.latest import latest_outcomes
from mlplatform.monitoring.pickup import answers_on, rows_by_day
from mlplatform.monitoring.quality.quality import quality_of_day
from mlplatform.monitoring.served import served_on
from mlplatform_tests.fakes.judged_answers import MANIFEST, JudgedShop, best_scores, orders_of

DAYS = ("2024-02-04", "2024-02-05")
DAY, NEXT, JUDGED = "2024-02-05", "2024-02-06", "2024-02-07"
LATE = DOMAIN.model("late_order")
OTHER = "6" * 64

SHADOWS: dict[str, dict[str, Any]] = {
    "one that scores everything, badly": {},
    "one that fails": {"source": "rules", "silent": True},
    "one that is slow": {"latency": {"total": [9_000_000] * 400, "score": [9_000_000] * 400}},
    "one whose views cannot be read": {"statuses": {"synthetic/customers": ["unavailable"] * 400}},
    "the champion itself, where the challenger has answered": {"manifest": MANIFEST},
}


def told(home: Path, shadow: dict[str, Any] | None) -> dict[str, Any]:
    """What every reader of the log says of the answers of two days."""
    shop = JudgedShop(home)
    shop.evaluate(LATE)
    for day in DAYS:
        orders = orders_of(day)
        shop.answer(orders, LATE)
        if shadow is not None:
            # Some were shed.
            scored = orders.sort("order_id").head(300)
            cut = {name: _cut(value) for name, value in shadow.items()}
            given = 1 - best_scores(LATE, scored)
            shop.answer(scored, LATE, scores=given, arm="shadow", **{"manifest": OTHER, **cut})
    found: dict[str, Any] = {}
    shop.land(*DAYS, NEXT)
    # A quarter of an hour, as the loop sees it.
    shop.at(DAY, 18)
    now = shop.platform.clock()
    answers = recent_answers(shop.platform, DOMAIN, now - timedelta(days=1))
    found["recent"] = answers.sort("received", "request_id")
    never = NeverMissing(shop.platform, DOMAIN)
    looked = answers.with_columns(received=pl.lit(now - timedelta(minutes=1)))
    found["looks"] = [
        *data_looks(DOMAIN, looked, now, never),
        *behaviour_looks(DOMAIN, looked, now),
        *breaker_looks(shop.platform, DOMAIN, now),
        *traffic_looks(shop.platform, DOMAIN, answers.clear(), now),
    ]
    found["stretch"] = answers_in_the_stretch(shop.platform, DOMAIN, now - timedelta(hours=3), now)
    shop.at(JUDGED, 2)
    found["answers"] = [answers_on(shop.platform, DOMAIN, day) for day in DAYS]
    found["models"] = models_of(shop.platform, DOMAIN, DAY)
    found["served"] = [
        (each.model, each.manifest, each.answers, each.computed, each.rows)
        for each in served_on(shop.platform, DOMAIN, DAY)
    ]
    quality = quality_of_day(shop.platform, DOMAIN, DAY)
    # Why there is no reference names the folder.
    found["quality"] = [(each.model, each.manifest, each.answers, each.computed) for each in quality.manifests]
    found["quality findings"] = [(each.rule, each.subject, each.manifest, each.figures) for each in quality.findings]
    behaviour = behaviour_of_day(shop.platform, DOMAIN, DAY)
    found["behaviour"] = [(each.manifest, each.figures) for each in behaviour.behaviours if not each.is_shadow]
    found["behaviour findings"] = (behaviour.findings, behaviour.answers)
    for day in DAYS:
        outcomes = shop.outcomes(day)
        answered = pl.col("arm") != "shadow"
        found[f"outcomes {day}"] = (outcomes.models, outcomes.findings, outcomes.undeclared, outcomes.answers)
        found[f"figures {day}"] = outcomes.figures.filter(answered)
        for days, window in outcomes.windows.items():
            found[f"{days} days up to {day}"] = window.filter(answered)
        found[f"labels {day}"] = outcomes.labels.sort("request_id")
        found[f"early {day}"], found[f"estimates {day}"] = outcomes.early, outcomes.estimates
        found[f"bins {day}"] = outcomes.bins.filter(answered).sort(pl.all())
    found["latest"] = latest_outcomes(shop.platform, DOMAIN, until=DAY)
    found["digest"] = digest(shop.platform, DOMAIN, DAY).subject
    found["rows"] = rows_by_day(shop.platform, DOMAIN)
    return found


def _cut(value: Any) -> Any:
    """Columns that are told by row are as long as what was scored."""
    return {name: each[:300] for name, each in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers without a shadow."""
    return told(tmp_path_factory.mktemp("alone") / "home", None)


@pytest.mark.parametrize("shadow", SHADOWS)
def test_a_shadow_changes_no_figure_of_the_answers(alone: dict[str, Any], shadow: str, tmp_path: Path) -> None:
    """Traffic, fallbacks, latency, quality, skew, labels, outcomes, digest and alerts are those without it."""
    beside = told(tmp_path / "home", SHADOWS[shadow])
    assert beside.pop("rows") == {day: rows + 300 for day, rows in alone["rows"].items()}
    for name, said in beside.items():
        assert _same(said, alone[name]), name


def test_the_property_could_fail(alone: dict[str, Any]) -> None:
    """There is something to be the same: answers, figures, findings."""
    assert sum(alone["answers"]) > 600 and alone["models"] == {LATE.name: alone["answers"][1]}
    assert alone["figures 2024-02-05"].height > 10 and alone["recent"].height > 100 and len(alone["looks"]) >= 3
    assert alone["stretch"] and alone["served"][0][2] == alone["answers"][1]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, pl.DataFrame):
        # Sums come in another order.
        assert_frame_equal(one, other, rel_tol=1e-9)
        return True
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(_same(*each) for each in zip(one, other, strict=True))
    return repr(one) == repr(other)
