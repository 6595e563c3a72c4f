"""Replays of the benchmark's answers, each set in a process that has seen nothing before.

A process remembers what it has found whole: a bit that flips later must be met by another. `python -m bench.replay_rows
FOLDER OUT` is for a process that has other libraries.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import polars as pl

from bench.replay_domain import NAME
from bench.replay_world import EXPECTED
from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domain
from mlplatform.errors import MlplatformError
from mlplatform.features.integrity import unreadable
from mlplatform.monitoring.pickup import logged, rows_by_day
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.reproducibility.replay.find import find, sample
from mlplatform.reproducibility.replay.replay import replay
from mlplatform.reproducibility.replay.trail import trail
from mlplatform.scoring.booster import raw_scores

Given = ParamSpec("Given")
Found = TypeVar("Found")

_processes = multiprocessing.get_context("forkserver")


def fresh(function: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    """What a function gives in a process of its own, which has the imports behind it and nothing else."""
    _processes.set_forkserver_preload(["bench.replay_rows"])
    with ProcessPoolExecutor(1, mp_context=_processes) as one:
        return one.submit(function, *given, **named).result()


def world_of(folder: Path) -> tuple[Platform, Domain]:
    """The platform and the domain of a world."""
    return Platform(home=folder / "home"), registered_domain(NAME)


def rows_of(folder: Path, *, many: bool) -> pl.DataFrame:
    """Rows of the log: of the thousand, or of the ten thousand."""
    platform, domain = world_of(folder)
    days = [logged(platform, domain, day) for day in rows_by_day(platform, domain)]
    of_many = pl.col("request_id").str.starts_with("many-")
    return pl.concat(day.filter(of_many == many).drop("day").collect() for day in days if day is not None)


def expected_of(folder: Path) -> pl.DataFrame:
    """What was written down when the answers were given."""
    return pl.read_ndjson(folder / EXPECTED, infer_schema_length=None)


def replays(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """One row per replay: `id`, `arm`, `outcome`, `cause`, `reason`, `notes`, `difference`, and of which `version`."""
    told = [
        {
            "id": each.request_id,
            "arm": "shadow" if each.arm == "shadow" else "answer",
            "version": each.model_version,
            "source": each.source,
            "outcome": each.verdict.outcome,
            "cause": each.verdict.cause,
            "reason": each.verdict.reason,
            "notes": "; ".join(each.verdict.notes),
            "difference": each.difference,
        }
        for each in replay(*world_of(folder), rows)
    ]
    return pl.DataFrame(told, schema_overrides={"cause": pl.String}, infer_schema_length=None)


def replays_of_all(folder: Path, *, many: bool = False) -> pl.DataFrame:
    """Of the thousand, or of the ten thousand."""
    return replays(folder, rows_of(folder, many=many))


def replays_of(folder: Path, ids: Sequence[str]) -> pl.DataFrame:
    """Of some requests, each found by its id."""
    platform, domain = world_of(folder)
    return replays(folder, pl.concat(find(platform, domain, each) for each in ids))


def replays_on(folder: Path, day: str) -> pl.DataFrame | str:
    """Of all requests of a day; what is said where its log cannot be read."""
    platform, domain = world_of(folder)
    try:
        return replays(folder, sample(platform, domain, day, 1_000))
    except MlplatformError as error:
        return str(error)
    except unreadable as error:
        return f"raised {type(error).__name__}"  # whoever asked has a trace, and no name of a file


def seconds_of_each(folder: Path, ids: Sequence[str]) -> list[float]:
    """Of single replays, from the id to the trail, after one that warms up."""
    platform, domain = world_of(folder)
    taken = []
    for name in [ids[0], *ids]:
        started = time.perf_counter()
        rows = find(platform, domain, name)
        replay(platform, domain, rows)
        trail(platform, domain, rows.row(0, named=True))
        taken.append(time.perf_counter() - started)
    return taken[1:]


def seconds_of_many(folder: Path, rounds: int) -> list[float]:
    """Of ten thousand replays, rows in hand."""
    rows = rows_of(folder, many=True)
    platform, domain = world_of(folder)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        replay(platform, domain, rows)
        taken.append(time.perf_counter() - started)
    return taken


def logged_beside_library(folder: Path) -> pl.DataFrame:
    """Without a replay: what this process's libraries make of each row's own inputs.

    Returns
    -------
    frame : `id`, `arm`, `other_inputs` (the feature of which Polars decides), `off` (by how much the score is another)
    """
    rows = rows_of(folder, many=False)
    platform, _ = world_of(folder)
    found = []
    for (manifest,), part in rows.group_by("manifest"):
        bundle = bundle_of(platform, str(manifest))
        names = bundle.manifest.features
        part = part.filter(pl.col("features").list.len() == len(names))
        vectors = np.array(part["features"].list.to_array(len(names)).to_numpy())
        other = np.zeros(part.height, dtype=bool)
        if "order_shard" in names:
            column = names.index("order_shard")
            courier = part["request"].str.json_path_match("$.courier")
            shard = pl.DataFrame({"courier": courier}).select((pl.col("courier").hash(7) % 16).cast(pl.Float32))
            other = shard.to_series().to_numpy() != vectors[:, column]
            vectors[:, column] = shard.to_series().to_numpy()
        scores = bundle.calibration.apply(raw_scores(bundle.booster, vectors))
        said = part["scores"].list.first().to_numpy()
        # Where the model did not answer there is no score, and no other one.
        off = np.where(np.isnan(said.astype(np.float64)), 0.0, np.abs(scores - said))
        arm = pl.when(pl.col("arm") == "shadow").then(pl.lit("shadow")).otherwise(pl.lit("answer"))
        found.append(part.select(arm.alias("arm"), id="request_id").with_columns(other_inputs=other, off=off))
    return pl.concat(found)


def main() -> None:
    """Replay the thousand with the libraries that this process has, and write down what came of it."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("out", type=Path)
    given = arguments.parse_args()
    found: Any = replays_of_all(given.folder).join(logged_beside_library(given.folder), on=["id", "arm"], how="left")
    found.write_parquet(given.out)


if __name__ == "__main__":
    main()
