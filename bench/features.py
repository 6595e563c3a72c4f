"""The feature store beside its peers; here the historical join, and `bench/online_features.py` has the online reads.

`make bench-features ARGS="--rounds 3"`, or one half of it with `--only historical`. A million past requests, three
views, 30 days to live, beside DuckDB's ASOF JOIN and Feast. Every round runs each of them once, in a process of its
own, from files to a table in memory; what they give is compared row by row. The peers are installed below
`var/bench/features` by uv, each into an environment of its own. They know no publishing schedule, so here a value is
available when it is true. Feast runs on its DuckDB offline store; `--file-store` also runs its default one, on a tenth
of the rows.
"""

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path

import numpy as np
import polars as pl

from bench import online_features
from bench.made_features import FIRST, HOME, OURS_HOME, VIEWS, aim, make_views, python_with, spread
from mlplatform.features.view import instant

ENTITIES = 1_000_000
MEMORY_AIM = 1.2


OURS = """
import json, resource, sys, time
from bench.made_features import OURS_HOME, domain
import polars as pl
from mlplatform.features.feature_store import FeatureStore
from mlplatform.provenance.platform import Platform

entities, result = sys.argv[1:]
store = FeatureStore(Platform(home=OURS_HOME.absolute()), domain())
started = time.perf_counter()
told = store.get_historical_features(pl.read_parquet(entities), ["a:*", "b:*", "c:*"])
seconds = time.perf_counter() - started
told.write_parquet(result)
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""

DUCKDB = """
import json, resource, sys, time
import duckdb

entities, result = sys.argv[1:]
joins = "".join(
    f" asof left join read_parquet('{name}.parquet') {name}"
    f" on e.key_{name} = {name}.key_{name} and e.at >= {name}.event_time"
    for name in "abc"
)
columns = ", ".join(
    f"case when {name}.event_time >= e.at - interval 30 day then {name}.{name}_{number} end as {name}_{number}"
    for name in "abc"
    for number in range(5)
)
started = time.perf_counter()
told = duckdb.sql(f"select e.*, {columns} from read_parquet('{entities}') e{joins}").to_arrow_table()
seconds = time.perf_counter() - started
duckdb.sql(f"copy told to '{result}' (format parquet)")
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""

FEAST = """
import json, resource, sys, time
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

entities, result, offline = sys.argv[1:]
config = dict(project="bench", provider="local", registry=f"registry-{offline}.db", entity_key_serialization_version=3)
store = FeatureStore(config=RepoConfig(offline_store={"type": offline}, online_store=None, **config))
for name in "abc":
    entity = Entity(name=f"key_{name}", join_keys=[f"key_{name}"], value_type=ValueType.INT64)
    view = FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(days=30),
        schema=[Field(name=f"{name}_{number}", dtype=Float64) for number in range(5)],
        source=FileSource(path=f"{name}.parquet", timestamp_field="event_time"),
    )
    store.apply([entity, view])
started = time.perf_counter()
asked = pd.read_parquet(entities).rename(columns={"at": "event_timestamp"})
refs = [f"{name}:{name}_{number}" for name in "abc" for number in range(5)]
told = store.get_historical_features(entity_df=asked, features=refs).to_arrow()
seconds = time.perf_counter() - started
told.to_pandas().rename(columns={"event_timestamp": "at"}).to_parquet(result)
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""

RUNS = {"ours": (OURS, ()), "DuckDB": (DUCKDB, ("duckdb", "pyarrow")), "Feast": (FEAST, ("feast[duckdb]",))}
"""Script, and what its environment holds; none: ours is used."""


def main() -> None:
    """Both halves, or the one that is asked for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", choices=["historical", "online"])
    arguments.add_argument(
        "--file-store", action="store_true", help="Feast's default store too, on a tenth of the rows"
    )
    told = arguments.parse_args()
    make_views(VIEWS, OURS_HOME)
    if told.only != "online":
        historical(told.rounds, file_store=told.file_store)
    if told.only != "historical":
        online_features.online(told.rounds)


