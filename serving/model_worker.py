"""The model worker: one process that holds one model version and scores batches, and does nothing else.

::

    python -m serving.model_worker --bundle FOLDER --socket PATH

The socket appears when the golden rows have been scored here as in training, never before: a socket that is there is
a worker that is ready. One thread answers in the order in which batches came, whichever gateway worker sent them; the
next waits in its socket, so a gateway that sends much costs itself. What is no frame closes its connection, what
cannot be scored is refused with the reason, and neither ends the process. SIGTERM ends it after the batch in hand; it
does not outlive its parent.

It knows nothing of requests, features, deadlines or fallbacks, and scores as they are come back even when they are
NaN: the gateway judges.
"""

import argparse
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import cast

from mlplatform.errors import MalformedFrame, MlplatformError, Unavailable
from mlplatform.registry.bundle import Bundle, load_bundle
from mlplatform.scoring.booster import Matrix, PreparedBooster, Scores, raw_scores
from serving.frames import SCORE, Frame, FrameReader, refused_frame, scored_frame
from serving.parent_death import end_with_parent

logger = logging.getLogger(__name__)

NOT_READY = 3
"""Exit code when the bundle must not be served here; the reason is the last line on stderr."""

PIECE = 256 * 1024
"""Bytes read at once: more than a socket holds."""

LAST_WORDS = 1.0
"""Seconds that a gateway gets to read the last answers after SIGTERM."""

SIGN_SECONDS = 1.0
"""Between two signs of life."""


class Connection:
    """One gateway worker's connection."""

    def __init__(self, with_gateway: socket.socket) -> None:
        self.socket = with_gateway
        self.reader = FrameReader({SCORE})
        self.unsent: deque[memoryview] = deque()


