"""The watch at a glance: how far each monitor has judged, what is open, which breakers are not closed."""

import io
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.alerts.loop import Monitor
from mlplatform.monitoring.alerts.send import open_channels
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.operations.status import show, status
from mlplatform.operations.watch_status import Judged, Replays, watch_status
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.coverage.coverage import Coverage, keep_coverage
from mlplatform_tests.fakes.answered import NOON, transition
from mlplatform_tests.fakes.replayed_answers import CLOSE, DIVERGED, REMOVED, replayed

DRIFT = Finding(
    layer="data_quality",
    rule="drift",
    subject="synthetic/late_order",
    day="2024-01-20",
    summary="amount has moved",
    figures={"value": 0.41, "bound": 0.25},
)


def look(platform: Platform) -> None:
    """One look of the monitor loop, which tells nobody."""
    monitor = Monitor(platform, DOMAIN, monitors={}, channels=lambda: open_channels(None))
    monitor.look()
    monitor.close()


def test_where_nothing_was_judged_nothing_is_said(platform: Platform) -> None:
    """A new home: no monitor, no alert, no breaker, and the loop never looked."""
    found = watch_status(platform, DOMAIN)
    assert (found.looked_seconds_ago, found.judged, found.alerts, found.breakers) == (None, {}, (), {})
    assert found.replays == {}


def test_it_shows_the_newest_judgement_what_is_open_and_what_is_not_closed(platform: Platform) -> None:
    """Of each monitor its newest day; an alert from its finding on; a breaker until it is closed again."""
    now = datetime(2024, 1, 21, 1, tzinfo=UTC)
    platform = replace(platform, clock=lambda: now)
    harmless = replace(DRIFT, rule="slow_drift", harmful=False)
    keep_findings(platform, DOMAIN, "data_quality", "2024-01-19", [], "run")
    keep_findings(platform, DOMAIN, "data_quality", "2024-01-20", [DRIFT, harmless], "run")
    keep_findings(platform, DOMAIN, "skew", "2024-01-19", [], "run")
    log = BreakerLog(breaker_folder(platform.home, DOMAIN.name))
    log.append(transition())
    log.append(transition(gateway="g2"))
    log.append(transition(gateway="g2", before="open", after="closed", at=NOON + 1))
    log.close()
    look(platform)
    found = watch_status(platform, DOMAIN)
    assert found.judged == {
        "data_quality": Judged(day="2024-01-20", harmful=1, findings=2),
        "skew": Judged(day="2024-01-19", harmful=0, findings=0),
    }
    assert ("drift", "synthetic/late_order", "amount has moved") in [
        (each.rule, each.subject, each.summary) for each in found.alerts
    ]
    assert found.breakers == {"synthetic/late_order of g1": "open"}
    assert found.looked_seconds_ago is not None
    console = Console(file=io.StringIO(), width=200)
    show(status(platform, [DOMAIN]), console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "data_quality to 2024-01-20: 1 harmful, skew to 2024-01-19" in told
    assert "alert: drift of synthetic/late_order, since" in told
    assert "breaker: synthetic/late_order of g1 is open" in told


def test_it_shows_how_many_old_answers_could_be_given_again(platform: Platform) -> None:
    """Of the last night, by model, without what was removed by policy."""
    told = (replayed("1"), replayed("2", CLOSE), replayed("3", DIVERGED), replayed("4", REMOVED))
    for night, answers in {"2024-06-29": told[:1], "2024-06-30": told}.items():
        found = Coverage(night=night, logged=9, kinds=1, replayed=answers, removed_days=0, removed_answers=0)
        keep_coverage(platform, DOMAIN, found, run_id="r")
    assert watch_status(platform, DOMAIN).replays == {
        "late_order": Replays(night="2024-06-30", replayed=3, share=2 / 3),
    }
    console = Console(file=io.StringIO(), width=200)
    show(status(platform, [DOMAIN]), console)
    said = "old answers that could be given again, night of 2024-06-30: 66.7% of 3 of late_order"
    assert said in console.file.getvalue()  # type: ignore[attr-defined]
