"""The prediction log's end in a gateway worker: each batch becomes one payload of the open segment.

It never waits and never fails: what cannot be written is counted. Where requests tell their own time, that is when they
came: a replayed day is logged on its own day. Only latencies are of the real clock then.
"""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.monitoring.prediction_log import Batch as Record
from mlplatform.monitoring.prediction_log import encode, rows_at_once
from mlplatform.provenance.computing import computing_text
from mlplatform.provenance.segments import Segments, backlog_bytes, roll_after
from serving.batch import Asks, Batch
from serving.live_model import LiveModel
from serving.metrics import Metrics

LATEST = 2**63 - 1
"""Nanoseconds since 1970 that the log can hold."""


class LogWriter:
    """Takes batches that have their answers.

    Parameters
    ----------
    home : the platform's; segments lie in `prediction_log/<domain>` below it, where the pick-up finds them
    roll_after : seconds until a segment can be picked up
    """

    def __init__(self, home: Path, metrics: Metrics, *, roll_after: float = roll_after) -> None:
        self._home = home
        self._metrics = metrics
        self._roll_after = roll_after
        self._computing = computing_text()
        self._gateway = f"{os.uname().nodename}-{os.getpid()}"
        self._segments: dict[str, Segments] = {}
        self._epoch = _epoch()

    def __call__(self, live: LiveModel, batch: Batch) -> None:
        """Write a batch."""
        domain = live.predictor.bundle.domain.name
        segments = self._segments.get(domain)
        if segments is None:
            segments = self._segments[domain] = Segments(
                self._home / "prediction_log" / domain, roll_after=self._roll_after
            )
        if not batch.came:
            batch.came = self._came(live, batch.asks)
        for start in range(0, len(batch.asks), rows_at_once):
            record = self._record(live, batch, start, start + rows_at_once)
            if not segments.append(encode(record), len(record.request_id)):
                self._metrics.log_dropped(len(record.request_id))

    def show(self) -> None:
        """Set the figures of what waits and of who looks at it, and the clock: machines sleep, clocks are put right."""
        self._epoch = _epoch()
        waiting = sum(backlog_bytes(self._home / "prediction_log" / domain) for domain in self._segments)
        self._metrics.log_backlog(waiting)
        for domain in self._segments:
            try:
                looked = (self._home / "alerts" / domain / "heartbeat").stat().st_mtime
            except OSError:
                continue  # the loop runs elsewhere, or never did
            self._metrics.monitor_looked(max(0.0, time.time() - looked))

    def close(self) -> None:
        """Finish what is open."""
        for segments in self._segments.values():
            segments.close()

    def _record(self, live: LiveModel, batch: Batch, start: int, end: int) -> Record:
        bundle = live.predictor.bundle
        asks, answers = batch.asks.part(start, end), batch.answers.part(start, end)
        rows = len(asks)
        same = {"features": batch.computing, "hop": batch.hop, "score": batch.scoring}
        latency = {name: [round(1e6 * took)] * rows for name, took in same.items()}
        total = _whole(1e6, batch.seconds[start:end])
        spent = round(1e6 * sum(same.values()))
        routes, first = asks.route, asks.route[0]
        one = routes.count(first) == rows  # which is the rule
        return Record(
            domain=bundle.domain.name,
            model=bundle.model.name,
            manifest=bundle.digest,
            model_version=bundle.manifest.model_version,
            device=bundle.manifest.device,
            gateway=self._gateway,
            views=dict(bundle.manifest.views),
            revisions={view: read.publication for view, read in batch.views.items()},
            request_id=list(asks.request_id),
            at=list(asks.at),
            received=list(batch.came[start:end]),
            request=list(asks.body),
            table=b"" if asks.body else _as_table(batch.rows[start:end]),
            key=[caller or None for caller in asks.caller],
            arm=[first.arm] * rows if one else [route.arm for route in routes],
            source=answers.source,
            degraded=[each != "model" or not batch.complete for each in answers.source],
            needs_review=answers.needs_review,
            prediction=answers.prediction,
            probability=answers.probability,
            confidence=answers.confidence,
            scores=b"" if batch.scores is None else batch.scores[start:end].tobytes(),
            features=batch.features[start:end].tobytes(),
            statuses={view: read.statuses[start:end] for view, read in batch.views.items()},
            value_revisions={view: read.revisions[start:end] for view, read in batch.views.items()},
            event_times={view: read.event_times[start:end] for view, read in batch.views.items()},
            latency={"queue": np.maximum(0, total - spent).tolist(), **latency, "total": total.tolist()},
            reason=[batch.reason or None] * rows,
            plan=[first.plan] * rows if one else [route.plan for route in routes],
            propensity=[first.propensity] * rows if one else [route.propensity for route in routes],
            computing=self._computing,
        )

    def _came(self, live: LiveModel, asks: Asks) -> list[int]:
        """When requests came, nanoseconds since 1970."""
        if live.predictor.request_time:
            # Nanoseconds reach from 1677 to 2262; a request may tell of any year.
            return [min(max(1000 * at, -LATEST), LATEST) for at in asks.at]
        came: list[int] = (_whole(1e9, asks.received) + self._epoch).tolist()
        return came


def _epoch() -> int:
    """Requests are stamped by a monotonic clock; the table says when they came by the wall's. What lies between, ns."""
    return time.time_ns() - time.monotonic_ns()


def _as_table(rows: pl.DataFrame) -> bytes:
    """Requests as an Arrow IPC stream; their time stands beside them."""
    written = io.BytesIO()
    # By position: to name them would start a query, which takes longer than to write them.
    rows[:, [position for position, name in enumerate(rows.columns) if name != "at"]].write_ipc_stream(written)
    return written.getvalue()


def _whole(unit: float, seconds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Seconds in whole units, of which there are so many in one."""
    return np.rint(unit * np.asarray(seconds)).astype(np.int64)
