"""What this machine and this folder must offer: Python, the locked packages, variables, a home that keeps files."""

import fcntl
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import yaml

from mlplatform import settings
from mlplatform.operations.finding import Check, Said, broken, ok, warning
from mlplatform.provenance.platform import Platform

gibibyte = 2**30

warn_below = 2 * gibibyte
"""A half-year of the flights with both models and their Bentos takes 0.3 GiB, every correction adds to it, and a Bento
is built beside its place: less than this is soon used up."""

least_free = gibibyte // 4
"""Below, a commit or a SQLite file may end in the middle of a write."""

boosters = ("xgboost", "xgboost-cpu")
"""Two distributions of one package: installed together they overwrite each other's files."""

setup = "run `make setup` in the project's folder"


def installation_checks(platform: Platform, project: Path) -> list[Check]:
    """Checks that need no outside part.

    Parameters
    ----------
    project : folder with `workspace.yaml`, `dagster.yaml` and the lock file
    """
    lock, home = project / "requirements.lock", platform.home
    looked_at = {
        "python": (
            sys.executable,
            lambda: python_version(sys.version_info[:3], metadata.metadata("mlplatform")["Requires-Python"]),
        ),
        "packages": (str(lock), lambda: locked_packages(lock, _installed())),
        "extras": ("the extras `pipeline` and `serving`", lambda: _extras(_installed())),
        "xgboost": (" and ".join(boosters), lambda: one_booster(_installed())),
        "variables": ("MLPLATFORM_* in the environment", _variables),
        "telemetry": (", ".join(settings.telemetry_off), _telemetry),
        "home": (str(home), lambda: folder_that_keeps_files(home)),
        "disk": (str(home), lambda: free_space(shutil.disk_usage(_existing(home)).free)),
        "project": (str(project), lambda: project_files(project)),
    }
    return [Check(part=part, looked_at=what, look=look, mend=setup) for part, (what, look) in looked_at.items()]


def python_version(now: tuple[int, ...], wanted: str) -> Said:
    """A Python version against `requires-python`, such as `>=3.11,<3.14`."""
    told = f"Python {'.'.join(map(str, now))}"
    bounds = {sign: tuple(map(int, number.split("."))) for sign, number in re.findall(r"(>=|<)\s*([\d.]+)", wanted)}
    if now < bounds.get(">=", now) or now >= bounds.get("<", (*now, 0)):
        return broken(f"{told}, but {wanted} is wanted", f"install such a Python and {setup}")
    return ok(told)


def locked_packages(lock: Path, installed: Mapping[str, str]) -> Said:
    """Installed versions against the lock file; a package that is locked under a marker may be missing."""
    if not lock.is_file():
        return ok("no lock file here: the installed packages stand for themselves")
    entries = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)( ;)?", lock.read_text(), re.MULTILINE)
    wanted: dict[str, set[str]] = {}
    for name, version, _ in entries:
        wanted.setdefault(_plain(name), set()).add(version)
    optional = {_plain(name) for name, _, marker in entries if marker} | set(boosters)
    other = [
        f"{name} {installed[name]} instead of {' or '.join(sorted(versions))}"
        for name, versions in wanted.items()
        if name in installed and installed[name] not in versions
    ]
    if other:
        told = f"{_listed(other)}: what is recorded of runs and models names a lock file that is not installed"
        return broken(told, setup)
    missing = [name for name in wanted if name not in installed and name not in optional]
    if missing:
        return warning(f"not installed: {_listed(missing)}", setup)
    return ok(f"{len(wanted)} packages, all in their locked version")


def one_booster(installed: Mapping[str, str]) -> Said:
    """Exactly one distribution of XGBoost."""
    found = [name for name in boosters if name in installed]
    if len(found) == 1:
        return ok(f"{found[0]} {installed[found[0]]}")
    told = "both are installed" if found else "neither is installed"
    return broken(f"{told}; exactly one gives the package `xgboost`", f"{setup}; on a GPU host install the extra `gpu`")


