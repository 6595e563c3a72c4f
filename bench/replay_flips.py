"""One bit flipped: in every file of a bundle, in the prediction log, in the Delta files beneath an answer.

Each flip is met by a process that has seen nothing before, and is undone after it. In a Parquet file a flip counts when
it changes what is read: some bits are padding, or statistics that nobody reads, and the content is the same after them.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench.replay_domain import MODEL, NAME
from bench.replay_rows import expected_of, fresh, replays_of, replays_on, rows_of, world_of
from bench.replay_world import environment_of
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables
from mlplatform.monitoring.pickup import log_files
from mlplatform.registry.ledger import Ledger

MANIFEST_BITS = 8
"""Of the manifest, which all else hangs on; of every other file one."""

PARQUET_BITS = 6
"""Of each Parquet file."""

LOG_DAY, DELTA_DAY = "2024-01-25", "2024-01-27"


@dataclass(frozen=True)
class Flip:
    """One bit, or one value, and what was said of it."""

    where: str
    """`bundle`, `log value`, `log bit`, `features`, `facts, raw`."""

    what: str
    found: bool
    said: str


def flips(folder: Path) -> list[Flip]:
    """All of them."""
    chance = random.Random(8)
    return [*in_bundle(folder, chance), *in_log(folder, chance), *in_delta(folder, chance)]


def in_bundle(folder: Path, chance: random.Random) -> Iterator[Flip]:
    """Every file of the first champion's bundle."""
    platform, _ = world_of(folder)
    first = Ledger(platform).entries(f"{NAME}/{MODEL}")[0].to_manifest
    bundle = platform.bundles / first
    ids = expected_of(folder).filter(pl.col("id").str.starts_with("first-model"))["id"].head(3).to_list()
    for path in sorted(each for each in bundle.rglob("*") if each.is_file()):
        name = path.relative_to(bundle).as_posix()
        for _ in range(MANIFEST_BITS if name == "manifest.yaml" else 1):
            if not path.stat().st_size:
                continue
            with flipped(path, chance) as bit:
                told = fresh(replays_of, folder, ids)
            found = (told["cause"] == "bundle").all() and told["reason"].str.contains(name, literal=True).all()
            yield Flip("bundle", f"{name}, bit {bit}", bool(found), _said(told))


def in_log(folder: Path, chance: random.Random) -> Iterator[Flip]:
    """A value of one row written otherwise, then bits of the file itself."""
    file = _log_file(folder)
    rows, kept = pl.read_parquet(file, hive_partitioning=False), file.read_bytes()
    # One that no other answer repeats.
    name = "first-corrected-7"
    place = rows["request_id"].index_of(name)
    assert place is not None
    changes: dict[str, pl.Expr] = {
        "probability": pl.col("probability") + 2**-40,
        "prediction": pl.lit("1") if rows["prediction"][place] == "0" else pl.lit("0"),
        "scores": pl.col("scores").list.eval(pl.element() + 2**-40),
        "features": pl.col("features").list.eval(pl.element() + 1),
        "request": pl.col("request").str.replace('"items": ', '"items": 1'),
        "source": pl.lit("rules"),
        "manifest": pl.col("manifest").str.replace("^.", "x"),
        "plan": pl.lit("7-00000000"),
        "at": pl.col("at") + pl.duration(microseconds=1),
        "received": pl.col("received") + pl.duration(seconds=1),
        "needs_review": ~pl.col("needs_review"),
        "confidence": pl.lit(None, dtype=pl.Float64),
    }
    for column, change in changes.items():
        here = pl.int_range(pl.len()) == place
        other = rows.with_columns(pl.when(here).then(change).otherwise(column).cast(rows.schema[column]).alias(column))
        other.write_parquet(file)
        try:
            told = fresh(replays_on, folder, LOG_DAY)
        finally:
            file.write_bytes(kept)
        yield Flip("log value", column, _is_row(told, name), _said(told))
    for _ in range(PARQUET_BITS):
        with changed(file, chance) as bit:
            told = fresh(replays_on, folder, LOG_DAY)
        found = _names(told, "record", "") if isinstance(told, pl.DataFrame) else file.name in told
        yield Flip("log bit", f"bit {bit}", found, _said(told))


