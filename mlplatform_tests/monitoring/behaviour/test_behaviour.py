"""What is measured of rows of the log: of each model, manifest and arm on its own, whatever the rows are like."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.behaviour.behaviour import Behaviour, behaviour_of
from mlplatform.monitoring.behaviour.usual import Usual
from mlplatform.monitoring.prediction_log import schema
from mlplatform_tests.fakes.behaved import LATE, rows_of_day, usual_days, usual_scores

MODELS = {each.name: each for each in DOMAIN.models}
USUAL = usual_days()


def measured(rows: pl.DataFrame | pl.LazyFrame, usual: Usual | str = USUAL) -> list[Behaviour]:
    """Of rows, with something usual or the reason why there is nothing."""
    return behaviour_of(rows, MODELS, lambda *_: usual)


def only(rows: pl.DataFrame, usual: Usual | str = USUAL) -> Behaviour:
    """Of rows of one model, manifest and arm."""
    (found,) = measured(rows, usual)
    return found


def test_a_day_is_counted() -> None:
    """Answers, hours, the busiest minute, sources, and what was degraded and why."""
    sources = ["model"] * 540 + ["cached"] * 40 + ["rules"] * 20
    found = only(
        rows_of_day(
            source=sources,
            degraded=[each != "model" for each in sources],
            needs_review=[place < 60 for place in range(600)],
            reason=[None] * 540 + ["the breaker is open"] * 45 + ["too slow"] * 15,
        )
    )
    assert found.count("answers") == 600
    assert found.parts("answers_of_hour") == {f"{hour:02}": 25.0 for hour in range(24)}
    assert (found.count("peak_minute"), found.count("hours")) == (1, 24)
    assert found.parts("source_share") == {"model": 0.9, "cached": 40 / 600, "rules": 20 / 600}
    assert (found.count("fallbacks"), found.value("degraded_share"), found.value("needs_review_share")) == (
        60,
        0.1,
        0.1,
    )
    assert found.parts("reason") == {"the breaker is open": 45.0, "too slow": 15.0}


def test_scores_are_those_of_the_model_alone() -> None:
    """What a fallback said of a row changes neither the distribution nor the estimate."""
    scores = usual_scores()
    sources = ["model"] * 400 + ["rules"] * 200
    found = only(rows_of_day(np.concatenate([scores[:400], np.full(200, 0.9)]), source=sources))
    assert found.count("model_answers") == 400
    assert found.value("score", "mean") == pytest.approx(scores[:400].mean())
    assert found.parts("estimated") == pytest.approx(only(rows_of_day(scores[:400])).parts("estimated"))


def test_the_histogram_is_over_the_bins_of_the_evaluation() -> None:
    """Twenty bins that hold as many rows each there; all shares sum to one, and the ends stand beside them."""
    found = only(rows_of_day())
    shares = found.parts("score_bin")
    assert len(shares) == 20 and sum(shares.values()) == pytest.approx(1.0)
    assert max(shares.values()) < 0.12
    first = found.figure("score_bin", "00")
    assert first is not None and (first.low, first.high) == (None, USUAL.edges[0])
    confidence = found.parts("confidence_bin")
    assert sum(confidence.values()) == pytest.approx(1.0)
    assert all(confidence[f"{place:02}"] == 0.0 for place in range(10))


def test_each_latency_is_held_against_its_own_objective() -> None:
    """The whole answer against the deadline, the score against the objective of a row."""
    slow = [700_000] * 60 + [5_000] * 540
    found = only(rows_of_day(latency={"total": slow, "score": [3_000_000] * 6 + [1_000] * 594}))
    late, over = found.figure("late"), found.figure("over_objective_share")
    assert late is not None and (late.value, late.high) == (60, LATE.serving.deadline.total_seconds() * 1e3)
    assert over is not None and (over.value, over.high) == (0.01, LATE.objectives.p99_ms.value)
    assert found.value("latency_ms", "total p50") == 5.0
    assert found.value("latency_ms", "total max") == 700.0
    assert "hop p50" not in found.parts("latency_ms")


def test_models_manifests_and_arms_are_kept_apart() -> None:
    """Two manifests of one model, another model, and a shadow: four behaviours, the largest first."""
    rows = pl.concat(
        [
            rows_of_day(usual_scores(500)),
            rows_of_day(usual_scores(300), manifest="def"),
            rows_of_day(usual_scores(200), arm=["shadow"] * 200, manifest="def"),
            rows_of_day(usual_scores(100), model="minutes_to_door", manifest="ghi"),
        ]
    )
    found = measured(rows)
    assert [(each.model, each.manifest, each.arm, each.count("answers")) for each in found] == [
        ("late_order", "abc", "champion", 500),
        ("late_order", "def", "champion", 300),
        ("late_order", "def", "shadow", 200),
        ("minutes_to_door", "ghi", "champion", 100),
    ]
    assert [each.is_shadow for each in found] == [False, False, True, False]


def test_one_row_is_enough_to_be_shown() -> None:
    """Every figure is a number."""
    found = only(rows_of_day(np.array([0.3])))
    assert found.count("answers") == 1
    assert all(np.isfinite(each.value) for each in found.figures)


def test_no_row_gives_no_behaviour() -> None:
    """Nothing was measured, and nothing raises."""
    assert measured(pl.DataFrame(schema=schema)) == []


def test_scores_that_are_no_numbers_are_counted_and_left_out() -> None:
    """All of them, too: then there is no distribution and no estimate."""
    scores = usual_scores()
    scores[:30] = np.nan
    found = only(rows_of_day(scores))
    assert found.count("not_finite") == 30
    assert np.isfinite(found.value("score", "mean"))
    every = only(rows_of_day(np.full(50, np.nan)))
    assert every.count("not_finite") == 50 and not every.parts("score") and not every.parts("estimated")


def test_an_answer_given_again_counts_by_its_probability() -> None:
    """It has no scores in the log, and is the model's all the same."""
    found = only(rows_of_day(scores=b""))
    assert found.count("not_finite") == 0
    assert found.value("score", "mean") == pytest.approx(usual_scores().mean())


