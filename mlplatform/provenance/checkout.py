"""The checkout that code lies in: its commit, whether it holds more than that commit, and what more.

A commit names code only as long as nothing was changed beside it. Where something was, the changes themselves are the
code, so they can be had as one diff: what was edited, deleted and added, files that git does not know yet included.
Nothing is written to the user's repository: the diff is made in a copy of its index and an object folder of its own. A
filter that `.gitattributes` names is run where git must look into a file, as `git status` does, and it may write; no
diff is made of a file that goes through one.

Golden traffic is left out: it is what was asked of a model and no code, and requests of people must not get into
bundles, which a retention policy does not reach into. A folder is taken for it that holds `golden.json` and
`requests.jsonl`.

It refuses to leave out any other part of the changes: what is too large for a record, or cannot be told by a diff, is
an error.
Where git cannot be asked, the checkout is unknown, which is another thing than none.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlplatform.errors import DataError
from mlplatform.settings import child_environment

most_bytes = 4 * 2**20
"""Of a diff. Source that was edited takes kilobytes; what is larger is data, which does not belong in a bundle."""

_GIT_SECONDS = 60.0
_NO_GIT = "there is no git on the PATH: install it"
_FIXED = (
    # A user's settings must neither change the text of a diff nor let git write beside the temporary index.
    *("-c", "core.splitIndex=false"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "core.ignoreStat=false"),
    *("-c", "advice.addEmbeddedRepo=false"),
)
_OF_A_HOOK = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"})


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """Where a checkout stood; all None where there is no repository that holds the folder, or it is unknown."""

    commit: str | None
    """Full hash of the checked-out commit; None before the first one."""

    dirty: bool | None
    """Whether anything differs from the commit, files that git does not know yet included."""

    root: Path | None = None
    """Top of the repository: by it two folders of one checkout are told to be so."""

    unknown: str = ""
    """Why git could not be asked though there is a repository, and what to do; empty: it could, or there is none."""

    changes: Callable[[], bytes] = field(default=bytes, compare=False, repr=False)
    """Gives what differs from the commit, for `git apply`; called where it is to be kept only."""


def checkout_of(folder: Path) -> Checkout:
    """The checkout that holds a folder.

    Returns
    -------
    Checkout
        None values where there is no repository; and where the repository ignores the folder, as it does with a virtual
        environment inside it: its commit says nothing of what is installed there. With `unknown` where there is one
        that git does not read.
    """
    try:
        top = _asked(folder, "rev-parse", "--show-toplevel")
        if _git(folder, "check-ignore", "--quiet", str(folder)) is not None:
            return Checkout(commit=None, dirty=None)
        root = Path(os.fsdecode(top).removesuffix("\n"))
        with tempfile.TemporaryDirectory(prefix="mlplatform-status-") as scratch:
            lines = _status(root, Path(scratch))
    except _GitFailedError as error:
        # A worktree or a submodule has a file of that name.
        within = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
        return Checkout(commit=None, dirty=None, root=within, unknown=str(error) if within else "")
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    dirty = any(not line.startswith("#") for line in lines)
    return Checkout(commit=commit, dirty=dirty, root=root, changes=partial(_diff, root) if dirty else bytes)


def _status(root: Path, scratch: Path) -> list[str]:
    """Commit and dirt in one call, so that they are of one moment; a user's settings must not hide anything."""
    hidden = _hidden(root)
    environment = _index_that_hides_nothing(root, scratch, hidden) if hidden else None
    form = ("--porcelain=v2", "--branch", "--untracked-files=normal", "--ignore-submodules=none")
    paths = _but_golden(root)
    # Else an unknown folder around golden traffic would be told as one.
    leaving_out = ("--untracked-files=all", *paths) if paths else ()
    return os.fsdecode(_asked(root, "status", *form, *leaving_out, environment=environment)).splitlines()


