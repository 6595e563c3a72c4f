"""Files that are there whole or not at all, and locks between processes."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it: a reader, or a run after a kill, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(draft, path)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock between the processes of this machine; the kernel frees it when its holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
