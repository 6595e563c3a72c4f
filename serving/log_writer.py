"""The prediction log's end in a gateway worker: each batch becomes one payload of the open segment.

It never waits and never fails: what cannot be written is counted.
"""

import os
import time
from pathlib import Path

from mlplatform.monitoring.prediction_log import Batch as Record
from mlplatform.monitoring.prediction_log import encode, rows_at_once
from mlplatform.provenance.segments import Segments, backlog_bytes
from serving.live_model import ARM, LiveModel
from serving.metrics import Metrics
from serving.predictor import Batch


class LogWriter:
    """Takes batches that have their answers.

    Parameters
    ----------
    home : the platform's; segments lie in `prediction_log/<domain>` below it, where the pick-up finds them
    """

    def __init__(self, home: Path, metrics: Metrics) -> None:
        self._home = home
        self._metrics = metrics
        self._gateway = f"{os.uname().nodename}-{os.getpid()}"
        self._segments: dict[str, Segments] = {}
        # Requests are stamped by a monotonic clock; the table says when they came by the wall's.
        self._epoch = time.time_ns() - time.monotonic_ns()

    def __call__(self, live: LiveModel, batch: Batch) -> None:
        """Write a batch."""
        domain = live.predictor.bundle.domain.name
        segments = self._segments.get(domain)
        if segments is None:
            segments = self._segments[domain] = Segments(self._home / "prediction_log" / domain)
        for start in range(0, len(batch.asks), rows_at_once):
            record = self._record(live, batch, start, start + rows_at_once)
            if not segments.append(encode(record), len(record.request_id)):
                self._metrics.log_dropped(len(record.request_id))

    def show(self) -> None:
        """Set the figure of what waits to be picked up."""
        waiting = sum(backlog_bytes(self._home / "prediction_log" / domain) for domain in self._segments)
        self._metrics.log_backlog(waiting)

    def close(self) -> None:
        """Finish what is open."""
        for segments in self._segments.values():
            segments.close()

    def _record(self, live: LiveModel, batch: Batch, start: int, end: int) -> Record:
        bundle = live.predictor.bundle
        asks, answers = batch.asks[start:end], batch.answers[start:end]
        rows = len(asks)
        prediction, probability, confidence, needs_review, source = (list(each) for each in zip(*answers, strict=True))
        same = {"features": batch.computing, "hop": batch.hop, "score": batch.scoring}
        latency = {name: [round(1e6 * took)] * rows for name, took in same.items()}
        total = [round(1e6 * took) for took in batch.seconds[start:end]]
        spent = round(1e6 * sum(same.values()))
        return Record(
            domain=bundle.domain.name,
            model=bundle.model.name,
            manifest=bundle.digest,
            model_version=bundle.manifest.model_version,
            device=bundle.manifest.device,
            gateway=self._gateway,
            views=dict(bundle.manifest.views),
            revisions=dict(batch.revisions),
            request_id=[ask.request_id for ask in asks],
            at=[ask.at for ask in asks],
            received=[self._epoch + round(1e9 * ask.received) for ask in asks],
            request=[ask.body for ask in asks],
            key=[ask.caller or None for ask in asks],
            arm=[ARM] * rows,
            source=source,
            degraded=[each != "model" or not batch.complete for each in source],
            needs_review=needs_review,
            prediction=prediction,
            probability=probability,
            confidence=confidence,
            scores=b"" if batch.scores is None else batch.scores[start:end].tobytes(),
            features=batch.features[start:end].tobytes(),
            statuses={view: each[start:end] for view, each in batch.statuses.items()},
            latency={"queue": [max(0, each - spent) for each in total], **latency, "total": total},
            reason=[batch.reason or None] * rows,
        )
