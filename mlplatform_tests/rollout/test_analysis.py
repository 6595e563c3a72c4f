"""The verdict on a rollout: how often it is wrong, what it finds, and what it waits for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.rollout import Rollout
from mlplatform.domain.threshold import Threshold
from mlplatform.rollout.analysis import Look, Pairs, Split, Trip, figures, judge, loss_difference
from mlplatform.rollout.sequential import Values

BEGUN = datetime(2024, 5, 1, tzinfo=UTC)
SETTINGS = Rollout(error=Threshold(value=0.05, reason="for the test"))
Draw = Callable[[np.random.Generator, int], Values]


def look(
    *,
    loss: Values,
    failures: Values | None = None,
    segments: pl.DataFrame | None = None,
    hours: float = 48,
    split: Split | None = None,
    trips: tuple[Trip, ...] = (),
) -> Look:
    """What is seen some hours after the beginning."""
    harms = {"log_loss": loss, "failures": np.zeros(loss.size) if failures is None else failures}
    pairs = Pairs(
        harms=harms,
        margins={"log_loss": 0.02, "failures": 0.01},
        segments=pl.DataFrame(height=loss.size) if segments is None else segments,
        by_segment=("log_loss",),
    )
    now = BEGUN + timedelta(hours=hours)
    return Look(pairs=pairs, now=now, step_since=BEGUN, bake=timedelta(days=1), split=split, trips=trips)


def losses(random: np.random.Generator, n: int, *, scores: Values | None = None, noise: float = 0.3) -> Values:
    """Differences of the log losses of two models that are equally good.

    Both see the truth's logit, each with its own noise, on days that are harder and easier.
    """
    day = np.repeat(random.normal(0, 0.5, n // 500 + 1), 500)[:n]
    logit = random.normal(-1, 1, n) + day if scores is None else scores
    truth = random.random(n) < 1 / (1 + np.exp(-logit))
    one, other = (logit + random.normal(0, noise, n) for _ in range(2))

    def loss(of: Values) -> Values:
        return np.logaddexp(0, np.where(truth, -of, of))

    return loss_difference(loss(one), loss(other))


def test_equals_are_rolled_back_no_more_often_than_stated() -> None:
    """Two equal arms, six segments, looked at all the time for 20,000 requests."""
    random = np.random.default_rng(5)
    segments = pl.DataFrame({"port": random.choice(list("abcdef"), 20_000)})
    back = 0
    for _ in range(60):
        back += judge(look(loss=losses(random, 20_000), segments=segments), SETTINGS).outcome == "roll_back"
    assert back / 60 <= 0.05 + 2.6 * (0.05 * 0.95 / 60) ** 0.5


def test_equals_get_on() -> None:
    """With enough pairs the harm is known to be below the margin."""
    random = np.random.default_rng(5)
    found = judge(look(loss=losses(random, 30_000)), SETTINGS)
    assert found.outcome == "advance", found.reasons
    assert any("log_loss" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("draw", "where"),
    [
        (lambda random, n: losses(random, n) + 0.03, "log_loss:"),
        (lambda random, n: losses(random, n, noise=0.3) + random.binomial(1, 0.05, n) * 0.8, "log_loss:"),
    ],
    ids=["a little on all", "much on few"],
)
def test_harm_is_found(draw: Draw, where: str) -> None:
    """And named, with its bounds."""
    found = judge(look(loss=np.clip(draw(np.random.default_rng(2), 10_000), -1, 1)), SETTINGS)
    assert found.outcome == "roll_back"
    assert where in found.reasons[0]


def test_no_average_hides_a_hurt_segment() -> None:
    """Better on nine ports, worse on the tenth."""
    random = np.random.default_rng(4)
    port = random.choice(list("abcdefghij"), 30_000)
    loss = losses(random, 30_000) + np.where(port == "j", 0.15, -0.03)
    found = judge(look(loss=np.clip(loss, -1, 1), segments=pl.DataFrame({"port": port})), SETTINGS)
    assert loss.mean() < 0
    assert found.outcome == "roll_back"
    assert [each.segment for each in found.harms if each.certain] == ["port=j"]


def test_failures_are_harm_too() -> None:
    """A challenger that scores one request in fifty not at all."""
    random = np.random.default_rng(6)
    failures = random.binomial(1, 0.02, 5000).astype(np.float64)
    found = judge(look(loss=losses(random, 5000), failures=failures), SETTINGS)
    assert found.outcome == "roll_back"
    assert "failures" in found.reasons[0]


@pytest.mark.parametrize(("n", "labelled"), [(0, 0), (1, 1), (400, 400), (5000, 0)])
def test_missing_evidence_is_no_pass(n: int, labelled: int) -> None:
    """No traffic, hardly any, or no label yet: hold, and say what is waited for."""
    loss = losses(np.random.default_rng(1), n) if n else np.empty(0)
    loss[labelled:] = np.nan
    found = judge(look(loss=loss), SETTINGS)
    assert found.outcome == "hold"
    assert any("pairs" in reason for reason in found.reasons)


def test_a_step_bakes() -> None:
    """However good it looks."""
    found = judge(look(loss=losses(np.random.default_rng(5), 30_000), hours=23), SETTINGS)
    assert found.outcome == "hold"
    assert found.reasons == ("the step bakes until 2024-05-02 00:00 UTC",)


def test_what_trips_is_not_counted() -> None:
    """A breaker that is open, and a split that is not as planned, end it at once."""
    loss = losses(np.random.default_rng(5), 30_000)
    tripped = judge(look(loss=loss, trips=(Trip(name="breaker_open", reason="its breaker is open"),)), SETTINGS)
    assert (tripped.outcome, tripped.reasons) == ("roll_back", ("its breaker is open",))
    uneven = judge(look(loss=loss, split=Split(challenger=900, keys=10_000, share=0.05)), SETTINGS)
    assert uneven.outcome == "roll_back"
    assert "5.00%" in uneven.reasons[0]
    even = judge(look(loss=loss, split=Split(challenger=510, keys=10_000, share=0.05)), SETTINGS)
    assert even.outcome == "advance"


def test_the_error_is_for_the_rollout_as_a_whole() -> None:
    """More figures do not make it larger: each has its part."""
    loss = losses(np.random.default_rng(8), 4000) + 0.01
    one = judge(look(loss=np.clip(loss, -1, 1)), SETTINGS).harms[0]
    tight = judge(look(loss=np.clip(loss, -1, 1)), replace(SETTINGS, error=Threshold(value=1e-6, reason="-"))).harms[0]
    assert tight.bounds.lower < one.bounds.lower
    assert tight.bounds.upper == one.bounds.upper


def test_a_segment_keeps_its_part_of_the_error() -> None:
    """Whatever appears later, in its own column or in another: over all looks no more is spent than there is."""
    values = [f"{number}" for number in range(40)]
    segments = pl.DataFrame({"carrier": values, "airport": values})
    spent: dict[str, set[float]] = {}
    for seen in range(1, 41):
        pairs = Pairs(
            harms={"log_loss": np.zeros(seen)},
            margins={"log_loss": 0.02},
            segments=segments.head(seen),
            by_segment=("log_loss",),
        )
        for figure in figures(pairs, 0.05):
            spent.setdefault(figure.segment, set()).add(figure.error)
    assert all(len(parts) == 1 for parts in spent.values())
    assert sum(part for parts in spent.values() for part in parts) < 0.05
