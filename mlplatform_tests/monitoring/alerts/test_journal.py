"""The journal of alerts: what is known is the sum of its entries, however they were read."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlplatform.monitoring.alerts import journal
from mlplatform.monitoring.alerts.journal import Journal, Silence
from mlplatform.provenance.append_only import frames

NOW = datetime(2024, 1, 21, 6, tzinfo=UTC)


def test_a_file_that_cannot_be_read_for_a_moment_costs_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before it is read again, and each entry counts once."""
    for reason in ("first", "second"):
        writer = Journal(tmp_path, lambda: NOW)
        writer.append(Silence(at=NOW, what="drift", until=NOW + timedelta(hours=1), reason=reason, actor="me"))
        writer.close()
    reader, last = Journal(tmp_path, lambda: NOW), sorted(tmp_path.glob("*.frames"))[-1]

    def torn_away(path: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
        if path == last:
            raise OSError("too many open files")
        return frames(path, start)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "frames", torn_away)
        with pytest.raises(OSError, match="too many"):
            reader.known()
    for _ in range(2):
        assert sorted(each.reason for each in reader.known().silences) == ["first", "second"]