def _but_golden(root: Path) -> tuple[str, ...]:
    """What leaves golden traffic out of a git command; nothing where there is none."""
    form = ("--cached", "--others", "--exclude-standard", "-z", "--")
    listed = os.fsdecode(_asked(root, "ls-files", *form, ":(glob)**/golden.json", ":(glob)**/requests.jsonl"))
    files = set(listed.split("\0"))
    folders = {name.rpartition("/")[0] for name in files if name.endswith("/golden.json")}
    golden = sorted(folder for folder in folders if f"{folder}/requests.jsonl" in files)
    return ("--", ".", *(f":(exclude,literal){folder}" for folder in golden)) if golden else ()


def _hidden(root: Path) -> list[tuple[str, str]]:
    """Mark and name of the files whose edits git was told not to look for.

    Those of a sparse checkout are marked too. They are not there, and that is no edit; what is there in spite of its
    mark may be edited.
    """
    listed = os.fsdecode(_asked(root, "ls-files", "-v", "-z")).split("\0")
    marked = [(line[0], line[2:]) for line in listed if line and (line[0].islower() or line[0] == "S")]
    return [(mark, name) for mark, name in marked if mark not in "Ss" or os.path.lexists(root / name)]


def _index_that_hides_nothing(root: Path, scratch: Path, hidden: list[tuple[str, str]]) -> dict[str, str]:
    """A copy of the user's index without these marks, as what git is told of it in its environment."""
    index, copy = _path_in_git(root, "index"), scratch / "index"
    if index.exists():
        shutil.copy2(index, copy)  # with its time, by which git tells what it must look into
    environment = {"GIT_INDEX_FILE": str(copy)}
    for option, marks in {"--no-assume-unchanged": None, "--no-skip-worktree": "Ss"}.items():
        names = [name for mark, name in hidden if (mark in marks if marks else mark.islower())]
        if names:
            given = os.fsencode("\0".join(names))
            _asked(root, "update-index", option, "-z", "--stdin", environment=environment, given=given)
    return environment


def _path_in_git(root: Path, name: str) -> Path:
    """Where git keeps something; of a second working tree that is not in its own folder."""
    return Path(os.fsdecode(_asked(root, "rev-parse", "--path-format=absolute", "--git-path", name)).removesuffix("\n"))


def _diff(root: Path) -> bytes:
    """What the working tree of a repository holds beside its commit.

    Raises
    ------
    DataError
        There is more than `most_bytes` of it, git failed, a submodule holds changes, or a filter is to change a file.
    """
    try:
        found = _made_diff(root)
    except _GitFailedError as error:
        raise DataError(
            f"the uncommitted changes in {root.name} cannot be kept: {error}. Run `git status` there, mend what it "
            "tells, or commit the changes"
        ) from error
    if len(found) > most_bytes:
        raise DataError(_too_large(root, len(found), "edited files"))
    return found


