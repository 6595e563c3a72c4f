"""Marks of what was removed by policy: a small file where the thing lay, with the text of its tombstone.

Who meets a gap looks for the mark and asks no table, so it costs nothing where nothing is missing. The table of
tombstones is the ledger (`features.tombstones`); a mark is a copy of one line of it.
"""

from pathlib import Path

from mlplatform.errors import RemovedByPolicy
from mlplatform.provenance.files import write_whole

MARK = ".removed"
"""Ends the name of a mark."""


def mark_removed(path: Path, tombstone: str, *, also_called: str = "") -> None:
    """Leave a mark; it counts once there is nothing at `path` any more.

    Parameters
    ----------
    also_called : another name that people look for it by
    """
    write_whole(_mark(path), f"{tombstone}\n{also_called}\n")


def refuse_removed(path: Path) -> None:
    """Pass what is there, or is missing for another reason.

    Raises
    ------
    RemovedByPolicy
        It was removed.
    """
    if (text := removed_text(path)) is not None:
        raise RemovedByPolicy(text)


def removed_text(path: Path) -> str | None:
    """The tombstone of what was at `path`; None: it is there, or was not removed by policy."""
    return _mark(path).read_text().split("\n")[0] if not path.exists() and _mark(path).exists() else None


def _mark(path: Path) -> Path:
    return path.with_name(path.name + MARK)
