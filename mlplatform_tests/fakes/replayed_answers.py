"""Replays with verdicts of one's choice, where what a replay does is not the question."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.replay.verdict import Replayed, Verdict

EXACT = Verdict(outcome="exact")
CLOSE = Verdict(outcome="within_tolerance", cause="environment", reason="polars 2.0 answered, 2.1 replays")
DIVERGED = Verdict(outcome="diverged", cause="data", reason="wait_mean of shop/waits differs: revision 1 | revision 2")
NO_BUNDLE = Verdict(outcome="impossible", cause="bundle", reason="the bundle abc is gone")
REMOVED = Verdict(outcome="impossible", cause="removed", reason="revision x was removed by policy on 2024-05-01")


def replayed(request_id: str, verdict: Verdict = EXACT, **changes: Any) -> Replayed:
    """One replay."""
    told: dict[str, Any] = {
        "request_id": request_id,
        "arm": "champion",
        "model": "late_order",
        "manifest": "a" * 64,
        "model_version": "2024-01-01-aaaaaaaa",
        "source": "model",
        "received": datetime(2024, 6, 30, 12, tzinfo=UTC),
        "verdict": verdict,
        "difference": 0.0,
    }
    return Replayed(**(told | changes))


class Replayer:
    """Gives each row the verdict of its manifest, else that it is exact; remembers how much it was asked."""

    def __init__(self, verdicts: Mapping[str, Verdict] | None = None) -> None:
        self.verdicts = dict(verdicts or {})
        self.asked: list[int] = []

    def __call__(self, platform: Platform, domain: Domain, rows: pl.DataFrame) -> list[Replayed]:
        """As `reproducibility.replay.replay` does it."""
        self.asked.append(rows.height)
        names = ("arm", "model", "manifest", "model_version", "source", "received")
        return [
            replayed(
                row["request_id"], self.verdicts.get(row["manifest"], EXACT), **{name: row[name] for name in names}
            )
            for row in rows.iter_rows(named=True)
        ]
