"""The checkout: its commit, its dirt, and a diff that gives the working tree back; the repository stays as it is."""

import random
import shutil
from pathlib import Path

import pytest

from mlplatform.errors import DataError
from mlplatform.provenance import checkout
from mlplatform.provenance.checkout import Checkout, checkout_of
from mlplatform_tests.fakes.git_repository import committed, edit, git, tracked


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    return committed(tmp_path / "project")


def state(root: Path) -> dict[str, bytes]:
    """All that git keeps. Not its times: git marks an object as new that it would have written."""
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()}


def test_commit_and_dirt_are_told(tmp_path: Path) -> None:
    """From no commit, to clean, to changed, asked from a folder inside; an unknown file is dirt too."""
    git(tmp_path, "init", "--quiet")
    inside = tmp_path / "inside"
    inside.mkdir()
    assert checkout_of(inside) == Checkout(commit=None, dirty=False, root=tmp_path)
    (tmp_path / "a").write_text("1")
    assert checkout_of(inside) == Checkout(commit=None, dirty=True, root=tmp_path)
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "Add a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert checkout_of(inside) == Checkout(commit=commit, dirty=False, root=tmp_path)
    (tmp_path / "a").write_text("2")
    assert checkout_of(inside) == Checkout(commit=commit, dirty=True, root=tmp_path)


def test_no_repository_and_no_git_give_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to read is told as None, never as clean."""
    unknown = Checkout(commit=None, dirty=None)
    assert checkout_of(tmp_path) == unknown
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout_of(tmp_path) == unknown


def test_a_repository_that_git_does_not_read_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, or with no git there: that is neither clean nor no checkout, and what to do is told."""
    with monkeypatch.context() as patched:
        patched.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        found = checkout_of(repository / "code")
    assert (found.commit, found.dirty, found.root) == (None, None, repository)
    assert "git config --global --add safe.directory" in found.unknown
    monkeypatch.setenv("PATH", str(repository.parent))
    assert "install it" in checkout_of(repository / "code").unknown


def test_a_broken_or_slow_repository_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a working tree whose repository is not there: in a container that mounts the one and not the other."""
    with monkeypatch.context() as patched:
        patched.setattr(checkout, "_GIT_SECONDS", 0.0)
        assert "took more than" in checkout_of(repository).unknown
    shutil.rmtree(repository / ".git")
    (repository / ".git").write_text("gitdir: /nowhere\n")
    assert "failed" in checkout_of(repository).unknown


@pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
def test_an_edit_that_git_was_told_to_overlook_is_seen(repository: Path, mark: str) -> None:
    """It trains as any other; it is in the diff, and the user's marks stay."""
    git(repository, "update-index", mark, "code/features.py")
    assert checkout_of(repository).dirty is False
    (repository / "code" / "features.py").write_text("factor = 2\n")
    before = state(repository)
    found = checkout_of(repository)
    assert found.dirty is True
    assert b"+factor = 2" in found.changes()
    assert state(repository) == before


def test_what_a_sparse_checkout_leaves_out_is_not_deleted(repository: Path) -> None:
    """Neither dirt nor a part of the diff; a new file beside it is both."""
    (repository / "docs").mkdir()
    (repository / "docs" / "page.md").write_text("page\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Add page")
    git(repository, "sparse-checkout", "set", "code")
    assert not (repository / "docs").exists()
    assert checkout_of(repository).dirty is False
    (repository / "code" / "features.py").write_text("factor = 2\n")
    (repository / "new.py").write_text("new = True\n")
    (repository / "docs").mkdir()
    (repository / "docs" / "new.md").write_text("new page\n")
    told = checkout_of(repository).changes().decode()
    assert [line for line in told.splitlines() if line.startswith(("diff", "deleted"))] == [
        "diff --git a/code/features.py b/code/features.py",
        "diff --git a/docs/new.md b/docs/new.md",
        "diff --git a/new.py b/new.py",
    ]


def test_a_file_with_a_filter_is_refused_by_name(repository: Path, tmp_path: Path) -> None:
    """What git would keep of it is not what is there, and a filter may write; one that is as it was is let be."""
    git(repository, "config", "filter.keep.clean", f"tee '{tmp_path / 'stored'}'")
    (repository / ".gitattributes").write_text("*.bin filter=keep\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Add a filter")
    (repository / "code" / "features.py").write_text("factor = 2\n")
    assert b"+factor = 2" in checkout_of(repository).changes()
    (repository / "new.bin").write_bytes(b"new")
    with pytest.raises(DataError, match=r"new\.bin in project goes through the filter keep .* Commit it"):
        checkout_of(repository).changes()
    # It may have been asked of a file that was there, as by `git status`, and was not run on the new one.
    stored = tmp_path / "stored"
    assert not stored.exists() or stored.read_bytes() != b"new"


def test_what_a_repository_ignores_is_not_of_it(repository: Path) -> None:
    """The commit around a virtual environment says nothing of what is installed in it."""
    installed = repository / "var" / "site-packages"
    installed.mkdir(parents=True)
    assert checkout_of(installed) == Checkout(commit=None, dirty=None)


def test_a_clean_checkout_has_no_changes(repository: Path) -> None:
    """Nothing to keep."""
    assert checkout_of(repository).changes() == b""


def test_the_diff_gives_the_working_tree_back(repository: Path, tmp_path: Path) -> None:
    """Applied to the commit in another clone it makes every file as it was, unknown and binary ones too."""
    edit(repository)
    found = checkout_of(repository)
    patch = tmp_path / "uncommitted.diff"
    patch.write_bytes(found.changes())
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    git(clone, "checkout", "--quiet", str(found.commit))
    git(clone, "apply", str(patch))
    assert tracked(clone) == tracked(repository)
    assert b"ignored" not in patch.read_bytes()


