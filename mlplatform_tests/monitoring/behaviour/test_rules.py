"""What is a finding and what is not: each rule on a day that breaks it, and on quiet ones."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.behaviour.behaviour import behaviour_of
from mlplatform.monitoring.behaviour.rules import (
    breaker_findings,
    findings_of,
    is_steady,
    log_dropped,
    no_traffic,
    opened,
    wilson,
)
from mlplatform.monitoring.behaviour.usual import Usual
from mlplatform.monitoring.finding import Finding
from mlplatform_tests.fakes.answered import NOON, transition
from mlplatform_tests.fakes.behaved import LATE, rows_of_day, usual_days, usual_scores

USUAL = usual_days()
DAY = "2024-01-01"


def found_in(rows: pl.DataFrame, usual: Usual | None = USUAL, **told: Any) -> list[Finding]:
    """Findings of the one behaviour in some rows."""
    (behaviour,) = behaviour_of(rows, {LATE.name: LATE}, lambda *_: usual or "gone")
    return findings_of(DOMAIN, LATE, DAY, behaviour, usual, **told)


def rules_in(rows: pl.DataFrame, usual: Usual | None = USUAL, **told: Any) -> list[str]:
    """The same by their names."""
    return [each.rule for each in found_in(rows, usual, **told)]


def with_fallbacks(fallbacks: int, rows: int) -> pl.DataFrame:
    """A day on which so many answers were not the model's."""
    sources = ["rules"] * fallbacks + ["model"] * (rows - fallbacks)
    return rows_of_day(usual_scores(rows), source=sources, reason=["too slow"] * rows, degraded=[True] * rows)


@pytest.mark.parametrize("seed", range(40))
def test_a_usual_day_has_no_finding(seed: int) -> None:
    """Days that differ as the days of the evaluation did."""
    shift = 0.2 * np.random.default_rng(1000 + seed).standard_normal()
    assert rules_in(rows_of_day(usual_scores(seed=seed, shift=shift))) == []


def test_much_fallback_is_a_finding() -> None:
    """With the tiers, the share, the bound and the most frequent reason."""
    (found,) = found_in(with_fallbacks(90, 600))
    assert (found.rule, found.subject, found.manifest, found.harmful) == (
        "fallback_share",
        "synthetic/late_order",
        "abc",
        True,
    )
    assert found.figures == {"value": 0.15, "bound": 0.05, "answers": 600.0}
    assert "15.0% of 600 answers" in found.summary and "rules 15.0%" in found.summary and "too slow" in found.summary


def test_few_answers_do_not_alarm() -> None:
    """A share above the bound that chance may have made, or of fewer answers than are judged, is no finding."""
    assert rules_in(with_fallbacks(36, 600)) == []
    assert rules_in(with_fallbacks(150, 199)) == []
    assert "fallback_share" in rules_in(with_fallbacks(150, 200))


def test_late_answers_are_a_finding() -> None:
    """Told with the phase that took the time; one per cent is borne."""
    slow = {"total": [600_000] * 60 + [5_000] * 540, "queue": [590_000] * 60 + [10] * 540}
    (found,) = found_in(rows_of_day(latency=slow))
    assert (
        found.rule == "latency" and "10.0% of 600 answers" in found.summary and "most of it in queue" in found.summary
    )
    assert rules_in(rows_of_day(latency={"total": [600_000] * 6 + [5_000] * 594})) == []


def test_scores_that_are_all_one_value() -> None:
    """Harmful, also within a window; with few answers, or where the model never said anything else, no finding."""
    constant = rows_of_day(np.full(600, 0.2))
    found = {each.rule: each for each in found_in(constant)}
    assert found["constant_scores"].harmful and "all 600 scores are 0.2" in found["constant_scores"].summary
    assert rules_in(constant, whole_day=False) == ["constant_scores"]
    assert "constant_scores" not in rules_in(rows_of_day(np.full(100, 0.2)))
    always = replace(USUAL, edges=(0.2,), days=tuple(_without_rare(USUAL)))
    assert "constant_scores" not in rules_in(constant, always)


def test_scores_that_are_no_numbers() -> None:
    """However few: no such score should ever be answered with."""
    scores = usual_scores()
    scores[0] = np.nan
    (found,) = found_in(rows_of_day(scores))
    assert (
        found.rule == "constant_scores"
        and "1 of 600 answers of the model have a score that is no number" in found.summary
    )


def test_one_class_only() -> None:
    """A finding where each day had others, and so many that their absence is no chance."""
    scores = np.minimum(usual_scores(), 0.49)
    one_class = [each for each in found_in(rows_of_day(scores)) if each.rule == "constant_scores"]
    assert "all 600 predictions are 0" in one_class[0].summary
    few = np.minimum(usual_scores(250), 0.49)
    assert "constant_scores" not in rules_in(rows_of_day(few))
    rare = replace(USUAL, days=tuple(_without_rare(USUAL)))
    assert "constant_scores" not in rules_in(rows_of_day(scores), rare)


def _without_rare(usual: Usual) -> Any:
    return (msgspec.structs.replace(each, rarest_class=0.0) for each in usual.days)


def test_scores_that_expect_to_be_wrong_more_often() -> None:
    """The loss is estimated above all usual days: harmful, and so is the shift of the mean that comes with it."""
    unsure = 1.0 / (1.0 + np.exp(-np.random.default_rng(2).normal(0.0, 0.3, 600)))
    found = {each.rule: each for each in found_in(rows_of_day(unsure))}
    assert set(found) == {"estimated_performance", "score_shift"}
    assert found["estimated_performance"].harmful and found["score_shift"].harmful
    figures = found["estimated_performance"].figures
    assert figures["value"] > figures["bound"] == USUAL.bands["log_loss"].high
    assert rules_in(rows_of_day(unsure), whole_day=False) == []


