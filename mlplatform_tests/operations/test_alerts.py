"""`mlplatform alerts`: what it shows, whom it tells, and how long it is quiet."""

import getpass
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domain.monitoring import Alerts
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError
from mlplatform.features.resources import platform_from_settings
from mlplatform.monitoring.alerts.loop import Monitor
from mlplatform.monitoring.alerts.send import open_channels
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.operations.alerts import duration, silences
from mlplatform.settings import settings
from mlplatform_tests.fakes.alert_endpoint import AlertEndpoint
from mlplatform_tests.fakes.synthetic_home import platform_in

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
    return collapsed(done.output)


def collapsed(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


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


def test_a_rule_that_nobody_finds_cannot_be_hushed(endpoint: AlertEndpoint) -> None:
    """Those that there are stand in the refusal; one that was found before the platform forgot it still can."""
    with pytest.raises(DeclarationError, match=r"'drfit'.* There is .*drift, .*scores_differ"):
        run("silence", "drfit:synthetic/late_order", "--for", "4h", "--reason", "x")
    found(replace(DRIFT, rule="of_old"))
    look()
    assert "silent until" in run("silence", "of_old", "--for", "4h", "--reason", "x")


def test_what_is_silent_is_listed(endpoint: AlertEndpoint) -> None:
    """Until when, why and by whom; what has ended, or was taken back, is not."""
    assert run("silences") == "nothing is silent"
    run("silence", "drift", "--for", "4h", "--reason", "a deploy")
    run("silence", "latency:synthetic/late_order", "--for", "1d", "--reason", "a slow network")
    run("silence", "drift", "--for", "0m", "--reason", "done")
    shown = run("silences", "synthetic")
    assert "latency:synthetic/late_order is silent until" in shown
    assert f"a slow network ({getpass.getuser()})" in shown and "drift" not in shown


def test_what_a_domain_never_wants_to_hear_of_is_listed_too(tmp_path: Path) -> None:
    """It is silent for ever."""
    (told,) = silences(platform_in(tmp_path), [replace(DOMAIN, alerts=Alerts(muted=("score_shift",)))])
    assert (told.what, told.until, told.reason) == ("score_shift", None, "muted in the domain")


def test_an_alert_that_nobody_judges_any_more_is_closed_by_hand(endpoint: AlertEndpoint) -> None:
    """For the loop as for the history; those who were told hear of it, and are not reminded again."""
    found(DRIFT, replace(DRIFT, rule="frozen"))
    look()
    closed = run("close", "drift:synthetic/late_order", "--reason", "the model is gone")
    assert closed == "drift:synthetic/late_order is closed in synthetic"
    assert [each["rule"] for each in json.loads(run("list", "--json"))] == ["frozen"]
    look()
    over = endpoint.taken[-1]
    assert "over" in over["title"] and f"closed by {getpass.getuser()}: the model is gone" in collapsed(over["message"])
    assert len(endpoint.taken) == 2
    shown = run("history", "drift")
    assert "over" in shown and f"closed by {getpass.getuser()}: the model is gone" in shown
    assert [each["rule"] for each in json.loads(run("list", "--json"))] == ["frozen"]


def test_of_what_nobody_heard_the_end_is_not_told_either(endpoint: AlertEndpoint) -> None:
    """It was silent from its beginning to its closing."""
    run("silence", "drift", "--for", "4h", "--reason", "a deploy")
    found(DRIFT)
    look()
    run("close", "drift", "--reason", "x")
    look()
    assert endpoint.asked == 0


def test_a_closing_wants_a_reason_and_an_open_alert(endpoint: AlertEndpoint) -> None:
    """What is open is named."""
    found(DRIFT)
    look()
    with pytest.raises(DeclarationError, match="reason"):
        run("close", "drift", "--reason", " ")
    with pytest.raises(DeclarationError, match=r"no alert frozen is open. There is drift:synthetic/late_order"):
        run("close", "frozen", "--reason", "x")
    assert [each["closed"] for each in json.loads(run("list", "--json"))] == [""]


def test_what_is_found_again_after_it_was_closed_begins_anew(endpoint: AlertEndpoint) -> None:
    """A closing is no silence: the day that was judged is over, the next one is not."""
    found(DRIFT)
    look()
    run("close", "drift", "--reason", "x")
    look()
    assert run("list") == "no alert is open"
    keep_findings(
        platform_from_settings(), DOMAIN, "data_quality", "2024-01-21", [replace(DRIFT, day="2024-01-21")], "run"
    )
    look()
    assert "drift:synthetic/late_order" in run("list")


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
