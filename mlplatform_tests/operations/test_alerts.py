"""`mlplatform alerts`: what it shows, whom it tells, and how long it is quiet."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlplatform.cli import app
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings
from mlplatform.monitoring.alerts.loop import Monitor
from mlplatform.monitoring.alerts.send import open_channels
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.operations.alerts import duration
from mlplatform.settings import settings
from mlplatform_tests.fakes.alert_endpoint import AlertEndpoint

DRIFT = Finding(
    layer="data_quality",
    rule="drift",
    subject="synthetic/late_order",
    day="2024-01-20",
    summary="amount has moved",
    figures={"value": 0.41, "bound": 0.25},
    features=("amount",),
)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlertEndpoint]:
    """A home of its own, and a webhook to which all tags of the domain lead."""
    made = AlertEndpoint()
    config = tmp_path / "channels"
    config.write_text(f"ticket,page,digest={made.url()}\n")
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPLATFORM_ALERTS", str(config))
    monkeypatch.setenv("COLUMNS", "200")
    yield made
    made.down()


def look() -> None:
    """One look of the loop."""
    monitor = Monitor(platform_from_settings(), DOMAIN, monitors={}, channels=lambda: open_channels(settings().alerts))
    monitor.look()
    monitor.close()


def found(*findings: Finding) -> None:
    """A monitor has judged a day."""
    keep_findings(platform_from_settings(), DOMAIN, "data_quality", "2024-01-20", findings, "run")


def run(*arguments: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, ["alerts", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_what_is_open_is_listed_with_who_was_told(endpoint: AlertEndpoint) -> None:
    """Figure against bound, the sentence, the features, the receiver; as JSON too."""
    assert run("list") == "no alert is open"
    found(DRIFT)
    look()
    shown = run("list", "synthetic")
    for part in ("drift:synthetic/late_order", "0.41 / 0.25", "amount has moved", "features: amount", "json-"):
        assert part in shown
    (told,) = json.loads(run("list", "--json"))
    assert (told["rule"], told["figures"], told["hushed"]) == ("drift", {"value": 0.41, "bound": 0.25}, "")


def test_history_holds_what_is_over(endpoint: AlertEndpoint) -> None:
    """All of it, or of one rule, or of one subject."""
    found(DRIFT)
    look()
    found()
    look()
    assert run("list") == "no alert is open"
    for what in ([], ["drift"], ["drift:synthetic/late_order"]):
        assert "over" in run("history", *what)
    assert run("history", "nulls") == "there was no alert nulls"
    assert len(endpoint.taken) == 2


def test_a_silence_is_shown_and_nobody_is_told(endpoint: AlertEndpoint) -> None:
    """With its reason, until it ends or is ended."""
    assert "silent until" in run("silence", "drift:synthetic/late_order", "--for", "4h", "--reason", "a deploy")
    found(DRIFT)
    look()
    assert "a deploy" in run("list")
    assert endpoint.asked == 0
    run("silence", "drift:synthetic/late_order", "--for", "0m", "--reason", "done")
    look()
    assert len(endpoint.taken) == 1


def test_a_silence_wants_a_reason_a_duration_and_a_domain(endpoint: AlertEndpoint) -> None:
    """What is wrong is said, and nothing is hushed."""
    for wrong in (["drift", "--for", "long", "--reason", "x"], ["drift", "--for", "4h", "--reason", " "]):
        with pytest.raises(DeclarationError):
            run("silence", *wrong)
    with pytest.raises(DeclarationError, match="domain/model"):
        run("silence", "drift:nowhere/model", "--for", "4h", "--reason", "x")
    with pytest.raises(DeclarationError):
        duration("4 hours")


def test_a_test_message_goes_to_every_tag(endpoint: AlertEndpoint) -> None:
    """Each tag of the domain, who took it; a tag that nobody has is told, and fails the command."""
    assert run("test", "synthetic").count("taken") == 3
    assert sorted(each["title"].split()[-1] for each in endpoint.taken) == ["digest", "page", "ticket"]
    settings().alerts.write_text(f"ticket={endpoint.url()}\n")  # type: ignore[union-attr]  # it is set
    done = CliRunner().invoke(app, ["alerts", "test", "synthetic"])
    assert done.exit_code == 1
    assert "no service of the configuration has this tag" in " ".join(done.output.split())


def test_what_waits_for_its_channel_is_shown(endpoint: AlertEndpoint) -> None:
    """And why it was not taken."""
    endpoint.status = 503
    found(DRIFT)
    look()
    shown = run("list")
    assert "waits for its channel" in shown
    assert "it answered 503" in shown


def test_without_channels_a_test_says_what_to_set(endpoint: AlertEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was found is listed all the same."""
    monkeypatch.delenv("MLPLATFORM_ALERTS")
    found(DRIFT)
    look()
    assert "no channel" in run("list")
    with pytest.raises(DeclarationError, match="MLPLATFORM_ALERTS"):
        run("test")