def test_all_fallback_gives_no_scores() -> None:
    """Sources and latency are there, and nothing is said of the model."""
    found = only(rows_of_day(source=["simple_model"] * 600, scores=b"", degraded=[True] * 600))
    assert found.parts("source_share") == {"simple_model": 1.0}
    assert found.count("model_answers") == 0 and not found.parts("score")


def test_several_classes_and_a_regression() -> None:
    """Of classes the largest score is shown and performance estimated; of a value only the distribution."""
    chances = np.random.default_rng(3).dirichlet([1.0, 2.0, 1.0], 300)
    said = [DOMAIN.model("speed").label.classes[each] for each in chances.argmax(axis=1)]
    top = chances.max(axis=1)
    (speed,) = measured(
        rows_of_day(top, model="speed", scores=chances.tobytes(), prediction=said), "nothing to compare with"
    )
    assert set(speed.parts("estimated")) == {"log_loss", "accuracy"}
    assert speed.value("score", "mean") == pytest.approx(top.mean())
    assert sum(speed.parts("predicted").values()) == 300
    minutes = np.random.default_rng(4).normal(40.0, 5.0, 300)
    (door,) = measured(
        rows_of_day(
            minutes,
            model="minutes_to_door",
            probability=[None] * 300,
            confidence=[None] * 300,
            prediction=minutes.tolist(),
        ),
        "nothing to compare with",
    )
    assert not door.parts("estimated") and not door.parts("predicted")
    assert door.value("score", "mean") == pytest.approx(minutes.mean())
    assert sum(door.parts("score_bin").values()) == pytest.approx(1.0)


def test_without_anything_usual_the_reason_is_told() -> None:
    """And all that needs no comparison is there."""
    found = only(rows_of_day(), "the bundle is gone")
    assert found.not_compared == "the bundle is gone"
    assert found.parts("estimated") and not found.parts("usual")


def test_a_model_that_is_not_declared_any_more_is_counted() -> None:
    """Its answers, sources and latency; nothing is known of its task."""
    (found,) = measured(rows_of_day(model="gone"), "there is no model gone")
    assert found.count("answers") == 600 and not found.parts("score")


def test_clocks_that_went_wrong_are_counted() -> None:
    """Rows that were received before the instant that they are as of, and rows far behind it."""
    rows = rows_of_day()
    moved = rows.with_columns(
        at=pl.when(pl.int_range(pl.len()) < 25)
        .then(pl.col("received") + timedelta(hours=1))
        .when(pl.int_range(pl.len()) < 50)
        .then(pl.col("received") - timedelta(days=400))
        .otherwise(pl.col("at"))
    )
    assert only(moved).count("clocks_apart") == 50
    assert only(rows).count("clocks_apart") == 0


def test_a_window_is_measured_as_a_day_is() -> None:
    """Whatever rows of the log are given, as a plan or in memory."""
    start = datetime(2024, 1, 1, 6, tzinfo=UTC)
    inside = pl.col("received").is_between(start, start + timedelta(hours=1), closed="left")
    (found,) = measured(rows_of_day().lazy().filter(inside))
    assert found.parts("answers_of_hour") == {"06": 25.0}
    assert measured(rows_of_day().filter(inside)) == [found]
