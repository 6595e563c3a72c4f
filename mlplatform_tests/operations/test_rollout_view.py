"""Rollouts as people and scripts see them: status, history, and the commands that move them."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from mlplatform.cli.command import app
from mlplatform.domain.rollout import DAY, Rollout
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import MlplatformError, RolloutRefused, Unavailable
from mlplatform.operations import rollout_view
from mlplatform.operations.rollout_view import Status, bar, history, status
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout import moves
from mlplatform.rollout.analysis import Harm
from mlplatform.rollout.plan import from_file
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform.rollout.pointing import point
from mlplatform.rollout.sequential import Bounds
from mlplatform.rollout.tick import tick
from mlplatform.rollout.trail import keep
from mlplatform_tests.fakes.rolled_out import CHALLENGER, CHAMPION, NAME, Evidence, champion_in, declared, rolling_out

MODEL = declared(Rollout())


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A rollout that answers 5 % for an hour."""
    made = rolling_out(tmp_path / "home", MODEL)
    made.clock.now += DAY  # type: ignore[attr-defined]
    tick(made, DOMAIN, MODEL, gather=Evidence())
    made.clock.now += timedelta(hours=1)  # type: ignore[attr-defined]
    return made


def drawn(show: Callable[[Console], None]) -> list[str]:
    """What a person reads, line by line."""
    told = io.StringIO()
    show(Console(file=told, width=160))
    return [line.rstrip() for line in told.getvalue().splitlines()]


def seen(platform: Platform, says: str = "good") -> Status:
    """How the rollout stands."""
    return status(platform, DOMAIN, MODEL, gather=Evidence(says))


def test_the_status_draws_steps_traffic_and_bounds(platform: Platform) -> None:
    """The step of now, the share, each bound against its margin, and what is waited for."""
    lines = drawn(lambda console: rollout_view.show_status(seen(platform), console))
    assert lines[0].startswith(f"{NAME}: champion aaaaaaaaaaaa, plan 4-")
    assert lines[1] == "  challenger bbbbbbbbbbbb, recipe 2024-01-25-bbbbbb, since 2024-02-01 00:00:00Z"
    assert lines[2] == "  steps    shadow  →  ▶ 5 %  →  20 %  →  50 %  →  100 %"
    assert lines[3] == f"  traffic  ██{'░' * 31} canary 5 %, since 2024-02-02 00:00:00Z"
    (failures,) = (line for line in lines if line.startswith("  failures"))
    assert "●" in failures
    assert failures.endswith("3,000 pairs")
    assert lines[-2:] == ["  waits", "    the step bakes until 2024-02-03 00:00 UTC"]


def test_the_status_says_what_the_next_look_does(platform: Platform) -> None:
    """And does nothing itself."""
    before = Ledger(platform).entries(NAME)
    harmful = drawn(lambda console: rollout_view.show_status(seen(platform, "harmful"), console))
    assert "  next look: roll back" in harmful
    assert any(f"{'·' * 15}│" in line and "▶ +0.3000" in line for line in harmful if line.startswith("  log_loss"))
    tripped = drawn(lambda console: rollout_view.show_status(seen(platform, "tripped"), console))
    assert "  breaker_open: its breaker is open" in tripped
    assert Ledger(platform).entries(NAME) == before


def test_a_pause_and_a_fault_are_told(platform: Platform) -> None:
    """Who paused it; and, with the log away, why there is no evidence, with all that the ledger says."""
    moves.pause(platform, DOMAIN, MODEL, by="ann", reason="[lunch]")

    def away(*_: object, **asked: object) -> None:
        raise Unavailable("the log is away. Start the store")

    found = status(platform, DOMAIN, MODEL, gather=away)  # type: ignore[arg-type]
    assert (found.fault, found.outcome, found.share) == ("the log is away. Start the store", "", 0.05)
    lines = drawn(lambda console: rollout_view.show_status(found, console))
    assert "  paused by ann: [lunch]" in lines
    assert "  no evidence: the log is away. Start the store" in lines


def test_where_nothing_is_under_way_the_last_end_is_told(platform: Platform, tmp_path: Path) -> None:
    """And nothing at all of a model that had none."""
    moves.roll_back(platform, NAME, by="ann", reason="a call")
    lines = drawn(lambda console: rollout_view.show_status(seen(platform), console))
    ended = "the last one ended at 2024-02-02 01:00:00Z, roll back by ann: a call"
    assert lines[1:] == [f"  no rollout is under way: {ended}"]
    quiet = champion_in(tmp_path / "quiet")
    point(quiet, NAME)
    lines = drawn(lambda console: rollout_view.show_status(seen(quiet), console))
    assert lines[1:] == ["  no rollout is under way"]


