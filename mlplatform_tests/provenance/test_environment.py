"""The environment's facts: the lock hash, installed versions, the git state."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from mlplatform.errors import DeclarationError
from mlplatform.provenance import environment
from mlplatform.provenance.environment import GitState, git_state, installed_versions, lock_hash

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


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_git_state_tells_commit_and_dirt(tmp_path: Path) -> None:
    """From no commit, to clean, to changed, asked from a folder inside; an unknown file is dirt too."""
    _git(tmp_path, "init", "--quiet")
    inside = tmp_path / "inside"
    inside.mkdir()
    assert git_state(inside) == GitState(commit=None, dirty=False)
    (tmp_path / "a").write_text("1")
    assert git_state(inside) == GitState(commit=None, dirty=True)
    _git(tmp_path, "add", "a")
    _git(tmp_path, "commit", "--quiet", "-m", "Add a")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert git_state(inside) == GitState(commit=commit, dirty=False)
    (tmp_path / "a").write_text("2")
    assert git_state(inside) == GitState(commit=commit, dirty=True)


def test_no_repository_and_no_git_give_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to read is told as None, never as clean."""
    assert git_state(tmp_path) == GitState(commit=None, dirty=None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == GitState(commit=None, dirty=None)
