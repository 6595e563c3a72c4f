"""What the three layers cost on a day of a million predictions: time and memory, each in a process of its own.

The log of the day is quiet flights over and over, with 62 features, each its own case with its own fact. What the
monitors keep (what is usual of a manifest, once) is made before the clock runs.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from bench.monitored_days import Day
from bench.monitored_worlds import HOME, LATE_ARRIVAL, QUIET, flight_platform, flight_pool
from mlplatform.domains.flight_delay import DOMAIN as FLIGHTS
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import log_table
from mlplatform.monitoring.prediction_log import phases, schema
from mlplatform.provenance.platform import Platform

DAY = "2013-09-10"
SECONDS, GIGABYTES = 30.0, 2.0
AFTER = datetime(2013, 9, 14, tzinfo=UTC)


def speed(rows: int) -> Iterator[tuple[str, float, float]]:
    """Name, figure and limit of each aim; prints what each layer took."""
    _log_of(rows)
    print(f"\n{rows:,} predictions of a day, {len(flight_pool(flight_platform())[0].reference.bins.names)} features")
    seconds, memory = 0.0, 0.0
    for layer in LAYERS:
        command = [sys.executable, "-m", "bench.monitoring_speed", layer]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        wall, processor, gigabytes, found = json.loads(told.stdout.splitlines()[-1])
        print(f"  {layer:16} {wall:6.1f} s, {processor:6.1f} s of a processor, {gigabytes:.2f} GB; {found}", flush=True)
        seconds, memory = seconds + wall, max(memory, gigabytes)
    yield "seconds_of_three_layers", seconds, SECONDS
    yield "peak_gb_of_a_layer", memory, GIGABYTES


def _platform() -> Platform:
    """Models of the flights, tables of its own, and the clock three days later."""
    return replace(flight_platform(), tables=str((HOME / "large").absolute()), clock=lambda: AFTER)


def _log_of(rows: int) -> None:
    platform = _platform()
    stamp = HOME / "large" / "rows.txt"
    served, _, quiet = flight_pool(flight_platform())
    wanted = f"{rows} of {served.bundle.digest}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(HOME / "large", ignore_errors=True)
    facts = Tables(flight_platform(), FLIGHTS).facts(FLIGHTS.requests.facts)
    told = facts.read().filter(pl.col("scheduled_departure").dt.date() >= date.fromisoformat(QUIET[0]))
    store = Tables(platform, FLIGHTS).facts(FLIGHTS.requests.facts)
    midnight, names, cases, start = datetime.fromisoformat(f"{DAY}T00:00Z"), dict(schema), [], 0
    while start < rows:
        for day in quiet:
            requests = day.requests[: rows - start]
            spread = pl.duration(microseconds=pl.int_range(pl.len(), dtype=pl.Int64) + start)
            at = midnight + (pl.col("at") - pl.col("at").dt.truncate("1d")) + spread
            moved = requests.with_columns(_was="scheduled_departure", at=at).with_columns(
                scheduled_departure=pl.col("at") + timedelta(hours=2),
                scheduled_arrival=pl.col("at")
                + timedelta(hours=2)
                + (pl.col("scheduled_arrival") - pl.col("scheduled_departure")),
            )
            cases.append(moved.select("_was", *FLIGHTS.requests.identity))
            log = _logged(day, moved.drop("_was"), served.bundle.digest, start)
            write_deltalake(
                log_table(platform, FLIGHTS),
                log.select(pl.col(name).cast(dtype) for name, dtype in names.items()).with_columns(
                    day=pl.lit(date.fromisoformat(DAY))
                ),
                mode="append",
                partition_by=["day"],
            )
            start += requests.height
            if start >= rows:
                break
    known = [name for name in FLIGHTS.requests.identity if name != "scheduled_departure"]
    landed = pl.concat(cases).join(
        told.rename({"scheduled_departure": "_was"}), on=["_was", *known], how="inner", maintain_order="left"
    )
    landed = landed.select(pl.col(name).cast(dtype) for name, dtype in store.schema.items())
    landed = landed.with_columns(
        event_time=pl.col("scheduled_departure"), available_at=pl.lit(AFTER - timedelta(days=2))
    )
    written = Written(run_id="bench", code_version="", environment="", known_at=AFTER - timedelta(days=2))
    next_day = pl.col("scheduled_departure").dt.date().cast(pl.String) > DAY
    later = (date.fromisoformat(DAY) + timedelta(days=1)).isoformat()
    store.append(
        {
            DAY: Draft(rows=landed.filter(~next_day).cast(store.schema)),
            later: Draft(rows=landed.filter(next_day).cast(store.schema)),
        },
        written,
    )
    _keep_what_is_usual(platform)
    stamp.write_text(wanted)


def _logged(day: Day, requests: pl.DataFrame, digest: str, first: int) -> pl.DataFrame:
    """Answers as the table has them."""
    rows = requests.height
    body = requests.with_columns(pl.col(pl.Datetime).dt.to_string("iso:strict")).drop("at")
    text = body.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    told = day.answered[:rows].select(
        "source", "degraded", "needs_review", "probability", "confidence", "scores", "model_version",
        pl.col("prediction").cast(pl.String), *(f"{phase}_us" for phase in phases),
    )  # fmt: skip
    fixed = {
        "domain": FLIGHTS.name,
        "model": LATE_ARRIVAL.name,
        "manifest": digest,
        "device": "cpu",
        "gateway": "g",
        "key": "k",
        "arm": "champion",
    }
    return told.with_columns(
        **{name: pl.lit(text) for name, text in fixed.items()},
        request_id=pl.Series([f"r{first + row}" for row in range(rows)]),
        received=requests["at"],
        at=requests["at"],
        reason=pl.lit(None, pl.String),
        request=text,
        features=pl.Series(day.vectors[:rows]).arr.to_list(),
        views=pl.lit([], schema["views"]),
    )


def _keep_what_is_usual(platform: Platform) -> None:
    from mlplatform.monitoring.behaviour.usual import usual_of
    from mlplatform.monitoring.outcomes.reference import reference_of as evaluation_of
    from mlplatform.monitoring.quality.reference import reference_of

    digest = flight_pool(flight_platform())[0].bundle.digest
    reference_of(platform, FLIGHTS, digest)
    usual_of(platform, FLIGHTS, LATE_ARRIVAL.name, digest)
    evaluation_of(platform, FLIGHTS, digest)


def _data_quality(platform: Platform) -> str:
    from mlplatform.monitoring.quality.quality import quality_of_day

    found = quality_of_day(platform, FLIGHTS, DAY)
    assert not any(each.not_judged for each in found.manifests), found.manifests
    return f"{found.answers:,} answers, {len(found.features)} features"


def _model_behaviour(platform: Platform) -> str:
    from mlplatform.monitoring.behaviour.day import behaviour_of_day

    return f"{behaviour_of_day(platform, FLIGHTS, DAY).answers:,} answers"


def _outcomes(platform: Platform) -> str:
    from mlplatform.monitoring.outcomes.outcomes import outcomes_of_day

    found = outcomes_of_day(platform, FLIGHTS, DAY)
    labelled = sum(each.labelled for each in found.models)
    assert found.judged and labelled > 0.9 * found.answers, found.models
    return f"{found.answers:,} answers, {labelled:,} labels"


LAYERS: Mapping[str, Callable[[Platform], str]] = {
    "data_quality": _data_quality,
    "model_behaviour": _model_behaviour,
    "outcomes": _outcomes,
}


def main() -> None:
    """One layer; tells its time, and the memory of this process, in JSON."""
    started, before = time.perf_counter(), time.process_time()
    found = LAYERS[sys.argv[1]](_platform())
    took = time.perf_counter() - started, time.process_time() - before
    print(json.dumps([*took, _peak(), found]))


def _peak() -> float:
    """GB of this program alone: what `getrusage` tells begins with the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) / 2**20


if __name__ == "__main__":
    main()
