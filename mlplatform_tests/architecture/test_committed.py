"""What is committed names no package registry, no folder of somebody's machine, and no way round `workspace.yaml`."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Put together from parts, so that this file does not name what it forbids.
REGISTRIES = ["files.python" + "hosted", "pypi" + ".org", "pypi.python" + ".org", "download.pytorch" + ".org"]
# The image that BentoML makes has its home in /home/bentoml: that is a place in an image, on nobody's machine.
PERSONAL = [rf"(?<![\w.])/{folder}/" for folder in ("root", "Users")] + [r"(?<![\w.])/" + r"home/(?!bentoml\b)"]
FORBIDDEN = re.compile("|".join([re.escape(host) for host in REGISTRIES] + PERSONAL).encode())


def committed() -> list[Path]:
    """Files that git knows or would take in, which stand on disk."""
    listed = subprocess.run(
        # In a container the checkout may belong to another user, which git would refuse.
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    return [path for name in listed.split(b"\0") if name and (path := ROOT / name.decode()).is_file()]


def test_no_registry_and_no_machine_is_named() -> None:
    """No committed file holds a registry's host or a path into a home folder."""
    found = {
        str(path.relative_to(ROOT)): sorted({match.decode() for match in FORBIDDEN.findall(path.read_bytes())})
        for path in committed()
    }
    assert {path: matches for path, matches in found.items() if matches} == {}


@pytest.mark.parametrize(
    "text",
    [
        "https://" + REGISTRIES[0] + ".org/packages/ab/x.whl",
        "--index-url https://" + REGISTRIES[1] + "/simple",
        "open('/" + "home/ada/flights.csv')",
        "cd /" + "root/mlplatform",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    """A registry's host or a home folder is found."""
    assert FORBIDDEN.search(text.encode())


@pytest.mark.parametrize("text", ["/" + "home/bentoml/bento", "var/" + "home/x", "GET /" + "homepage"])
def test_the_search_leaves_other_paths_alone(text: str) -> None:
    """A path in an image, a relative one and an address are not taken for a home folder."""
    assert FORBIDDEN.search(text.encode()) is None


def test_workspace_yaml_is_not_shadowed() -> None:
    """`pyproject.toml` has no section that Dagster would read instead of `workspace.yaml`."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools.keys().isdisjoint({"dagster", "dg"})


def test_no_module_of_ours_is_waived_from_the_type_check() -> None:
    """mypy is strict for every module of the project: only libraries without types are excepted."""
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert mypy["strict"] is True
    assert (mypy["files"], mypy["exclude"]) == (["."], ["^build/", "^var/"])
    waived = {module.partition(".")[0] for override in mypy["overrides"] for module in override["module"]}
    assert waived.isdisjoint({"mlplatform", "serving", "mlplatform_tests", "bench"})
