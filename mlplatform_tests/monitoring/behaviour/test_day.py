"""A day of a served home: from the log, the gaps, the breakers and the days before, to findings and a table."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.online.publish import publish_values
from mlplatform.monitoring.behaviour.day import (
    DayBehaviour,
    behaviour_of_day,
    days_to_judge,
    silent_days,
    transitions_between,
)
from mlplatform.monitoring.behaviour.tables import answers_before, keep_behaviour, latest_behaviour
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.registry.candidate import bundle_of
from mlplatform_tests.fakes.answered import transition
from mlplatform_tests.fakes.behaved import MIDNIGHT, batch_of_day, usual_scores
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

DAY = "2024-01-20"
SERVED = 1_705_708_800_000_000_000
"""Midnight of `DAY`, nanoseconds."""

ONE_DAY = 86_400_000_000_000


def log(platform: Platform, *batches: Any, dropped: int = 0) -> None:
    """Answers in the table, and so many that could not be written."""
    segments = Segments(log_folder(platform.home, DOMAIN.name), size=1 << 20, spares=1)
    for batch in batches:
        assert segments.append(encode(batch), len(batch.request_id))
    if dropped:
        segments.append(bytes(1 << 21), rows=dropped)
    segments.close()
    pick_up(platform, DOMAIN)


def rules(found: DayBehaviour) -> list[str]:
    """What was found, by name."""
    return [each.rule for each in found.findings]


def test_a_served_day_behaves_as_evaluated(own_trained: TrainedHome, tmp_path: Path) -> None:
    """Real answers to the requests of a day: no finding, and the estimate is a usual one."""
    home = own_trained
    clock = home.platform.clock
    assert isinstance(clock, Clock)
    clock.now = datetime(2024, 1, 20, 0, 10, tzinfo=UTC)
    publish_values(home.platform, DOMAIN, as_of="2024-01-19")
    Gateway(home.platform, bundle_of(home.platform, home.entry.to_manifest)).serve(
        asked_on(home.platform, DAY), tmp_path / "metrics"
    )
    found = behaviour_of_day(home.platform, DOMAIN, DAY)
    assert (rules(found), found.not_compared) == ([], [])
    (behaviour,) = found.behaviours
    assert (behaviour.model, behaviour.arm, behaviour.manifest) == ("late_order", "champion", home.entry.to_manifest)
    assert found.answers == behaviour.count("answers") == asked_on(home.platform, DAY).height
    estimate, usual = behaviour.figure("estimated", "log_loss"), behaviour.figure("usual", "log_loss")
    assert estimate is not None and usual is not None and usual.low is not None and usual.high is not None
    assert usual.low < estimate.value < usual.high


def test_a_store_that_was_not_filled_shifts_the_scores(own_trained: TrainedHome, tmp_path: Path) -> None:
    """The requests of the day, answered without what the views know: shown, before any label is in."""
    home = own_trained
    Gateway(home.platform, bundle_of(home.platform, home.entry.to_manifest), online=str(tmp_path / "empty")).serve(
        asked_on(home.platform, DAY), tmp_path / "metrics"
    )
    assert "score_shift" in rules(behaviour_of_day(home.platform, DOMAIN, DAY))


def test_a_day_that_was_not_logged_has_nothing(platform: Platform) -> None:
    """No log, no gaps, no breakers: no finding either."""
    found = behaviour_of_day(platform, DOMAIN, DAY)
    assert (found.behaviours, found.findings, found.answers) == ((), (), 0)


def test_what_cannot_be_compared_is_told(own_trained: TrainedHome) -> None:
    """A manifest whose bundle is gone and a model that is no longer declared: figures, and the reason."""
    scores = usual_scores(300)
    log(
        own_trained.platform,
        batch_of_day(scores, midnight=SERVED, manifest="gone" * 16),
        batch_of_day(scores, midnight=SERVED, model="undeclared"),
    )
    found = behaviour_of_day(own_trained.platform, DOMAIN, DAY)
    assert [each.count("answers") for each in found.behaviours] == [300, 300]
    assert len(found.not_compared) == 2 and any("gonegonegone" in each for each in found.not_compared)
    assert rules(found) == []


def test_a_shadow_is_nobodys_answer(own_trained: TrainedHome) -> None:
    """Its rows are kept apart, and count as rows of the log only."""
    manifest = own_trained.entry.to_manifest
    log(
        own_trained.platform,
        batch_of_day(usual_scores(300), midnight=SERVED, manifest=manifest),
        batch_of_day(np.full(250, np.nan), midnight=SERVED, manifest=manifest, arm=["shadow"] * 250),
    )
    found = behaviour_of_day(own_trained.platform, DOMAIN, DAY)
    assert (found.answers, found.rows) == (300, 550)
    assert not [each for each in found.findings if each.rule == "constant_scores"]


def test_dropped_answers_and_breakers_are_found(platform: Platform) -> None:
    """From the table of gaps and the files of the gateways; another day's are not this one's."""
    log(platform, batch_of_day(usual_scores(90), midnight=SERVED), dropped=10)
    written = BreakerLog(breaker_folder(platform.home, DOMAIN.name))
    written.append(transition(at=SERVED + 5))
    written.append(transition(at=SERVED + ONE_DAY, gateway="g2"))
    written.close()
    elsewhere = [transition(at=SERVED + 9, breaker="online store"), transition(at=SERVED - 1)]
    found = behaviour_of_day(platform, DOMAIN, DAY, observed=elsewhere)
    assert sorted((each.breaker, each.times) for each in found.breakers) == [
        ("online store", 1),
        ("synthetic/late_order", 1),
    ]
    assert rules(found).count("breaker_open") == 2
    start = datetime.fromtimestamp(SERVED / 1e9, UTC)
    assert len(transitions_between(platform, DOMAIN, start, start + timedelta(seconds=1))) == 1


def test_gaps_are_of_the_day_on_which_they_were_written(platform: Platform) -> None:
    """Segments name their own time; the day that lacks answers is the one that is told of."""
    log(platform, batch_of_day(usual_scores(90), midnight=SERVED), dropped=10)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    found = behaviour_of_day(platform, DOMAIN, today)
    assert found.dropped == 10 and rules(found) == ["log_dropped"]


@pytest.fixture
def steady(platform: Platform) -> Platform:
    """A home in which nine days of steady traffic were judged, with a small model beside."""
    for day in range(9):
        midnight = MIDNIGHT + day * ONE_DAY
        log(
            platform,
            batch_of_day(usual_scores(480), midnight=midnight),
            batch_of_day(usual_scores(5), midnight=midnight, model="speed", manifest="def"),
        )
        name = f"2024-01-0{day + 1}"
        keep_behaviour(platform, DOMAIN, name, behaviour_of_day(platform, DOMAIN, name).behaviours, run_id="test")
    return platform


def test_a_silent_day_after_steady_ones_is_found(steady: Platform) -> None:
    """For the model that was asked each day, and not for those with little or nothing before."""
    assert answers_before(steady, DOMAIN, "2024-01-10")["speed"] == dict.fromkeys(range(1, 10), 5.0)
    found = behaviour_of_day(steady, DOMAIN, "2024-01-10")
    assert [(each.rule, each.subject) for each in found.findings] == [("no_traffic", "synthetic/late_order")]
    assert found.findings[0].figures["usual"] == 480.0


def test_one_answer_is_no_silence(steady: Platform) -> None:
    """And one row judges nothing."""
    log(steady, batch_of_day(np.array([0.4]), midnight=MIDNIGHT + 9 * ONE_DAY))
    found = behaviour_of_day(steady, DOMAIN, "2024-01-10")
    assert (found.answers, rules(found)) == (1, [])


def test_silent_days_are_judged_for_a_while(steady: Platform) -> None:
    """Each day with answers once it is over, then a week of silence, and no further."""
    clock = steady.clock
    assert isinstance(clock, Clock)
    clock.now = datetime(2024, 1, 11, 0, 5, tzinfo=UTC)
    due = days_to_judge(steady, DOMAIN)
    assert due == {**{f"2024-01-0{day}": "485" for day in range(1, 10)}, "2024-01-10": "0"}
    clock.now = datetime(2024, 3, 1, tzinfo=UTC)
    assert max(days_to_judge(steady, DOMAIN)) == f"2024-01-{9 + silent_days}"


def test_nothing_is_due_where_nothing_was_logged(platform: Platform) -> None:
    """No day is asked for."""
    assert days_to_judge(platform, DOMAIN) == {}


def test_the_newest_days_are_read_back(steady: Platform) -> None:
    """As they were measured, figure by figure; the days before are not read."""
    told = latest_behaviour(steady, DOMAIN, days=2)
    assert list(told) == ["2024-01-08", "2024-01-09"]
    measured = behaviour_of_day(steady, DOMAIN, "2024-01-09").behaviours
    for kept, one in zip(told["2024-01-09"], measured, strict=True):
        assert (kept.model, kept.manifest, kept.arm) == (one.model, one.manifest, one.arm)
        assert sorted(kept.figures, key=str) == sorted(one.figures, key=str)
    assert list(latest_behaviour(steady, DOMAIN, days=1, until="2024-01-03")) == ["2024-01-03"]


def test_nothing_judged_gives_nothing(platform: Platform) -> None:
    """No table, no days."""
    assert latest_behaviour(platform, DOMAIN) == {}
    assert answers_before(platform, DOMAIN, DAY) == {}
