"""Environment: the lock file, the installed versions and the git state that a record is made under.

Exactness is promised for the same lock file only, so every record carries its hash. Here facts are read, not judged: a
machine without git gives None, and it is for the record's reader to say what that is worth.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlplatform.errors import DeclarationError

_CHECKOUT_LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
_GIT_SECONDS = 30.0


@dataclass(frozen=True)
class GitState:
    """Where the checkout stood; both None where git or the repository is absent."""

    commit: str | None
    """Full hash of the checked-out commit; None before the first one."""
    dirty: bool | None
    """Whether anything differs from the commit, files that git does not know yet included."""


def lock_hash(path: Path | None = None) -> str:
    """Hash of the locked environment.

    Parameters
    ----------
    path : Path, optional
        A lock file in the requirements format. By default `requirements.lock` beside the package; where there is
        none (an installed package, an image), the installed distributions stand in for it.

    Returns
    -------
    str
        16 hexadecimal digits, unmoved by comments, blank lines, spacing and the order of the entries.

    Raises
    ------
    DeclarationError
        `path` is given and is no file.
    """
    if path is None:
        path = _CHECKOUT_LOCK if _CHECKOUT_LOCK.is_file() else None
    elif not path.is_file():
        raise DeclarationError(f"{path}: there is no lock file here. Write it, or leave the path out")
    entries = _installed() if path is None else _locked(path.read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()[:16]


def _locked(text: str) -> set[str]:
    # A '#' inside a URL is part of it: only one after white space begins a comment.
    lines = (re.sub(r"(^|\s)#.*$", "", line).rstrip() for line in text.splitlines())
    entries = "\n".join(line for line in lines if line.strip()).replace("\\\n", " ").splitlines()
    return {" ".join(entry.split()) for entry in entries}


def _installed() -> set[str]:
    found = ((each.metadata["Name"], each.version) for each in metadata.distributions())
    # A directory left behind by an aborted installation has no name.
    return {f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}" for name, version in found if name}


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the named distributions; one that is not installed is left out.

    Parameters
    ----------
    names : Iterable[str]
        Distribution names, such as `polars` or `xgboost`.

    Returns
    -------
    dict[str, str]
        Version by name, as the names were given.
    """
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(root: Path) -> GitState:
    """Commit and cleanliness of the repository that holds `root`.

    Parameters
    ----------
    root : Path
        A folder inside the checkout.

    Returns
    -------
    GitState
        None values where there is no git, no repository, or no leave to read it.
    """
    # One call for both facts, so that they come from one moment; a user's settings must not hide untracked files.
    options = ["--porcelain=v2", "--branch", "--untracked-files=normal"]
    command = ["git", "--no-optional-locks", "-C", str(root), "status", *options]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return GitState(commit=None, dirty=None)
    if answer.returncode:
        return GitState(commit=None, dirty=None)
    lines = answer.stdout.splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return GitState(commit=commit, dirty=any(not line.startswith("#") for line in lines))
