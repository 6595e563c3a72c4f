"""The doctor's look at this machine: each thing that can be wrong with it is named with its mending."""

import fcntl
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlplatform import settings
from mlplatform.operations import installation
from mlplatform.operations.finding import Finding, made
from mlplatform.operations.installation import (
    free_space,
    gibibyte,
    installation_checks,
    locked_packages,
    one_booster,
    project_files,
    python_version,
)
from mlplatform_tests.fakes.synthetic_home import platform_in

ROOT = Path(__file__).resolve().parents[2]
LOCK = """\
# made by hand
polars==2.1.0 \\
    --hash=sha256:aa
uvloop==0.23.0 ; sys_platform != 'win32' \\
    --hash=sha256:bb
two-ways==1.0 ; python_full_version < '3.11.5' \\
    --hash=sha256:cc
two-ways==2.0 ; python_full_version >= '3.11.5' \\
    --hash=sha256:dd
"""


def found(home: Path, part: str, project: Path = ROOT) -> Finding:
    """One finding about this machine."""
    checks = [each for each in installation_checks(platform_in(home), project) if each.part == part]
    (finding,) = made(checks)
    return finding


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's own files."""
    for name in ("workspace.yaml", "dagster.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("part", ["python", "extras", "xgboost", "telemetry", "home", "disk", "project"])
def test_this_checkout_is_well(part: str, tmp_path: Path) -> None:
    """Where the tests run, the installation is as it should be."""
    finding = found(tmp_path, part)
    assert (finding.verdict, finding.mend) == ("ok", ""), finding


@pytest.mark.parametrize(
    ("now", "verdict"), [((3, 10, 9), "broken"), ((3, 11, 0), "ok"), ((3, 13, 5), "ok"), ((3, 14, 0), "broken")]
)
def test_a_python_outside_the_declared_range_is_broken(now: tuple[int, ...], verdict: str) -> None:
    """The bounds are those of pyproject.toml."""
    assert python_version(now, ">=3.11,<3.14").verdict == verdict


@pytest.mark.parametrize(
    ("installed", "verdict", "told"),
    [
        ({"polars": "2.1.0", "uvloop": "0.23.0", "two-ways": "2.0"}, "ok", "3 packages"),
        ({"polars": "2.1.0"}, "ok", "3 packages"),
        ({"polars": "2.0.9"}, "broken", "polars 2.0.9 instead of 2.1.0"),
        ({"polars": "2.1.0", "two-ways": "3.0"}, "broken", "two-ways 3.0 instead of 1.0 or 2.0"),
        ({"two-ways": "1.0"}, "warning", "not installed: polars"),
    ],
)
def test_installed_versions_are_held_against_the_lock(
    installed: Mapping[str, str], verdict: str, told: str, tmp_path: Path
) -> None:
    """Another version is broken; a missing package is a warning, unless its marker may leave it out."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    said = locked_packages(lock, installed)
    assert said.verdict == verdict and told in said.told
    assert verdict == "ok" or "make setup" in said.mend


def test_the_real_lock_is_read(tmp_path: Path) -> None:
    """One wrong version in it is found."""
    text = (ROOT / "requirements.lock").read_text()
    lock = tmp_path / "requirements.lock"
    lock.write_text(re.sub(r"^polars==\S+", "polars==0.0.1", text, count=1, flags=re.MULTILINE))
    finding = found(tmp_path / "home", "packages", tmp_path)
    assert finding.verdict == "broken" and "instead of 0.0.1" in finding.told


@pytest.mark.parametrize(
    ("installed", "verdict"),
    [
        ({"xgboost-cpu": "3.2.0"}, "ok"),
        ({"xgboost": "3.2.0"}, "ok"),
        ({"xgboost": "3.2.0", "xgboost-cpu": "3.2.0"}, "broken"),
        ({}, "broken"),
    ],
)
def test_exactly_one_xgboost_is_installed(installed: Mapping[str, str], verdict: str) -> None:
    """Two overwrite each other's files."""
    assert one_booster(installed).verdict == verdict


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only `pipeline` brings is gone."""
    rest = {name: version for name, version in installation._installed().items() if name != "optuna"}
    monkeypatch.setattr(installation, "_installed", lambda: rest)
    finding = found(tmp_path, "extras")
    assert (finding.verdict, finding.told) == ("broken", "not installed: optuna (pipeline)")


def test_a_typo_in_a_variable_is_named_with_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever say that MLPLATFORM_HOEM is not read."""
    monkeypatch.setenv("MLPLATFORM_HOEM", "elsewhere")
    finding = found(tmp_path, "variables")
    assert finding.verdict == "warning" and "MLPLATFORM_HOEM (is MLPLATFORM_HOME meant?)" in finding.told


def test_a_variable_that_means_nothing_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal of the settings is the finding."""
    monkeypatch.setenv("MLPLATFORM_CLOCK", "sundial")
    finding = found(tmp_path, "variables")
    assert finding.verdict == "broken" and "MLPLATFORM_CLOCK is 'sundial'" in finding.told


def test_every_variable_that_is_read_is_known() -> None:
    """A setting that is added and not listed would be reported as a typo."""
    source = Path(settings.__file__).read_text(encoding="utf-8")
    assert set(settings.own_variables) == set(re.findall(r"MLPLATFORM_[A-Z][A-Z_]*[A-Z]", source))


@pytest.mark.parametrize(("value", "verdict"), [("false", "warning"), ("1", "ok"), ("TRUE", "ok")])
def test_telemetry_turned_on_by_hand_is_a_warning(
    value: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way to say yes to "do not track" is as good as ours."""
    monkeypatch.setenv("DO_NOT_TRACK", value)
    assert found(tmp_path, "telemetry").verdict == verdict


def test_a_home_that_cannot_be_written_is_broken() -> None:
    """Nobody makes a folder in /proc, not even root."""
    finding = found(Path("/proc/home"), "home")
    assert finding.verdict == "broken" and "cannot be written" in finding.told and "MLPLATFORM_HOME" in finding.mend


def test_a_home_that_is_a_file_is_broken(tmp_path: Path) -> None:
    """Somebody has set MLPLATFORM_HOME to a file."""
    (tmp_path / "home").write_text("")
    assert "is no folder" in found(tmp_path / "home", "home").told


def test_a_file_system_whose_locks_do_not_exclude_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network mounts, where every lock is granted."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert "does not exclude" in found(tmp_path, "home").told


def test_looking_at_the_home_leaves_nothing_behind(tmp_path: Path) -> None:
    """The scratch folder is gone."""
    assert found(tmp_path, "home").verdict == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "verdict"), [(gibibyte // 8, "broken"), (gibibyte, "warning"), (9 * gibibyte, "ok")])
def test_little_free_space_is_told_before_it_hurts(free: int, verdict: str) -> None:
    """A warning first."""
    assert free_space(free).verdict == verdict


@pytest.mark.parametrize("name", ["workspace.yaml", "dagster.yaml"])
def test_a_missing_project_file_is_broken(name: str, project: Path) -> None:
    """As in any folder that is not the project's."""
    (project / name).unlink()
    said = project_files(project)
    assert said.verdict == "broken" and name in said.told and "in the project's folder" in said.mend


@pytest.mark.parametrize("section", ["dagster", "dg"])
def test_a_section_that_shadows_the_workspace_is_broken(section: str, project: Path) -> None:
    """Dagster would not say that it no longer reads workspace.yaml."""
    with (project / "pyproject.toml").open("a") as file:
        file.write(f'\n[tool.{section}]\nmodule_name = "other"\n')
    said = project_files(project)
    assert said.verdict == "broken" and f"[tool.{section}]" in said.told


def test_telemetry_in_dagsters_own_file_is_a_warning(project: Path) -> None:
    """The variable alone does not turn it off."""
    told = (project / "dagster.yaml").read_text()
    (project / "dagster.yaml").write_text(told.replace("telemetry:\n  enabled: false", "telemetry:\n  enabled: true"))
    assert project_files(project).verdict == "warning"
