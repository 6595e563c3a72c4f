"""Frames: what a gateway worker and a model worker say to each other over a unix socket, one frame for one batch.

::

    kind u32 | batch u32 | rows u32 | width u32 | took u64 | body          little-endian

    score      a batch's features, rows x width float32, row after row; NaN is missing
    scored     the batch's calibrated scores, rows x width float64; `took` is the time it took in ns
    refused    why the batch was not scored: `rows` x 1 bytes of UTF-8

Both ends are of one installation and speak of nothing else, so there is no version and no negotiation. What does not
fit this is refused whole, with its size looked at before any memory is taken for it.
"""

import struct
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from mlplatform.errors import MalformedFrame
from mlplatform.scoring.booster import Matrix, Scores

HEADER = struct.Struct("<IIIIQ")

LARGEST = 64 * 2**20
"""Bytes of a body. 100,000 rows of 160 features fit; a gateway sends more than that in pieces."""

SCORE, SCORED, REFUSED = (int.from_bytes(kind, "little") for kind in (b"SCOR", b"DONE", b"DENY"))
"""The kinds. Four letters, so that what is not a frame is very hardly taken for one."""

_BYTES = {SCORE: 4, SCORED: 8, REFUSED: 1}
"""Of one of the rows x width items in the body."""


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    batch: int
    rows: int
    width: int
    took: int
    body: bytes | memoryview

    def features(self) -> Matrix:
        """Of a `score` frame: (rows, width) float32. It lies in the frame's own memory."""
        return np.frombuffer(self.body, dtype="<f4").reshape(self.rows, self.width)

    def scores(self) -> Scores:
        """Of a `scored` frame: (rows,) float64 where the width is 1, else (rows, width); a copy."""
        scores = np.frombuffer(self.body, dtype="<f8").copy()
        return scores if self.width == 1 else scores.reshape(self.rows, self.width)

    def reason(self) -> str:
        """Of a `refused` frame."""
        return bytes(self.body).decode(errors="replace")


def score_frame(batch: int, features: Matrix) -> bytes:
    """A batch's features, (rows, width) float32.

    Raises
    ------
    MalformedFrame
        They are more than a frame holds.
    """
    rows, width = features.shape
    body = np.ascontiguousarray(features, dtype="<f4")
    if body.nbytes > LARGEST:
        raise MalformedFrame(f"{rows} rows of {width} features are more than {LARGEST} bytes; send them in pieces")
    return HEADER.pack(SCORE, batch, rows, width, 0) + body.tobytes()


def scored_frame(batch: int, scores: Scores, took: int) -> bytes:
    """A batch's scores, (rows,) or (rows, width) float64, and the ns they took.

    Raises
    ------
    MalformedFrame
        They are more than a frame holds.
    """
    width = 1 if scores.ndim == 1 else scores.shape[1]
    body = np.ascontiguousarray(scores, dtype="<f8")
    if body.nbytes > LARGEST:
        raise MalformedFrame(f"{len(scores)} rows of {width} scores are more than {LARGEST} bytes; ask in pieces")
    return HEADER.pack(SCORED, batch, len(scores), width, took) + body.tobytes()


def refused_frame(batch: int, reason: str) -> bytes:
    """Why a batch was not scored; cut after 4,000 bytes."""
    told = reason.encode()[:4000]
    return HEADER.pack(REFUSED, batch, len(told), 1, 0) + told


class FrameReader:
    """Makes frames of the pieces in which a socket delivers them.

    Examples
    --------
    >>> reader = FrameReader({REFUSED})
    >>> sent = refused_frame(7, "too wide")
    >>> reader.feed(sent[:5]), [frame.batch for frame in reader.feed(sent[5:])]
    ([], [7])
    """

    def __init__(self, takes: Collection[int]) -> None:
        self._takes = frozenset(takes)
        self._kept = bytearray()
        self._wanted = HEADER.size

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are complete with this piece; the rest is kept.

        Raises
        ------
        MalformedFrame
            What came is no frame, or one that is not taken here. The reader cannot find its place again: close.
        """
        data: bytes | bytearray = piece
        if self._kept:
            # A large frame comes in many pieces: they are gathered, and looked at when it can be complete.
            self._kept += piece
            if len(self._kept) < self._wanted:
                return []
            data, self._kept = self._kept, bytearray()
        frames: list[Frame] = []
        view = memoryview(data)
        start = 0
        self._wanted = HEADER.size
        while len(data) - start >= HEADER.size:
            kind, batch, rows, width, took = HEADER.unpack_from(data, start)
            if kind not in self._takes:
                raise MalformedFrame(
                    f"it begins with {bytes(view[start : start + 4])!r}, which is not asked or said here"
                )
            size = rows * width * _BYTES[kind]
            if size > LARGEST:
                raise MalformedFrame(f"it announces {size} bytes; {LARGEST} is the most")
            end = start + HEADER.size + size
            if end > len(data):
                self._wanted = end - start
                break
            frames.append(Frame(kind, batch, rows, width, took, view[start + HEADER.size : end]))
            start = end
        if start < len(data):
            self._kept += view[start:]
        return frames