def historical(rounds: int, *, file_store: bool) -> None:
    """Run the rounds, compare, and print the table and the aims."""
    entities = _entities()
    pythons = {name: python_with(name, packages) for name, (_, packages) in RUNS.items()}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    for number in range(rounds):
        # Each round begins with another one.
        for name in [*RUNS][number % len(RUNS) :] + [*RUNS][: number % len(RUNS)]:
            more = ["duckdb"] if name == "Feast" else []
            measured[name].append(_run(name, pythons[name], entities, more))
            print(
                f"round {number + 1}: {name} {measured[name][-1][0]:.2f} s, {measured[name][-1][1]:.2f} GB", flush=True
            )
    different = {name: _different(name, entities) for name in RUNS if name != "ours"}
    if file_store:
        tenth = HOME / "tenth.parquet"
        pl.read_parquet(entities).head(ENTITIES // 10).write_parquet(tenth)
        seconds, memory = _run("Feast", pythons["Feast"], tenth, ["dask"])
        wrong = _different("Feast", tenth)
        print(f"Feast's file store, a tenth of the rows: {seconds:.1f} s, {memory:.1f} GB, {wrong:,} rows differ")
    _table(measured, different)


def _entities() -> Path:
    """The rows that are asked for, as a file; made when they were not."""
    entities = HOME.absolute() / "entities.parquet"
    if entities.exists():
        return entities
    chance = np.random.default_rng(20240101)
    first = int(datetime.combine(FIRST, time(), UTC).timestamp())
    # Of ten keys that are asked for, one is nobody's.
    rows = {made.key: chance.integers(0, made.keys * 11 // 10, ENTITIES) for made in VIEWS}
    seconds = first + chance.integers(0, 400 * 86_400, ENTITIES)
    made_rows = pl.DataFrame({"row": np.arange(ENTITIES), **rows, "at": seconds * 1_000_000})
    made_rows.with_columns(pl.col("at").cast(instant)).write_parquet(entities)
    return entities


def _run(name: str, python: Path, entities: Path, more: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak memory (GB) of one run."""
    command = [str(python), "-c", RUNS[name][0], str(entities), str(_result(name)), *more]
    # Ours looks for its tables from here, the peers for their files from where they are.
    where = None if name == "ours" else HOME
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "FEAST_USAGE": "False"}
    done = subprocess.run(command, cwd=where, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def _result(name: str) -> Path:
    return HOME.absolute() / f"told-{name}.parquet"


def _different(name: str, entities: Path) -> int:
    """Rows that a peer tells otherwise than we do, or not at all."""
    asked = pl.read_parquet(entities, columns=["row"])
    columns = ["row", *(feature for made in VIEWS for feature in made.features)]
    ours, theirs = (
        asked.join(pl.read_parquet(_result(each), columns=columns), on="row", how="left", maintain_order="left")
        for each in ("ours", name)
    )
    extra = pl.read_parquet(_result(name), columns=["row"]).height - asked.height
    # Feast gives NaN where it has nothing.
    theirs = theirs.with_columns(pl.col(columns[1:]).fill_nan(None))
    other = pl.any_horizontal(ours[column].ne_missing(theirs[column]) for column in columns[1:])
    return int(pl.select(other.sum()).item()) + abs(extra)


def _table(measured: Mapping[str, Sequence[tuple[float, float]]], different: Mapping[str, int]) -> None:
    ours = [seconds for seconds, _ in measured["ours"]]
    print(f"\n{ENTITIES:,} rows, views of {', '.join(f'{made.keys * made.partitions:,}' for made in VIEWS)} rows")
    print(
        f"{'':8} {'seconds, min-median-max':>26} {'peak GB':>8} {'x ours, min-median-max':>26} {'rows differing':>15}"
    )
    ratios = {}
    for name, runs in measured.items():
        seconds = [each for each, _ in runs]
        ratios[name] = [theirs / our for theirs, our in zip(seconds, ours, strict=True)]
        differing = f"{different[name]:,}" if name in different else ""
        memory = max(each for _, each in runs)
        print(f"{name:8} {spread(seconds):>26} {memory:8.2f} {spread(ratios[name]):>26} {differing:>15}")
    aim("features.historical.x_feast", statistics.median(ratios["Feast"]), ">=", 20)
    aim("features.historical.x_duckdb", statistics.median(ratios["DuckDB"]), ">=", 1)
    aim("features.historical.peak_gb", max(memory for _, memory in measured["ours"]), "<=", MEMORY_AIM)
    aim("features.historical.rows_differing", sum(different.values()), "<=", 0)


if __name__ == "__main__":
    main()
