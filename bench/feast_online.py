"""Feast's SDK as the peer of the online reads: a script for an environment of its own, one act per process.

`fill` writes the newest values of each view and prints rows per second; `read` answers each line of its input, a turn,
with the microseconds that its share of the asks took, and in the end writes down what it was told.
"""

FEAST = """
import json, sys, time
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

act, online, asks, result, turns = sys.argv[1:]
online, turns = json.loads(online), int(turns)
config = dict(project="bench", provider="local", entity_key_serialization_version=3)
store = FeatureStore(config=RepoConfig(registry=f"registry-online-{online['type']}.db", online_store=online, **config))
if act == "fill":
    rows, seconds = 0, 0.0
    for name in "abc":
        entity = Entity(name=f"key_{name}", join_keys=[f"key_{name}"], value_type=ValueType.INT64)
        view = FeatureView(
            name=name,
            entities=[entity],
            # Feast looks at the clock of the wall, by which all of this is years old.
            ttl=timedelta(days=36500),
            schema=[Field(name=f"{name}_{number}", dtype=Float64) for number in range(5)],
            source=FileSource(path=f"{name}.parquet", timestamp_field="event_time"),
        )
        store.apply([entity, view])
        values = pd.read_parquet(f"{name}.parquet")
        newest = values[values.event_time == values.event_time.max()]
        started = time.perf_counter()
        store.write_to_online_store(name, df=newest)
        rows, seconds = rows + len(newest), seconds + time.perf_counter() - started
    print(json.dumps(rows / seconds))
else:
    refs = [f"{name}:{name}_{number}" for name in "abc" for number in range(5)]
    told, asks = [], json.load(open(asks))
    for turn in sys.stdin:
        took = {}
        for size, each in asks.items():
            took[f"SDK {size}"] = micros = []
            for keys in each[int(turn) :: turns]:
                started = time.perf_counter_ns()
                values = store.get_online_features(features=refs, entity_rows=keys).to_dict()
                micros.append((time.perf_counter_ns() - started) / 1000)
                told.append(values)
        print(json.dumps([took, 0]), flush=True)
    pd.concat([pd.DataFrame(values) for values in told]).to_parquet(result)
"""
