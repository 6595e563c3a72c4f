"""Batches of answers as a gateway logs them."""

from typing import Any

import numpy as np

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
