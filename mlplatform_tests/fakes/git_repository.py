"""A real git repository, clean or with every kind of edit."""

import subprocess
from pathlib import Path


def git(root: Path, *arguments: str) -> str:
    """What a git command says, as somebody who may commit."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(root: Path) -> Path:
    """A new repository with one commit of two modules, a file of bytes that are no text, and a folder it ignores."""
    (root / "code").mkdir(parents=True)
    git(root, "init", "--quiet")
    (root / "code" / "features.py").write_text("factor = 1\n")
    (root / "code" / "gone.py").write_text("old = True\n")
    (root / "logo.bin").write_bytes(bytes(range(256)))
    (root / ".gitignore").write_text("var/\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Add all")
    return root


def edit(root: Path) -> None:
    """Change, delete and add, text and bytes."""
    (root / "code" / "features.py").write_text("factor = 2\n")
    (root / "code" / "gone.py").unlink()
    (root / "code" / "new file.py").write_text("new = True\n")
    (root / "logo.bin").write_bytes(bytes(reversed(range(256))))
    (root / "var").mkdir()
    (root / "var" / "data.bin").write_bytes(b"ignored")


def tracked(root: Path) -> dict[str, bytes]:
    """Every file of a working tree that is not ignored."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return {name: (root / name).read_bytes() for name in names if name and (root / name).exists()}
