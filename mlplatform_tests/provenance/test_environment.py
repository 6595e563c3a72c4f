"""The environment's facts: the lock hash, installed versions, the machine."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from mlplatform.errors import DeclarationError
from mlplatform.provenance import environment
from mlplatform.provenance.environment import host_facts, installed_versions, lock_hash, recorded_versions
from mlplatform_tests.docs.page import ROOT

LOCK = """# made by a tool
polars==2.1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r requirements.in

other @ https://example.org/other.zip#sha256=cc
"""


def _hash(folder: Path, text: str) -> str:
    path = folder / "requirements.lock"
    path.write_text(text)
    return lock_hash(path)


def test_comments_blank_lines_and_order_do_not_move_the_lock_hash(tmp_path: Path) -> None:
    """The same locked packages have the same hash."""
    same = (
        "other @ https://example.org/other.zip#sha256=cc\npolars==2.1.0   --hash=sha256:aa --hash=sha256:bb  # fast\n"
    )
    assert _hash(tmp_path, LOCK) == _hash(tmp_path, same)


@pytest.mark.parametrize("change", [("2.1.0", "2.1.1"), ("sha256:bb", "sha256:bc"), ("sha256=cc", "sha256=cd")])
def test_a_version_or_a_hash_moves_the_lock_hash(tmp_path: Path, change: tuple[str, str]) -> None:
    """Anything that pip would install differently is another environment."""
    assert _hash(tmp_path, LOCK) != _hash(tmp_path, LOCK.replace(*change))


def test_a_lock_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A mistyped path is not silently replaced by what is installed."""
    with pytest.raises(DeclarationError, match=r"no lock file"):
        lock_hash(tmp_path / "absent.lock")


def test_the_checkouts_lock_is_the_default_and_installed_packages_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout its lock file counts; without one, what is installed does."""
    monkeypatch.setattr(environment, "_CHECKOUT_LOCK", tmp_path / "requirements.lock")
    installed = lock_hash()
    assert installed == lock_hash()
    assert _hash(tmp_path, LOCK) == lock_hash() != installed


def test_installed_versions_leave_out_what_is_not_there() -> None:
    """Absent distributions are absent from the answer."""
    assert installed_versions(["polars", "no-such-distribution"]) == {"polars": metadata.version("polars")}


def test_every_direct_dependency_that_is_installed_is_recorded() -> None:
    """With this package itself, which names the code where there is no checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[=<>]", each)[0] for each in required} | {"mlplatform"}
    assert {name: metadata.version(name) for name in names if is_installed(name)}.items() <= recorded_versions().items()
    assert {"mlplatform", "polars", "numpy", "deltalake", "optuna"} <= recorded_versions().keys()


def is_installed(name: str) -> bool:
    """Whether a distribution is there."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_without_an_installed_package_all_that_is_installed_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing names the dependencies of a package that is only on the path."""

    def unknown(_name: str) -> list[str]:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", unknown)
    assert recorded_versions()["pytest"] == metadata.version("pytest")


def test_the_machine_is_named() -> None:
    """Each fact is there, and says something."""
    facts = host_facts()
    assert set(facts) == {"system", "processor", "cores"}
    assert all(facts.values()) and int(facts["cores"]) >= 1
