"""Environment: the lock file, the installed versions and the machine that a record is made under.

Exactness is promised for the same lock file only, so every record carries its hash. Here facts are read, not judged: it
is for the record's reader to say what another machine is worth.
"""

import hashlib
import os
import platform
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from mlplatform.errors import DeclarationError

_CHECKOUT_LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


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


def recorded_versions() -> dict[str, str]:
    """Versions of this package, of every direct dependency that is installed, and of what decides bits beneath them.

    Where the package is only on the path and not installed, nothing names its dependencies: then all that is installed.
    """
    try:
        required = metadata.requires("mlplatform") or []
    except metadata.PackageNotFoundError:
        return installed_versions(sorted({each.metadata["Name"] for each in metadata.distributions()} - {None}))
    names = {match[0] for match in (re.match(r"[A-Za-z0-9._-]+", each) for each in required) if match}
    return installed_versions(sorted({"mlplatform", "pyarrow", *names}))


def host_facts() -> dict[str, str]:
    """What the machine is, beside what `computing` tells of it: system, processor, cores that this process may use."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def _processor() -> str:
    """The processor's own name: numeric libraries choose their code by what it can do."""
    told = Path("/proc/cpuinfo")
    if told.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or "unknown"
