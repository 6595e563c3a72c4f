"""The coverage of a night: what is counted how, what becomes a finding, and what is kept."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domain.reproducibility import Reproducibility
from mlplatform.domain.threshold import Threshold
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tombstones import Tombstone, bury
from mlplatform.monitoring.alerts.rule_names import rules_of
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.coverage import (
    RULE,
    Coverage,
    coverage_findings,
    coverage_of_night,
    covered,
    keep_coverage,
    nights_due,
)
from mlplatform.reproducibility.coverage.plots import (
    cause_lines,
    coverage_lines,
    coverage_plot,
    fault_lines,
    until_lines,
)
from mlplatform.reproducibility.coverage.tables import coverage_rows, coverage_table, past_nights, shares
from mlplatform.reproducibility.replay.verdict import Replayed
from mlplatform_tests.fakes.logged_answers import log_answers
from mlplatform_tests.fakes.replayed_answers import (
    CLOSE,
    DIVERGED,
    EXACT,
    NO_BUNDLE,
    REMOVED,
    Replayer,
    replayed,
)
from mlplatform_tests.fakes.synthetic_home import Clock

NIGHT = "2024-06-30"
OLD = datetime(2024, 1, 2, tzinfo=UTC)
FIRST, SECOND = "a" * 64, "b" * 64


def night(*told: Replayed, **changes: object) -> Coverage:
    """A night of some replays."""
    values = {"logged": 100, "kinds": 1, "removed_days": 0, "removed_answers": 0, **changes}
    return Coverage(night=NIGHT, replayed=told, **values)  # type: ignore[arg-type]


def promising(share: float) -> Domain:
    """The domain with another threshold."""
    threshold = Threshold(value=share, reason="for a test")
    return replace(DOMAIN, reproducibility=Reproducibility(min_replayed=threshold))


def test_outcomes_are_counted_and_what_was_removed_is_apart() -> None:
    """What policy removed was never promised: it neither helps nor harms the share."""
    found = covered([replayed("1"), replayed("2", CLOSE), replayed("3", DIVERGED), replayed("4", REMOVED)])
    assert (found.replayed, found.exact, found.within_tolerance, found.diverged) == (4, 1, 1, 1)
    assert (found.impossible, found.removed) == (0, 1)
    assert found.share == pytest.approx(2 / 3)
    assert math.isnan(covered([replayed("1", REMOVED)]).share) and math.isnan(covered([]).share)


def test_the_cause_is_that_of_most_and_the_example_one_of_them() -> None:
    """One that somebody was given, where there is one: of a shadow's answer nobody asks."""
    told = [
        replayed("1", NO_BUNDLE),
        replayed("2", DIVERGED, arm="shadow"),
        replayed("3", DIVERGED, difference=0.25),
        replayed("4", REMOVED),
        replayed("5", REMOVED),
        replayed("6", REMOVED),
    ]
    found = covered(told)
    assert (found.cause, found.example, found.largest) == ("data", told[2], 0.25)
    assert (found.shadows, found.fallbacks) == (1, 0)
    assert covered([replayed("1", source="rules")]).fallbacks == 1
    assert covered([replayed("1"), replayed("2", CLOSE)]).cause is None


def test_a_share_below_the_promise_does_harm() -> None:
    """Of each model for itself; the finding names share, promise, cause, reason and the command."""
    told = [replayed("1"), replayed("2", DIVERGED), replayed("3", model="basket", manifest=SECOND)]
    (finding,) = coverage_findings(DOMAIN, night(*told))
    assert (finding.rule, finding.subject, finding.harmful) == (RULE, "synthetic/late_order", True)
    assert finding.figures == {"value": 0.5, "bound": 1.0, "answers": 2.0}
    assert (finding.layer, finding.manifest, finding.day) == ("model_behaviour", FIRST, NIGHT)
    for said in (
        "50.0% of 2 old answers",
        "100.0% are promised",
        "data",
        "revision 2",
        "`mlplatform replay 2 --day 2024-06-30`",
    ):
        assert said in finding.summary
    assert RULE in rules_of(DOMAIN)