def free_space(free: int) -> Said:
    """Free bytes under the home folder."""
    told = f"{free / gibibyte:.1f} GiB free"
    mend = "free some space, or set MLPLATFORM_HOME to a folder on a larger disk"
    if free < least_free:
        return broken(told, mend)
    return warning(told, mend) if free < warn_below else ok(told)


def folder_that_keeps_files(folder: Path) -> Said:
    """Try what the platform relies on in a folder: a lock excludes, a rename replaces a file as a whole."""
    there = _existing(folder)
    mend = "make it writable for this user, or choose another by MLPLATFORM_HOME or MLPLATFORM_TABLES"
    if not there.is_dir():
        return broken(f"{there} is no folder", mend)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as scratch:
            kept = _keeps_files_whole(Path(scratch))
    except OSError as error:
        return broken(f"{there} cannot be written: {error.strerror}", mend)
    if not kept:
        told = "a lock on it does not exclude another process, so two runs at once would hurt each other"
        return broken(told, "choose a folder on a local file system by MLPLATFORM_HOME or MLPLATFORM_TABLES")
    return ok(
        "writable, locks exclude, a rename replaces" + ("" if there == folder else "; it is made when it is needed")
    )


def project_files(project: Path) -> Said:
    """Dagster's two files, and that nothing takes the place of one of them."""
    mend = "run the command in the project's folder, or restore the file from git"
    missing = [name for name in ("workspace.yaml", "dagster.yaml") if not (project / name).is_file()]
    if missing:
        return broken(f"{' and '.join(missing)} missing: neither the UI nor the daemon can start here", mend)
    instance = yaml.safe_load((project / "dagster.yaml").read_text())
    if not isinstance(instance, dict) or (instance.get("telemetry") or {}).get("enabled") is not False:
        return warning("dagster.yaml does not turn Dagster's telemetry off", "set `telemetry: {enabled: false}` there")
    described = project / "pyproject.toml"
    tools = tomllib.loads(described.read_text()).get("tool", {}) if described.is_file() else {}
    shadowing = [f"[tool.{name}]" for name in ("dagster", "dg") if name in tools]
    if shadowing:
        told = f"{' and '.join(shadowing)} in pyproject.toml silently takes the place of workspace.yaml"
        return broken(told, "remove that section")
    return ok("workspace.yaml and dagster.yaml; telemetry off")


def _extras(installed: Mapping[str, str]) -> Said:
    wanted = re.findall(
        r"^([A-Za-z0-9._-]+).*extra == [\"'](pipeline|serving)",
        "\n".join(metadata.requires("mlplatform") or ()),
        re.MULTILINE,
    )
    missing = sorted({f"{name} ({extra})" for name, extra in wanted if _plain(name) not in installed})
    return broken(f"not installed: {_listed(missing)}", setup) if missing else ok("both installed")


def _variables() -> Said:
    settings.settings()
    unknown = settings.unknown_variables()
    if not unknown:
        return ok("every one is known")
    told = [f"{name} (is {meant} meant?)" if meant else name for name, meant in unknown.items()]
    return warning(f"nothing reads {_listed(told)}", "correct or unset it; the names are in the reference of settings")


def _telemetry() -> Said:
    loud = settings.telemetry_set_otherwise()
    if loud:
        told = ", ".join(f"{name} is {value!r}" for name, value in loud.items())
        return warning(f"{told}: a library may send usage data", "unset it, and it is set to keep silent")
    return ok("every library is told to send nothing")


def _keeps_files_whole(scratch: Path) -> bool:
    draft, final = scratch / "draft", scratch / "final"
    final.write_text("old")
    draft.write_text("new")
    os.replace(draft, final)
    with final.open() as first, final.open() as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return final.read_text() == "new"
    return False


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _installed() -> dict[str, str]:
    return {_plain(each.metadata["Name"]): each.version for each in metadata.distributions() if each.metadata["Name"]}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
