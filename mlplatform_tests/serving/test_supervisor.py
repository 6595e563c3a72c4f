"""What the supervisor decides about versions; what it does with processes is tried in `test_serving_faults`."""

import time
from pathlib import Path

import pytest

from mlplatform.registry.pointer import write_pointer
from serving.supervisor import AGAIN_SECONDS, REFUSED_AFTER, Child, Served, Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    """One that follows a pointer, and has started nothing yet."""
    pointer = tmp_path / "serving" / "d" / "m.json"
    return Supervisor(listening=0, bundle=tmp_path / "first", pointer=pointer, bundles=tmp_path, gateways=1)


def version(tmp_path: Path) -> Served:
    """A version with one worker that is not ready, asked for at 100 s."""
    return Served("d1", tmp_path, [Child("worker", [], tmp_path / "sign", tmp_path / "log")], asked=100.0)


def starting(supervisor: Supervisor) -> str | None:
    """Digest of the version that is being started."""
    return supervisor._next.digest if supervisor._next else None


def test_a_version_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """Workers that end again and again refuse nothing; their last words are the reason."""
    starting = version(tmp_path)
    starting.workers[0].last_words = "ImportError: no module named zoo"
    assert starting.given_up(100.0 + REFUSED_AFTER - 1) == ""
    assert "120 s; the last thing one said: ImportError: no module named zoo" in starting.given_up(
        100.0 + REFUSED_AFTER
    )


def test_a_refusal_is_told_at_once(tmp_path: Path) -> None:
    """A worker that refuses its bundle is believed."""
    starting = version(tmp_path)
    starting.workers[0].refused = "BundleCorrupt: fitted.json"
    assert starting.given_up(100.1) == "BundleCorrupt: fitted.json"


def test_a_refused_version_is_tried_again(supervisor: Supervisor, tmp_path: Path) -> None:
    """Its files may have been on their way when it was looked at; until then it is left alone, with its reason told."""
    write_pointer(tmp_path, "d/m", "second")
    now = time.monotonic()
    supervisor._follow(now)
    assert supervisor._next
    supervisor._next.workers[0].refused = "BundleMissing: it is not there"
    supervisor._swap(now)
    supervisor._follow(now + AGAIN_SECONDS - 1)
    assert starting(supervisor) is None
    assert supervisor._refused["second"][0] == "BundleMissing: it is not there"
    supervisor._follow(now + AGAIN_SECONDS)
    assert starting(supervisor) == "second"