def test_the_example_is_of_the_model_and_arm_that_failed() -> None:
    """A shadow's row, and another model's, may have the id of an answer."""
    told = [replayed("1", NO_BUNDLE, model="basket"), replayed("1"), replayed("1", DIVERGED, arm="shadow")]
    by_subject = {each.subject: each.summary for each in coverage_findings(DOMAIN, night(*told))}
    assert NO_BUNDLE.reason in by_subject["synthetic/basket"]
    assert DIVERGED.reason in by_subject["synthetic/late_order"]


def test_faults_above_the_promise_are_shown_only() -> None:
    """The domain has said how many it bears."""
    told = [replayed(str(number)) for number in range(99)]
    (finding,) = coverage_findings(promising(0.99), night(*told, replayed("x", NO_BUNDLE)))
    assert not finding.harmful
    (finding,) = coverage_findings(promising(0.995), night(*told, replayed("x", NO_BUNDLE)))
    assert finding.harmful


@pytest.mark.parametrize("verdict", [EXACT, CLOSE, REMOVED])
def test_no_fault_is_no_finding(verdict: object) -> None:
    """Exact, within tolerance and removed by policy are all as promised."""
    assert coverage_findings(DOMAIN, night(replayed("1", verdict))) == []  # type: ignore[arg-type]


def test_a_night_draws_and_replays_once(platform: Platform) -> None:
    """All in one call, so that a bundle is opened once; days that were removed are counted apart."""
    log_answers(platform, NIGHT, 30, manifest=FIRST)
    log_answers(platform, "2024-01-02", 5, manifest=SECOND)
    bury(platform, DOMAIN, [gone("2024-01-01", 70), gone("2023-12-31", 30)])
    replayer = Replayer({SECOND: NO_BUNDLE})
    found = coverage_of_night(platform, DOMAIN, NIGHT, replay=replayer)
    assert replayer.asked == [35]
    assert (found.removed_days, found.removed_answers, found.logged) == (2, 100, 35)
    by = found.by("manifest", "age")
    assert {told: each.share for told, each in by.items()} == {(FIRST, "day"): 1.0, (SECOND, "year"): 0.0}