def test_a_plan_file_that_somebody_edited_is_told(platform: Platform) -> None:
    """Services obey it until the next look: whoever asks must see that the traffic is not what the ledger says."""
    plan = from_file(plan_path(platform.home, NAME).read_bytes(), NAME)
    write_plan(platform.home, replace(plan, weight=10_000, table=None))
    told = "its share is 1, by the ledger 0.05. The next look writes it again"
    lines = drawn(lambda console: rollout_view.show_status(seen(platform), console))
    assert f"  the plan file is not the ledger's: {told}" in lines


def test_the_history_has_the_looks_in_between(platform: Platform) -> None:
    """Moves with their traffic, and what was waited for."""
    found = tick(platform, DOMAIN, MODEL, gather=Evidence("few"))
    assert found is not None
    keep(platform, DOMAIN, found)
    events = history(platform, DOMAIN, MODEL)
    assert [(each.what, each.traffic) for each in events] == [
        ("promote", ""),
        ("promote", ""),
        ("start", "shadow: it answers nobody"),
        ("advance", "canary 5 %"),
        ("hold", "canary 5 %"),
    ]
    lines = drawn(lambda console: rollout_view.show_history(NAME, events, console))
    assert "failures: 20 pairs, 500 wanted" in " ".join(lines)
    assert drawn(lambda console: rollout_view.show_history("a/b", [], console)) == ["nothing was recorded of a/b"]
    assert json.loads(rollout_view.as_json(events))[-1]["entry"] is None


@pytest.mark.parametrize(
    ("lower", "mean", "upper", "line"),
    [
        (-0.001, 0.0, 0.001, "···············━●━······┊········"),
        (-1.0, float("nan"), 1.0, "◀━━━━━━━━━━━━━━━●━━━━━━━━━━━━━━━▶"),
        (0.004, 0.012, 0.03, "················│··━━━━━━━●━━━━━▶"),
        (0.1, 0.3, 0.5, "················│·······┊·······▶"),
    ],
)
def test_a_bar_is_drawn_in_margins(lower: float, mean: float, upper: float, line: str) -> None:
    """0 in the middle, the margin at three quarters; what is beyond has an arrow."""
    bounds = Bounds(n=9, mean=mean, lower=lower, upper=upper)
    assert bar(Harm(name="late", segment="", bounds=bounds, margin=0.01)) == line


@pytest.fixture
def command(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`mlplatform rollout` on the home of the rollout, with the model that declares it."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(platform.home))
    monkeypatch.setattr("mlplatform.cli.rollout.model_named", lambda _: (DOMAIN, MODEL))
    monkeypatch.setattr("mlplatform.cli.rollout.platform_from_settings", lambda: platform)
    monkeypatch.setattr("getpass.getuser", lambda: "bob")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["rollout", *arguments])

    return run


def refused(result: Result) -> MlplatformError:
    """What a command was refused for."""
    assert result.exit_code == 1
    assert isinstance(result.exception, MlplatformError)
    return result.exception


def test_the_commands_move_it(platform: Platform, command: Callable[..., Result]) -> None:
    """Each says what it did and which entry it made, under the name of who is logged in."""
    asked = (NAME, "--reason", "she says so")
    assert command("pause", NAME).exit_code == 2
    assert command("pause", *asked).output == f"{NAME}: bbbbbbbbbbbb: pause (entry 5 of the ledger, by bob)\n"
    assert command("resume", *asked, "--by", "ann").output.endswith("resume (entry 6 of the ledger, by ann)\n")
    advanced = command("advance", *asked, "--after", "6")
    assert advanced.output == f"{NAME}: bbbbbbbbbbbb has canary 20 % (entry 7 of the ledger, by bob)\n"
    assert "at revision 7, not 6" in str(refused(command("advance", *asked, "--after", "6")))
    assert isinstance(refused(command("finish", *asked)), RolloutRefused)
    assert command("start", *asked).output.startswith(f"{NAME}: bbbbbbbbbbbb has shadow")
    back = command("rollback", *asked)
    assert back.output == f"{NAME}: bbbbbbbbbbbb was sent back, aaaaaaaaaaaa answers (entry 8 of the ledger, by bob)\n"
    assert "Name its manifest" in str(refused(command("start", NAME, "--override", "--reason", "again")))
    assert [each.actor for each in Ledger(platform).entries(NAME)[4:]] == ["bob", "ann", "bob", "bob"]
    assert "no rollout is under way" in command("status", NAME).output
    assert json.loads(command("status", NAME, "--json").output)["champion"] == CHAMPION
    assert json.loads(command("history", NAME, "--json").output)[-1]["what"] == "roll_back"
    assert CHALLENGER[:12] in command("history", NAME).output
