"""The metrics: one worker's figures, several workers' figures, and what a killed worker leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import FAMILIES, REQUEST_BUCKETS, Metrics
from serving.shared_counts import SharedCounts, read_counts

WORKER = """
import sys
from pathlib import Path
from serving.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
metrics.answered("shop/late", {("model", "champion"): 5}, [0.002] * 5)
metrics.queued(7)
metrics.connected("shop/late", 1)
print("counted", flush=True)
sys.stdin.read()
"""


def figures(metrics: Metrics) -> dict[str, float]:
    """Every sample that is shown, under its name and labels as one text."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def test_what_a_worker_counts_is_what_is_shown(tmp_path: Path) -> None:
    """Every method, in the names and units that are promised."""
    metrics = Metrics(tmp_path)
    metrics.answered("shop/late", {("model", "champion"): 2, ("simple_model", "champion"): 1}, [0.0004, 0.001, 20.0])
    metrics.answered("shop/late", {("model", "champion"): 1}, [0.3])
    metrics.batch(4, queue=0.001, features=0.0003, hop=0.00001, score=3.0)
    metrics.queued(9)
    metrics.queued(4)
    metrics.refused(429)
    metrics.facts("shop/orders", rows=3, refused=1)
    metrics.facts("shop/orders", rows=3, refused=1, repeated=True)
    metrics.facts("shop/orders", rows=0, refused=2)
    metrics.breaker("shop/late", "open")
    metrics.connected("shop/late", 2)
    metrics.log_backlog(1000)
    metrics.log_dropped(3)
    metrics.log_dropped(2)
    shown = figures(metrics)
    expected = {
        "mlplatform_predictions_total arm=champion model=shop/late source=model": 3,
        "mlplatform_predictions_total arm=champion model=shop/late source=simple_model": 1,
        "mlplatform_request_seconds_count": 4,
        "mlplatform_request_seconds_sum": pytest.approx(20.3014),
        "mlplatform_request_seconds_bucket le=0.0005": 1,
        "mlplatform_request_seconds_bucket le=0.001": 2,
        "mlplatform_request_seconds_bucket le=10.0": 3,
        "mlplatform_request_seconds_bucket le=+Inf": 4,
        "mlplatform_phase_seconds_sum phase=queue": 0.001,
        "mlplatform_phase_seconds_sum phase=features": 0.0003,
        "mlplatform_phase_seconds_sum phase=hop": 0.00001,
        "mlplatform_phase_seconds_bucket le=2.0 phase=score": 0,
        "mlplatform_phase_seconds_bucket le=+Inf phase=score": 1,
        "mlplatform_batch_rows_bucket le=2.0": 0,
        "mlplatform_batch_rows_bucket le=4.0": 1,
        "mlplatform_batch_rows_sum": 4,
        "mlplatform_queue_rows": 4,
        "mlplatform_refused_total status=429": 1,
        "mlplatform_fact_events_total outcome=accepted source=shop/orders": 1,
        "mlplatform_fact_events_total outcome=repeated source=shop/orders": 1,
        "mlplatform_fact_events_total outcome=refused source=shop/orders": 1,
        "mlplatform_fact_rows_total outcome=accepted source=shop/orders": 3,
        "mlplatform_fact_rows_total outcome=repeated source=shop/orders": 3,
        "mlplatform_fact_rows_total outcome=refused source=shop/orders": 4,
        "mlplatform_breaker_state breaker=shop/late state=open": 1,
        "mlplatform_breaker_state breaker=shop/late state=closed": 0,
        "mlplatform_workers_connected model=shop/late": 2,
        "mlplatform_prediction_log_backlog_bytes": 1000,
        "mlplatform_prediction_log_dropped_total": 5,
    }
    assert {name: shown[name] for name in expected} == expected
    assert {family.name for family in FAMILIES} <= {
        family.name for family in text_string_to_metric_families(metrics.exposition().decode())
    }


