"""The pointer: which bundle a service of a model serves, as one small file that running services watch.

The ledger is the truth, and lies in Delta Lake; the pointer repeats its last word where a service can read it without
Delta Lake. It is replaced as a whole, so a reader sees the old champion or the new one.
"""

import json
import os
from pathlib import Path

from mlplatform.provenance.files import alone


def pointer_path(home: Path, model: str) -> Path:
    """Where the pointer of `domain/model` lies."""
    return home / "serving" / f"{model}.json"


def write_pointer(home: Path, model: str, digest: str) -> None:
    """Point the running services of a model at another bundle; they follow within a second."""
    path = pointer_path(home, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_suffix(".lock")):
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"champion": digest}))
        os.replace(draft, path)


def read_pointer(path: Path) -> str | None:
    """Digest of the champion; None where nobody has pointed yet, or the file is not readable now."""
    try:
        return str(json.loads(path.read_text())["champion"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
