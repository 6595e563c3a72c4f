"""The metrics of the gateway in Prometheus form, right over several gateway workers.

Counts go into `shared_counts`; prometheus_client writes what `/metrics` shows, so any worker answers for all. A method
of `Metrics` is one thing that happened, called once for each batch where there are batches.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serving.shared_counts import SharedCounts, read_counts

__all__ = ["CONTENT_TYPE", "FAMILIES", "Family", "Metrics"]

PHASES = ("queue", "features", "hop", "score")
BREAKER_STATES = ("closed", "open", "half_open", "forced_open", "disabled", "metrics_only")

REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a row alone takes about 1 ms, a deadline is some hundreds, a bulk request seconds."""

PHASE_BUCKETS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
"""Seconds: the hop takes tens of microseconds, and a phase ends with the deadline."""

ROW_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 8192.0, 65536.0)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One name of metrics, and how the figures of several workers become one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    over_workers: Literal["sum", "max", "min"] = "sum"
    """For gauges, over living workers. Counters and histograms are sums over all there ever were."""

    @property
    def width(self) -> int:
        """Values of a series: of a histogram each bucket alone, the one without an upper bound, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


FAMILIES = (
    Family(
        name="mlplatform_predictions",
        kind="counter",
        meaning="Answers given, by model, by what made them, and by arm of the rollout",
        labels=("model", "source", "arm"),
    ),
    Family(
        name="mlplatform_shadow_rows",
        kind="counter",
        meaning="Rows that the other arm scored too, which is for the log alone, by what made its score",
        labels=("model", "source"),
    ),
    Family(
        name="mlplatform_shadow_dropped",
        kind="counter",
        meaning="Rows that the other arm had no time or room to score",
        labels=("model",),
    ),
    Family(
        name="mlplatform_rerouted",
        kind="counter",
        meaning="Requests that the champion answers whatever their key says: no_key, not_open, full, refused, failed",
        labels=("model", "reason"),
    ),
    Family(
        name="mlplatform_plan_share",
        kind="gauge",
        meaning="Share of the keys that the challenger answers, by the plan that this service goes by",
        labels=("model",),
        over_workers="max",
    ),
    Family(
        name="mlplatform_request_seconds",
        kind="histogram",
        meaning="From the first byte of a request to its answer",
        buckets=REQUEST_BUCKETS,
    ),
    Family(
        name="mlplatform_phase_seconds",
        kind="histogram",
        meaning="Of each batch: the wait of its oldest row, its features, the way to the model worker, scoring",
        labels=("phase",),
        buckets=PHASE_BUCKETS,
    ),
    Family(name="mlplatform_batch_rows", kind="histogram", meaning="Rows of each batch", buckets=ROW_BUCKETS),
    Family(name="mlplatform_queue_rows", kind="gauge", meaning="Rows that wait for a model worker"),
    Family(
        name="mlplatform_breaker_state",
        kind="gauge",
        meaning="Gateway workers whose breaker of that name is in that state",
        labels=("breaker", "state"),
    ),
    Family(
        name="mlplatform_workers_connected",
        kind="gauge",
        meaning="Model workers that a gateway worker reaches; of several gateway workers, the one that reaches fewest",
        labels=("model",),
        over_workers="min",
    ),
    Family(
        name="mlplatform_prediction_log_backlog_bytes",
        kind="gauge",
        meaning="Prediction log on this disk that was not picked up yet",
        over_workers="max",
    ),
    Family(
        name="mlplatform_prediction_log_dropped",
        kind="counter",
        meaning="Answers that the prediction log could not take",
    ),
    Family(name="mlplatform_refused", kind="counter", meaning="Requests refused, by HTTP status", labels=("status",)),
    Family(
        name="mlplatform_refused_fields",
        kind="counter",
        meaning="Requests with a field at fault, by what it broke; one of many rows counts once",
        labels=("field", "rule"),
    ),
    Family(
        name="mlplatform_objective_p99_seconds",
        kind="gauge",
        meaning="What the 99th percentile of a model's requests is to stay below",
        labels=("model",),
        over_workers="max",
    ),
    Family(
        name="mlplatform_monitor_look_age_seconds",
        kind="gauge",
        meaning="Since the monitor loop last looked at the domain; not there where it never did on this disk",
        over_workers="min",
    ),
    Family(
        name="mlplatform_fact_events",
        kind="counter",
        meaning="Bodies of facts: accepted, repeated (accepted again: the same event was there), or refused as a whole",
        labels=("source", "outcome"),
    ),
    Family(
        name="mlplatform_fact_rows",
        kind="counter",
        meaning="Rows in bodies of facts that could be read: accepted, repeated, or refused for breaking the contract",
        labels=("source", "outcome"),
    ),
)
_families = {family.name: family for family in FAMILIES}


class Metrics:
    """What this gateway worker counts, and what all of them counted.

    Parameters
    ----------
    folder : the same for all gateway workers of a service, and of no other; new when the service starts
    """

    def __init__(self, folder: Path) -> None:
        self._counts = SharedCounts(folder)
        self._values = self._counts.values
        # Who counted here before is gone, and what it showed with it. NaN: not told.
        for (name, _labels, _width), place in self._counts.places.items():
            if name in _families and _families[name].kind == "gauge":
                self._values[place] = math.nan
        self._places: dict[tuple[str, ...], int] = {}
        self._request = self._place("mlplatform_request_seconds")
        self._phases = tuple(self._place("mlplatform_phase_seconds", phase) for phase in PHASES)
        self._rows = self._place("mlplatform_batch_rows")
        self._queue = self._place("mlplatform_queue_rows")
        self._backlog = self._place("mlplatform_prediction_log_backlog_bytes")
        self._dropped = self._place("mlplatform_prediction_log_dropped")
        for place in (self._queue, self._backlog):
            self._values[place] = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Everybody(folder))

    def answered(self, model: str, made_by: Mapping[tuple[str, str], int], seconds: Iterable[float]) -> None:
        """Answers were given: how many by source and arm, and how long the request of each took, end to end."""
        for (source, arm), answers in made_by.items():
            self._values[self._place("mlplatform_predictions", model, source, arm)] += answers
        values, start, end = self._values, self._request, self._request + len(REQUEST_BUCKETS)
        total = 0.0
        for took in seconds:
            values[start + bisect_left(REQUEST_BUCKETS, took)] += 1
            total += took
        values[end + 1] += total

    def shadowed(self, model: str, sources: Mapping[str, int]) -> None:
        """A batch was scored in the shadow: how many rows by source."""
        for source, rows in sources.items():
            self._values[self._place("mlplatform_shadow_rows", model, source)] += rows

    def shadow_dropped(self, model: str, rows: int) -> None:
        """So many rows were not scored in the shadow, for want of time or room."""
        self._values[self._place("mlplatform_shadow_dropped", model)] += rows

    def rerouted(self, model: str, reason: str, requests: int = 1) -> None:
        """The champion answers what the plan does not give it."""
        self._values[self._place("mlplatform_rerouted", model, reason)] += requests

    def share(self, model: str, share: float) -> None:
        """The challenger answers this share of the keys now."""
        self._values[self._place("mlplatform_plan_share", model)] = share

    def batch(self, rows: int, *, queue: float, features: float, hop: float, score: float) -> None:
        """A batch was scored: its rows, and the seconds of each phase."""
        self._observe(self._rows, ROW_BUCKETS, rows)
        for place, took in zip(self._phases, (queue, features, hop, score), strict=True):
            self._observe(place, PHASE_BUCKETS, took)

    def queued(self, rows: int) -> None:
        """So many rows wait now."""
        self._values[self._queue] = rows

    def refused(self, status: int) -> None:
        """A request was refused."""
        self._values[self._place("mlplatform_refused", str(status))] += 1

    def refused_fields(self, faults: Mapping[tuple[str, str], int]) -> None:
        """Requests, or rows of one, were refused for these fields: (field, kind of rule) -> how many requests."""
        for (field, rule), times in faults.items():
            self._values[self._place("mlplatform_refused_fields", field, rule)] += times

    def objective(self, model: str, seconds: float) -> None:
        """The 99th percentile of this model's requests is to stay below that."""
        self._values[self._place("mlplatform_objective_p99_seconds", model)] = seconds

    def monitor_looked(self, seconds: float) -> None:
        """The monitor loop last looked so long ago."""
        self._values[self._place("mlplatform_monitor_look_age_seconds")] = seconds

    def facts(self, source: str, *, rows: int, refused: int, repeated: bool = False) -> None:
        """A body of facts was answered: how many of its rows were taken in and how many were not.

        Parameters
        ----------
        rows : 0 where it was refused as a whole
        repeated : the same event was taken in before
        """
        outcome = "refused" if not rows else "repeated" if repeated else "accepted"
        self._values[self._place("mlplatform_fact_events", source, outcome)] += 1
        if rows:
            self._values[self._place("mlplatform_fact_rows", source, outcome)] += rows
        if refused:
            self._values[self._place("mlplatform_fact_rows", source, "refused")] += refused

    def breaker(self, name: str, state: str) -> None:
        """A breaker is in this state now, one of `BREAKER_STATES`."""
        for each in BREAKER_STATES:
            self._values[self._place("mlplatform_breaker_state", name, each)] = each == state

    def connected(self, model: str, workers: int) -> None:
        """So many model workers of a model are reached now."""
        self._values[self._place("mlplatform_workers_connected", model)] = workers

    def log_backlog(self, size: int) -> None:
        """So many bytes of the prediction log wait to be picked up."""
        self._values[self._backlog] = size

    def log_dropped(self, rows: int) -> None:
        """The prediction log could not take so many more answers."""
        self._values[self._dropped] += rows

    def exposition(self) -> bytes:
        """What `/metrics` answers, of type `CONTENT_TYPE`: the figures of all gateway workers."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Count no more. The counters stay, for who takes this worker's place."""
        self._counts.close()

    def _place(self, *series: str) -> int:
        known = self._places.get(series)
        if known is None:
            known = self._places[series] = self._counts.place(series[0], series[1:], _families[series[0]].width)
        return known

    def _observe(self, place: int, buckets: tuple[float, ...], value: float) -> None:
        self._values[place + bisect_left(buckets, value)] += 1
        self._values[place + len(buckets) + 1] += value