@given(st.lists(st.floats(0, 20), max_size=30))
def test_a_histogram_is_that_of_its_observations(seconds: list[float]) -> None:
    """Each bucket holds what is up to its bound, whatever came."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        metrics = Metrics(Path(folder))
        metrics.answered("m", {}, seconds)
        shown = figures(metrics)
        metrics.close()
    for bound in REQUEST_BUCKETS:
        assert shown[f"mlplatform_request_seconds_bucket le={bound}"] == sum(took <= bound for took in seconds)
    assert shown["mlplatform_request_seconds_count"] == len(seconds)
    assert shown["mlplatform_request_seconds_sum"] == pytest.approx(sum(seconds))


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    """A worker in a process of its own that has counted."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None and worker.stdout.readline() == b"counted\n"
    return worker


def killed(worker: subprocess.Popen[bytes]) -> None:
    """The worker is killed, and is gone."""
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()


def test_any_worker_shows_what_all_counted_and_a_killed_one_loses_no_count(tmp_path: Path) -> None:
    """Counters stay after kill -9 and go on with the next process; gauges are those of the living only."""
    own = Metrics(tmp_path)
    own.queued(2)
    own.connected("shop/late", 2)
    own.answered("shop/late", {("model", "champion"): 1}, [0.002])
    answers = "mlplatform_predictions_total arm=champion model=shop/late source=model"

    def told() -> tuple[float, float, float, float]:
        shown = figures(own)
        return (
            shown[answers],
            shown["mlplatform_request_seconds_count"],
            shown["mlplatform_queue_rows"],
            shown["mlplatform_workers_connected model=shop/late"],
        )

    first, second = start_worker(tmp_path), start_worker(tmp_path)
    try:
        assert told() == (11, 11, 16, 1)
        killed(first)
        assert told() == (11, 11, 9, 1)
        killed(second)
        assert told() == (11, 11, 2, 2)
        for _ in range(3):
            killed(start_worker(tmp_path))
        assert told() == (26, 26, 2, 2)
        assert len(list(tmp_path.iterdir())) == 3
    finally:
        for worker in (first, second):
            worker.kill()
            worker.communicate()


def test_who_counts_on_in_a_file_shows_nothing_of_its_former_gauges(tmp_path: Path) -> None:
    """A model that only the former worker served is not reported as unreachable for ever."""
    former = Metrics(tmp_path)
    former.connected("shop/old", 0)
    former.queued(5)
    former.refused(401)
    former.close()
    metrics = Metrics(tmp_path)
    metrics.connected("shop/late", 2)
    metrics.breaker("shop/late", "closed")
    shown = figures(metrics)
    assert "mlplatform_workers_connected model=shop/old" not in shown
    assert (shown["mlplatform_queue_rows"], shown["mlplatform_refused_total status=401"]) == (0, 1)
    assert "mlplatform_workers_connected model=shop/late" in shown


def test_a_label_with_ever_new_values_costs_its_figures_and_nothing_else(tmp_path: Path) -> None:
    """Counting goes on, and what was counted before stays right."""
    metrics = Metrics(tmp_path)
    metrics.refused(404)
    for number in range(5000):
        metrics.answered(f"model {number} {'x' * 100}", {("model", "champion"): 1}, [])
    metrics.refused(404)
    shown = figures(metrics)
    assert shown["mlplatform_refused_total status=404"] == 2
    kept = [value for name, value in shown.items() if name.startswith("mlplatform_predictions_total")]
    assert 500 < len(kept) < 5000 and set(kept) == {1.0}


def test_a_name_that_was_being_written_when_its_process_was_killed_is_no_name(tmp_path: Path) -> None:
    """Readers and the next process go by complete lines."""
    counts = SharedCounts(tmp_path)
    counts.values[counts.place("whole", ("a",), 1)] = 1
    counts.close()
    with open(tmp_path / "0.counts", "r+b") as file:
        torn = file.read().index(b"\0")
        file.seek(torn)
        file.write(b'["torn", ["b"')
    assert [series.name for series in read_counts(tmp_path)] == ["whole"]
    again = SharedCounts(tmp_path)
    again.values[again.place("next", ("c",), 2) + 1] = 7
    told = [(series.name, series.labels, list(series.values), series.live) for series in read_counts(tmp_path)]
    assert told == [("whole", ("a",), [1.0], True), ("next", ("c",), [0.0, 7.0], True)]
    again.close()