def in_delta(folder: Path, chance: random.Random) -> Iterator[Flip]:
    """The view's file that answers were made of; then, asked to look deeper, those that the view was made of."""
    platform, domain = world_of(folder)
    tables = Tables(platform, domain)
    ids = expected_of(folder).filter(pl.col("id").str.starts_with("back-after_rollback"))["id"].to_list()
    file = _file(tables.features(domain.views[-1]), DELTA_DAY)
    for _ in range(PARQUET_BITS):
        with changed(file, chance) as bit:
            told = fresh(replays_of, folder, ids)
        yield Flip("features", f"{file.name}, bit {bit}", _names(told, "data", file.name), _said(told))
    for stage in (
        tables.derived("deliveries"),
        tables.base("orders"),
        tables.validated("orders"),
        tables.raw("orders"),
    ):
        file = _file(stage, DELTA_DAY)
        with changed(file, chance) as bit:
            said = verified(folder, ids[0])
        yield Flip("facts, raw", f"{stage.name}, bit {bit}", file.name in said, said[-300:])


def verified(folder: Path, name: str) -> str:
    """What the command says that looks at every file beneath an answer."""
    command = [sys.executable, "-m", "mlplatform", "replay", name, "--verify", "--json"]
    done = subprocess.run(command, env=environment_of(folder), capture_output=True, text=True, check=False)
    try:
        return json.dumps(json.loads(done.stdout))
    except json.JSONDecodeError:
        return f"{done.stdout} {done.stderr}"


@contextmanager
def flipped(path: Path, chance: random.Random) -> Iterator[int]:
    """A bit of a file, flipped for a while; which one."""
    kept = path.read_bytes()
    bit = chance.randrange(8 * len(kept))
    held = bytearray(kept)
    held[bit // 8] ^= 1 << bit % 8
    path.write_bytes(held)
    try:
        yield bit
    finally:
        path.write_bytes(kept)


@contextmanager
def changed(path: Path, chance: random.Random) -> Iterator[int]:
    """The same for a Parquet file, a bit that changes its content or makes that unreadable."""
    before = _content(path)
    while True:
        with flipped(path, chance) as bit:
            # A panic of a reader ends nothing but the process that met it.
            if fresh(_content, path) != before:
                yield bit
                return


def _content(path: Path) -> str:
    try:
        rows = pl.read_parquet(path, hive_partitioning=False)
        # As text, in which one NaN is as good as another.
        return f"{rows.schema} {rows.rows()}"
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        return str(error)


def _log_file(folder: Path) -> Path:
    """The largest of the day."""
    platform, domain = world_of(folder)
    since = rows_of(folder, many=False)["received"].min()
    files = log_files(platform, domain, since).filter(pl.col("first").dt.date().cast(pl.String) == LOG_DAY)  # type: ignore[arg-type]  # a datetime
    return Path(files.sort("rows", descending=True)["path"][0])


def _file(stage: Stage, day: str) -> Path:
    return Path(stage.address(stage.current()[day]))


def _is_row(told: pl.DataFrame | str, name: str) -> bool:
    """Whether one row, and no other, is said to be another than was written."""
    return isinstance(told, pl.DataFrame) and told.filter(pl.col("cause") == "record")["id"].to_list() == [name]


def _names(told: pl.DataFrame | str, cause: str, name: str) -> bool:
    """Whether some row has that cause, and the reason of all that have names the file."""
    if isinstance(told, str):
        return False
    blamed = told.filter(pl.col("cause") == cause)
    return bool(blamed.height) and bool(blamed["reason"].str.contains(name, literal=True).all())


def _said(told: pl.DataFrame | str) -> str:
    if isinstance(told, str):
        return told
    blamed = told.filter(pl.col("cause").is_not_null())
    counts: Sequence[Any] = blamed.group_by("cause").len().rows()
    return f"{dict(counts)} {blamed.get_column('reason').first() or 'nothing'!s}"
