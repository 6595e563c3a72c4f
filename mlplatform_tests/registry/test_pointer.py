"""The pointer that running services watch."""

from pathlib import Path

import pytest

from mlplatform.registry.pointer import pointer_path, read_pointer, write_pointer


def test_the_last_word_counts(tmp_path: Path) -> None:
    """Each model has its own; the one pointed at last is read."""
    for digest in ("aa", "bb"):
        write_pointer(tmp_path, "harbour/waits", digest)
    write_pointer(tmp_path, "harbour/other", "cc")
    assert read_pointer(pointer_path(tmp_path, "harbour/waits")) == "bb"
    assert read_pointer(pointer_path(tmp_path, "harbour/other")) == "cc"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"challenger": "aa"}', b"\xff"])
def test_what_is_no_pointer_points_nowhere(tmp_path: Path, content: bytes) -> None:
    """A service goes on with what it serves."""
    path = pointer_path(tmp_path, "harbour/waits")
    assert read_pointer(path) is None
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_pointer(path) is None