class ModelWorker:
    """Answers on a unix socket until it is stopped.

    Parameters
    ----------
    score : (rows, columns) float32 -> calibrated scores
    columns : of the model
    path : where the socket appears, at once with the object; what lies there is replaced
    failures : exceptions of `score` that refuse a batch and end nothing, beside the platform's own

    Raises
    ------
    Unavailable
        No socket can be made there.
    """

    def __init__(
        self, score: Callable[[Matrix], Scores], *, columns: int, path: Path, failures: tuple[type[Exception], ...]
    ) -> None:
        self._score = score
        self._columns = columns
        self._failures: tuple[type[Exception], ...] = (*failures, MlplatformError, ValueError, MemoryError)
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._stopped, self._stop = socket.socketpair()
        self._stop.setblocking(False)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._listening = self._listen()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._signed = time.monotonic()

    def stop_at(self, *signals: signal.Signals) -> None:
        """Let these signals stop `serve`."""
        for each in signals:
            signal.signal(each, lambda *_: None)
        # Python's own low-level handler writes the signal's number there, which wakes the selector.
        signal.set_wakeup_fd(self._stop.fileno())

    def serve(self) -> None:
        """Answer until a signal of `stop_at` comes; then say what is ready to be said, and go.

        Each second the socket's file is touched: a worker whose file grows old hangs.
        """
        while True:
            if time.monotonic() - self._signed > SIGN_SECONDS:
                self._sign()
            for key, events in self._selector.select(SIGN_SECONDS):
                if key.fileobj is self._stopped:
                    self._close()
                    return
                if key.fileobj is self._listening:
                    self._accept()
                elif events & selectors.EVENT_WRITE:
                    self._send(key.data)
                else:
                    self._read(key.data)

    def _sign(self) -> None:
        self._signed = time.monotonic()
        with suppress(OSError):  # its folder is gone, and with it whoever looks
            os.utime(self._path)

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        try:
            listening.bind(str(draft))
            draft.chmod(0o600)
            listening.listen(128)
            listening.setblocking(False)
            self._inode = draft.stat().st_ino
            draft.rename(self._path)
        except OSError as error:
            listening.close()
            raise Unavailable(f"{self._path}: no socket can be made there ({error}). Use another run folder") from error
        return listening

    def _accept(self) -> None:
        try:
            with_gateway, _ = self._listening.accept()
        except OSError as error:
            # It has gone by itself, or there are no descriptors left: what is connected goes on.
            logger.warning("a connection could not be taken: %s", error)
            return
        with_gateway.setblocking(False)
        self._selector.register(with_gateway, selectors.EVENT_READ, Connection(with_gateway))

    def _read(self, connection: Connection) -> None:
        try:
            piece = connection.socket.recv(PIECE)
            frames = connection.reader.feed(piece)
        except BlockingIOError:
            return
        except OSError:
            piece, frames = b"", []
        except MalformedFrame as error:
            logger.warning("%s", error)
            piece, frames = b"", []
        if not piece:
            self._drop(connection)
            return
        for frame in frames:
            connection.unsent.append(memoryview(self._answer(frame)))
            if not self._send(connection):
                return

    def _answer(self, frame: Frame) -> bytes:
        if frame.width != self._columns:
            return refused_frame(frame.batch, f"it has {frame.width} columns, the model {self._columns}")
        begun = time.perf_counter_ns()
        try:
            scores = self._score(frame.features())
            return scored_frame(frame.batch, scores, time.perf_counter_ns() - begun)
        except self._failures as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            logger.error("a batch of %d rows could not be scored: %s", frame.rows, told)
            return refused_frame(frame.batch, told)

    def _send(self, connection: Connection) -> bool:
        """Send what can be sent; whether the connection is still there."""
        unsent = connection.unsent
        try:
            with suppress(BlockingIOError):  # full: the rest goes when it takes more
                while unsent:
                    sent = connection.socket.send(unsent[0])
                    if sent < len(unsent[0]):
                        unsent[0] = unsent[0][sent:]
                    else:
                        unsent.popleft()
        except OSError:
            self._drop(connection)
            return False
        # Nothing more is read from a gateway that does not take its answers: they would pile up here.
        events = selectors.EVENT_WRITE if unsent else selectors.EVENT_READ
        if self._selector.get_key(connection.socket).events != events:
            self._selector.modify(connection.socket, events, connection)
        return True

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _close(self) -> None:
        self._listening.close()
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink(missing_ok=True)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Connection):
                key.data.socket.settimeout(LAST_WORDS)
                try:
                    key.data.socket.sendall(b"".join(key.data.unsent))
                except OSError as error:
                    logger.warning("a gateway did not take its last answers: %s", error)
                key.data.socket.close()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._stop.close()
        self._stopped.close()


def scorer(bundle: Bundle) -> Callable[[Matrix], Scores]:
    """The bundle's calibrated scores of a matrix, by the quickest way there is on its device."""
    apply = bundle.calibration.apply
    if bundle.manifest.device != "cpu":
        booster = bundle.booster
        return lambda features: apply(raw_scores(booster, features))
    prepared = PreparedBooster(bundle.booster)
    return lambda features: apply(prepared.raw_scores(features))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.model_worker", description="Score batches of one bundle.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--socket", type=Path, required=True, help="path of the unix socket to answer on")
    told = parser.parse_args(arguments)
    logging.basicConfig(format=f"%(levelname)s model worker {os.getpid()}: %(message)s")
    end_with_parent(signal.SIGKILL)
    # Ctrl-C reaches every process of the terminal: the gateways still need the scores of what they hold.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One that was killed has left its socket, which would say that this one is ready.
    told.socket.unlink(missing_ok=True)
    # XGBoost imports these where they are installed, to know their classes: 2.6 s and 130 MB for nothing.
    cast(dict[str, ModuleType | None], sys.modules).update({"sklearn": None, "pandas": None})
    import xgboost as xgb

    try:
        bundle = load_bundle(told.bundle)
        bundle.check_golden()
        score = scorer(bundle)
        worker = ModelWorker(
            score, columns=len(bundle.manifest.features), path=told.socket, failures=(xgb.core.XGBoostError,)
        )
    except MlplatformError as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return NOT_READY
    worker.stop_at(signal.SIGTERM)
    # What was loaded stays to the end, and scoring leaves no cycles behind: the collector has nothing to look at.
    gc.collect()
    gc.freeze()
    worker.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
