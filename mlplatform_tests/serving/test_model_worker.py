"""The model worker as a process: ready only when it is, deaf to garbage, and gone when it should be."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from mlplatform.features.view import view_feature_names
from mlplatform.registry.bundle import GOLDEN_ROWS, GOLDEN_SCORES, Bundle
from mlplatform.scoring.booster import Matrix, matrix
from mlplatform_tests.fakes.model_workers import ROOT, ModelWorkerProcesses
from mlplatform_tests.fakes.tiny_domain import bundle_of, write_package
from mlplatform_tests.fakes.waiting import until
from serving.frames import REFUSED, SCORED, Frame, FrameReader, score_frame
from serving.model_worker import NOT_READY


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a real booster and a calibration."""
    home = tmp_path_factory.mktemp("home")
    return bundle_of(home / "bundles", write_package(home))


@pytest.fixture(scope="module")
def golden(bundle: Bundle) -> Matrix:
    """The features of its golden rows."""
    rows = pl.read_ipc(bundle.folder / GOLDEN_ROWS)
    views = rows.select(view_feature_names(bundle.domain, bundle.model))
    return matrix(bundle.features(rows.drop(views.columns), views))


@pytest.fixture(scope="module")
def processes(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelWorkerProcesses]:
    """One worker of it."""
    made = ModelWorkerProcesses(bundle.folder, tmp_path_factory.mktemp("run"), 1)
    yield made
    made.stop()


@pytest.fixture
def worker(processes: ModelWorkerProcesses) -> Path:
    """Its socket; it is there."""
    processes.start()
    return processes.sockets[0]


def connected(path: Path) -> socket.socket:
    """A connection that gives up after 10 s."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(10)
    made.connect(str(path))
    return made


def heard(asking: socket.socket, count: int) -> list[Frame]:
    """The next frames of a worker."""
    reader = FrameReader({SCORED, REFUSED})
    frames: list[Frame] = []
    while len(frames) < count and (piece := asking.recv(2**18)):
        frames += reader.feed(piece)
    return frames


def sent_until_blocked(asking: socket.socket, frames: bytes) -> int:
    """How many bytes a worker takes from one that reads nothing."""
    taken = 0
    asking.settimeout(1)
    try:
        while taken < len(frames):
            taken += asking.send(frames[taken : taken + 2**16])
    except TimeoutError:
        asking.settimeout(30)
    return taken


def test_scores_to_the_bit(worker: Path, golden: Matrix, bundle: Bundle) -> None:
    """What comes over the socket is what the trained model said, calibrated, in one batch or row by row, in order."""
    expected = pl.read_ipc(bundle.folder / GOLDEN_SCORES).to_numpy()[:, 0]
    with connected(worker) as asking:
        asking.sendall(b"".join(score_frame(row, golden[row : row + 1]) for row in range(len(golden))))
        asking.sendall(score_frame(99, golden))
        frames = heard(asking, len(golden) + 1)
    assert [frame.batch for frame in frames] == [*range(len(golden)), 99]
    alone = np.concatenate([frame.scores() for frame in frames[:-1]])
    np.testing.assert_array_equal(alone.view(np.uint64), np.ascontiguousarray(expected).view(np.uint64))
    np.testing.assert_array_equal(frames[-1].scores().view(np.uint64), alone.view(np.uint64))
    assert all(0 < frame.took < 10**9 for frame in frames)


def test_garbage_closes_its_connection_only(worker: Path, golden: Matrix, processes: ModelWorkerProcesses) -> None:
    """Bytes that are no frame, half a frame and a wrong width cost their sender something, and nobody else."""
    with connected(worker) as good, connected(worker) as half:
        half.sendall(score_frame(1, golden)[:30])
        for garbage in (b"GET / HTTP/1.1\r\n\r\n" * 9, os.urandom(5000), b"\xff" * 24):
            with connected(worker) as bad:
                bad.sendall(garbage)
                assert bad.recv(1) == b""
        good.sendall(score_frame(1, golden[:, :1]) + score_frame(2, golden))
        refused, scored = heard(good, 2)
    assert refused.kind == REFUSED
    assert refused.reason() == f"it has 1 columns, the model {golden.shape[1]}"
    assert (scored.batch, scored.kind) == (2, SCORED)
    assert processes.process(0).poll() is None


def test_who_does_not_read_is_not_read(worker: Path, golden: Matrix) -> None:
    """A gateway that takes no answers is kept waiting with its batches; others are answered, and it gets all later."""
    batches = 40
    large = np.tile(golden, (20_000 // len(golden), 1))
    with connected(worker) as slow:
        sent = b"".join(score_frame(batch, large) for batch in range(batches))
        taken = sent_until_blocked(slow, sent)
        assert taken < len(sent)
        with connected(worker) as other:
            other.sendall(score_frame(7, golden))
            assert heard(other, 1)[0].batch == 7
        complete = taken // len(score_frame(0, large))
        assert [frame.batch for frame in heard(slow, complete)] == list(range(complete))


def test_goes_at_sigterm_when_it_has_answered(worker: Path, golden: Matrix, processes: ModelWorkerProcesses) -> None:
    """Told to go while an answer is half sent, it sends the rest, takes its socket away, and exits with 0."""
    large = np.tile(golden, (400_000 // len(golden), 1))
    with connected(worker) as asking:
        asking.sendall(score_frame(1, large))
        assert asking.recv(1, socket.MSG_PEEK)
        processes.signal(0, signal.SIGTERM)
        frames = heard(asking, 1)
    assert [frame.rows for frame in frames] == [len(large)]
    assert processes.process(0).wait(30) == 0
    assert not worker.exists()


def test_says_why_it_is_not_ready(bundle: Bundle, tmp_path: Path) -> None:
    """With a bundle that must not be served there is no socket, not even an old one: one line, and exit code 3."""
    broken = bundle_of(tmp_path / "bundles", write_package(tmp_path, factor="3.0"))
    (broken.folder / "calibration.json").write_text("{}")
    run = tmp_path / "worker"
    run.write_text("left by one that was killed")
    ended = subprocess.run(
        [sys.executable, "-m", "serving.model_worker", "--bundle", broken.folder, "--socket", run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == NOT_READY
    assert ended.stderr.startswith("BundleCorrupt: calibration.json: its hash is")
    assert ended.stderr.count("\n") == 1
    assert not run.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_dies_with_its_parent(bundle: Bundle, tmp_path: Path) -> None:
    """A supervisor that is killed leaves no worker behind."""
    path = tmp_path / "worker"
    asked = [sys.executable, "-m", "serving.model_worker", "--bundle", str(bundle.folder), "--socket", str(path)]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.Popen({asked!r}).wait()"], cwd=ROOT
    )
    until(path.exists, seconds=60, what="the worker is ready")
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    child.wait(10)
    assert not child.is_running()
