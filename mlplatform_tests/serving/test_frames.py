"""Frames: they come back as they were sent, however the socket cuts them, and what is none is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import MalformedFrame
from serving.frames import (
    HEADER,
    LARGEST,
    REFUSED,
    SCORE,
    SCORED,
    Frame,
    FrameReader,
    refused_frame,
    score_frame,
    scored_frame,
)

ALL = {SCORE, SCORED, REFUSED}
FEATURES = np.array([[1.5, np.nan, -0.0], [np.inf, 2.0, 3.0]], dtype=np.float32)
SCORES = np.array([[0.1, 0.9], [np.nan, 1.0]])
SENT = [
    score_frame(1, FEATURES),
    refused_frame(3, "it isn’t"),
    scored_frame(4, SCORES, 5_000_000_000),
    scored_frame(0xFFFFFFFF, np.array([0.25]), 0),
]


def told(frame: Frame) -> object:
    """What a frame says, to compare."""
    if frame.kind == SCORE:
        return frame.features().tobytes()
    if frame.kind == SCORED:
        return (frame.scores().tobytes(), frame.scores().shape, frame.took)
    return frame.reason()


@given(cuts=st.lists(st.integers(0, sum(map(len, SENT))), max_size=12))
def test_comes_back_as_sent(cuts: list[int]) -> None:
    """Frames read from any pieces of the stream are those that were written, to the bit."""
    stream = b"".join(SENT)
    edges = [0, *sorted(cuts), len(stream)]
    reader = FrameReader(ALL)
    frames = [frame for a, b in itertools.pairwise(edges) for frame in reader.feed(stream[a:b])]
    assert [frame.batch for frame in frames] == [1, 3, 4, 0xFFFFFFFF]
    assert [told(frame) for frame in frames] == [
        FEATURES.tobytes(),
        "it isn’t",
        (SCORES.tobytes(), (2, 2), 5_000_000_000),
        (np.array([0.25]).tobytes(), (1,), 0),
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(24),
        scored_frame(1, SCORES, 0),
        HEADER.pack(SCORE, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0),
        HEADER.pack(SCORE, 1, LARGEST // 4 + 1, 1, 0),
    ],
)
def test_refuses_what_is_no_frame(garbage: bytes) -> None:
    """Other bytes, kinds of the other side and impossible sizes are refused at the header, also behind a good frame."""
    with pytest.raises(MalformedFrame):
        FrameReader({SCORE}).feed(garbage)
    with pytest.raises(MalformedFrame):
        FrameReader({SCORE}).feed(SENT[0] + garbage)


def test_the_largest_frame_is_taken_and_no_larger_one_made() -> None:
    """Both ends agree on the most, and a frame in many pieces is not looked at again with each."""
    largest = np.zeros((LARGEST // 8, 2), dtype=np.float32)
    stream = score_frame(1, largest)
    reader = FrameReader({SCORE})
    frames = [frame for at in range(0, len(stream), 2**18) for frame in reader.feed(stream[at : at + 2**18])]
    assert [frame.features().shape for frame in frames] == [largest.shape]
    with pytest.raises(MalformedFrame, match="pieces"):
        score_frame(1, np.zeros((LARGEST // 8 + 1, 2), dtype=np.float32))
    with pytest.raises(MalformedFrame, match="pieces"):
        scored_frame(1, np.zeros(LARGEST // 8 + 1), 0)