def test_a_shift_alone_is_shown_and_wakes_nobody() -> None:
    """Scores lower than ever, and surer: they may be right."""
    found = found_in(rows_of_day(usual_scores(shift=-3.0) ** 2), replace(USUAL, days=tuple(_without_rare(USUAL))))
    shift = [each for each in found if each.rule == "score_shift"]
    assert len(shift) == 1 and not shift[0].harmful
    assert shift[0].figures["value"] < shift[0].figures["bound"] == USUAL.bands["mean_score"].low


def test_part_of_a_day_is_not_held_against_whole_ones() -> None:
    """A service that began in the evening has seen other requests than those of a day."""
    unsure = np.full(600, 0.5) + np.linspace(-0.05, 0.05, 600)
    rows = rows_of_day(unsure)
    evening = rows.with_columns(pl.col("at").dt.truncate("1d") + pl.duration(hours=20))
    assert "estimated_performance" in rules_in(rows)
    assert "estimated_performance" not in rules_in(evening)


def test_without_anything_usual_only_what_needs_none_is_judged() -> None:
    """The fallback share is; the scores are not."""
    assert rules_in(with_fallbacks(90, 600), None) == ["fallback_share"]
    assert rules_in(rows_of_day(np.full(600, 0.2)), None) == []


def test_a_shadow_is_not_judged() -> None:
    """Its rows are nobody's answers."""
    assert rules_in(rows_of_day(np.full(600, np.nan), arm=["shadow"] * 600)) == []


def test_a_challenger_is_named() -> None:
    """A finding says of which arm it is, where it is not the champion."""
    sources = ["rules"] * 300 + ["model"] * 300
    (found,) = found_in(rows_of_day(usual_scores(), source=sources, arm=["challenger"] * 600))
    assert found.summary.startswith("abc as challenger: ")


@settings(max_examples=200)
@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_of_a_share_holds_the_share(hits: int, others: int) -> None:
    """And lies between 0 and 1, with no row at all too."""
    low, high = wilson(hits, hits + others)
    assert 0.0 <= low <= high <= 1.0
    if hits + others:
        assert low <= hits / (hits + others) + 1e-12 and hits / (hits + others) - 1e-12 <= high


def test_a_breaker_that_closed_again_is_shown() -> None:
    """It did what it is for; one that is open at the end, or opens again and again, is harmful."""
    opening, closing = transition(), transition(before="half_open", after="closed", at=NOON + 60)
    (quiet,) = breaker_findings(DAY, opened([closing, opening]))
    assert (quiet.rule, quiet.subject, quiet.harmful) == ("breaker_open", "synthetic/late_order", False)
    assert "opened 1 times, closed again" in quiet.summary and "failure rate 0.60" in quiet.summary
    (still,) = breaker_findings(DAY, opened([opening, closing, transition(gateway="g2")]))
    assert still.harmful and still.figures["still"] == 1.0
    again = [transition(at=NOON + 100 * time) for time in range(3)]
    (often,) = breaker_findings(DAY, opened([*again, transition(before="half_open", after="closed", at=NOON + 900)]))
    assert often.harmful and often.figures["value"] == 3.0


def test_breakers_are_told_apart() -> None:
    """The model's and the online store's, of each manifest; one that never opened is not told of."""
    told = [transition(), transition(breaker="online store"), transition(manifest="def")]
    closed = transition(manifest="ghi", before="half_open", after="closed")
    assert {(each.manifest, each.breaker) for each in opened([*told, closed])} == {
        ("abc", "synthetic/late_order"),
        ("abc", "online store"),
        ("def", "synthetic/late_order"),
    }


def test_no_traffic_where_there_was_some_each_day() -> None:
    """A finding with what is usual; a small stretch, or one that was empty before, is none."""
    found = no_traffic(DOMAIN, "late_order", DAY, dict.fromkeys(range(1, 15), 100.0), stretch="all day")
    assert found is not None and found.harmful and "usual are some 100 answers" in found.summary
    assert no_traffic(DOMAIN, "late_order", DAY, dict.fromkeys(range(1, 15), 5.0), stretch="all day") is None
    assert no_traffic(DOMAIN, "late_order", DAY, {}, stretch="all day") is None


def test_a_silence_goes_on_for_a_week() -> None:
    """The second silent day is no recovery; after a week it is how things are."""
    told = [is_steady(dict.fromkeys(range(1 + silent, 9 + silent), 100.0)) for silent in range(9)]
    assert told == [True] * 7 + [False] * 2


def test_a_day_off_is_no_silence() -> None:
    """Mondays to Fridays: a Saturday without answers is usual, a Tuesday is not."""
    saturday = {ago: 0.0 if ago % 7 in (0, 6) else 100.0 for ago in range(1, 22)}
    tuesday = {ago: 0.0 if ago % 7 in (2, 3) else 100.0 for ago in range(1, 22)}
    assert not is_steady(saturday) and is_steady(tuesday)


def test_dropped_answers_are_told() -> None:
    """Harmful from the share on from which figures are in doubt; none is no finding."""
    assert log_dropped(DOMAIN, DAY, 0, 1000) is None
    few, many = log_dropped(DOMAIN, DAY, 1, 1000), log_dropped(DOMAIN, DAY, 100, 1000)
    assert few is not None and not few.harmful
    assert many is not None and many.harmful and many.subject == "synthetic/prediction_log"