def _made_diff(root: Path) -> bytes:
    paths = _but_golden(root)
    _refuse_large(root, paths)
    with tempfile.TemporaryDirectory(prefix="mlplatform-diff-") as scratch:
        # That of the user knows which files a sparse checkout leaves out: they are not deleted.
        apart = _index_that_hides_nothing(root, Path(scratch), _hidden(root))
        _refuse_what_no_diff_holds(root, apart, paths)
        (Path(scratch) / "objects").mkdir()
        apart["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(_path_in_git(root, "objects"))
        apart["GIT_OBJECT_DIRECTORY"] = f"{scratch}/objects"
        _asked(root, "add", "--all", "--sparse", *paths, environment=apart)
        tree = "HEAD"
        if _git(root, "rev-parse", "--verify", "--quiet", tree) is None:
            tree = os.fsdecode(_asked(root, "hash-object", "-t", "tree", os.devnull, environment=apart)).strip()
        form = ("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        others = ("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=none")
        return _asked(root, "diff", "--cached", *form, *others, tree, *paths, environment=apart)


def _refuse_what_no_diff_holds(root: Path, environment: dict[str, str], paths: tuple[str, ...]) -> None:
    """Of a submodule a diff tells the commit only; of a file with a filter what the filter makes of it."""
    form = ("--porcelain=v2", "--untracked-files=no", "--ignore-submodules=none", "-z")
    told = os.fsdecode(_asked(root, "status", *form, "--no-renames", *paths, environment=environment)).split("\0")
    for line in told:
        fields = line.split(" ", 8)
        # The third is `S` and whether commit, content and untracked files of a submodule are others.
        if fields[0] == "1" and fields[2].startswith("S") and not fields[2].endswith(".."):
            raise DataError(
                f"{root.name} differs from its commit in what no diff holds: a submodule with changes of its own, "
                f"{fields[8]}. Commit them there, then train again"
            )
    others = ("--others", "--exclude-standard", "-z", *paths)
    edited = _asked(root, "ls-files", "--modified", *others, environment=environment)
    run = _git(root, "config", "--name-only", "--get-regexp", r"^filter\..*\.(clean|process)$") or b""
    filters = {name.partition(".")[2].rpartition(".")[0] for name in os.fsdecode(run).splitlines()}
    if not edited or not filters:
        return
    said = os.fsdecode(_asked(root, "check-attr", "--stdin", "-z", "filter", given=edited)).split("\0")
    for name, value in zip(said[::3], said[2::3], strict=False):
        if value in filters and os.path.lexists(root / name):
            raise DataError(
                f"{name} in {root.name} goes through the filter {value} (.gitattributes) before git keeps it, so no "
                "diff holds what is there. Commit it, then train again"
            )


def _refuse_large(root: Path, paths: tuple[str, ...]) -> None:
    """Look at the sizes first: git would take in a forgotten gigabyte before it could be measured."""
    listed = os.fsdecode(_asked(root, "ls-files", "--others", "--exclude-standard", "-z", *paths))
    names = [name for name in listed.split("\0") if name]
    if inner := [name for name in names if name.endswith("/")]:
        raise DataError(
            f"{root.name} holds a repository of its own in {inner[0]}, whose files no diff of {root.name} can hold. "
            "Name it in .gitignore, or make it a submodule"
        )
    sizes = {name: (root / name).lstat().st_size for name in names}
    whole = sum(sizes.values())
    if whole > most_bytes:
        largest = max(sizes, key=lambda name: sizes[name])
        raise DataError(_too_large(root, whole, f"files that git does not know, the largest {largest}"))


def _too_large(root: Path, size: int, what: str) -> str:
    return (
        f"the uncommitted changes in {root.name} take {size / 2**20:.1f} MiB ({what}); a record holds "
        f"{most_bytes / 2**20:.0f} MiB of them. Commit what is code, and name what is data in .gitignore"
    )


class _GitFailedError(Exception):
    """Why git gave no answer, and what to do."""


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What a git command says; None where it says no."""
    try:
        return _asked(folder, *arguments)
    except _GitFailedError:
        return None


def _asked(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, given: bytes | None = None
) -> bytes:
    """What a git command says; it fails, takes too long, or there is no git: `_GitFailedError`."""
    command = ["git", "--no-optional-locks", *_FIXED, "-C", str(folder), *arguments]
    # Inside a git hook these name the repository of the hook, whatever folder is asked about.
    told = {name: value for name, value in child_environment().items() if name not in _OF_A_HOOK}
    told |= {"LC_ALL": "C"} | (environment or {})
    try:
        answer = subprocess.run(command, input=given, capture_output=True, timeout=_GIT_SECONDS, check=False, env=told)
    except OSError as error:
        raise _GitFailedError(_NO_GIT) from error
    except subprocess.TimeoutExpired as error:
        raise _GitFailedError(f"`git {arguments[0]}` took more than {_GIT_SECONDS:.0f} s: run it there once") from error
    if b"dubious ownership" in answer.stderr:
        # No path: it would stand in the record, where another machine would have another.
        raise _GitFailedError(
            "the checkout belongs to another user, so git does not read it: run `git config --global --add "
            'safe.directory "$PWD"` in it'
        )
    if answer.returncode:
        raise _GitFailedError(f"`git {arguments[0]}` failed there: run `git status` and mend what it tells")
    return answer.stdout