def test_the_diff_is_the_same_whatever_a_user_has_set(repository: Path) -> None:
    """Colours, prefixes and renames of one's own settings do not reach it."""
    edit(repository)
    plain = checkout_of(repository).changes()
    for name, value in {
        "color.ui": "always",
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "diff.renames": "copies",
        "core.splitIndex": "true",
        "status.showUntrackedFiles": "no",
    }.items():
        git(repository, "config", name, value)
    assert checkout_of(repository).changes() == plain


def test_nothing_is_written_to_the_repository(repository: Path) -> None:
    """Neither its index nor its objects change, and what was staged stays staged."""
    edit(repository)
    git(repository, "add", "code/features.py")
    before = state(repository)
    assert checkout_of(repository).changes()
    assert state(repository) == before
    assert git(repository, "diff", "--cached", "--name-only") == "code/features.py"


def test_before_the_first_commit_all_is_change(tmp_path: Path) -> None:
    """The diff is of nothing to what is there."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("a = 1\n")
    assert b"+a = 1" in checkout_of(tmp_path).changes()


def test_in_a_second_working_tree_of_a_repository(repository: Path, tmp_path: Path) -> None:
    """Its objects lie elsewhere, and its changes are its own."""
    other = tmp_path / "other"
    git(repository, "worktree", "add", "--quiet", str(other))
    (other / "code" / "features.py").write_text("factor = 3\n")
    assert b"+factor = 3" in checkout_of(other).changes()
    assert checkout_of(repository).dirty is False


def test_a_git_hook_does_not_lead_astray(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git tells its hooks of another repository is not taken for this one."""
    edit(repository)
    found = checkout_of(repository)
    changes = found.changes()
    git(tmp_path, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / ".git" / "index"))
    assert checkout_of(repository) == found
    assert checkout_of(repository).changes() == changes


@pytest.mark.parametrize("known", [True, False])
def test_too_much_is_refused_by_name(repository: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Data beside the code does not get into a bundle: an error says how much there is, and what to do."""
    monkeypatch.setattr(checkout, "most_bytes", 2**20)
    path = repository / ("logo.bin" if known else "rows.csv")
    path.write_bytes(random.Random(1).randbytes(2**21))  # bytes that cannot be packed
    with pytest.raises(DataError, match=r"MiB \((edited files|files that git does not know, the largest rows\.csv)\)"):
        checkout_of(repository).changes()


def test_a_repository_inside_is_refused(repository: Path) -> None:
    """Its files would be left out in silence."""
    (repository / "inner").mkdir()
    git(repository / "inner", "init", "--quiet")
    (repository / "inner" / "a").write_text("1")
    git(repository / "inner", "add", "a")
    git(repository / "inner", "commit", "--quiet", "-m", "Add a")
    with pytest.raises(DataError, match="a repository of its own in inner/"):
        checkout_of(repository).changes()


@pytest.fixture
def with_submodule(repository: Path) -> Path:
    """The repository with another one in it, `library`."""
    inner = repository.parent / "library"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "a").write_text("1")
    git(inner, "add", "a")
    git(inner, "commit", "--quiet", "-m", "Add a")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "library")
    git(repository, "commit", "--quiet", "-m", "Add library")
    return repository


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("ignored", ["none", "all"])
def test_changes_that_no_diff_holds_are_refused(with_submodule: Path, ignored: str, beside: bool) -> None:
    """Of a submodule a diff tells the commit only, whatever a user lets git say, and whatever else was edited."""
    git(with_submodule, "config", "submodule.library.ignore", ignored)
    assert checkout_of(with_submodule).dirty is False
    (with_submodule / "library" / "a").write_text("2")
    if beside:
        edit(with_submodule)
    with pytest.raises(DataError, match="a submodule with changes of its own, library"):
        checkout_of(with_submodule).changes()


def test_another_commit_of_a_submodule_is_told(with_submodule: Path) -> None:
    """That is what a diff can hold."""
    git(with_submodule, "config", "submodule.library.ignore", "all")
    git(with_submodule / "library", "commit", "--quiet", "--allow-empty", "-m", "Nothing")
    commit = git(with_submodule / "library", "rev-parse", "HEAD")
    assert f"+Subproject commit {commit}".encode() in checkout_of(with_submodule).changes()


def with_golden(folder: Path) -> Path:
    """Golden traffic, as far as a checkout knows it."""
    folder.mkdir(parents=True)
    for name in ("golden.json", "requests.jsonl", "model.ubj"):
        (folder / name).write_text("what a person asked")
    return folder


@pytest.mark.parametrize("into", ["golden/shop/late", "elsewhere [1]"])
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_golden_traffic_is_neither_dirt_nor_in_the_diff(repository: Path, into: str, *, known: bool) -> None:
    """Requests of people get into no bundle, wherever they are recorded; an edit beside them is kept as ever."""
    folder = with_golden(repository / into)
    if known:
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "-m", "Record")
        (folder / "requests.jsonl").write_text("what another person asked")
        git(repository, "add", ".")
    assert checkout_of(repository).dirty is False
    (folder.parent / "README.md").write_text("beside it")
    edit(repository)
    found = checkout_of(repository)
    assert found.dirty
    assert b"person asked" not in found.changes()
    assert b"beside it" in found.changes() and b"factor = 2" in found.changes()


def test_a_file_that_only_has_such_a_name_is_code(repository: Path) -> None:
    """A `golden.json` without requests beside it may be anything."""
    (repository / "code" / "golden.json").write_text("{}")
    (repository / "golden.json").write_text("{}")
    (repository / "requests.jsonl").write_text("{}")
    found = checkout_of(repository)
    assert found.dirty
    assert found.changes().count(b"diff --git") == 3