class _Everybody(Collector):
    """What all gateway workers counted, for prometheus_client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        together: dict[str, dict[tuple[str, ...], list[Sequence[float]]]] = {family.name: {} for family in FAMILIES}
        for series in read_counts(self._folder):
            family = _families.get(series.name)
            if family is None or len(series.values) != family.width:
                continue  # of another version of this module
            if family.kind == "gauge" and (not series.live or math.isnan(series.values[0])):
                continue  # of a worker that is gone, or not told
            together[family.name].setdefault(series.labels, []).append(series.values)
        return [_metric(family, together[family.name]) for family in FAMILIES]


_over_workers: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}


def _metric(family: Family, found: Mapping[tuple[str, ...], list[Sequence[float]]]) -> Metric:
    """One family with the figures of all workers, in the order of their labels."""
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, workers in sorted(found.items()):
            *alone, total = [sum(worth) for worth in zip(*workers, strict=True)]
            bounds = [*map(floatToGoString, family.buckets), "+Inf"]
            up_to = [sum(alone[: number + 1]) for number in range(len(alone))]
            histogram.add_metric(labels, list(zip(bounds, up_to, strict=True)), total)
        return histogram
    if family.kind == "counter":
        counter = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, workers in sorted(found.items()):
            counter.add_metric(labels, sum(worth for (worth,) in workers))
        return counter
    gauge = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, workers in sorted(found.items()):
        gauge.add_metric(labels, _over_workers[family.over_workers](worth for (worth,) in workers))
    return gauge
