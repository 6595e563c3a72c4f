"""What a gateway logs: batches of answers, transitions of breakers."""

from typing import Any

import numpy as np

from mlplatform.monitoring.breaker_log import BreakerTransition
from mlplatform.monitoring.prediction_log import Batch, phases

NOON = 1_704_110_400_000_000_000
"""2024-01-01T12:00Z in nanoseconds."""

DAY = 86_400_000_000_000


def answered(rows: int, *, first: int = 0, **changes: Any) -> Batch:
    """The answers `r<first>` and following of one batch."""
    told: dict[str, Any] = {
        "domain": "synthetic",
        "model": "late",
        "manifest": "abc",
        "model_version": "7",
        "device": "cpu",
        "gateway": "g1",
        "views": {"synthetic/customers": "v1"},
        "revisions": {"synthetic/customers": "customers-1.arrow"},
        "request_id": [f"r{first + row}" for row in range(rows)],
        "at": [NOON // 1000] * rows,
        "received": [NOON + row for row in range(rows)],
        "request": [b'{"amount": 1}'] * rows,
        "key": [None] * rows,
        "arm": ["champion"] * rows,
        "source": ["model"] * rows,
        "degraded": [False] * rows,
        "needs_review": [False] * rows,
        "prediction": [1] * rows,
        "probability": [0.75] * rows,
        "confidence": [0.75] * rows,
        "scores": np.full((rows, 1), 0.75).tobytes(),
        "features": np.arange(rows * 3, dtype=np.float32).tobytes(),
        "statuses": {"synthetic/customers": ["present"] * rows},
        "latency": {phase: [place] * rows for place, phase in enumerate(phases)},
        "reason": [None] * rows,
    }
    return Batch(**(told | changes))


def transition(**changes: Any) -> BreakerTransition:
    """A breaker of `synthetic/late_order` that opens."""
    told: dict[str, Any] = {
        "model": "synthetic/late_order",
        "model_version": "2024-01-01-abcd",
        "manifest": "abc",
        "gateway": "g1",
        "breaker": "synthetic/late_order",
        "before": "closed",
        "after": "open",
        "reason": "failure rate 0.60 of 10 calls, threshold 0.5",
        "at": NOON,
    }
    return BreakerTransition(**(told | changes))