def gone(day: str, rows: int) -> Tombstone:
    """A day of the log that was removed by policy."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    return Tombstone(
        kind="answers", name=day, content="", rows=rows, policy="after 90 days", actor="nightly", removed_at=at
    )


def test_a_night_without_answers_replays_nothing(platform: Platform) -> None:
    """And is kept all the same, so that it is seen to have been looked at."""
    replayer = Replayer()
    found = coverage_of_night(platform, DOMAIN, NIGHT, replay=replayer)
    assert replayer.asked == [] and found.replayed == ()
    keep_coverage(platform, DOMAIN, found, run_id="r")
    assert set(coverage_table(platform, DOMAIN).current()) == {NIGHT}
    assert coverage_findings(DOMAIN, found) == []


def test_what_is_kept_can_be_read_back(platform: Platform) -> None:
    """Figures by manifest and age; of the answers those that were not the same to the bit, with their cause."""
    told = [replayed("1"), replayed("2", CLOSE, difference=1e-9), replayed("3", NO_BUNDLE, received=OLD)]
    keep_coverage(platform, DOMAIN, night(*told), run_id="r")
    figures = past_nights(platform, DOMAIN, until=NIGHT, at_most=9)
    assert figures.select("age", "replayed", "exact", "within_tolerance", "impossible", "cause", "example").rows() == [
        ("day", 2, 1, 1, 0, None, None),
        ("year", 1, 0, 0, 1, "bundle", "3"),
    ]
    assert set(figures["night"]) == {NIGHT}
    rows = coverage_rows(platform, DOMAIN).read()
    assert rows.sort("request_id").select("request_id", "age", "outcome", "cause", "difference").rows() == [
        ("2", "day", "within_tolerance", "environment", 1e-9),
        ("3", "year", "impossible", "bundle", 0.0),
    ]


def test_a_night_looked_at_again_is_a_new_revision(platform: Platform) -> None:
    """What was found before stays to be read, and what is believed is the newest."""
    keep_coverage(platform, DOMAIN, night(replayed("1", DIVERGED)), run_id="r")
    again = keep_coverage(platform, DOMAIN, night(replayed("1")), run_id="s")
    assert again.number == 2
    assert shares(past_nights(platform, DOMAIN, until=NIGHT, at_most=9))["exact"].to_list() == [1.0]
    assert coverage_rows(platform, DOMAIN).read().is_empty()
    assert coverage_rows(platform, DOMAIN).history().height == 1


def test_the_shares_of_nights_leave_out_what_was_removed(platform: Platform) -> None:
    """A night on which nothing was promised has none."""
    keep_coverage(platform, DOMAIN, night(replayed("1"), replayed("2", REMOVED), replayed("3", DIVERGED)), run_id="r")
    keep_coverage(platform, DOMAIN, replace(night(replayed("1", REMOVED)), night="2024-07-01"), run_id="r")
    figures = past_nights(platform, DOMAIN, until="2024-07-01", at_most=9)
    assert shares(figures).rows() == [(NIGHT, 0.5, 0.0, 0.5, 0.0, 2)]
    assert shares(figures, by="model").rows() == [("late_order", 0.5, 0.0, 0.5, 0.0, 2)]
    assert past_nights(platform, DOMAIN, until="2024-06-29", at_most=9).is_empty()
    assert past_nights(platform, DOMAIN, until="2024-07-01", at_most=1)["night"].unique().to_list() == ["2024-07-01"]


def test_the_last_nights_are_due_once_their_log_has_settled(platform: Platform) -> None:
    """Also those on which nobody asked: what is old may be lost on any day."""
    clock = platform.clock
    assert isinstance(clock, Clock)
    clock.now = datetime(2024, 6, 30, 0, 5, tzinfo=UTC)
    assert nights_due(platform, DOMAIN) == {}
    log_answers(platform, "2024-06-27", 3)
    assert nights_due(platform, DOMAIN) == {"2024-06-28": "0", "2024-06-29": "0"}
    clock.now -= timedelta(minutes=1)
    assert nights_due(platform, DOMAIN) == {"2024-06-27": "3", "2024-06-28": "0"}
    log_answers(platform, "2024-06-27", 2, name="later")
    assert nights_due(platform, DOMAIN)["2024-06-27"] == "5"
    clock.now -= timedelta(days=2)
    assert nights_due(platform, DOMAIN) == {}


def test_tables_name_each_cause_and_some_of_its_answers() -> None:
    """A rare cause is not hidden by many answers of another; a bar in a reason does not break the table."""
    told = [replayed(f"d{number}", DIVERGED) for number in range(50)]
    found = night(*told, replayed("b", NO_BUNDLE, received=OLD), replayed("e"), kinds=3)
    causes = cause_lines(found).splitlines()
    assert [line.split("|")[1].strip() for line in causes[2:]] == ["data", "bundle"]
    assert "| 50 | `mlplatform replay d0 --day 2024-06-30` |" in causes[2]
    faults = fault_lines(found)
    assert "| b |" in faults and faults.count("\n") == 21
    assert "revision 1 \\| revision 2" in faults
    lines = coverage_lines(found).splitlines()
    assert len(lines) == 4 and "| day | 51 | 2.0% |" in lines[2] and "| year | 1 | 0.0% |" in lines[3]
    said = until_lines({("late_order", "v", FIRST): ("2024-09-01", "its revisions go then")})
    assert "| late_order | v | `aaaaaaaaaaaa` | 2024-09-01 | its revisions go then |" in said


def test_the_plot_is_small_and_is_drawn_of_any_nights() -> None:
    """Small enough for the metadata of an asset, with sixty nights, and with none that promised anything."""
    outcomes = {"exact": 497, "within_tolerance": 2, "diverged": 1, "impossible": 0}
    rows = [
        {"night": f"2024-{month:02}-{day:02}", "replayed": 500, "removed": 0, **outcomes}
        for month, day in product((1, 2), range(1, 31))
    ]
    figures = pl.DataFrame(rows)
    assert 2_000 < len(coverage_plot(figures, 1.0)) < 60_000
    assert coverage_plot(figures.with_columns(removed=pl.lit(500)), 1.0).startswith(b"\x89PNG")
