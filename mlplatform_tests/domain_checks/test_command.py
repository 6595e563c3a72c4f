"""`mlplatform check-domain`: a line per check for people, JSON for scripts, and an exit code that tells."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlplatform.cli import command
from mlplatform.domain.domain import Domain
from mlplatform.domain.threshold import Threshold
from mlplatform.domain_checks.battery import checks
from mlplatform_tests.fakes.odd_domains import kiosk


def said(domain: Domain, monkeypatch: pytest.MonkeyPatch, home: Path, *options: str) -> tuple[int, str]:
    """Exit code and output for a domain that is registered under its name."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(home))
    monkeypatch.setattr(command, "registered_domain", {domain.name: domain}.__getitem__)
    result = CliRunner().invoke(command.app, ["check-domain", domain.name, *options])
    return result.exit_code, result.stdout


def test_a_right_domain_ends_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 0 also where something was skipped, and every check is listed."""
    code, told = said(kiosk(), monkeypatch, tmp_path, "--json")
    report = json.loads(told)
    assert (code, report["domain"], report["failed"]) == (0, "kiosk", 0)
    assert [each["check"] for each in report["checks"]] == list(checks)


def test_a_broken_domain_ends_with_one_and_names_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line of the check, and below it what is at fault."""
    domain = kiosk()
    (model,) = domain.models
    broken = replace(domain, models=(replace(model, review_below=Threshold(value=0.6, reason="")),))
    code, told = said(broken, monkeypatch, tmp_path)
    assert code == 1
    (line,) = [number for number, each in enumerate(told.splitlines()) if each.startswith("failed")]
    assert (
        told.splitlines()[line + 1].strip().startswith("model amount · review_below: the threshold 0.6 has no reason")
    )
